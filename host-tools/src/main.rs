//! The `foolproof` command.
fn main() {}
