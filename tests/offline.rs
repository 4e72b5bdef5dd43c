//! Whole songs through a small random network: chunks, channels, rates, passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::ops::ControlFlow;

use nullsum::audio::Planar;
use nullsum::dsp;
use nullsum::model::architecture::Architecture;
use nullsum::model::device::DeviceChoice;
use nullsum::offline::demix::{DemixOptions, Standardise, demix, demix_from};
use nullsum::offline::plan::ChunkPlan;
use nullsum::offline::reader::MemoryReader;
use nullsum::separator::{MaskRule, ModelSpec, Separator};

const CHUNK: usize = 1000;

/// A small network: `stems` stems, mono or stereo.
fn separator(stems: usize, channels: usize) -> Separator {
    let mut arch = Architecture::reference_default();
    arch.dim = 8;
    arch.depth = 1;
    arch.heads = 2;
    arch.dim_head = 4;
    arch.ff_inner = 16;
    arch.mask_hidden = 16;
    arch.channels = channels;
    arch.num_stems = stems;
    arch.stft.n_fft = 128;
    arch.stft.hop_length = 32;
    arch.stft.win_length = 128;
    arch.bands = vec![(0..9).collect(), (9..30).collect(), (30..65).collect()];
    Separator::random(ModelSpec::random("test", arch, CHUNK), 7, DeviceChoice::Cpu).unwrap()
}

fn noise(channels: usize, samples: usize) -> Planar {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    Planar::from_planes((0..channels).map(|_| (0..samples).map(|_| next()).collect()).collect()).unwrap()
}

fn options(overlap: impl Into<f64>, batch: usize, rule: MaskRule) -> DemixOptions {
    DemixOptions { plan: ChunkPlan::new(CHUNK, overlap.into()), batch, rule, tta: false, standardise: None }
}

fn run(separator: &mut Separator, song: &Planar, options: &DemixOptions) -> Planar {
    let stems = separator.info().architecture.num_stems;
    let mut out = Planar::new(stems * song.channels());
    demix(
        separator,
        &mut MemoryReader::new(song),
        options,
        &mut |block| {
            out.append(block);
            Ok(())
        },
        &mut |_| ControlFlow::Continue(()),
    )
    .unwrap();
    out
}

/// SNR over all channels.
fn snr_db(reference: &Planar, other: &Planar) -> f64 {
    dsp::snr_db(reference.iter().flatten(), other.iter().flatten())
}

/// The stems' sum as a signal of `channels` channels.
fn sum(stems: &Planar, channels: usize) -> Planar {
    let mut planes = vec![vec![0.0; stems.samples()]; channels];
    for (i, stem) in stems.iter().enumerate() {
        planes[i % channels].iter_mut().zip(stem).for_each(|(x, s)| *x += s);
    }
    Planar::from_planes(planes).unwrap()
}

#[test]
fn completed_stems_are_as_long_as_the_song_and_sum_to_it() {
    let mut model = separator(4, 2);
    for overlap in [1.0, 1.25, 2.0, 4.0] {
        for samples in [1, 2, 63, 99, 100, 101, 499, 501, 999, 1000, 1001, 1003, 2001, 3100, 3101, 5432] {
            let song = noise(2, samples);
            let stems = run(&mut model, &song, &options(overlap, 1, MaskRule::Complete));
            assert_eq!((stems.channels(), stems.samples()), (8, samples), "overlap {overlap}");
            let snr = snr_db(&song, &sum(&stems, 2));
            assert!(snr > 100.0, "overlap {overlap}, {samples} samples: {snr:.1} dB");
        }
    }
}

#[test]
fn no_overlap_leaves_a_click_at_the_seams() {
    let mut model = separator(4, 2);
    let wave = |n: usize, f: f32| (n as f32 * f).sin() * 0.4 + (n as f32 * f * 2.7).sin() * 0.2;
    let planes = [0.011, 0.017].map(|f| (0..8_000).map(|n| wave(n, f)).collect());
    let song = Planar::from_planes(planes.into()).unwrap();
    // The largest step from sample to sample, of each stem.
    let mut steps = |overlap: f64| -> Vec<f32> {
        let stems = run(&mut model, &song, &options(overlap, 1, MaskRule::Complete));
        let largest =
            |stem: &[f32]| stem.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        stems.iter().map(largest).collect()
    };
    let usual = steps(4.0);
    for overlap in [1.0, 1.02, 1.25, 1.5, 2.0] {
        for (step, usual) in steps(overlap).into_iter().zip(&usual) {
            assert!(step < 2.0 * usual + 0.005, "overlap {overlap}: a step of {step}, {usual} at overlap 4");
        }
    }
}

#[test]
fn the_batch_size_changes_nothing() {
    let mut model = separator(2, 2);
    let song = noise(2, 7_777);
    let one = run(&mut model, &song, &options(2, 1, MaskRule::Plain));
    for batch in [2, 3, 64] {
        let many = run(&mut model, &song, &options(2, batch, MaskRule::Plain));
        assert!(snr_db(&one, &many) > 110.0, "batch {batch}: {:.1} dB", snr_db(&one, &many));
    }
}

