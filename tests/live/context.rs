//! Streams with kept context, with a real network: small, with random weights.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; a failure is a failed test")]

use std::time::Duration;

use nullsum::live::plan::Deadline;
use nullsum::live::{
    HostSamples, KeptContext, ModelSamples, Plan, PlanRequest, Scheduler, SharedModel, Stream,
    WindowSeparator, offline_reference,
};
use nullsum::separator::{ContextPlan, MaskRule};

use crate::network::network;
use crate::support::*;
use crate::threads::in_threads;

fn context_plan(host_rate: u32, [hop, lookahead, context]: [usize; 3], max_block: u64) -> Plan {
    let timing = network(2).timing().context.unwrap();
    let plan = ContextPlan {
        hop_frames: hop,
        lookahead_frames: lookahead,
        context_frames: context,
        ..ContextPlan::default()
    };
    Plan::new(PlanRequest {
        host_rate,
        model_rate: MODEL_RATE,
        window: ModelSamples(0),
        hop: ModelSamples(0),
        lookahead: ModelSamples(0),
        fade: ModelSamples(256),
        deadline: Deadline::WholeHop,
        max_block: HostSamples(max_block),
        context: Some(KeptContext { plan, timing }),
    })
    .unwrap()
}

fn shared(stems: usize) -> SharedModel {
    SharedModel::new(Box::new(network(stems)))
}

#[test]
fn a_render_equals_the_reference_bit_for_bit_at_every_rate() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    for (rate, channels, frames) in
        [(44_100, 2, [1, 2, 8]), (48_000, 2, [3, 2, 10]), (96_000, 1, [1, 1, 4]), (32_000, 3, [2, 4, 6])]
    {
        let plan = context_plan(rate, frames, 512);
        let song: Vec<_> = (0..channels).map(|c| noise(c as u32 + 3, 14_777, 0.6)).collect();
        let expected = offline_reference(&plan, &mut network(2), MaskRule::Complete, &song).unwrap();
        let latency = plan.latency().0;
        let input: Vec<_> = song.iter().map(|plane| with_tail(plane, latency)).collect();
        let (mut client, stream) = Stream::open(&plan, 2, channels, &scheduler);
        client.set_carrier(None);
        stream.swap(Some(shared(2))).unwrap();
        let out = feed(&input, 2, &mut random_blocks(rate, 2_000), &mut |main, buses| {
            client.process_blocking(main, buses, Duration::from_secs(60)).unwrap();
        });
        for (n, stem) in out.stems.iter().enumerate() {
            for (c, plane) in stem.iter().enumerate() {
                let same = bits(&plane[latency as usize..]) == bits(&expected[n][c]);
                assert!(same, "{rate} Hz, stem {n}, channel {c}");
            }
        }
        assert_eq!(client.status().late_windows(), 0);
    }
}

#[test]
fn the_stems_sum_to_the_input_at_the_reported_latency() {
    for rate in [44_100, 48_000, 96_000, 192_000] {
        for frames in [[1, 1, 4], [1, 2, 8], [4, 3, 6]] {
            let plan = context_plan(rate, frames, 512);
            let (mut client, mut engine) = Stream::manual(&plan, 2, 2);
            client.set_carrier(None);
            engine.swap(Some(shared(2))).unwrap();
            // Band-limited, so that resampling loses nothing.
            let tone = |k: f32| (0..rate as usize / 3).map(move |i| 0.3 * (k * i as f32 / rate as f32).sin());
            let song: Vec<Vec<f32>> = vec![tone(4_000.0).collect(), tone(9_000.0).collect()];
            let out = feed_on_time(&mut client, &mut engine, &song, 2, &mut || 256);
            let latency = plan.latency().len();
            for (c, plane) in song.iter().enumerate() {
                let expected = delayed(plane, latency as u64);
                // The first frames are cut off: a tone does not begin at once.
                let settled = latency + rate as usize / 20;
                let sum = |i: usize| out.stems[0][c][i] + out.stems[1][c][i];
                let worst =
                    (settled..expected.len()).map(|i| (sum(i) - expected[i]).abs()).fold(0.0, f32::max);
                assert!(
                    worst < if rate == MODEL_RATE { 1e-5 } else { 1e-3 },
                    "{rate} Hz, {frames:?}: {worst}"
                );
            }
            assert_eq!(client.status().late_windows(), 0, "{rate} Hz, {frames:?}");
        }
    }
}

