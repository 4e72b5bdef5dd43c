//! Streams that keep their context, against windows run whole, against one another, and kernels against candle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "kernels/targets.rs"]
mod targets;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use nullsum::dsp::stft::Stft;
use nullsum::dsp::{Random, snr_db};
use nullsum::kernels::{CacheFormat, Format, Pool};
use nullsum::model::architecture::{Architecture, Family, HyperConnections, Position, ValueResidual};
use nullsum::model::bands::mel_bands;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use nullsum::model::context::kept_context_unsupported;
use nullsum::model::device::DeviceChoice;
use nullsum::model::fused::FusedRoformer;
use nullsum::model::roformer::Roformer;
use nullsum::model::weights;
use nullsum::separator::{
    ContextError, ContextPlan, Hop, MaskRule, ModelSpec, Runtime, SeparateError, Separator, StreamState,
};
use num_complex::Complex32;
use proptest::prelude::*;
use targets::targets;

fn small() -> Architecture {
    let mut arch = Architecture::reference_default();
    arch.dim = 24;
    arch.depth = 2;
    arch.heads = 3;
    arch.dim_head = 6;
    arch.ff_inner = 40;
    arch.mask_hidden = 20;
    arch.num_stems = 2;
    arch.stft.n_fft = 64;
    arch.stft.hop_length = 16;
    arch.stft.win_length = 64;
    arch.bands = vec![(0..3).collect(), (3..14).collect(), (14..33).collect()];
    arch
}

fn separator(arch: &Architecture, as_on_gpu: bool) -> Separator {
    let runtime = Runtime { device: DeviceChoice::Cpu, threads: 2, as_on_gpu, ..Runtime::default() };
    Separator::random(ModelSpec::random("test", arch.clone(), 4096), 7, runtime).unwrap()
}

fn plan(hop: usize, lookahead: usize, context: usize, margin: usize) -> ContextPlan {
    ContextPlan {
        hop_frames: hop,
        lookahead_frames: lookahead,
        context_frames: context,
        margin_frames: margin,
        ..ContextPlan::default()
    }
}

/// Planar noise that swells and fades.
fn noise(seed: u64, channels: usize, samples: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let swell = |i: usize| 0.1 + 0.4 * ((i % samples) as f32 / 900.0).sin().abs();
    (0..channels * samples).map(|i| swell(i) * random.bipolar()).collect()
}

/// The part of planar `signal` between two samples.
fn part(signal: &[f32], channels: usize, from: usize, to: usize) -> Vec<f32> {
    signal.chunks_exact(signal.len() / channels).flat_map(|channel| &channel[from..to]).copied().collect()
}

/// Final samples of a stream: one line a stem and channel.
#[derive(Clone, Default, PartialEq)]
struct Played {
    lines: Vec<Vec<f32>>,
}

impl Played {
    /// Adds the output of a hop, which must join what is there.
    fn add(&mut self, state: &StreamState, stems: usize, channels: usize) {
        let output = state.output();
        self.lines.resize(stems * channels, Vec::new());
        for (i, line) in self.lines.iter_mut().enumerate() {
            assert_eq!(output.first_sample(), line.len() as u64, "hops join");
            let new = output.final_samples(i / channels, i % channels);
            assert_eq!(new.len(), output.final_len());
            let ahead = output.provisional_samples(i / channels, i % channels);
            assert_eq!(ahead.len(), output.provisional_len());
            assert!(new.iter().chain(ahead).all(|x| x.is_finite()));
            line.extend(new);
        }
    }

    fn flat(&self) -> Vec<f32> {
        self.lines.concat()
    }

    fn bits(&self) -> Vec<u32> {
        self.flat().iter().map(|x| x.to_bits()).collect()
    }
}

/// One hop of one stream.
fn hop(separator: &mut Separator, state: &mut StreamState, frames: usize, rule: MaskRule) {
    separator.separate_hops(&mut [Hop { state, frames, rule }], &()).unwrap();
}

