//! Nullsum: music source separation that loses nothing.
//!
//! The library runs BS-RoFormer and Mel-Band RoFormer checkpoints over audio and returns stems that, in lossless mode,
//! sum to exactly the mixture that came in. It knows nothing of a plugin or a command line; those stand on it.
//!
//! Layers import one way: [`audio`] and [`dsp`] → [`model`] → [`separator`] → [`lossless`] → [`offline`].
//! `ARCHITECTURE.md` has the picture.

pub mod audio;
pub mod demo;
pub mod dsp;
pub mod embedded;
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
