//! The host side of foolproof: everything that needs an allocator, threads or files.

pub mod attack;
pub mod baseline;
pub mod checks;
pub mod classifier;
pub mod cli;
pub mod data;
pub mod demo;
pub mod device;
pub mod document;
pub mod dump;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod files;
pub mod gradient_quality;
pub mod graph;
pub mod honest;
pub mod import;
pub mod inspect;
pub mod networks;
pub mod preprocess;
pub mod quantize;
pub mod report;
pub mod target;
pub mod train;
pub mod transfer;