#[test]
fn channels_are_separated_in_pairs_and_an_odd_one_alone() {
    let mut model = separator(2, 2);
    let song = noise(5, 2_500);
    let all = run(&mut model, &song, &options(2, 1, MaskRule::Plain));
    assert_eq!(all.channels(), 10);
    let part = |range: std::ops::Range<usize>| Planar::from_planes(song.planes()[range].to_vec()).unwrap();
    for (first, count) in [(0, 2), (2, 2), (4, 1)] {
        let alone = run(&mut model, &part(first..first + count), &options(2, 1, MaskRule::Plain));
        let same = (0..2).flat_map(|stem| (0..count).map(move |c| all_index(stem, first + c)));
        let picked = Planar::from_planes(same.map(|i| all.channel(i).to_vec()).collect()).unwrap();
        assert!(snr_db(&alone, &picked) > 110.0, "channels from {first}");
    }
    fn all_index(stem: usize, channel: usize) -> usize {
        stem * 5 + channel
    }
}

#[test]
fn a_mono_model_takes_each_channel_by_itself() {
    let mut model = separator(3, 1);
    let song = noise(2, 1_500);
    let stems = run(&mut model, &song, &options(2, 2, MaskRule::Complete));
    assert_eq!(stems.channels(), 6);
    assert!(snr_db(&song, &sum(&stems, 2)) > 100.0);
}

#[test]
fn digital_silence_is_not_run_through_the_network() {
    let mut model = separator(2, 2);
    model.take_stage_times();
    let stems = run(&mut model, &Planar::zeros(2, 10_000), &options(2, 1, MaskRule::Complete));
    assert!(stems.iter().flatten().all(|x| *x == 0.0));
    assert!(model.take_stage_times().network.is_zero(), "the network ran over silence");
}

#[test]
fn standardised_stems_still_sum_to_the_mixture() {
    let mut model = separator(4, 2);
    let song = noise(2, 4_000);
    let mut options = options(2, 1, MaskRule::Complete);
    options.standardise = Some(Standardise { mean: 0.1, std: 0.3 });
    let stems = run(&mut model, &song, &options);
    assert!(snr_db(&song, &sum(&stems, 2)) > 100.0);
}

#[test]
fn augmentation_is_the_mean_of_the_undone_variants() {
    let mut model = separator(2, 2);
    let song = noise(2, 1_900);
    let plain = options(2, 1, MaskRule::Plain);
    let base = run(&mut model, &song, &plain);
    let swapped_song = Planar::from_planes(song.planes().iter().rev().cloned().collect()).unwrap();
    let swapped = run(&mut model, &swapped_song, &plain);
    let inverted_song =
        Planar::from_planes(song.iter().map(|c| c.iter().map(|x| -x).collect()).collect()).unwrap();
    let inverted = run(&mut model, &inverted_song, &plain);
    let mean: Vec<Vec<f32>> = (0..4)
        .map(|i| {
            let other = i / 2 * 2 + (1 - i % 2);
            (0..song.samples())
                .map(|t| (base.channel(i)[t] + swapped.channel(other)[t] - inverted.channel(i)[t]) / 3.0)
                .collect()
        })
        .collect();
    let augmented = run(&mut model, &song, &DemixOptions { tta: true, ..plain });
    assert!(snr_db(&Planar::from_planes(mean).unwrap(), &augmented) > 100.0);
    assert!(snr_db(&base, &augmented) < 60.0, "the variants made no difference");
}

#[test]
fn a_break_cancels_at_once() {
    let mut model = separator(2, 2);
    let song = noise(2, 20_000);
    let mut calls = 0;
    let result = demix(
        &mut model,
        &mut MemoryReader::new(&song),
        &options(2, 1, MaskRule::Plain),
        &mut |_| Ok(()),
        &mut |_| {
            calls += 1;
            ControlFlow::Break(())
        },
    );
    assert_eq!(result.unwrap_err().to_string(), "cancelled");
    assert_eq!(calls, 1);
}

#[test]
fn stems_from_a_later_sample_on_equal_those_of_the_whole_song() {
    let samples = 7_345;
    let song = noise(2, samples);
    for overlap in [1.25, 2.0, 4.0] {
        for padded in [true, false] {
            let mut plan = ChunkPlan::new(CHUNK, overlap);
            if !padded {
                plan.border = 0;
            }
            let options =
                DemixOptions { plan, batch: 1, rule: MaskRule::Complete, tta: false, standardise: None };
            let run = |first: u64| {
                let mut stems = Planar::new(4);
                let mut sink = |block: &Planar| {
                    stems.append(block);
                    Ok(())
                };
                demix_from(
                    &mut separator(2, 2),
                    &mut MemoryReader::new(&song),
                    &options,
                    first,
                    &(),
                    &mut sink,
                    &mut |_| ControlFlow::Continue(()),
                )
                .unwrap();
                stems
            };
            let whole = run(0);
            for first in [1, 499, 500, 1000, 3_333, 7_344, 7_345, 9_999] {
                let rest = run(first as u64);
                assert_eq!(rest.samples(), samples.saturating_sub(first));
                for (plane, expected) in rest.iter().zip(whole.iter()) {
                    assert_eq!(plane, &expected[first.min(samples)..], "overlap {overlap}, from {first}");
                }
            }
        }
    }
}
