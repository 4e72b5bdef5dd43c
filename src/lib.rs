//! Music source separation that loses nothing.

pub mod audio;
