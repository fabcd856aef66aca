//! The host side of foolproof: everything that needs an allocator, threads or files.

pub mod attack;
pub mod classifier;
pub mod data;
<<<<<<< HEAD
pub mod document;
=======
pub mod device;
>>>>>>> 89eec41 (firmware: seven boards answer over one link; the host emulates and talks to them)
pub mod error;
pub mod evaluate;
pub mod files;
pub mod graph;
pub mod networks;
pub mod preprocess;
pub mod report;
pub mod train;