/// All of a signal as a stream of hops of the sizes that `next` gives, pushed in pieces of up to `piece` samples.
fn play(
    separator: &mut Separator,
    state: &mut StreamState,
    signal: &[f32],
    rule: MaskRule,
    piece: usize,
    mut next: impl FnMut() -> usize,
) -> Played {
    let (channels, stems) = (separator.info().architecture.channels, separator.info().stem_names().len());
    let samples = signal.len() / channels;
    let (mut pushed, mut played) = (0, Played::default());
    loop {
        let wanted = next();
        while (state.ready_frames() as usize) < wanted && pushed < samples {
            let end = (pushed + piece).min(samples);
            state.push(&part(signal, channels, pushed, end)).unwrap();
            pushed = end;
            if pushed == samples {
                state.finish();
            }
        }
        let frames = wanted.min(state.ready_frames() as usize);
        hop(separator, state, frames, rule);
        played.add(state, stems, channels);
        if state.is_finished() {
            return played;
        }
    }
}

/// What windows run whole give: window k of frames [F − M, F + n + A), of which [F, F + n) are kept, over the transform of the whole signal.
fn repeated_windows(
    separator: &mut Separator,
    signal: &[f32],
    plan: &ContextPlan,
    mut next: impl FnMut() -> usize,
) -> Vec<f32> {
    let arch = separator.info().architecture.clone();
    let (channels, stems) = (arch.channels, arch.num_stems);
    let samples = signal.len() / channels;
    let stft = Stft::new(arch.stft);
    let (frames, bins) = (arch.stft.frames(samples), arch.stft.freqs() * channels);
    let mut spectrum = vec![Complex32::default(); frames * bins];
    for (c, signal) in signal.chunks_exact(samples).enumerate() {
        stft.forward(signal, c, channels, &mut spectrum);
    }
    let mut masked = vec![Complex32::default(); stems * frames * bins];
    let mut from = 0;
    while from < frames {
        let to = (from + next()).min(frames);
        let first = from.saturating_sub(plan.margin_frames);
        let last = (to + plan.lookahead_frames).min(frames);
        let masks = separator.masks(&spectrum[first * bins..last * bins], 1).unwrap();
        for (stem, masks) in masks.chunks_exact((last - first) * bins).enumerate() {
            for frame in from..to {
                for bin in 0..bins {
                    let mask = masks[(frame - first) * bins + bin];
                    let mask = if arch.zero_dc && bin < channels { Complex32::default() } else { mask };
                    masked[(stem * frames + frame) * bins + bin] = mask * spectrum[frame * bins + bin];
                }
            }
        }
        from = to;
    }
    let mut out = vec![0.0; stems * channels * samples];
    for (line, out) in out.chunks_exact_mut(samples).enumerate() {
        let stem = &masked[line / channels * frames * bins..][..frames * bins];
        stft.inverse(stem, line % channels, channels, out);
    }
    out
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders.retain(|folder| folder.join("model.yaml").exists());
    folders
}

/// The model of a fixture, on the kernels where they cover it or on candle.
fn load(folder: &Path, as_on_gpu: bool) -> Separator {
    let file = ["model.ckpt", "model.safetensors"].map(|f| folder.join(f)).into_iter().find(|f| f.exists());
    let yaml = std::fs::read_to_string(folder.join("model.yaml")).unwrap();
    let config = Config::from_yaml(&yaml, "model.yaml").unwrap();
    let runtime = Runtime { device: DeviceChoice::Cpu, threads: 2, as_on_gpu, ..Runtime::default() };
    Separator::load(&Checkpoint::open(&file.unwrap()).unwrap(), &config, None, runtime).unwrap()
}

