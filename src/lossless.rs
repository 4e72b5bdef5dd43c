//! Exact sums: the residual of the mixture goes back into the stems, so that they sum to the mixture bit for bit.
//!
//! Two steps. First the residual is *distributed* musically: in the spectrum by
//! [`MaskRule::Complete`](crate::separator::MaskRule) (spectral), or by a second pass over it ([`hybrid`]). Then the
//! [`grid`] removes rounding errors.

pub mod grid;
pub mod hybrid;

/// How the residual of the masks is distributed to the stems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LosslessMode {
    /// Not at all: the stems are the network's own.
    Off,
    /// To every stem in proportion to its mask. Needs no second pass.
    #[default]
    Spectral,
    /// By a second pass over the residual, between `drums` and `other`.
    Hybrid,
}

impl std::fmt::Display for LosslessMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Spectral => "spectral",
            Self::Hybrid => "hybrid",
        })
    }
}
