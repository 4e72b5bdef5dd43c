//! Offline rendering with the model, at the model's sample rate.

use crate::host::{Buses, HIGH, Host, LOW, Layout, OFFLINE, RENDER, Run, TIER, both};
use crate::play::{Blocks, assert_delayed, assert_finite, difference, play};
use crate::signal::grid;

/// Seconds of music to render: several windows of the embedded model.
const SECONDS: usize = 4;

/// Renders at 44.1 kHz after `prepare`. Returns the aligned output, without the latency.
fn render<H: Host>(layout: Layout, block: usize, prepare: impl FnOnce(&mut H)) -> (Vec<Vec<f32>>, Buses) {
    let mut host = H::create(layout);
    // The lowest load. The results hold in every tier.
    host.set(TIER, HIGH);
    prepare(&mut host);
    host.activate(Run::offline(44100, block));
    let latency = host.latency();
    let music = grid(layout.channels(), SECONDS * 44100);
    let mut input = music.clone();
    input.iter_mut().for_each(|channel| channel.resize(SECONDS * 44100 + latency, 0.0));
    let mut output = play(&mut host, &input, Blocks::Fixed(block));
    assert_finite(H::FORMAT, &output);
    for channel in output.iter_mut().flatten() {
        channel.drain(..latency);
    }
    (music, output)
}

/// Renders with a switch on, in render mode `Offline`.
fn offline_with<H: Host>(host: &mut H, switch: &str) {
    host.set(RENDER, OFFLINE);
    host.set(switch, 1.0);
}

fn rms(signal: &[Vec<f32>]) -> f64 {
    let (sum, count) = signal
        .iter()
        .flatten()
        .fold((0.0, 0usize), |(sum, count), &sample| (sum + f64::from(sample).powi(2), count + 1));
    (sum / count as f64).sqrt()
}

both! {
    fn stem_buses_sum_to_the_main_bus_bit_for_bit<H>() {
        let (music, output) = render::<H>(Layout::Multi, 1024, |host| host.set(RENDER, OFFLINE));
        assert_delayed(H::FORMAT, &music, &output[0], 0);
        let heard = output[1..].iter().filter(|bus| rms(bus) > 1e-4).count();
        assert!(heard >= 2, "{}: {heard} stems are heard: the model did not run", H::FORMAT);
        for order in [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [3, 1, 6, 2, 5, 4]] {
            for (channel, samples) in output[0].iter().enumerate() {
                for (n, main) in samples.iter().copied().enumerate() {
                    let sum = order.iter().fold(0.0, |sum, &bus: &usize| sum + output[bus][channel][n]);
                    assert!(sum == main, "{}: channel {channel}, sample {n}: {sum:e}, main {main:e}", H::FORMAT);
                }
            }
        }
    }

    fn a_muted_stem_is_missing_from_the_mix<H>() {
        let (music, whole) = render::<H>(Layout::Multi, 1024, |host| host.set(RENDER, OFFLINE));
        let (_, muted) = render::<H>(Layout::Multi, 1024, |host| offline_with(host, "Drums Mute"));
        let drums = &whole[2];
        assert!(rms(drums) > 1e-4, "{}: no drums in the music", H::FORMAT);
        let expected: Vec<Vec<f32>> = music
            .iter()
            .zip(drums)
            .map(|(mix, stem)| mix.iter().zip(stem).map(|(mix, stem)| mix - stem).collect())
            .collect();
        assert!(difference(&muted[0], &expected) < 1e-6, "{}: {}", H::FORMAT, difference(&muted[0], &expected));
    }

    fn a_soloed_stem_is_its_bus<H>() {
        let (_, whole) = render::<H>(Layout::Multi, 512, |host| host.set(RENDER, OFFLINE));
        let (_, solo) = render::<H>(Layout::Stereo, 512, |host| offline_with(host, "Bass Solo"));
        assert!(difference(&solo[0], &whole[3]) < 1e-6, "{}: {}", H::FORMAT, difference(&solo[0], &whole[3]));
    }

    fn polarity_and_mix_do_to_the_sound_what_they_say<H>() {
        let (music, whole) = render::<H>(Layout::Multi, 1024, |host| host.set(RENDER, OFFLINE));
        let (_, turned) = render::<H>(Layout::Stereo, 1024, |host| offline_with(host, "Drums Phase"));
        let (_, halved) = render::<H>(Layout::Stereo, 1024, |host| {
            offline_with(host, "Drums Mute");
            host.set("Mix", 0.5);
        });
        for (name, output, share) in [("Phase", turned, 2.0), ("Mix", halved, 0.5)] {
            let expected: Vec<Vec<f32>> = music
                .iter()
                .zip(&whole[2])
                .map(|(mix, stem)| mix.iter().zip(stem).map(|(mix, stem)| mix - share * stem).collect())
                .collect();
            let off = difference(&output[0], &expected);
            assert!(off < 2e-6, "{}: {name}: {off}", H::FORMAT);
        }
    }

    fn rendering_twice_gives_the_same_bits<H>() {
        let mute = |host: &mut H| offline_with(host, "Vocals Mute");
        let (_, first) = render::<H>(Layout::Multi, 512, mute);
        let (_, second) = render::<H>(Layout::Multi, 512, mute);
        assert!(first == second, "{}: differ by {}", H::FORMAT, difference(&first.concat(), &second.concat()));
    }

    fn rendering_announced_by_the_host_alone_is_complete<H>() {
        // Render mode stays `Auto`: what the host announces and how fast it calls decide.
        let low = |host: &mut H| host.set(TIER, LOW);
        let (_, announced) = render::<H>(Layout::Stereo, 512, |host| {
            low(host);
            host.set("Drums Solo", 1.0);
        });
        let (_, forced) = render::<H>(Layout::Stereo, 512, |host| {
            low(host);
            offline_with(host, "Drums Solo");
        });
        assert!(rms(&forced[0]) > 1e-4);
        assert!(announced == forced, "{}: differ by {}", H::FORMAT, difference(&announced[0], &forced[0]));
    }

    fn rendering_does_not_depend_on_the_block_size<H>() {
        let solo = |host: &mut H| offline_with(host, "Drums Solo");
        let (_, small) = render::<H>(Layout::Stereo, 441, solo);
        let (_, large) = render::<H>(Layout::Stereo, 4096, solo);
        assert!(difference(&small[0], &large[0]) < 1e-4, "{}: {}", H::FORMAT, difference(&small[0], &large[0]));
    }
}
