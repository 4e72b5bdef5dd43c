//! Late windows are concealed and counted, and alignment is kept.

use nullsum::live::{Step, Stream};

use crate::support::*;

#[test]
fn late_windows_recover_alignment() {
    for rate in [44_100, 48_000] {
        let plan = plan(rate, 256);
        let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
        client.set_carrier(None);
        engine.swap(Some(fixed_split(&[0.5, 0.25], 1).shared())).unwrap();
        // The first stem is muted, so that the concealment is audible.
        client.set_gain(0, 0, 0.0);
        client.snap_gains();
        let input: Vec<f32> = (0..60_000).map(|i| 0.5 * (i as f32 * 0.05).sin()).collect();
        let (hop, latency) = (plan.parts().hop.0, plan.latency().0);
        let mut fed = 0u64;
        let out = feed(std::slice::from_ref(&input), 2, &mut || 256, &mut |main, buses| {
            fed += main[0].len() as u64;
            client.process(main, buses);
            if !(20_000..30_000).contains(&fed) {
                engine.run_until_idle();
            }
        });
        let expected = delayed(&input, latency);
        let error = |range: std::ops::Range<usize>, share: f32| {
            range.map(|i| (out.main[0][i] - share * expected[i]).abs()).fold(0.0, f32::max)
        };
        let exact = if rate == MODEL_RATE { 1e-7 } else { 1e-4 };
        assert!(error(latency as usize + 1_000..19_000, 0.5) < exact);
        // The last window before the gap covers a hop and its lookahead; after that only the input is left.
        assert!(error(25_000..30_000, 1.0) == 0.0, "{}", error(25_000..30_000, 1.0));
        assert!(error(33_000..60_000, 0.5) < exact, "{rate}: {}", error(33_000..60_000, 0.5));
        let late = client.status().late_windows();
        assert!((10_000 / hop - 2..=10_000 / hop + 1).contains(&late), "{late}");
        // No clicks in between: a sine of this pitch moves by 0.025 per sample.
        let jump = out.main[0].windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(jump < 0.03, "{rate}: {jump}");
    }
}

#[test]
fn a_worker_that_is_always_slightly_late_still_separates_with_provisional_stems() {
    let plan = plan(44_100, 64);
    let (mut client, mut engine) = Stream::manual(&plan, 1, 1);
    client.set_carrier(None);
    engine.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
    client.set_gain(0, 0, 0.0);
    client.snap_gains();
    let parts = plan.parts();
    // Slower than real time by an eighth of a hop each window.
    let (mut fed, mut free_at) = (0u64, 0u64);
    let out = feed(&[noise(3, 100_000, 0.5)], 1, &mut || 64, &mut |main, buses| {
        fed += 64;
        client.process(main, buses);
        // A window that comes too late for one hop covers two.
        if fed >= free_at && engine.step() == Step::Ran {
            free_at = fed + parts.hop.0 * 9 / 8;
        }
    });
    let energy = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
    let left = energy(&out.main[0][50_000..]) / energy(&noise(3, 50_000, 0.5));
    assert_eq!(client.status().skipped_windows(), 0);
    assert!(left < 0.5, "{left}");
}

#[test]
fn a_worker_that_was_blocked_for_seconds_resumes_at_the_current_position() {
    let plan = plan(44_100, 512);
    let (mut client, mut engine) = Stream::manual(&plan, 1, 1);
    client.set_carrier(None);
    engine.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
    let input = noise(8, 200_000, 0.5);
    let mut fed = 0;
    let out = feed(std::slice::from_ref(&input), 1, &mut || 512, &mut |main, buses| {
        fed += main[0].len();
        client.process(main, buses);
        if !(20_000..150_000).contains(&fed) {
            engine.run_until_idle();
        }
    });
    let expected = delayed(&input, plan.latency().0);
    assert_eq!(bits(&out.main[0]), bits(&expected));
    assert_eq!(out.stems[0][0][160_000..], expected[160_000..]);
    assert_eq!(out.stems[0][0][10_000..18_000], expected[10_000..18_000]);
}
