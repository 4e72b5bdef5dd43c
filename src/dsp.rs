//! Pure numerics: the short-time Fourier transform and windows. No threads, no model, no files.

pub mod stft;
pub mod window;
