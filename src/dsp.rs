//! Pure numerics: the short-time Fourier transform, windows, the distance of two signals, ratios of rates, seeded random numbers.
//! No threads, no model, no files.

mod random;
mod ratio;
mod snr;
pub mod stft;
pub mod window;

pub use random::Random;
pub use ratio::lowest_terms;
pub use snr::snr_db;
