//! Resets, jumps, and model swaps.

use std::sync::Arc;
use std::sync::Mutex;

use nullsum::live::{State, Stream, SwapError, offline_reference};
use nullsum::separator::MaskRule;

use crate::support::*;

#[test]
fn after_a_reset_the_output_equals_a_fresh_start() {
    for rate in [44_100, 48_000] {
        let plan = plan(rate, 512);
        let song = noise(21, 15_000, 0.7);
        let latency = plan.latency().0;
        let take = |before: usize, worker_behind: bool| {
            let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
            engine.swap(Some(level_dependent(2, 1).shared())).unwrap();
            let mut random = random_blocks(1, 512);
            if worker_behind {
                feed(&[noise(5, before, 1.0)], 2, &mut random, &mut |main, buses| {
                    client.process(main, buses)
                });
            } else {
                feed_on_time(&mut client, &mut engine, &[noise(5, before, 1.0)], 2, &mut random);
            }
            client.reset();
            feed_on_time(&mut client, &mut engine, &[with_tail(&song, latency)], 2, &mut random)
        };
        let fresh = take(0, false);
        assert!(fresh.main[0][..latency as usize].iter().all(|x| *x == 0.0));
        for before in [1, 1_000, 10_000, 33_333] {
            for worker_behind in [false, true] {
                assert!(take(before, worker_behind) == fresh, "{rate} Hz, reset after {before}");
            }
        }
    }
}

#[test]
fn a_jump_keeps_both_sides_complete_and_separate() {
    for rate in [44_100, 48_000] {
        let plan = plan(rate, 512);
        let latency = plan.latency().0 as usize;
        let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
        client.set_carrier(None);
        engine.swap(Some(level_dependent(2, 1).shared())).unwrap();
        let (one, two) = (noise(1, 12_345, 0.7), noise(2, 11_000, 0.3));
        let first = feed_on_time(&mut client, &mut engine, std::slice::from_ref(&one), 2, &mut || 480);
        client.jump();
        let second =
            feed_on_time(&mut client, &mut engine, &[with_tail(&two, latency as u64)], 2, &mut || 480);
        let main = [&first.main[0][..], &second.main[0]].concat();
        assert_eq!(main[latency..], [&one[..], &two].concat());
        let stem = [&first.stems[1][0][..], &second.stems[1][0]].concat();
        // After the jump: as a separate song.
        let alone = |song: &[f32]| {
            offline_reference(&plan, &mut level_dependent(2, 1), MaskRule::Complete, &[song.to_vec()])
                .unwrap()[1][0]
                .clone()
        };
        assert_eq!(stem[latency + one.len()..], alone(&two));
        // Before it: as a song that ends there, except that its last windows are joined into one.
        let last = 3 * plan.parts().hop.len();
        assert_eq!(stem[latency..latency + one.len() - last], alone(&one)[..one.len() - last]);
        let tail = &stem[latency + one.len() - last..latency + one.len()];
        assert!(tail.iter().filter(|x| **x != 0.0).count() > last * 9 / 10);
        assert_eq!(client.status().late_windows(), 0);
    }
}

#[test]
fn no_window_spans_a_jump() {
    let plan = plan(44_100, 512);
    let (mut client, mut engine) = Stream::manual(&plan, 1, 1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let model = Fake::new(1, 1, move |window, _| {
        log.lock().unwrap().push((window.contains(&0.5), window.contains(&0.25)));
        Ok(())
    });
    engine.swap(Some(model.shared())).unwrap();
    for turn in 0..6 {
        let level = if turn % 2 == 0 { 0.5 } else { 0.25 };
        feed_on_time(&mut client, &mut engine, &[vec![level; 4_001 + 100 * turn]], 1, &mut || 333);
        client.jump();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 15 && seen.iter().all(|(a, b)| a != b));
}

#[test]
fn a_model_takes_over_without_a_gap_or_a_click() {
    for rate in [44_100, 48_000] {
        let plan = plan(rate, 256);
        let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
        client.set_carrier(None);
        let models = [fixed_split(&[1.0, 0.0], 1).shared(), fixed_split(&[0.0, 1.0], 1).shared()];
        engine.swap(Some(models[0].clone())).unwrap();
        let mut fed = 0;
        let out = feed(&[vec![0.5; 60_000]], 2, &mut || 256, &mut |main, buses| {
            fed += 1;
            if fed % 35 == 0 {
                engine.swap(Some(models[fed / 35 % 2].clone())).unwrap();
            }
            client.process(main, buses);
            engine.run_until_idle();
        });
        let settled = plan.latency().len() + 2_000;
        let stems: Vec<_> = (settled..60_000).map(|i| [out.stems[0][0][i], out.stems[1][0][i]]).collect();
        assert!(stems.iter().all(|s| (s[0] + s[1] - 0.5).abs() < 1e-4));
        assert!(stems.iter().any(|s| s[0] > 0.49) && stems.iter().any(|s| s[1] > 0.49));
        let step = stems.windows(2).map(|w| (w[1][0] - w[0][0]).abs()).fold(0.0, f32::max);
        assert!(step < 0.5 / 180.0, "{step}");
        assert!(out.main[0][settled..].iter().all(|x| *x == 0.5));
        assert_eq!(client.status().late_windows(), 0);
    }
}

#[test]
fn a_model_that_is_added_late_fades_in_and_a_removed_one_fades_out() {
    let plan = plan(44_100, 256);
    let (mut client, mut engine) = Stream::manual(&plan, 1, 1);
    client.set_carrier(None);
    let mut fed = 0;
    let out = feed(&[vec![0.5; 60_000]], 1, &mut || 256, &mut |main, buses| {
        fed += main[0].len();
        match fed / 256 {
            60 => engine.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap(),
            150 => engine.swap(None).unwrap(),
            _ => {}
        }
        client.process(main, buses);
        engine.run_until_idle();
    });
    let stem = &out.stems[0][0];
    assert!(stem[..60 * 256].iter().all(|x| *x == 0.0));
    assert!(stem[90 * 256..145 * 256].iter().all(|x| *x == 0.5));
    assert!(stem[180 * 256..].iter().all(|x| *x == 0.0));
    let step = stem.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
    assert!(step < 0.5 / 200.0, "{step}");
    assert_eq!(client.status().late_windows(), 0, "no model is not late");
    assert_eq!(client.status().state(), State::NoModel);
}

#[test]
fn unsuitable_models_are_rejected_and_the_old_one_stays() {
    let plan = plan(44_100, 256);
    let (_client, mut engine) = Stream::manual(&plan, 2, 1);
    engine.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
    let error = engine.swap(Some(fixed_split(&[0.2, 0.2, 0.2], 1).shared())).unwrap_err();
    assert_eq!(error, SwapError::Stems { room: 2, found: 3 });
    assert_eq!(engine.status().state(), State::Starting);
}
