//! The output sums exactly to the input, whatever the worker does.

use nullsum::live::{Client, Engine, NoStems, SharedModel, State, Stream};

use crate::support::*;

/// Input with all kinds of values that a host may send: noise on the grid, tiny and huge values, negative zero, NaN, infinity.
fn extreme_samples(samples: usize) -> Vec<f32> {
    let mut signal = noise(5, samples, 1.0);
    for (i, x) in signal.iter_mut().enumerate() {
        match i % 97 {
            3 => *x = -0.0,
            5 => *x = 1e-40,
            7 => *x = f32::from_bits(0x7fc0_1234),
            11 => *x = f32::NEG_INFINITY,
            13 => *x = 3.0e38,
            _ => {}
        }
    }
    signal
}

fn models() -> Vec<(&'static str, Option<SharedModel>)> {
    let mut calls = 0;
    vec![
        ("none", None),
        ("good", Some(fixed_split(&[0.7, 0.3], 2).shared())),
        (
            "nan",
            Some(
                Fake::new(2, 2, |_, out| {
                    out.fill(f32::NAN);
                    Ok(())
                })
                .shared(),
            ),
        ),
        (
            "huge",
            Some(
                Fake::new(2, 2, |_, out| {
                    out.fill(f32::MAX);
                    Ok(())
                })
                .shared(),
            ),
        ),
        (
            "failing",
            Some(Fake::new(2, 2, |_, _| Err(nullsum::live::WindowError("no memory".into()))).shared()),
        ),
        (
            "panicking",
            Some(
                Fake::new(2, 2, move |_, out| {
                    calls += 1;
                    assert!(calls < 3, "fault injection");
                    out.fill(0.25);
                    Ok(())
                })
                .shared(),
            ),
        ),
    ]
}

/// Feeds with a worker that runs only part of the time.
fn feed_unsteady(client: &mut Client, engine: &mut Engine, input: &[Vec<f32>], stems: usize) -> Out {
    let mut call = 0;
    feed(input, stems, &mut random_blocks(9, 1_500), &mut |main, buses| {
        call += 1;
        client.process(main, buses);
        if call % 23 < 12 {
            engine.run_until_idle();
        }
    })
}

#[test]
fn unity_is_the_delayed_input_bit_for_bit() {
    for rate in [44_100, 48_000, 192_000] {
        for (name, model) in models() {
            let plan = plan(rate, 1_024);
            let (mut client, mut engine) = Stream::manual(&plan, 2, 2);
            engine.swap(model).unwrap();
            let input = vec![extreme_samples(40_000), extreme_samples(40_000)];
            let out = feed_unsteady(&mut client, &mut engine, &input, 2);
            for (got, sent) in out.main.iter().zip(&input) {
                assert!(bits(got) == bits(&delayed(sent, plan.latency().0)), "{name} at {rate} Hz");
            }
            let state = match name {
                "none" => State::NoModel,
                "failing" => State::Failing,
                "panicking" => State::Panicked,
                _ => State::Running,
            };
            assert_eq!(client.status().state(), state, "{name}");
            assert_eq!(client.status().cleaned_samples() > 0, name == "nan");
            assert_eq!(
                client.status().message().is_some(),
                matches!(name, "failing" | "panicking"),
                "{name}"
            );
        }
    }
}

#[test]
fn gains_that_return_to_unity_leave_no_trace() {
    let plan = plan(44_100, 512);
    let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
    engine.swap(Some(level_dependent(2, 1).shared())).unwrap();
    let input = noise(11, 60_000, 0.9);
    let mut fed = 0;
    let out = feed(std::slice::from_ref(&input), 2, &mut || 512, &mut |main, buses| {
        fed += 512;
        client.set_gain(0, 0, if (20_000..30_000).contains(&fed) { 0.1 } else { 1.0 });
        client.set_wet(if (25_000..40_000).contains(&fed) { 0.0 } else { 1.0 });
        client.process(main, buses);
        engine.run_until_idle();
    });
    let expected = delayed(&input, plan.latency().0);
    assert_eq!(bits(&out.main[0][45_000..]), bits(&expected[45_000..]));
    assert_ne!(out.main[0][22_000..24_000], expected[22_000..24_000]);
    assert_eq!(out.main[0][28_000..29_000], expected[28_000..29_000], "bypassed");
    // No click: neither the gain nor the wet share moves faster than its ramp.
    let worst =
        out.main[0].windows(2).zip(expected.windows(2)).map(|(a, b)| ((a[1] - b[1]) - (a[0] - b[0])).abs());
    assert!(worst.fold(0.0, f32::max) < 2.0);
}

