//! Nullsum: music source separation that loses nothing.
//!
//! The library runs BS-RoFormer and Mel-Band RoFormer checkpoints over audio and returns stems that, in lossless mode,
//! sum to exactly the mixture that came in. The command line stands on it, and so does the plugin, a module of its own with the
//! feature `plugin`.
//!
//! Layers import one way: [`dsp`], [`audio`], [`kernels`] → [`model`] → [`separator`] → [`offline`] and [`stream`] → `plugin`.
//! `ARCHITECTURE.md` has the picture, and `tests/layers.rs` every import.

pub mod audio;
pub mod demo;
pub mod dsp;
pub mod embedded;
mod hash;
pub mod kernels;
pub mod lossless;
pub mod model;
pub mod offline;
pub mod partial;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod registry;
pub mod separator;
pub mod stream;