#[test]
fn without_kept_frames_a_margin_equals_repeated_windows_for_every_fixture() {
    let (mut supported, mut refused) = (0, Vec::new());
    for folder in fixtures() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        for as_on_gpu in [false, true] {
            let mut separator = load(&folder, as_on_gpu);
            let arch = separator.info().architecture.clone();
            if kept_context_unsupported(&arch).is_some() {
                refused.push(name.clone());
                assert!(matches!(
                    separator.new_stream(&ContextPlan::default()),
                    Err(ContextError::Unsupported(_))
                ));
                continue;
            }
            supported += 1;
            let stft = arch.stft;
            let samples = stft.n_fft + 23 * stft.hop_length + stft.hop_length / 3;
            let signal = noise(3, arch.channels, samples);
            for (plan, sizes) in [(plan(3, 2, 0, 7), [3, 3, 3, 3]), (plan(1, 1, 0, 4), [1, 4, 2, 1])] {
                let sizes = || sizes.into_iter().cycle();
                let (mut one, mut other) = (sizes(), sizes());
                let expected = repeated_windows(&mut separator, &signal, &plan, || one.next().unwrap());
                let mut state = separator.new_stream(&plan).unwrap();
                let found =
                    play(&mut separator, &mut state, &signal, MaskRule::Plain, 57, || other.next().unwrap());
                let lines = arch.num_stems * arch.channels;
                let found = found.lines[..lines].concat();
                assert_eq!(found.len(), expected.len(), "{name}");
                let snr = snr_db(&expected, &found);
                assert!(snr > 100.0, "{name}, {}: {snr:.1} dB", separator.kernel());
            }
        }
    }
    assert!(supported >= 40, "{supported}");
    refused.dedup();
    // Hyper-connections of several streams, which some others have too, and linear attention.
    let bs = ["pope", "streams_2", "streams_3", "streams_4", "streams_fracs"]
        .map(|name| format!("bs_lucid_{name}"));
    let mel = ["everything", "fracs", "pope"].map(|name| format!("mel_lucid_{name}"));
    // Networks of single checkpoints.
    let single = [
        "neuralop_fno_masks",
        "neuralop_fno_masks_long",
        "pymss_conformer",
        "pymss_conformer_depths",
        "pymss_conformer_linear",
        "pymss_hyperace_v2",
        "pymss_hyperace_v2_mono",
        "separator_linear",
        "siamese",
        "splifft_axial_masks",
        "splifft_hyperace_v1",
        "splifft_hyperace_v1_mono",
        "webui_hyperace_v1_band_strides",
    ]
    .map(|name| format!("bs_{name}"));
    let last = ["pymss_conformer", "pymss_conformer_mono", "pymss_hyperace_v2", "seed_linear"]
        .map(|name| format!("mel_{name}"));
    assert_eq!(refused, [&bs[..], &single, &mel, &last].concat());
}

#[test]
fn options_that_no_fixture_has_alone_keep_their_context_too() {
    let residual = |kind| Architecture { value_residual: Some(kind), branch_names: true, ..small() };
    let fracs = HyperConnections { streams: 1, fracs: 2, sinkhorn_iters: 4 };
    let to_mix = residual(ValueResidual::ToValueResidualMix);
    for (name, arch) in [
        ("PoPE", Architecture { position: Position::Polar, ..small() }),
        ("value residual", to_mix.clone()),
        ("learned value residual", residual(ValueResidual::LearnedValueResidualMix)),
        ("fractions", Architecture { hyper_connections: Some(fracs), branch_names: true, ..small() }),
        ("PoPE and value residual", Architecture { position: Position::Polar, ..to_mix }),
    ] {
        let mut separator = separator(&arch, false);
        let signal = noise(3, 2, 64 + 16 * 33);
        let margin = plan(3, 2, 0, 7);
        let expected = repeated_windows(&mut separator, &signal, &margin, || 3);
        let mut state = separator.new_stream(&margin).unwrap();
        let found = play(&mut separator, &mut state, &signal, MaskRule::Plain, 57, || 3);
        let snr = snr_db(&expected, &found.flat());
        assert!(snr > 100.0, "{name}: {snr:.1} dB");
    }
}

