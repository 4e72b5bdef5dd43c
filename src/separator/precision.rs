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
/// `auto` stays with f32 below this many features: such networks are fast in f32 and lose more accuracy in other formats.
const MIN_DIM: usize = 256;
/// Frames of the self-check.
const FRAMES: usize = 32;

/// SNR in dB that a format must reach against f32 for `auto` to choose it. For bf16 the difference is then far below the
/// separation's own error. int8 noise of 28 dB costs a separation of 10 dB SDR 0.07 dB; live streams accept that for their latency.
fn min_snr_db(format: Format) -> f64 {
    match format {
        Format::F32 => f64::NEG_INFINITY,
        Format::Bf16 => 38.0,
        Format::Int8 => 28.0,
    }
}

/// The precision of a network's matrix products, and the self-check that led to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResolvedPrecision {
    /// Precision of the products; never `Auto`.
    pub precision: Precision,
    /// SNR in dB against f32 of the last format that `auto` checked, if it checked one.
    pub self_check_db: Option<f64>,
    /// That format.
    checked: Precision,
}

impl From<Precision> for ResolvedPrecision {
    fn from(precision: Precision) -> Self {
        Self { precision, self_check_db: None, checked: precision }
    }
}

impl From<Format> for Precision {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Self::F32,
            Format::Bf16 => Self::Bf16,
            Format::Int8 => Self::Int8,
        }
    }
}

impl std::fmt::Display for ResolvedPrecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.precision)?;
        self.self_check_db.map_or(Ok(()), |db| write!(f, " ({} is {db:.0} dB from f32)", self.checked))
    }
}

/// Builds the network in the requested precision. `auto` chooses a format that the processor multiplies faster than f32 if a
/// self-check finds it accurate enough, else f32; int8 only if it `may_use_int8`.
///
/// # Errors
/// [`LoadError::Precision`], or the error of building the network.
pub(super) fn fused(
    arch: &Architecture,
    vb: &VarBuilder,
    pool: &Pool,
    precision: Precision,
    may_use_int8: bool,
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
    let choice = choose_target(asked, Isa::from_env()?, arch.dim, may_use_int8)?;
    load_with_self_check(arch, vb, pool, &choice, min_snr_db)
}

/// Targets in the order of preference. All but `fallback` must pass the self-check.
#[derive(Debug, PartialEq)]
struct TargetChoice {
    candidates: Vec<Target>,
    fallback: Target,
}

impl From<Target> for TargetChoice {
    fn from(fallback: Target) -> Self {
        Self { candidates: Vec::new(), fallback }
    }
}

/// The targets for a network of `dim` features. `isa` is the instruction set that the user asked for, if any.
fn choose_target(
    asked: Precision,
    isa: Option<Isa>,
    dim: usize,
    may_use_int8: bool,
) -> Result<TargetChoice, LoadError> {
    let target = |format| match isa {
        Some(isa) => Target { isa, format },
        None => Target::best(format),
    };
    match asked {
        Precision::F32 => match isa.filter(|isa| !isa.has(Format::F32)) {
            Some(isa) => Err(LoadError::Precision(format!(
                "the {isa} kernels, which {} asks for, have no f32: expected auto or {}, or other kernels",
                kernels::ENV,
                isa.formats().iter().map(|format| format.name()).collect::<Vec<_>>().join(" or ")
            ))),
            None => Ok(target(Format::F32).into()),
        },
        Precision::Bf16 => Ok(target(Format::Bf16).into()),
        Precision::Int8 => Ok(target(Format::Int8).into()),
        Precision::F16 => {
            let message = "f16 is not available on the CPU: expected auto, f32, bf16 or int8";
            Err(LoadError::Precision(message.to_owned()))
        }
        Precision::Auto => {
            let mut candidates = Vec::new();
            if dim >= MIN_DIM {
                let int8 = target(Format::Int8);
                // An instruction set that was asked for and has no f32 stands for its fast formats, even the emulated one.
                let wanted = |target: Target| {
                    let by_name = isa.is_some() && !target.isa.has(Format::F32);
                    target.isa.has(target.format) && (by_name || target.isa.is_faster_in(target.format))
                };
                candidates.extend(Some(int8).filter(|&target| may_use_int8 && wanted(target)));
                candidates.extend(Some(target(Format::Bf16)).filter(|&target| wanted(target)));
            }
            let fallback = match isa.filter(|isa| isa.has(Format::F32)) {
                Some(isa) => Target { isa, format: Format::F32 },
                None => Target::best(Format::F32),
            };
            Ok(TargetChoice { candidates, fallback })
        }
    }
}

/// The network on the first candidate whose SNR to f32 reaches `min_snr_db` of its format, else on the fallback.
fn load_with_self_check(
    arch: &Architecture,
    vb: &VarBuilder,
    pool: &Pool,
    choice: &TargetChoice,
    min_snr_db: impl Fn(Format) -> f64,
) -> Result<(FusedRoformer, ResolvedPrecision), LoadError> {
    let mut last_check = None;
    if !choice.candidates.is_empty() {
        let spec = self_check_spectrum(arch);
        // f32 first, while nothing else is in memory.
        let exact = Target::best(Format::F32);
        let wanted = FusedRoformer::forward_layerwise(arch, vb.clone(), exact, pool, &spec)?;
        for &target in &choice.candidates {
            let mut network = FusedRoformer::new(arch, vb.clone(), target, pool.clone())?;
            let db = stem_snr_db(&spec, &network.forward(&spec, 1)?, &wanted);
            let checked = target.format.into();
            // The comparison is false for NaN.
            if db >= min_snr_db(target.format) {
                let resolved = ResolvedPrecision { precision: checked, self_check_db: Some(db), checked };
                return Ok((network, resolved));
            }
            last_check = Some((checked, db));
        }
    }
    let network = FusedRoformer::new(arch, vb.clone(), choice.fallback, pool.clone())?;
    let precision = choice.fallback.format.into();
    let (checked, self_check_db) = last_check.map_or((precision, None), |(checked, db)| (checked, Some(db)));
    Ok((network, ResolvedPrecision { precision, self_check_db, checked }))
}