#[test]
fn buses_sum_to_main_bit_for_bit() {
    for rate in [44_100, 48_000, 96_000] {
        for (name, model) in
            models().into_iter().chain([("level_dependent", Some(level_dependent(3, 2).shared()))])
        {
            for carrier in [0, 1] {
                let plan = plan(rate, 1_024);
                let (mut client, mut engine) = Stream::manual(&plan, 3, 2);
                client.set_carrier(Some(carrier));
                engine.swap(model.clone()).unwrap();
                // The stems of this model exceed the range in which the grid is exact.
                if name == "huge" {
                    continue;
                }
                let input = vec![noise_24(1, 20_000, 0.45), noise_24(2, 20_000, 0.45)];
                let out = feed_unsteady(&mut client, &mut engine, &input, 3);
                for c in 0..2 {
                    for i in 0..out.main[c].len() {
                        let [x, y, z] = [0, 1, 2].map(|n| out.stems[n][c][i]);
                        for sum in [x + y + z, z + y + x, x + z + y] {
                            assert!(sum == out.main[c][i], "{name}, {rate} Hz, {i}: {x} + {y} + {z}");
                        }
                    }
                }
                assert_eq!(client.status().take_null_peak(), 0.0);
            }
        }
    }
}

#[test]
fn muting_all_stems_is_silence_and_soloing_one_is_that_stem() {
    let plan = plan(44_100, 512);
    let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
    engine.swap(Some(fixed_split(&[0.75, 0.1], 1).shared())).unwrap();
    let input = noise_24(4, 30_000, 0.9);
    for stem in 0..2 {
        client.set_gain(stem, 0, 0.0);
    }
    client.snap_gains();
    let out = feed_on_time(&mut client, &mut engine, std::slice::from_ref(&input), 2, &mut || 512);
    assert!(out.main[0].iter().all(|x| x.abs() < 1e-7));
    client.set_gain(0, 0, 1.0);
    client.snap_gains();
    let out = feed_on_time(&mut client, &mut engine, &[input], 2, &mut || 512);
    let error = out.main[0].iter().zip(&out.stems[0][0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error < 1e-6, "{error}");
}

#[test]
fn invalid_blocks_are_handled() {
    let plan = plan(48_000, 64);
    let (mut client, mut engine) = Stream::manual(&plan, 2, 2);
    engine.swap(Some(fixed_split(&[0.5, 0.5], 2).shared())).unwrap();
    client.set_gain(99, 0, 0.0);
    client.set_gain(0, 99, 0.0);
    client.set_carrier(Some(99));
    client.process(&mut [], &mut NoStems);
    client.process(&mut [&mut [], &mut []], &mut NoStems);
    client.process(&mut [&mut [0.5; 10][..], &mut [0.5; 3][..]], &mut NoStems);
    client.process(&mut [&mut [0.5; 10][..]], &mut NoStems);
    let mut third = [0.5; 100];
    client.process(&mut [&mut [0.5; 100][..], &mut [0.5; 100][..], &mut third[..]], &mut NoStems);
    assert_eq!(third, [0.0; 100]);
    // A block far longer than announced.
    let mut long = [vec![0.25; 20_000], vec![0.25; 20_000]];
    let [a, b] = &mut long;
    client.process(&mut [a, b], &mut NoStems);
    engine.run_until_idle();
    assert_eq!(long[0][19_999], 0.25);
}

#[test]
fn no_sequence_of_events_changes_a_bit() {
    for seed in 1..9 {
        let plan = plan(if seed % 2 == 0 { 44_100 } else { 48_000 }, 700);
        let latency = plan.latency().len();
        let (mut client, mut engine) = Stream::manual(&plan, 3, 1);
        let models = models();
        let input = noise_24(seed, 60_000, 0.45);
        let mut dice = random_blocks(seed + 100, 1_000);
        let (mut at, mut origin) = (0, 0);
        let mut expected = Vec::new();
        let mut stepping = true;
        let out =
            feed(std::slice::from_ref(&input), 3, &mut random_blocks(seed, 2_000), &mut |main, buses| {
                match dice() {
                    1 => {
                        client.reset();
                        origin = at;
                    }
                    2..5 => client.jump(),
                    5..8 => {
                        // All except those whose stems exceed the range in which the grid is exact.
                        let (name, model) = &models[dice() % models.len()];
                        if *name != "huge" && model.as_ref().is_none_or(|model| model.channels() == 2) {
                            engine.swap(model.clone()).unwrap();
                        }
                    }
                    8..14 => client.set_carrier(Some(dice() % 3)),
                    14..60 => stepping = !stepping,
                    _ => {}
                }
                let n = main[0].len();
                expected.extend(
                    (at..at + n).map(|i| if i >= origin + latency { input[i - latency] } else { 0.0 }),
                );
                at += n;
                client.process(main, buses);
                if stepping {
                    engine.run_until_idle();
                }
            });
        assert_eq!(bits(&out.main[0]), bits(&expected), "seed {seed}");
        for (i, main) in out.main[0].iter().enumerate() {
            let [x, y, z] = [0, 1, 2].map(|n| out.stems[n][0][i]);
            assert!(
                x + y + z == *main && z + x + y == *main,
                "seed {seed}, {i}: {x} + {y} + {z} is not {main}"
            );
        }
        assert!(client.status().windows() > 0, "seed {seed}");
    }
}
