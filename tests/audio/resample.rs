//! Sample-rate conversion against closed forms.

use std::f64::consts::TAU;

use nullsum::audio::{AudioError, Planar, Resampler};
use nullsum::dsp::snr_db;

use crate::make::{Noise, sine};

const PAIRS: [(u32, u32); 7] = [
    (48_000, 44_100),
    (44_100, 48_000),
    (96_000, 44_100),
    (44_100, 192_000),
    (22_050, 44_100),
    (8000, 44_100),
    (44_100, 44_101),
];

fn convert(from: u32, to: u32, input: &Planar, step: usize) -> Planar {
    let mut resampler = Resampler::new(from, to, input.channels()).unwrap();
    let mut out = Planar::new(input.channels());
    let mut at = 0;
    while at < input.samples() {
        let end = input.samples().min(at + step);
        resampler.push(&input.slice(at..end), &mut out).unwrap();
        at = end;
    }
    resampler.finish(&mut out).unwrap();
    out
}

fn plane(samples: Vec<f32>) -> Planar {
    Planar::from_planes(vec![samples]).unwrap()
}

#[test]
fn the_output_has_the_rounded_length_for_every_input_length() {
    for (from, to) in PAIRS {
        // One for all lengths: building the filter is what takes time, and finish starts over.
        let mut resampler = Resampler::new(from, to, 1).unwrap();
        for samples in (0..=100).chain([4095, 4096, 4097, 20_000]) {
            let exact = samples as f64 * f64::from(to) / f64::from(from);
            let mut out = Planar::new(1);
            resampler.push(&Planar::zeros(1, samples), &mut out).unwrap();
            resampler.finish(&mut out).unwrap();
            let found = out.samples();
            assert!((found as f64 - exact).abs() <= 0.5, "{samples} at {from} gave {found} at {to}");
            assert_eq!(found as u64, resampler.output_samples(samples as u64));
        }
    }
}

#[test]
fn equal_rates_pass_through_bit_for_bit() {
    let odd = plane(vec![0.1, f32::NAN, -3.0, f32::MIN_POSITIVE]);
    let out = convert(44_100, 44_100, &odd, 3);
    assert!(out.channel(0).iter().zip(odd.channel(0)).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn block_size_does_not_change_the_result() {
    let mut noise = Noise(7);
    let input = Planar::from_planes(vec![(0..30_000).map(|_| noise.uniform() as f32).collect(); 2]).unwrap();
    let whole = convert(48_000, 44_100, &input, 30_000);
    for step in [1000, 4096, 29_999] {
        assert!(convert(48_000, 44_100, &input, step) == whole, "step {step}");
    }
    // After finish a resampler is as new.
    let mut resampler = Resampler::new(48_000, 44_100, 2).unwrap();
    for _ in 0..2 {
        let mut out = Planar::new(2);
        resampler.push(&input, &mut out).unwrap();
        resampler.finish(&mut out).unwrap();
        assert!(out == whole);
    }
}

#[test]
fn an_impulse_stays_where_it_was() {
    for (from, to) in PAIRS {
        for at in [0, 1000, 20_000] {
            let mut input = vec![0.0; 30_000];
            input[at] = 1.0;
            let out = convert(from, to, &plane(input), 8192);
            let peak = (0..out.samples())
                .max_by(|&a, &b| out.channel(0)[a].abs().total_cmp(&out.channel(0)[b].abs()))
                .unwrap();
            let expected = at as f64 * f64::from(to) / f64::from(from);
            assert!((peak as f64 - expected).abs() <= 0.51, "{from} to {to}: {peak}, expected {expected}");
        }
    }
}

#[test]
fn sines_stay_pure() {
    for (from, to) in PAIRS {
        for hz in [50.0, 997.0, f64::from(from.min(to)) * 0.45] {
            // Rates without a common divisor need a filter of a second, and so a longer middle.
            let seconds_long = from.abs_diff(to) == 1;
            let length = if seconds_long { 180_000 } else { 60_000 };
            let out = convert(from, to, &plane(sine(length, hz, f64::from(from), 0.5)), 8192);
            let expected = sine(out.samples(), hz, f64::from(to), 0.5);
            // The sine is cut off at both ends, which is not a sine.
            let edge = if seconds_long { 50_000 } else { 4096 * to as usize / from as usize + 4096 };
            let middle = edge..out.samples() - edge;
            let snr = snr_db(&expected[middle.clone()], &out.channel(0)[middle]);
            println!("{from} to {to}, {hz} Hz: {snr:.1} dB");
            assert!(snr > 130.0, "{from} to {to}, {hz} Hz: {snr:.1} dB");
        }
    }
}

#[test]
fn frequencies_above_the_slower_nyquist_are_removed() {
    for (from, to, hz) in [(48_000, 44_100, 22_400.0), (96_000, 44_100, 23_000.0), (96_000, 44_100, 40_000.0)]
    {
        let out = convert(from, to, &plane(sine(60_000, hz, f64::from(from), 0.5)), 8192);
        let middle = &out.channel(0)[8192..out.samples() - 8192];
        let peak = middle.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
        let db = 20.0 * (f64::from(peak) / 0.5).max(1e-12).log10();
        println!("{from} to {to}, {hz} Hz: {db:.1} dB left");
        assert!(db < -120.0, "{from} to {to}, {hz} Hz: {db:.1} dB left");
    }
}

#[test]
fn a_round_trip_of_band_limited_noise_is_transparent() {
    // Sines of random phase up to 20 kHz stand for noise.
    let mut noise = Noise(3);
    let parts: Vec<(f64, f64)> =
        (0..150).map(|_| ((noise.uniform() + 1.0) * 10_000.0, noise.uniform() * TAU)).collect();
    let input: Vec<f32> = (0..48_000)
        .map(|n| {
            (parts.iter().map(|(hz, phase)| (TAU * hz * f64::from(n) / 48_000.0 + phase).sin()).sum::<f64>()
                / 60.0) as f32
        })
        .collect();
    let there = convert(48_000, 44_100, &plane(input.clone()), 8192);
    let back = convert(44_100, 48_000, &there, 8192);
    assert_eq!(back.samples(), input.len());
    let snr = snr_db(&input[9000..39_000], &back.channel(0)[9000..39_000]);
    println!("48 to 44.1 to 48 kHz: {snr:.1} dB");
    assert!(snr > 130.0, "{snr:.1} dB");
}

#[test]
fn impossible_conversions_are_refused() {
    for (from, to, channels) in
        [(0, 44_100, 2), (44_100, 0, 2), (44_100, u32::MAX, 2), (48_000, 44_100, 0), (48_000, 44_100, 65)]
    {
        assert!(matches!(Resampler::new(from, to, channels), Err(AudioError::Resample { .. })));
    }
    let mut resampler = Resampler::new(48_000, 44_100, 2).unwrap();
    assert!(resampler.push(&Planar::new(1), &mut Planar::new(2)).is_err());
    assert!(resampler.finish(&mut Planar::new(1)).is_err());
}

#[test]
fn conversions_that_need_gigabytes_are_refused() {
    // No common divisor: blocks of a second and two.
    assert!(Resampler::new(767_999, 44_100, 2).is_ok());
    let error = Resampler::new(767_999, 44_100, 64).err().unwrap();
    assert!(error.to_string().contains("memory"), "{error}");
}
