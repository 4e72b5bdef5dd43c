//! Numerics without threads, models or files: the short-time Fourier transform, window functions, SNR, ratios of sample rates,
//! seeded random numbers.

mod random;
mod ratio;
mod snr;
pub mod stft;
pub mod window;

pub use random::Random;
pub use ratio::lowest_terms;
pub use snr::snr_db;
