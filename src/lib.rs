//! Nullsum: music source separation that loses nothing.
//!
//! The library runs BS-RoFormer and Mel-Band RoFormer checkpoints on audio and returns stems. In lossless mode the stems sum to exactly
//! the input mixture. The command line and the plugin (module `plugin`, feature `plugin`) are built on this library.
//!
//! Layers import in one direction: [`dsp`], [`audio`], [`kernels`] → [`model`] → [`separator`] → [`offline`] and [`live`] → `plugin`.
//! `ARCHITECTURE.md` has a diagram, and `tests/layers.rs` lists every allowed import.

pub mod atomic_file;
pub mod audio;
pub mod demo;
pub mod dsp;
pub mod embedded;
pub mod environment;
mod hash;
pub mod kernels;
pub mod live;
pub mod lossless;
pub mod model;
pub mod offline;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod registry;
pub mod separator;
