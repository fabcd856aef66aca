//! foolproof: can your edge classifier be fooled? Find out on the device itself.
#![no_std]
#![deny(unsafe_code)]

pub mod kernels;
pub mod ops;
pub mod tensor;
