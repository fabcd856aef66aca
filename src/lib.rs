//! foolproof: can your edge classifier be fooled? Find out on the device itself.
#![no_std]
#![deny(unsafe_code)]

pub mod attack;
#[cfg(feature = "link")]
pub mod bundle;
pub mod kernels;
#[cfg(feature = "link")]
pub mod link;
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
