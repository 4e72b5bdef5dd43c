//! Corrections between hosts and nice-plug's wrappers, one module for each format, with the entry points of the library.

pub(super) mod clap;
pub(super) mod vst3;
