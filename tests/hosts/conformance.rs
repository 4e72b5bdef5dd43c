//! Calls at the limits of the formats, made by hand through the library's entry points: calls that the hosts of the other tests never make, and
//! results that they do not show.

mod clap;
mod vst3;