/// In a network of one layer, keys and values depend on their own frames alone. Those that were kept are then what a whole window
/// computes again.
#[test]
fn in_a_network_of_one_layer_kept_frames_are_as_good_as_frames_run_again() {
    for position in [Position::Rotary, Position::Polar] {
        let arch = Architecture { depth: 1, position, ..small() };
        for as_on_gpu in [false, true] {
            let mut separator = separator(&arch, as_on_gpu);
            let signal = noise(3, 2, 64 + 16 * 200);
            let mut state = separator.new_stream(&plan(2, 3, 20, 0)).unwrap();
            let found = play(&mut separator, &mut state, &signal, MaskRule::Plain, 57, || 2);
            let expected = repeated_windows(&mut separator, &signal, &plan(2, 3, 0, 20), || 2);
            let snr = snr_db(&expected, &found.flat());
            assert!(snr > 100.0, "{position:?}: {snr:.1} dB");
        }
    }
}

#[test]
fn a_stream_of_one_hop_is_the_separation_of_the_chunk() {
    for folder in fixtures() {
        let mut separator = load(&folder, false);
        let arch = separator.info().architecture.clone();
        if kept_context_unsupported(&arch).is_some() {
            continue;
        }
        let signal = noise(5, arch.channels, arch.stft.n_fft + 20 * arch.stft.hop_length);
        for rule in [MaskRule::Plain, MaskRule::Complete] {
            let rule = separator.info().rule(rule);
            let expected = separator.separate(&[&signal], rule).unwrap().remove(0);
            let mut state = separator.new_stream(&plan(1, 2, 8, 0)).unwrap();
            state.push(&signal).unwrap();
            state.finish();
            let frames = state.ready_frames() as usize;
            hop(&mut separator, &mut state, frames, rule);
            let mut found = Played::default();
            found.add(&state, separator.info().stem_names().len(), arch.channels);
            let snr = snr_db(&expected, &found.flat()[..expected.len()]);
            assert!(snr > 110.0, "{}: {snr:.1} dB", folder.display());
            // With the complement, or completed, the stems are the mixture.
            if rule == MaskRule::Complete || separator.info().complement.is_some() {
                let sum: Vec<f32> = (0..signal.len())
                    .map(|i| found.flat().iter().skip(i).step_by(signal.len()).sum())
                    .collect();
                assert!(arch.zero_dc || snr_db(&signal, &sum) > 100.0, "{}", folder.display());
            }
        }
    }
}

