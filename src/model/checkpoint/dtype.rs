//! Number types of tensors.

/// Elements of a block of [`Dtype::Q8_0`].
pub(super) const Q8_BLOCK: usize = 32;
/// Bytes of such a block: the scale, then one for each element.
pub(super) const Q8_BLOCK_BYTES: usize = 2 + Q8_BLOCK;

/// Number type of a tensor in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit float.
    F64,
    /// 8-bit float with 4 exponent bits, no infinities (`float8_e4m3fn`).
    F8E4M3,
    /// 8-bit float with 5 exponent bits (`float8_e5m2`).
    F8E5M2,
    /// 8-bit float with 4 exponent bits, no infinities and no negative zero (`float8_e4m3fnuz`).
    F8E4M3Fnuz,
    /// 8-bit float with 5 exponent bits, no infinities and no negative zero (`float8_e5m2fnuz`).
    F8E5M2Fnuz,
    /// Two 32-bit floats: real and imaginary part.
    Complex64,
    /// Two 64-bit floats: real and imaginary part.
    Complex128,
    /// Signed 8-bit with a scale for each row: weights that [`convert`](crate::model::convert) wrote.
    ScaledI8,
    /// Signed 8-bit.
    I8,
    /// Unsigned 8-bit.
    U8,
    /// Signed 16-bit.
    I16,
    /// Unsigned 16-bit.
    U16,
    /// Signed 32-bit.
    I32,
    /// Unsigned 32-bit.
    U32,
    /// Signed 64-bit.
    I64,
    /// Unsigned 64-bit.
    U64,
    /// One byte, 0 or 1.
    Bool,
    /// GGUF's 8-bit integers in blocks of 32, each block with a scale in half precision.
    Q8_0,
    /// A type that is recognised but cannot be converted, such as a quantised one.
    Other(&'static str),
}

impl Dtype {
    /// Whether weights may have this type. Complex weights are read with
    /// [`TensorView::to_complex`](super::TensorView::to_complex).
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F32
                | Self::F16
                | Self::Bf16
                | Self::F64
                | Self::F8E4M3
                | Self::F8E5M2
                | Self::F8E4M3Fnuz
                | Self::F8E5M2Fnuz
                | Self::Q8_0
                | Self::ScaledI8
        )
    }

    /// Whether elements are complex.
    #[must_use]
    pub fn is_complex(self) -> bool {
        matches!(self, Self::Complex64 | Self::Complex128)
    }

    /// Bytes of an element; `None` for types in blocks and [`Dtype::Other`].
    #[must_use]
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Complex128 => Some(16),
            Self::F64 | Self::I64 | Self::U64 | Self::Complex64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(2),
            Self::I8 | Self::ScaledI8 | Self::U8 | Self::Bool => Some(1),
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E4M3Fnuz | Self::F8E5M2Fnuz => Some(1),
            Self::Q8_0 | Self::Other(_) => None,
        }
    }

    /// Lower bound for the bytes of an element, defined for every type.
    pub(super) fn least_bytes(self) -> usize {
        self.bytes().unwrap_or(1)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::F8E4M3 => "float8_e4m3fn",
            Self::F8E5M2 => "float8_e5m2",
            Self::F8E4M3Fnuz => "float8_e4m3fnuz",
            Self::F8E5M2Fnuz => "float8_e5m2fnuz",
            Self::Complex64 => "complex64",
            Self::Complex128 => "complex128",
            Self::I8 => "i8",
            Self::ScaledI8 => "i8 with scales",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::Bool => "bool",
            Self::Q8_0 => "q8_0",
            Self::Other(name) => name,
        })
    }
}

/// The value of a `float8_e4m3fn` (OCP 8-bit floating point specification, revision 1.0).
pub(super) fn f8_e4m3_to_f32(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2_f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The value of a `float8_e5m2` (OCP 8-bit floating point specification, revision 1.0): the upper byte of an f16.
pub(super) fn f8_e5m2_to_f32(bits: u8) -> f32 {
    half::f16::from_bits(u16::from(bits) << 8).to_f32()
}

/// The value of a float of 8 bits without infinities and negative zero, `float8_e4m3fnuz` (3 bits of mantissa) or
/// `float8_e5m2fnuz` (2 bits). The exponent's bias is one more than that of the types above; the pattern of the negative zero
/// is NaN.
pub(super) fn f8_fnuz_to_f32(bits: u8, mantissa_bits: u32) -> f32 {
    if bits == 0x80 {
        return f32::NAN;
    }
    let bias = 1 << (6 - mantissa_bits);
    let exponent = i32::from((bits & 0x7F) >> mantissa_bits);
    let fraction = f32::from(bits & ((1 << mantissa_bits) - 1)) / 2_f32.powi(mantissa_bits as i32);
    let magnitude = match exponent {
        0 => fraction * 2_f32.powi(1 - bias),
        _ => (1.0 + fraction) * 2_f32.powi(exponent - bias),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unusual_byte_groupings, reason = "sign, exponent and mantissa")]
    fn float8_values_are_those_of_the_specification() {
        // Table 2 of the specification: largest, smallest normal, smallest subnormal numbers.
        for (bits, value) in [
            (0b0_1111_110, 448.0),
            (0b0_0001_000, 2_f32.powi(-6)),
            (0b0_0000_001, 2_f32.powi(-9)),
            (0b1_0111_000, -1.0),
            (0, 0.0),
        ] {
            assert_eq!(f8_e4m3_to_f32(bits), value, "{bits:#010b}");
        }
        assert!(f8_e4m3_to_f32(0x7f).is_nan() && f8_e4m3_to_f32(0xff).is_nan());
        for (bits, value) in [
            (0b0_11110_11, 57344.0),
            (0b0_00001_00, 2_f32.powi(-14)),
            (0b0_00000_01, 2_f32.powi(-16)),
            (0b0_11111_00, f32::INFINITY),
        ] {
            assert_eq!(f8_e5m2_to_f32(bits), value, "{bits:#010b}");
        }
        // As PyTorch converts them: largest, smallest normal and smallest subnormal numbers, −1.
        for (bits, mantissa_bits, value) in [
            (0b0_1111_111, 3, 240.0),
            (0b0_0001_000, 3, 2_f32.powi(-7)),
            (0b0_0000_001, 3, 2_f32.powi(-10)),
            (0b1_1000_000, 3, -1.0),
            (0b0_11111_11, 2, 57344.0),
            (0b0_00001_00, 2, 2_f32.powi(-15)),
            (0b0_00000_01, 2, 2_f32.powi(-17)),
            (0b1_10000_00, 2, -1.0),
        ] {
            assert_eq!(f8_fnuz_to_f32(bits, mantissa_bits), value, "{bits:#010b}");
        }
        assert!(f8_fnuz_to_f32(0x80, 3).is_nan() && f8_fnuz_to_f32(0x80, 2).is_nan());
    }
}
