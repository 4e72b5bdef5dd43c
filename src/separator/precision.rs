//! Choice of the CPU kernels' precision for a network, with a self-check against f32.

use candle_nn::VarBuilder;

use super::LoadError;
use crate::dsp::Random;
use crate::kernels::{self, Format, Isa, Pool, Target};
use crate::model::architecture::Architecture;
use crate::model::fused::FusedRoformer;
use crate::model::precision::Precision;

/// Environment variable that overrides `auto`, for tests and reports.
const ENV: &str = "NULLSUM_PRECISION";
/// SNR in dB that bf16 must reach against f32 for `auto` to choose it. The difference is then far below the separation's own error.
const MIN_SNR_DB: f64 = 38.0;
/// `auto` stays with f32 below this many features: such networks are fast in f32 and lose more accuracy in bf16.
const MIN_DIM: usize = 256;
/// Frames of the self-check.
const FRAMES: usize = 32;

/// The precision of a network's matrix products, and the self-check that led to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResolvedPrecision {
    /// Precision of the products; never `Auto`.
    pub precision: Precision,
    /// SNR of bf16 against f32 in dB, if `auto` ran a self-check.
    pub self_check_db: Option<f64>,
}

impl From<Precision> for ResolvedPrecision {
    fn from(precision: Precision) -> Self {
        Self { precision, self_check_db: None }
    }
}

impl std::fmt::Display for ResolvedPrecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.precision)?;
        self.self_check_db.map_or(Ok(()), |db| write!(f, " (bf16 is {db:.0} dB from f32)"))
    }
}

/// Builds the network in the requested precision. `auto` chooses bf16 if the processor multiplies it faster and a self-check
/// finds it accurate enough, else f32.
///
/// # Errors
/// [`LoadError::Precision`], or the error of building the network.
pub(super) fn fused(
    arch: &Architecture,
    vb: &VarBuilder,
    pool: &Pool,
    precision: Precision,
) -> Result<(FusedRoformer, ResolvedPrecision), LoadError> {
    let asked = match precision {
        Precision::Auto => match std::env::var(ENV) {
            Ok(name) if !name.is_empty() => {
                name.parse().map_err(|error| LoadError::Precision(format!("{ENV}: {error}")))?
            }
            _ => Precision::Auto,
        },
        asked => asked,
    };
    let (target, on_trial) = choose_target(asked, Isa::from_env()?, arch.dim)?;
    if on_trial {
        return load_with_self_check(arch, vb, pool, target, MIN_SNR_DB);
    }
    let network = FusedRoformer::new(arch, vb.clone(), target, pool.clone())?;
    let precision = if target.format == Format::F32 { Precision::F32 } else { Precision::Bf16 };
    Ok((network, precision.into()))
}

/// The target for a network of `dim` features, and whether it must pass the self-check. `isa` is the instruction set that the
/// user asked for, if any.
fn choose_target(asked: Precision, isa: Option<Isa>, dim: usize) -> Result<(Target, bool), LoadError> {
    let target = |isa: Option<Isa>, format| match isa {
        Some(isa) => Target { isa, format },
        None => Target::best(format),
    };
    match asked {
        Precision::F32 => match isa.filter(|isa| isa.bf16_only()) {
            Some(isa) => Err(LoadError::Precision(format!(
                "the {isa} kernels, which {} asks for, have no f32: expected auto or bf16, or other kernels",
                kernels::ENV
            ))),
            None => Ok((target(isa, Format::F32), false)),
        },
        Precision::Bf16 => Ok((target(isa, Format::Bf16), false)),
        Precision::F16 => {
            let message = "f16 is not available on the CPU: expected auto, f32 or bf16";
            Err(LoadError::Precision(message.to_owned()))
        }
        Precision::Auto => {
            let quick = target(isa, Format::Bf16);
            if quick.isa.bf16_only() && dim >= MIN_DIM {
                return Ok((quick, true));
            }
            Ok((target(isa.filter(|isa| !isa.bf16_only()), Format::F32), false))
        }
    }
}

/// The network on the bf16 target `quick` if its SNR to f32 reaches `min_snr_db`, else the network in f32.
fn load_with_self_check(
    arch: &Architecture,
    vb: &VarBuilder,
    pool: &Pool,
    quick: Target,
    min_snr_db: f64,
) -> Result<(FusedRoformer, ResolvedPrecision), LoadError> {
    let exact = Target::best(Format::F32);
    let mut random = Random::new(0);
    let features = arch.frame_features();
    // As in music, low bins are louder; they come first in a frame.
    let loudness = |i: usize| 20.0 / (1.0 + (i % features) as f32 / 32.0);
    let spec: Vec<f32> = (0..FRAMES * features).map(|i| loudness(i) * random.bipolar()).collect();
    // f32 first, while nothing else is in memory.
    let wanted = FusedRoformer::forward_layerwise(arch, vb.clone(), exact, pool, &spec)?;
    let mut quick = FusedRoformer::new(arch, vb.clone(), quick, pool.clone())?;
    let masks = quick.forward(&spec, 1)?;
    let db = stem_snr_db(&spec, &masks, &wanted);
    // The comparison is false for NaN.
    let good = db >= min_snr_db;
    let precision = if good { Precision::Bf16 } else { Precision::F32 };
    let network = if good { quick } else { FusedRoformer::new(arch, vb.clone(), exact, pool.clone())? };
    Ok((network, ResolvedPrecision { precision, self_check_db: Some(db) }))
}

