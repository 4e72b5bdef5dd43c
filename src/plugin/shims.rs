//! Corrections between hosts and nice-plug's wrappers, one module for each format, with the entry points of the library.

mod bus_buffers;
pub(super) mod clap;
pub(super) mod vst3;