/// Masks of hops on the kernels of every target, and on candle.
fn compare_networks(name: &str, arch: &Architecture) {
    let features = arch.frame_features();
    let total = 40;
    let mut random = Random::new(9);
    let spec: Vec<f32> = (0..total * features).map(|_| 2.0 * random.bipolar()).collect();
    // First frame, frames, leaving, wanted from: a margin of 2, a lookahead of 3, hops of 1 to 9.
    let hops = [(0, 6, 1, 0), (1, 9, 4, 2), (5, 6, 1, 2), (6, 14, 9, 2), (15, 6, 1, 2), (16, 8, 3, 2)];
    let candle = Roformer::new(arch, weights::seeded(3, &Device::Cpu)).unwrap();
    for capacity in [0, 5, 12] {
        let mut context = candle.new_context(capacity, false);
        let mut expected = Vec::new();
        for (first, frames, leaving, wanted) in hops {
            let rows = &spec[first * features..(first + frames) * features];
            let rows = Tensor::from_slice(rows, (1, frames, features), &Device::Cpu).unwrap();
            let masks = candle.forward_hop(&rows, &mut context, first as u64, leaving, wanted, &()).unwrap();
            expected.extend(masks.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
        for target in targets() {
            for format in [CacheFormat::F32, CacheFormat::Bf16] {
                let vb = weights::seeded(3, &Device::Cpu);
                let mut fused = FusedRoformer::new(arch, vb, target, Pool::new(2).unwrap()).unwrap();
                let mut context = fused.new_context(capacity, format);
                let (mut found, mut masks) = (Vec::new(), Vec::new());
                for (first, frames, leaving, wanted) in hops {
                    let rows = &spec[first * features..(first + frames) * features];
                    let hop = context.hop(first as u64, frames, leaving, wanted);
                    fused.forward_hops(rows, &mut [hop], &mut masks, &()).unwrap();
                    found.extend_from_slice(&masks);
                }
                let snr = snr_db(&expected, &found);
                let exact = target.format == Format::F32 && (format == CacheFormat::F32 || capacity == 0);
                let limit = match target.format {
                    _ if exact => 100.0,
                    Format::Int8 => 26.0,
                    _ => 38.0,
                };
                assert!(snr > limit, "{name}, {target}, {format:?}, {capacity} frames: {snr:.1} dB");
                if capacity > 0 {
                    let other = if exact { CacheFormat::Bf16 } else { CacheFormat::F32 };
                    let bytes = fused.new_context(capacity, other).bytes();
                    assert!(context.bytes() > 0 && bytes > 0);
                }
            }
        }
    }
}

#[test]
fn kernels_and_candle_agree_on_hops() {
    let bs = small();
    compare_networks("BS", &bs);
    let blocks = Architecture { time_transformer_depth: 2, freq_transformer_depth: 3, ..bs.clone() };
    compare_networks("several blocks", &blocks);
    compare_networks("skip connection", &Architecture { skip_connection: true, depth: 4, ..bs.clone() });
    compare_networks("wide heads", &Architecture { dim_head: 34, heads: 2, ..bs.clone() });
    let mut mel = Architecture { family: Family::MelBandRoformer, channels: 1, ..bs };
    mel.stft.n_fft = 512;
    mel.stft.win_length = 512;
    mel.bands = mel_bands(44_100, 512, 12);
    compare_networks("Mel-Band", &mel);
}

#[test]
fn a_thousand_hops_replayed_in_other_pieces_give_the_same_bits() {
    let arch = small();
    for as_on_gpu in [false, true] {
        let mut separator = separator(&arch, as_on_gpu);
        let samples = 16 * if as_on_gpu { 300 } else { 1100 };
        let signal = noise(11, 2, samples);
        let plan = plan(1, 2, 9, 1);
        let mut one = separator.new_stream(&plan).unwrap();
        let first = play(&mut separator, &mut one, &signal, MaskRule::Complete, 16, || 1);
        assert!(one.final_frames() > samples as u64 / 16);
        let mut other = separator.new_stream(&plan).unwrap();
        let second = play(&mut separator, &mut other, &signal, MaskRule::Complete, 333, || 1);
        assert!(first.bits() == second.bits());
        assert_eq!(one.context_len(), 9);
        // A state that is used again forgets what was.
        one.reset();
        assert_eq!((one.context_len(), one.final_frames(), one.received_samples()), (0, 0, 0));
        let third = play(&mut separator, &mut one, &signal, MaskRule::Complete, 100, || 1);
        assert!(first.bits() == third.bits());
    }
}

#[test]
fn the_lookahead_is_not_kept() {
    let mut separator = separator(&small(), false);
    for (margin, lookahead) in [(0, 3), (2, 3)] {
        let mut state = separator.new_stream(&plan(2, lookahead, 50, margin)).unwrap();
        state.push(&noise(1, 2, 2000)).unwrap();
        for k in 1..10 {
            hop(&mut separator, &mut state, 2, MaskRule::Plain);
            assert_eq!(state.context_len(), (2 * k as usize).saturating_sub(margin));
        }
    }
    // What comes after the lookahead of a hop changes nothing in it; what is in it does.
    let timing = separator.new_stream(&plan(2, 3, 50, 0)).unwrap().timing();
    let played = |separator: &mut Separator, changed_from: usize| {
        let mut signal = noise(1, 2, 2000);
        signal.chunks_exact_mut(2000).for_each(|plane| plane[changed_from..].fill(0.25));
        let mut state = separator.new_stream(&plan(2, 3, 50, 0)).unwrap();
        state.push(&signal).unwrap();
        let mut played = Played::default();
        for _ in 0..10 {
            hop(separator, &mut state, 2, MaskRule::Plain);
            played.add(&state, 2, 2);
        }
        played.bits()
    };
    let end = timing.samples_for(23) as usize;
    let unchanged = played(&mut separator, 2000);
    assert!(played(&mut separator, end) == unchanged);
    assert!(played(&mut separator, end - 16) != unchanged);
}

#[test]
fn streams_of_a_batch_have_the_bits_of_streams_alone() {
    for as_on_gpu in [false, true] {
        let mut separator = separator(&small(), as_on_gpu);
        let signals: Vec<Vec<f32>> = (0..3).map(|seed| noise(seed, 2, 3000)).collect();
        let plans = [plan(1, 2, 9, 0), plan(1, 2, 9, 0), plan(2, 1, 4, 3)];
        let sizes = |stream: usize, k: usize| [1, 1 + k % 3, 2][stream];
        let mut alone = Vec::new();
        for (stream, (signal, plan)) in signals.iter().zip(&plans).enumerate() {
            let mut state = separator.new_stream(plan).unwrap();
            state.push(signal).unwrap();
            let mut played = Played::default();
            for k in 0..40 {
                hop(&mut separator, &mut state, sizes(stream, k), MaskRule::Complete);
                played.add(&state, 2, 2);
            }
            alone.push(played);
        }
        let mut states: Vec<StreamState> =
            plans.iter().map(|plan| separator.new_stream(plan).unwrap()).collect();
        let mut together = vec![Played::default(); 3];
        for (state, signal) in states.iter_mut().zip(&signals) {
            state.push(signal).unwrap();
        }
        for k in 0..40 {
            let mut hops: Vec<Hop> = states
                .iter_mut()
                .enumerate()
                .map(|(i, state)| Hop { state, frames: sizes(i, k), rule: MaskRule::Complete })
                .collect();
            separator.separate_hops(&mut hops, &()).unwrap();
            states.iter().zip(&mut together).for_each(|(state, played)| played.add(state, 2, 2));
        }
        for (one, other) in alone.iter().zip(&together) {
            assert!(one.bits() == other.bits());
        }
    }
}

#[test]
fn a_large_hop_takes_several_passes_and_ends_where_small_ones_do() {
    let mut separator = separator(&small(), false);
    let signal = noise(2, 2, 16 * 400);
    let mut state = separator.new_stream(&plan(1, 2, 9, 0)).unwrap();
    let played = play(&mut separator, &mut state, &signal, MaskRule::Complete, 9999, || 1000);
    assert_eq!(played.lines[0].len(), 16 * 400);
    let sum: Vec<f32> = (0..2)
        .flat_map(|c| {
            played.lines[c].iter().zip(&played.lines[2 + c]).map(|(a, b)| a + b).collect::<Vec<_>>()
        })
        .collect();
    assert!(snr_db(&signal, &sum) > 100.0);
}

#[test]
fn completed_stems_are_the_mixture_also_where_they_are_provisional() {
    for (stems, rule) in [(3, MaskRule::Complete), (1, MaskRule::Plain)] {
        let arch = Architecture { num_stems: stems, ..small() };
        let mut info = ModelSpec::random("test", arch, 4096);
        info.complement = (stems == 1).then(|| "rest".to_owned());
        let mut separator = Separator::random(info, 7, DeviceChoice::Cpu).unwrap();
        let signal = noise(4, 2, 2000);
        let mut state = separator.new_stream(&plan(2, 4, 9, 0)).unwrap();
        state.push(&signal).unwrap();
        let ahead = state.plan().provisional_samples(&state.timing()) as usize;
        assert_eq!(ahead, 3 * 16 + 32);
        for _ in 0..20 {
            hop(&mut separator, &mut state, 2, rule);
            let output = state.output();
            let first = output.first_sample() as usize;
            assert_eq!(output.provisional_len(), ahead);
            for channel in 0..2 {
                let mixture = &signal[channel * 2000 + first..][..output.final_len() + ahead];
                let stems = if stems == 1 { 2 } else { stems };
                let mut sum = vec![0.0; mixture.len()];
                for stem in 0..stems {
                    let line =
                        [output.final_samples(stem, channel), output.provisional_samples(stem, channel)];
                    sum.iter_mut().zip(line.concat()).for_each(|(sum, x)| *sum += x);
                }
                let snr = snr_db(mixture, &sum);
                assert!(snr > 100.0, "{stems} stems, from {first}: {snr:.1} dB");
            }
        }
    }
}

#[test]
fn silence_costs_no_pass_and_empties_the_context() {
    let mut separator = separator(&small(), false);
    let mut state = separator.new_stream(&plan(1, 1, 5, 0)).unwrap();
    let layers = AtomicUsize::new(0);
    let count = || {
        layers.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let mut signal = noise(6, 2, 3000);
    signal.chunks_exact_mut(3000).for_each(|plane| plane[500..2000].fill(0.0));
    state.push(&signal).unwrap();
    let mut ran = Vec::new();
    while state.ready_frames() > 0 {
        layers.store(0, Ordering::Relaxed);
        let frames = 1;
        let state = &mut state;
        separator.separate_hops(&mut [Hop { state, frames, rule: MaskRule::Plain }], &count).unwrap();
        ran.push(layers.load(Ordering::Relaxed) > 0);
        if !ran[ran.len() - 1] {
            assert_eq!(state.context_len(), 0);
            assert!(state.output().provisional_samples(0, 0).iter().all(|x| *x == 0.0));
        }
    }
    // Frame f sees samples 16 f − 32 to 16 f + 32: 33 is the last that is loud, and five more keep it in the context. 124 is the first
    // again, and the lookahead of 123.
    let skipped: Vec<usize> = (0..ran.len()).filter(|i| !ran[*i]).collect();
    assert_eq!((skipped.first(), skipped.last()), (Some(&39), Some(&122)));
    assert_eq!(skipped.len(), 122 - 38);
}

#[test]
fn a_cancelled_hop_can_be_asked_for_again() {
    for as_on_gpu in [false, true] {
        let mut separator = separator(&small(), as_on_gpu);
        let mut state = separator.new_stream(&plan(2, 1, 9, 0)).unwrap();
        state.push(&noise(8, 2, 2000)).unwrap();
        for _ in 0..5 {
            hop(&mut separator, &mut state, 2, MaskRule::Plain);
        }
        let before = (state.final_frames(), state.final_samples());
        for stop_at in 0..3 {
            let layer = AtomicUsize::new(0);
            let control = || {
                let stop = layer.fetch_add(1, Ordering::Relaxed) == stop_at;
                if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let state = &mut state;
            let error = separator
                .separate_hops(&mut [Hop { state, frames: 2, rule: MaskRule::Plain }], &control)
                .unwrap_err();
            assert!(matches!(error, SeparateError::Cancelled), "{error}");
            assert_eq!(
                (state.final_frames(), state.final_samples(), state.context_len()),
                (before.0, before.1, 0)
            );
        }
        hop(&mut separator, &mut state, 2, MaskRule::Plain);
        assert_eq!((state.output().first_sample(), state.context_len()), (before.1, 2));
    }
}

#[test]
fn wrong_calls_are_errors() {
    let mut one = separator(&small(), false);
    let mut other = separator(&small(), false);
    let mut state = one.new_stream(&plan(2, 1, 9, 0)).unwrap();
    assert!(matches!(state.push(&[0.0; 3]), Err(SeparateError::Shape { channels: 2, found: 3, .. })));
    state.push(&noise(8, 2, 200)).unwrap();
    let ready = state.ready_frames();
    for asked in [0, ready as usize + 1] {
        let hop = Hop { state: &mut state, frames: asked, rule: MaskRule::Plain };
        let error = one.separate_hops(&mut [hop], &()).unwrap_err();
        assert!(matches!(error, SeparateError::NotReady { .. }), "{error}");
    }
    let hop = Hop { state: &mut state, frames: 1, rule: MaskRule::Plain };
    assert!(matches!(other.separate_hops(&mut [hop], &()), Err(SeparateError::ForeignStream)));
    state.finish();
    assert!(matches!(state.push(&[0.0; 2]), Err(SeparateError::Finished)));
    for wrong in [plan(0, 1, 1, 1), plan(1, 1 << 20, 1, 1), plan(1, 1, usize::MAX, 1)] {
        assert!(matches!(one.new_stream(&wrong), Err(ContextError::Plan { .. })));
    }
    let tight = ContextPlan { memory_budget: 1000, ..plan(1, 1, 100, 0) };
    let error = one.new_stream(&tight).unwrap_err().to_string();
    assert!(error.contains("100 frames") && error.contains("1000"), "{error}");
    // A stream that ends before its first sample, and one of a single sample.
    let mut empty = one.new_stream(&plan(1, 1, 9, 0)).unwrap();
    empty.finish();
    assert!(empty.is_finished() && empty.ready_frames() == 0);
    let mut single = one.new_stream(&plan(1, 1, 9, 0)).unwrap();
    single.push(&[0.5, f32::NAN]).unwrap();
    single.finish();
    assert_eq!(single.ready_frames(), 1);
    one.separate_hops(&mut [Hop { state: &mut single, frames: 1, rule: MaskRule::Complete }], &()).unwrap();
    let sum = single.output().final_samples(0, 0)[0] + single.output().final_samples(1, 0)[0];
    assert!((sum - 0.5).abs() < 1e-5 && single.is_finished(), "{sum}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the pieces of the input, hops of the same sizes give the same bits, and without kept frames those of repeated windows.
    #[test]
    fn hops_of_any_sizes_depend_on_nothing_else(
        sizes in prop::collection::vec(1usize..12, 1..20),
        pieces in (1usize..400, 1usize..400),
        samples in 1usize..3000,
        shape in (0usize..4, prop_oneof![Just(0usize), 0usize..12], 0usize..4),
    ) {
        let (lookahead, context, margin) = shape;
        let mut separator = separator(&small(), false);
        let signal = noise(13, 2, samples);
        let plan = plan(1, lookahead, context, margin);
        let run = |separator: &mut Separator, piece: usize| {
            let mut sizes = sizes.iter().copied().cycle();
            let mut state = separator.new_stream(&plan).unwrap();
            play(separator, &mut state, &signal, MaskRule::Plain, piece, || sizes.next().unwrap())
        };
        let played = run(&mut separator, pieces.0);
        prop_assert_eq!(played.lines[0].len(), samples);
        let other = run(&mut separator, pieces.1);
        prop_assert!(played.bits() == other.bits());
        // The reference's transform needs a signal that it can mirror.
        if context == 0 && samples > 32 {
            let mut sizes = sizes.iter().copied().cycle();
            let expected = repeated_windows(&mut separator, &signal, &plan, || sizes.next().unwrap());
            prop_assert!(snr_db(&expected, &played.flat()) > 100.0);
        }
    }
}