#[test]
fn late_hops_jumps_and_swaps_keep_the_sum_and_recover() {
    let plan = context_plan(48_000, [1, 2, 8], 256);
    for seed in 1..6 {
        let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
        client.set_carrier(None);
        let models = [shared(2), shared(2)];
        engine.swap(Some(models[0].clone())).unwrap();
        let input = noise_24(seed, 60_000, 0.4);
        let mut dice = random_blocks(seed, 100);
        let (mut fed, mut asleep) = (0, 0);
        let out = feed(std::slice::from_ref(&input), 2, &mut || 256, &mut |main, buses| {
            fed += 256;
            let quiet = fed > 40_000;
            match dice() {
                1 if !quiet => client.jump(),
                2..4 if !quiet => engine.swap(Some(models[fed / 256 % 2].clone())).unwrap(),
                4..9 if !quiet => asleep = 3 * dice(),
                _ => asleep = if quiet { 0 } else { asleep.saturating_sub(1) },
            }
            client.process(main, buses);
            if asleep == 0 {
                engine.run_until_idle();
            }
        });
        let expected = delayed(&input, plan.latency().0);
        assert_eq!(bits(&out.main[0]), bits(&expected), "seed {seed}");
        assert!(out.stems.iter().flatten().flatten().all(|x| x.is_finite() && x.abs() < 4.0));
        // Two seconds after the last event all stems are there again, at their place.
        let sum = |i: usize| out.stems[0][0][i] + out.stems[1][0][i];
        let error = (55_000..60_000).map(|i| (sum(i) - expected[i]).powi(2)).sum::<f32>();
        let power = expected[55_000..60_000].iter().map(|x| x * x).sum::<f32>();
        // The filters take what lies above the model's band.
        assert!(error < 0.2 * power, "seed {seed}: {error} of {power}");
    }
}

#[test]
fn a_late_hop_is_caught_up_by_one_larger_hop() {
    let plan = context_plan(44_100, [1, 2, 8], 256);
    let (mut client, mut engine) = Stream::manual(&plan, 2, 2);
    engine.swap(Some(shared(2))).unwrap();
    let input = vec![noise(1, 40_000, 0.5), noise(2, 40_000, 0.5)];
    let mut fed = 0;
    feed(&input, 2, &mut || 256, &mut |main, buses| {
        fed += 256;
        client.process(main, buses);
        if !(10_000..11_200).contains(&fed) {
            engine.run_until_idle();
        }
    });
    let hops = 40_000 / plan.hop().0;
    let status = client.status();
    // Three or four hops of 441 samples came together.
    assert!((hops - 12..hops - 2).contains(&status.windows()), "{} of {hops}", status.windows());
    assert_eq!(status.skipped_windows(), 0);
}

/// Signal-to-noise ratio of `x` to `truth` in dB.
fn snr(truth: &[f32], x: &[f32]) -> f64 {
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let error = power(&mut truth.iter().zip(x).map(|(a, b)| a - b));
    10.0 * (power(&mut truth.iter().copied()) / error.max(1e-30)).log10()
}

/// The first stem of a stream whose model is set by `control` before each block, from the number of samples that were fed.
fn played(
    plan: &Plan,
    input: &[Vec<f32>],
    mut control: impl FnMut(u64, &mut nullsum::live::Engine),
) -> (Vec<f32>, u64, u64) {
    let (mut client, mut engine) = Stream::manual(plan, 2, 2);
    client.set_carrier(None);
    let mut fed = 0;
    let out = feed(input, 2, &mut || 256, &mut |main, buses| {
        control(fed, &mut engine);
        fed += 256;
        client.process(main, buses);
        engine.run_until_idle();
    });
    let status = client.status();
    (out.stems[0][0].clone(), status.late_windows(), status.skipped_windows())
}

#[test]
fn a_model_that_is_set_while_music_plays_gets_its_context_from_past_input() {
    let plan = context_plan(44_100, [1, 2, 40], 256);
    let input = vec![noise(1, 60_000, 0.5), noise(2, 60_000, 0.5)];
    let model = shared(2);
    let (always, ..) = played(&plan, &input, |fed, engine| {
        if fed == 0 {
            engine.swap(Some(model.clone())).unwrap();
        }
    });
    let (late, ..) = played(&plan, &input, |fed, engine| {
        if fed == 30_208 {
            engine.swap(Some(model.clone())).unwrap();
        }
    });
    // A few hops later the stems are those of a stream that had the model all the time.
    let settled = 30_208 + plan.latency().len() + 10 * plan.hop().len();
    let found = snr(&always[settled..58_000], &late[settled..58_000]);
    assert!(found > 60.0, "{found:.1} dB");
    let begins = late.iter().position(|x| *x != 0.0).unwrap();
    assert!((30_208..settled).contains(&begins), "{begins}");
}

#[test]
fn a_model_takes_over_only_when_its_context_is_filled_and_without_a_gap() {
    let plan = context_plan(44_100, [1, 2, 40], 256);
    let input = vec![noise(1, 60_000, 0.5), noise(2, 60_000, 0.5)];
    // Two copies of one network: the change must not be heard.
    let models = [shared(2), shared(2)];
    let (one, ..) = played(&plan, &input, |fed, engine| {
        if fed == 0 {
            engine.swap(Some(models[0].clone())).unwrap();
        }
    });
    let (swapped, late, skipped) = played(&plan, &input, |fed, engine| match fed {
        0 => engine.swap(Some(models[0].clone())).unwrap(),
        30_208 => engine.swap(Some(models[1].clone())).unwrap(),
        _ => {}
    });
    assert_eq!((late, skipped), (0, 0));
    let found = snr(&one[..58_000], &swapped[..58_000]);
    assert!(found > 60.0, "{found:.1} dB");
}

