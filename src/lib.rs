//! Music source separation that loses nothing.

pub mod kernels;
