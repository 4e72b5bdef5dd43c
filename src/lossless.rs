//! Nothing lost: what the stems leave of the mixture goes back into them, and their sum is the mixture to the bit.
//!
//! Two steps. The residual is *distributed* where it musically belongs: inside the transform by
//! [`MaskRule::Complete`](crate::separator::MaskRule) (spectral), or by a second pass over it ([`hybrid`]). What
//! rounding still leaves is settled on the [`grid`].

pub mod grid;
pub mod hybrid;

/// How the residual is distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LosslessMode {
    /// Not at all: the stems are what the network says.
    Off,
    /// To every stem where its mask heard it. No second pass.
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