/// SNR in dB between the stems that `masks` and `wanted` make of `spec` (complex numbers, any number of stems); NaN if a mask is NaN.
fn stem_snr_db(spec: &[f32], masks: &[f32], wanted: &[f32]) -> f64 {
    let (mut signal, mut error) = (0.0, 0.0);
    for ((got, want), at) in
        masks.chunks_exact(2).zip(wanted.chunks_exact(2)).zip((0..spec.len()).step_by(2).cycle())
    {
        let power = f64::from(spec[at]).powi(2) + f64::from(spec[at + 1]).powi(2);
        let square = |a: f32, b: f32| f64::from(a).powi(2) + f64::from(b).powi(2);
        signal += power * square(want[0], want[1]);
        error += power * square(got[0] - want[0], got[1] - want[1]);
    }
    // Added instead of `max`, which would turn a NaN into no error.
    10.0 * (signal / (error + f64::MIN_POSITIVE)).log10()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::weights::seeded;

    fn small() -> Architecture {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner) = (32, 1, 2, 16, 64);
        (arch.mask_hidden, arch.num_stems) = (32, 1);
        arch
    }

    #[test]
    fn auto_keeps_bf16_only_where_it_is_near_f32() {
        let (arch, vb, pool) = (small(), seeded(1, &Device::Cpu), Pool::new(1).unwrap());
        let quick = Target { isa: Isa::Emulated, format: Format::Bf16 };
        let (network, found) = load_with_self_check(&arch, &vb, &pool, quick, MIN_SNR_DB).unwrap();
        assert_eq!((network.target(), found.precision), (quick, Precision::Bf16));
        let db = found.self_check_db.unwrap();
        assert!(db > MIN_SNR_DB && db < 90.0, "{db} dB");
        assert!(found.to_string().starts_with("bf16 (bf16 is "));

        let (network, found) = load_with_self_check(&arch, &vb, &pool, quick, db + 1.0).unwrap();
        assert_eq!((network.target().format, found.precision), (Format::F32, Precision::F32));
    }

    #[test]
    fn kernels_without_f32_are_left_for_others_by_auto_and_refused_where_f32_is_asked_for() {
        let target = |isa, format| Target { isa, format };
        let emulated = target(Isa::Emulated, Format::Bf16);
        let chosen = |asked, isa, dim| choose_target(asked, Some(isa), dim).unwrap();
        let best = Target::best(Format::F32);
        assert_eq!(chosen(Precision::Auto, Isa::Emulated, MIN_DIM - 1), (best, false));
        assert_eq!(chosen(Precision::Auto, Isa::Emulated, MIN_DIM), (emulated, true));
        assert_eq!(chosen(Precision::Bf16, Isa::Emulated, 8), (emulated, false));
        let error = choose_target(Precision::F32, Some(Isa::Emulated), MIN_DIM).unwrap_err().to_string();
        assert!(error.contains("emulated") && error.contains("no f32"), "{error}");
        // Kernels that have both are what was asked for in f32, however large the network is.
        let portable = target(Isa::Portable, Format::F32);
        for asked in [Precision::Auto, Precision::F32] {
            assert_eq!(chosen(asked, Isa::Portable, MIN_DIM), (portable, false));
        }
    }

    #[test]
    fn masks_that_are_no_numbers_agree_with_nothing() {
        let (spec, wanted) = ([1.0, 2.0, 3.0, 4.0], [0.5; 8]);
        assert!(stem_snr_db(&spec, &wanted, &wanted) > 3000.0);
        let mut masks = wanted;
        masks[5] = f32::NAN;
        assert!(stem_snr_db(&spec, &masks, &wanted).is_nan());
    }

    #[test]
    fn what_is_asked_for_is_used_or_refused() {
        let (arch, vb, pool) = (small(), seeded(1, &Device::Cpu), Pool::new(1).unwrap());
        for (asked, format) in [(Precision::F32, Format::F32), (Precision::Bf16, Format::Bf16)] {
            let (network, found) = fused(&arch, &vb, &pool, asked).unwrap();
            assert_eq!((network.target().format, found), (format, asked.into()));
        }
        let Err(error) = fused(&arch, &vb, &pool, Precision::F16) else { panic!("accepted") };
        assert!(error.to_string().contains("bf16"), "{error}");
    }
}
