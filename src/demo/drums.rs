//! Kick, snare, hats, a crash, and fills.

use std::f32::consts::TAU;

use super::Stereo;
use super::score::{BARS, Score};
use super::synth::{Filter, RATE, add, decay, room, silence};
use crate::dsp::Random;

/// Kick patterns in eighths of a bar.
const KICKS: [&[f32]; 4] = [&[0.0, 2.5], &[0.0, 1.5, 2.0], &[0.0, 1.75, 2.5], &[0.0, 1.0, 2.0, 3.0]];

pub fn render(score: &Score, random: &mut Random) -> Stereo {
    let mut kit = silence(score.samples());
    let mut snares = silence(score.samples());
    let pattern = random.pick(&KICKS);
    let sixteenths = random.chance(0.5);
    for bar in 0..BARS {
        let last = bar + 1 == BARS;
        for &beat in pattern {
            kick(&mut kit, score.at(bar, beat), 1.0);
            if last {
                break;
            }
        }
        if last {
            break;
        }
        let fill = bar % 4 == 3;
        for beat in [1.0, 3.0] {
            snare(&mut snares, score.at(bar, beat), 0.9, random);
        }
        if fill {
            for (n, beat) in [3.25, 3.5, 3.75].into_iter().enumerate() {
                snare(&mut snares, score.at(bar, beat), 0.45 + 0.12 * n as f32, random);
            }
        } else if random.chance(0.5) {
            snare(&mut snares, score.at(bar, random.pick(&[1.75, 2.25, 3.75])), 0.18, random);
        }
        let steps = if sixteenths { 16 } else { 8 };
        for step in 0..steps {
            let beat = step as f32 * 4.0 / steps as f32;
            let accent = if beat.fract() == 0.0 { 0.30 } else { 0.18 };
            let open = fill && step + 1 == steps || step == steps - steps / 8 && random.chance(0.3);
            hat(&mut kit, score.at(bar, beat), accent * random.range(0.8, 1.1), open, random);
        }
    }
    for bar in [0, 4, 8, BARS - 1] {
        crash(&mut kit, score.at(bar, 0.0), random);
    }
    room(&mut snares, 0.25);
    for (track, snare) in kit.iter_mut().flatten().zip(snares.iter().flatten()) {
        *track += snare;
    }
    kit
}

fn kick(track: &mut Stereo, at: usize, gain: f32) {
    let mut phase = 0.0f32;
    let sound = (0..(0.45 * RATE) as usize).map(|i| {
        let hertz = 48.0 + 130.0 * decay(i, 0.12);
        phase = (phase + hertz / RATE).fract();
        let click = if i < 180 { 0.3 * decay(i, 0.004) } else { 0.0 };
        gain * ((phase * TAU).sin() * decay(i, 0.45) + click)
    });
    add(track, at, 0.0, sound);
}

fn snare(track: &mut Stereo, at: usize, gain: f32, random: &mut Random) {
    let (mut body, mut rattle) = (0.0f32, Filter::default());
    let tone = random.range(178.0, 190.0);
    let sound = (0..(0.35 * RATE) as usize).map(|i| {
        body = (body + (tone + 40.0 * decay(i, 0.05)) / RATE).fract();
        let noise = rattle.next(random.bipolar(), 2600.0, 0.6);
        gain * (0.55 * (body * TAU).sin() * decay(i, 0.16) + 0.5 * (noise.band + noise.high) * decay(i, 0.24))
    });
    add(track, at, 0.05, sound);
}

fn hat(track: &mut Stereo, at: usize, gain: f32, open: bool, random: &mut Random) {
    let mut filter = Filter::default();
    let length = if open { 0.45 } else { 0.07 };
    let sound = (0..(length * RATE) as usize)
        .map(|i| gain * filter.next(random.bipolar(), 8200.0, 0.9).high * decay(i, length));
    add(track, at, 0.3, sound);
}

fn crash(track: &mut Stereo, at: usize, random: &mut Random) {
    for pan in [-0.6, 0.5] {
        let mut filter = Filter::default();
        let sound = (0..(1.8 * RATE) as usize)
            .map(|i| 0.2 * filter.next(random.bipolar(), 5200.0, 0.7).high * decay(i, 1.8));
        add(track, at, pan, sound);
    }
}
