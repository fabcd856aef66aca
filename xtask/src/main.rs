//! Set-up, firmware builds and emulator runs.
fn main() {}
