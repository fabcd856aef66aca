//! The reference kernels: portable Rust.