/// Noise of a third of a second, as loud as music.
fn self_check_spectrum(arch: &Architecture) -> Vec<f32> {
    let mut random = Random::new(0);
    let features = arch.frame_features();
    // As in music, low bins are louder; they come first in a frame.
    let loudness = |i: usize| 20.0 / (1.0 + (i % features) as f32 / 32.0);
    (0..FRAMES * features).map(|i| loudness(i) * random.bipolar()).collect()
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
    fn auto_keeps_a_format_only_where_it_is_near_f32() {
        let (arch, vb, pool) = (small(), seeded(1, &Device::Cpu), Pool::new(1).unwrap());
        let fallback = Target::best(Format::F32);
        for (format, most) in [(Format::Bf16, 90.0), (Format::Int8, 60.0)] {
            let quick = Target { isa: Isa::Emulated, format };
            let choice = TargetChoice { candidates: vec![quick], fallback };
            let (network, found) = load_with_self_check(&arch, &vb, &pool, &choice, min_snr_db).unwrap();
            assert_eq!((network.target(), found.precision), (quick, format.into()));
            let db = found.self_check_db.unwrap();
            assert!(db > min_snr_db(format) && db < most, "{db} dB");
            let name = format.name();
            assert!(found.to_string().starts_with(&format!("{name} ({name} is ")), "{found}");

            let strict = |_| db + 1.0;
            let (network, found) = load_with_self_check(&arch, &vb, &pool, &choice, strict).unwrap();
            assert_eq!((network.target(), found.precision), (fallback, Precision::F32));
            assert!(found.to_string().starts_with(&format!("f32 ({name} is ")), "{found}");
        }
    }

    #[test]
    fn a_second_candidate_is_tried_when_the_first_fails() {
        let (arch, vb, pool) = (small(), seeded(1, &Device::Cpu), Pool::new(1).unwrap());
        let [int8, bf16] = [Format::Int8, Format::Bf16].map(|format| Target { isa: Isa::Emulated, format });
        let choice = TargetChoice { candidates: vec![int8, bf16], fallback: Target::best(Format::F32) };
        let strict = |format| if format == Format::Int8 { f64::INFINITY } else { 0.0 };
        let (network, found) = load_with_self_check(&arch, &vb, &pool, &choice, strict).unwrap();
        assert_eq!((network.target(), found.precision), (bf16, Precision::Bf16));
    }

    #[test]
    fn instruction_sets_without_f32_are_refused_for_f32_and_replaced_by_auto() {
        let target = |isa, format| Target { isa, format };
        let emulated = target(Isa::Emulated, Format::Bf16);
        let chosen = |asked, isa, dim| choose_target(asked, Some(isa), dim, false).unwrap();
        let best = Target::best(Format::F32);
        let only = |fallback| TargetChoice { candidates: Vec::new(), fallback };
        assert_eq!(chosen(Precision::Auto, Isa::Emulated, MIN_DIM - 1), only(best));
        let choice = TargetChoice { candidates: vec![emulated], fallback: best };
        assert_eq!(chosen(Precision::Auto, Isa::Emulated, MIN_DIM), choice);
        assert_eq!(chosen(Precision::Bf16, Isa::Emulated, 8), only(emulated));
        assert_eq!(chosen(Precision::Int8, Isa::Emulated, 8), only(target(Isa::Emulated, Format::Int8)));
        let error =
            choose_target(Precision::F32, Some(Isa::Emulated), MIN_DIM, false).unwrap_err().to_string();
        assert!(error.contains("emulated") && error.contains("no f32"), "{error}");
        // Instruction sets with f32 are used for it, even for large networks.
        let portable = target(Isa::Portable, Format::F32);
        for asked in [Precision::Auto, Precision::F32] {
            assert_eq!(chosen(asked, Isa::Portable, MIN_DIM), only(portable));
        }
    }

    #[test]
    fn auto_considers_int8_only_where_it_is_allowed() {
        for dim in [MIN_DIM - 1, MIN_DIM] {
            for allowed in [false, true] {
                let choice = choose_target(Precision::Auto, None, dim, allowed).unwrap();
                let int8 = choice.candidates.iter().find(|target| target.format == Format::Int8);
                let fast = Target::best(Format::Int8);
                let expected = allowed && dim >= MIN_DIM && fast.isa.is_faster_in(Format::Int8);
                assert_eq!(int8, expected.then_some(&fast), "{dim}, {allowed}");
                assert_eq!(choice.fallback, Target::best(Format::F32));
            }
        }
        let choice = choose_target(Precision::Auto, Some(Isa::Emulated), MIN_DIM, true).unwrap();
        assert_eq!(choice.candidates.len(), 2);
        assert_eq!(choice.candidates[0].format, Format::Int8);
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
        for (asked, format) in
            [(Precision::F32, Format::F32), (Precision::Bf16, Format::Bf16), (Precision::Int8, Format::Int8)]
        {
            let (network, found) = fused(&arch, &vb, &pool, asked, false).unwrap();
            assert_eq!((network.target().format, found), (format, asked.into()));
        }
        let Err(error) = fused(&arch, &vb, &pool, Precision::F16, false) else { panic!("accepted") };
        assert!(error.to_string().contains("bf16"), "{error}");
    }
}
