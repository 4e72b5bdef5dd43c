//! Lengths and positions at the host's and the model's sample rate.

use std::ops::{Add, Mul, Sub};

macro_rules! samples {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// As a `usize`, for indexing.
            pub fn len(self) -> usize {
                usize::try_from(self.0).unwrap_or(usize::MAX)
            }

            /// Whether it is 0.
            pub fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Seconds at `rate` Hz.
            pub fn seconds(self, rate: u32) -> f64 {
                self.0 as f64 / f64::from(rate)
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl Sub for $name {
            type Output = Self;
            /// Saturates at 0.
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Mul<u64> for $name {
            type Output = Self;
            fn mul(self, times: u64) -> Self {
                Self(self.0 * times)
            }
        }
    };
}

samples! {
    /// Samples at the host's rate, per channel.
    HostSamples
}
samples! {
    /// Samples at the model's rate, per channel.
    ModelSamples
}
