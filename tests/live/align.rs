//! Stems are aligned to the sample with the plan's latency.

use std::time::Duration;

use nullsum::dsp::snr_db;
use nullsum::live::{Scheduler, Stream, offline_reference};
use nullsum::separator::MaskRule;

use crate::support::*;
use crate::threads::in_threads;

const RATES: [u32; 7] = [22_050, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000];

#[test]
fn impulse_arrives_at_reported_latency() {
    for rate in RATES {
        for block in [1, 32, 441, 512, 1_024, 4_096, 0] {
            let plan = plan(rate, if block == 0 { 8_192 } else { block as u64 });
            let (mut client, mut engine) = Stream::manual(&plan, 1, 1);
            client.set_carrier(None);
            engine.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
            let latency = plan.latency().0;
            assert_eq!(client.latency(), plan.latency());
            let mut input = vec![0.0; latency as usize + 3_000];
            input[1_234] = 0.5;
            let mut random = random_blocks(rate, 8_192);
            let mut size = || if block == 0 { random() } else { block };
            let out = feed_on_time(&mut client, &mut engine, &[input.clone()], 1, &mut size);
            assert_eq!(bits(&out.main[0]), bits(&delayed(&input, latency)), "{rate} Hz, blocks of {block}");
            let stem = &out.stems[0][0];
            let peak = (0..stem.len()).max_by(|a, b| stem[*a].abs().total_cmp(&stem[*b].abs())).unwrap();
            assert_eq!(peak as u64, 1_234 + latency, "{rate} Hz, blocks of {block}");
            if rate == MODEL_RATE {
                assert_eq!(stem, &delayed(&input, latency), "blocks of {block}");
            } else {
                // Linear phase: the same on both sides.
                let skew = (1..100).map(|i| (stem[peak + i] - stem[peak - i]).abs()).fold(0.0, f32::max);
                assert!(skew < 2e-3, "{rate} Hz: {skew}");
            }
            assert_eq!(client.status().late_windows(), 0, "{rate} Hz, blocks of {block}");
        }
    }
}

#[test]
fn a_worker_that_uses_its_whole_deadline_is_on_time() {
    // Blocks of N; the worker finishes a hop only after N + D more samples, the worst case that a plan allows.
    for (rate, block) in [(44_100, 512), (48_000, 128), (96_000, 1)] {
        let plan = plan(rate, block);
        let (mut client, mut engine) = Stream::manual(&plan, 1, 1);
        client.set_carrier(None);
        engine.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
        let parts = plan.parts();
        let total = 8 * plan.latency().0;
        // Window k can start when k·H samples and the filter's reach are available, and is done no sooner than D later.
        let reach = if rate == MODEL_RATE { 0 } else { (128 * u64::from(rate)).div_ceil(44_100) };
        let mut fed = 0;
        let mut pending = std::collections::VecDeque::new();
        let mut next = parts.hop.0 + reach;
        feed(&[noise(7, total as usize, 0.5)], 1, &mut || block as usize, &mut |main, buses| {
            fed += main[0].len() as u64;
            while pending.front().is_some_and(|due| *due <= fed) {
                pending.pop_front();
                engine.step();
            }
            client.process(main, buses);
            while next <= fed {
                pending.push_back(fed + parts.deadline.0);
                next += parts.hop.0;
            }
        });
        assert_eq!(client.status().late_windows(), 0, "{rate}");
        assert!(client.status().windows() > 10);
    }
}

#[test]
fn offline_equals_the_reference_bit_for_bit() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    for (rate, channels, group) in [(44_100, 2, 2), (48_000, 1, 2), (96_000, 2, 1), (32_000, 3, 2)] {
        let plan = plan(rate, 2_048);
        let song: Vec<_> = (0..channels).map(|c| noise(c as u32 + 3, 17_777, 0.8)).collect();
        let expected =
            offline_reference(&plan, &mut level_dependent(2, group), MaskRule::Complete, &song).unwrap();
        let latency = plan.latency().0;
        let input: Vec<_> = song.iter().map(|plane| with_tail(plane, latency)).collect();
        let (mut client, stream) = Stream::open(&plan, 2, channels, &scheduler);
        client.set_carrier(None);
        stream.swap(Some(level_dependent(2, group).shared())).unwrap();
        let out = feed(&input, 2, &mut random_blocks(rate, 4_000), &mut |main, buses| {
            client.process_blocking(main, buses, Duration::from_secs(60)).unwrap();
        });
        for (n, stem) in out.stems.iter().enumerate() {
            for (c, plane) in stem.iter().enumerate() {
                assert_eq!(plane.len(), 17_777 + latency as usize);
                let same = bits(&plane[latency as usize..]) == bits(&expected[n][c]);
                assert!(same, "{rate} Hz, stem {n}, channel {c}");
            }
        }
        assert_eq!(client.status().late_windows(), 0);
    }
}

#[test]
fn a_band_limited_song_survives_resampling_in_both_directions() {
    let plan = plan(48_000, 512);
    let song: Vec<f32> = (0..20_000)
        .map(|i| {
            let envelope = (i as f32 * std::f32::consts::PI / 20_000.0).sin();
            0.5 * (i as f32 * 0.31).sin() * envelope * envelope
        })
        .collect();
    let got = offline_reference(
        &plan,
        &mut fixed_split(&[1.0], 1),
        MaskRule::Complete,
        std::slice::from_ref(&song),
    )
    .unwrap();
    let snr = snr_db(&song, &got[0][0]);
    assert!(snr > 90.0, "{snr} dB");
}
