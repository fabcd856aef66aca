//! foolproof: can your edge classifier be fooled? Find out on the device itself.
#![no_std]
#![deny(unsafe_code)]

pub mod attack;
pub mod kernels;
pub mod loss;
pub mod math;
pub mod memory;
pub mod model;
pub mod ops;
pub mod optim;
mod oracle;
pub mod session;
pub mod tensor;
pub mod threat;
