//! The number type of a network's matrix products, as chosen by the user.

/// Number type of a network's matrix products. Norms, softmax, residual sums and transforms are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The fastest type that is accurate on the device.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point: 11 significant bits, up to 65504.
    F16,
    /// bfloat16: 8 significant bits, the range of f32.
    Bf16,
    /// Linear layers in 8-bit integers, with a scale for each output of the weights and for each token of the activations. CPU only.
    Int8,
}

/// The name of a precision is unknown.
#[derive(Debug, thiserror::Error)]
#[error("unknown precision `{0}`: expected auto, f32, f16, bf16 or int8")]
pub struct UnknownPrecision(String);

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(UnknownPrecision(name.into())),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for precision in [Precision::Auto, Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8] {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        assert!("f64".parse::<Precision>().unwrap_err().to_string().contains("bf16"));
    }
}
