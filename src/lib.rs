//! Can your edge classifier be fooled? Find out on the device itself.
//!
//! foolproof runs a neural network forward **and backward** in a buffer that the caller owns: `no_std`, no allocator, no
//! `unsafe` outside [`kernels`]. The same code runs on a microcontroller and on a PC, and gives the same bits.
//!
//! # The layers
//! - [`model`]: a view of a model image in flash. [`model::Model::from_bytes`] checks everything once; after it nothing can
//!   go out of bounds.
//! - [`memory`]: what must be in the buffer when. An image knows exactly how large a buffer each [`memory::Mode`] needs.
//! - [`session`]: a model and a buffer: forward, and backward from any output gradient.
//! - [`ops`]: operators; per family the shape rule, forward in f32 and in TFLite's int8, and the gradients.
//!   [`kernels`]: their inner loops.
//! - [`threat`]: what an attacker may touch, as traits. A session is a white box.
//! - [`attack`]: attacks against those traits, on real inputs and on the int8 grid.
//! - [`loss`], [`optim`]: for attacks and training.
//! - [`latent`]: the noise that generators make samples of.
//!
//! # An example
//! A small model is fooled. On a chip the image would come from flash and be aligned by its section.
//!
//! ```
//! use foolproof::attack::{Ball, Norm, Spec, Task};
//! use foolproof::memory::Mode;
//! use foolproof::model::{Model, required_buffer};
//! use foolproof::session::{Buffer, Session};
//! use foolproof::threat::LabelOracle;
//!
//! static IMAGE: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/dense.fpi"));
//! const LEN: usize = IMAGE.len();
//! const N: usize = match required_buffer(IMAGE, Mode::Attack) { Some(n) => n, None => panic!() };
//!
//! let mut image = Buffer::<LEN>::new();                   // images start at a multiple of 16
//! image.0.copy_from_slice(IMAGE);
//! let model = Model::from_bytes(&image.0)?;
//! let mut buffer = Buffer::<N>::new();
//! let mut session = Session::new(&model, Mode::Attack, &mut buffer.0)?;
//!
//! let x = [0.2, 0.1, -0.3];
//! let label = session.classify(&x)?;
//! let ball = Ball { norm: Norm::Linf, epsilon: 1.0, low: -1.0, high: 1.0 };
//! let mut adversarial = [0.0; 3];
//! let task = Task { x: &x, class: label, seed: 1, sample: 0, scratch: &mut [] };
//! let outcome = Spec::pgd(ball, 10).run(&mut session, task, &mut adversarial)?;
//! assert!(outcome.fooled && outcome.label != label);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Features
//! - `operators`, on by default: every operator; or `op-conv2d`, `op-softmax` ..., the ones named ([`ops::Op::feature`]). An image with
//!   another is refused. `f32`, on by default: convolutions and dense layers in f32. `gradients`, on by default:
//!   [`memory::Mode::Attack`]. A chip that only infers one model takes what that model needs, and saves the flash.
//! - `train`: [`memory::Mode::Train`]; chips that only infer and attack save the flash.
//! - `std`: run-time detection of CPU features ([`kernels::Kernels::detect`]).
//! - `link`: the messages between host and chip.
//! - `defmt`: `defmt::Format` on public types.
//! - `micromath`: fast approximations of `exp` and `tanh` (see [`math`]).
#![no_std]
#![deny(unsafe_code)]

pub mod attack;
#[cfg(feature = "link")]
pub mod bundle;
pub mod kernels;
pub mod latent;
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
