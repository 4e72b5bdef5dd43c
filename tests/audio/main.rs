//! The audio layer against files: made in code, or a few encoded ones in `tests/fixtures/audio`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod decode;
mod encode;
mod errors;
mod lossy;
mod make;
mod resample;
