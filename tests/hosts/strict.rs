//! What hosts do at the edges of the formats, by hand and over the library's own entry points: calls that the hosts of the other tests are too
//! well-behaved to make, and answers that they do not show.

mod clap;
mod vst3;