#[test]
fn a_render_that_changes_its_model_loses_no_stem() {
    let plan = context_plan(48_000, [2, 2, 20], 256);
    let _threads = in_threads();
    let input = noise_24(3, 40_000, 0.4);
    let scheduler = Scheduler::new().unwrap();
    let (mut blocking, stream) = Stream::open(&plan, 2, 1, &scheduler);
    blocking.set_carrier(None);
    stream.swap(Some(shared(2))).unwrap();
    let mut fed = 0;
    let out = feed(std::slice::from_ref(&input), 2, &mut || 256, &mut |main, buses| {
        fed += 256;
        if fed == 20_480 {
            stream.swap(Some(shared(2))).unwrap();
        }
        blocking.process_blocking(main, buses, Duration::from_secs(60)).unwrap();
    });
    let latency = plan.latency().len();
    let expected = delayed(&input, latency as u64);
    // Every piece of a tenth of a second has stems.
    for begin in (latency + 2_000..35_000).step_by(4_800) {
        let energy = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
        let stems: Vec<f32> =
            (begin..begin + 4_800).map(|i| out.stems[0][0][i] + out.stems[1][0][i]).collect();
        let share = energy(&stems) / energy(&expected[begin..begin + 4_800]);
        assert!((0.5..1.5).contains(&share), "at {begin}: {share}");
    }
}

#[test]
fn every_pass_of_a_loop_begins_with_context() {
    let plan = context_plan(44_100, [1, 2, 40], 229);
    // So that the frames of all passes lie at the same places of the song.
    let (begin, end) = (441 * 61 - 1_024, 441 * 61 - 1_024 + 229 * 70);
    let song = [noise(1, end, 0.5), noise(2, end, 0.5)];
    let passes = 4;
    let input: Vec<Vec<f32>> = song
        .iter()
        .map(|plane| {
            let again = std::iter::repeat_n(&plane[begin..], passes - 1);
            [&plane[..]].into_iter().chain(again).collect::<Vec<_>>().concat()
        })
        .map(|plane| with_tail(&plane, plan.latency().0))
        .collect();
    let play = |says_back: bool| {
        let (mut client, mut engine) = Stream::manual(&plan, 2, 2);
        client.set_carrier(None);
        engine.swap(Some(shared(2))).unwrap();
        let mut fed = 0;
        let out = feed(&input, 2, &mut || 229, &mut |main, buses| {
            let since = (fed as usize).checked_sub(end).map(|past| past % (end - begin));
            match (since, says_back) {
                (Some(0), true) => client.jump_back((end - begin) as u64),
                (Some(0), false) => client.jump(),
                _ => {}
            }
            fed += 229;
            client.process(main, buses);
            engine.run_until_idle();
        });
        assert_eq!((client.status().late_windows(), client.status().skipped_windows()), (0, 0));
        out.stems[0][0].clone()
    };
    assert_eq!(begin % 229 + end % 229, 0, "jumps are at the start of blocks");
    let [with, without] = [true, false].map(play);
    let latency = plan.latency().len();
    // Of the music behind the first pass of the loop, whose context was the music before it.
    let span = |pass: usize| {
        let at = latency + begin + pass * (end - begin);
        at + 1_000..at + 8_000
    };
    for pass in 1..passes {
        let near = snr(&with[span(0)], &with[span(pass)]);
        let far = snr(&without[span(0)], &without[span(pass)]);
        assert!(near > far + 10.0 && near > 40.0, "pass {pass}: {near:.1} dB, without context {far:.1} dB");
    }
}

#[test]
fn sixteen_instances_of_one_model_render_the_same_bits_together_as_alone() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let plan = context_plan(48_000, [2, 2, 12], 512);
    let model = shared(2);
    let song: Vec<_> = (0..2).map(|c| noise(c + 9, 9_000, 0.6)).collect();
    let expected = offline_reference(&plan, &mut network(2), MaskRule::Complete, &song).unwrap();
    let latency = plan.latency();
    let input: Vec<_> = song.iter().map(|plane| with_tail(plane, latency.0)).collect();
    std::thread::scope(|scope| {
        for seed in 0..16 {
            let (mut client, stream) = Stream::open(&plan, 2, 2, &scheduler);
            client.set_carrier(None);
            stream.swap(Some(model.clone())).unwrap();
            let (input, expected) = (&input, &expected);
            scope.spawn(move || {
                let out = feed(input, 2, &mut random_blocks(seed + 1, 2_000), &mut |main, buses| {
                    client.process_blocking(main, buses, Duration::from_secs(60)).unwrap();
                });
                for (stem, expected) in out.stems.iter().zip(expected) {
                    for (plane, expected) in stem.iter().zip(expected) {
                        assert_eq!(bits(&plane[latency.len()..]), bits(expected), "instance {seed}");
                    }
                }
                drop(stream);
            });
        }
    });
}
