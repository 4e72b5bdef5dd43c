//! Separation of whole songs in overlapping chunks, with bounded memory.
//!
//! [`demix`] separates a stream at the model's rate; [`render`] separates an audio file into stem files, [`memory`] a song in memory,
//! [`song_stems`] a song that is read in pieces, in the background.

pub mod demix;
mod ensemble;
pub mod error;
mod exact_stems;
mod level;
pub mod memory;
pub mod mix;
pub mod options;
pub mod outputs;
mod passes;
pub mod plan;
pub mod reader;
pub mod render;
pub mod song_stems;
mod spool;
mod stem_file;
pub mod template;
