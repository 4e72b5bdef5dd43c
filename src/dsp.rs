//! Pure numerics: the short-time Fourier transform, windows, the distance of two signals. No threads, no model, no files.

mod snr;
pub mod stft;
pub mod window;

pub use snr::snr_db;
