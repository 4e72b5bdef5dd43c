//! The audio layer with files built in code and a few encoded ones in `tests/fixtures/audio`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod containers;
mod decode;
mod encode;
mod errors;
mod joined;
mod lossy;
mod make;
mod recovery;
mod reference;
mod resample;
