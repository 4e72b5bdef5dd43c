//! Whole songs: chunks in, overlap-added stems out, with bounded memory whatever the length.
//!
//! [`demix`] turns a stream at the model's rate into stems; [`render`] takes it from an audio file to stem files.

pub mod demix;
pub mod error;
pub mod mix;
pub mod outputs;
pub mod plan;
pub mod render;
pub mod source;
mod spool;
