//! HyperACE heads and Conformer blocks: what the comparison of single chunks leaves open.

use nullsum::model::architecture::{Architecture, MaskKind};
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use nullsum::model::convert::{self, WeightFormat};
use nullsum::model::device::DeviceChoice;
use nullsum::model::fused::unsupported_feature;
use nullsum::model::inspect::Inspection;
use nullsum::separator::Separator;
use num_complex::Complex32;

use super::{Case, cases, fixtures};

fn new_families() -> Vec<Case> {
    let all = cases(&fixtures()).into_iter();
    let new: Vec<Case> =
        all.filter(|case| case.name().contains("hyperace") || case.name().contains("conformer")).collect();
    assert!(new.len() >= 11, "{}", new.len());
    new
}

/// `frames` frames of a spectrum.
fn spectrum(architecture: &Architecture, frames: usize, seed: u64) -> Vec<Complex32> {
    let mut random = nullsum::dsp::Random::new(seed);
    let bins = frames * architecture.stft.freqs() * architecture.channels;
    (0..bins).map(|_| Complex32::new(random.bipolar(), random.bipolar())).collect()
}

#[test]
fn chunks_of_a_batch_have_the_masks_of_chunks_alone_at_any_number_of_frames() {
    for case in new_families() {
        let mut separator = case.load(&case.yaml());
        let architecture = separator.info().architecture.clone();
        for frames in [1, 2, 3, 17, 33, 64] {
            let spectra = [1, 2, 3].map(|seed| spectrum(&architecture, frames, seed));
            let together = separator.masks(&spectra.concat(), 3).unwrap();
            let alone: Vec<Complex32> =
                spectra.iter().flat_map(|spectrum| separator.masks(spectrum, 1).unwrap()).collect();
            assert_eq!(together.len(), alone.len(), "{}", case.name());
            let size = alone.iter().map(|mask| mask.norm()).fold(0.0, f32::max);
            let error = together.iter().zip(&alone).map(|(a, b)| (a - b).norm()).fold(0.0, f32::max);
            // An instance norm over two or three points amplifies rounding; the references refuse a single one.
            let tolerance = if frames < 17 { 1e-2 } else { 1e-4 };
            assert!(
                size.is_finite() && error <= tolerance * size,
                "{}: {frames} frames, {error} of {size}",
                case.name()
            );
        }
    }
}

#[test]
fn converted_files_hold_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    for case in new_families() {
        let config = Config::from_yaml(&case.yaml(), case.name()).unwrap();
        for (format, least_db) in
            [(WeightFormat::F32, 100.0), (WeightFormat::F16, 45.0), (WeightFormat::Int8, 8.0)]
        {
            let file = folder.path().join("converted.safetensors");
            let mut on_tensor = || std::ops::ControlFlow::Continue(());
            convert::convert(&case.checkpoint(), &config, None, &file, format, &mut on_tensor)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name()));
            let written = Checkpoint::open(&file).unwrap();
            let mut separator = Separator::load(&written, &config, None, DeviceChoice::Cpu).unwrap();
            let db = case.output_db(&mut separator);
            assert!(db > least_db, "{} as {format:?}: {db:.1} dB", case.name());
        }
    }
}

#[test]
fn reports_name_the_family_and_what_it_lacks() {
    for case in new_families() {
        let config = Config::from_yaml(&case.yaml(), case.name()).unwrap();
        let inspection = Inspection::new(&case.checkpoint(), &config, None);
        let architecture = inspection.architecture.as_ref().unwrap();
        assert!(unsupported_feature(architecture).is_some(), "{}", case.name());
        let report = inspection.to_string();
        let title = match (architecture.masks, case.text("kind")) {
            (MaskKind::HyperAce(_), _) => {
                format!("HyperACE v{}", &case.text("package")["hyperace-v".len()..])
            }
            (_, "bs") => "BS Conformer".into(),
            (_, _) => "Mel-Band Conformer".into(),
        };
        assert!(report.contains(&title), "{title}: {report}");
        assert!(report.contains("repeats whole windows") && report.contains("candle (slower)"), "{report}");
        assert!(inspection.loads(), "{report}");
    }
}

#[test]
fn configurations_that_contradict_the_tensors_are_refused() {
    for (name, from, to, part) in [
        (
            "bs_pymss_conformer",
            "conv_kernel_size: 5",
            "conv_kernel_size: 7",
            "conv_kernel_size 7, the file holds 5",
        ),
        (
            "bs_pymss_conformer_depths",
            "conv_expansion_factor: 3",
            "conv_expansion_factor: 2",
            "the file holds 3",
        ),
        (
            "bs_pymss_conformer",
            "time_conformer_depth: 1",
            "time_conformer_depth: 2",
            "time_conformer_depth 2",
        ),
        (
            "bs_pymss_conformer_linear",
            "linear_conformer_depth: 1",
            "linear_conformer_depth: 0",
            "linear_conformer_depth 0",
        ),
        (
            "bs_pymss_hyperace_v2",
            "stereo: true",
            "stereo: true\n  hyperace_version: 1",
            "hyperace_version 1, the file holds 2",
        ),
        ("bs_seed_mono", "stereo: false", "stereo: false\n  time_conformer_depth: 1", "that of a Conformer"),
        (
            "bs_seed_mono",
            "stereo: false",
            "stereo: false\n  use_mask_estimator_hyper_ace: true",
            "holds no HyperACE head",
        ),
    ] {
        let case = super::fixture(name);
        let yaml = case.yaml();
        let changed = yaml.replace(from, to);
        assert_ne!(yaml, changed, "{name}: {from}");
        let config = Config::from_yaml(&changed, name).unwrap();
        let error = Architecture::resolve(&config, &case.checkpoint(), None).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}
