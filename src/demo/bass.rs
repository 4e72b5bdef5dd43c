//! A bass that follows the chords' roots.

use std::f32::consts::TAU;

use super::Stereo;
use super::score::{BARS, Score, hertz};
use super::synth::{Filter, RATE, Saw, add, decay, silence};
use crate::dsp::Random;

/// Rhythms as beat and length in beats.
const RHYTHMS: [&[(f32, f32)]; 3] = [
    &[(0.0, 0.9), (1.5, 0.4), (2.0, 0.9), (3.0, 0.4), (3.5, 0.4)],
    &[(0.0, 0.45), (0.5, 0.45), (1.0, 0.45), (1.5, 0.45), (2.0, 0.45), (2.5, 0.45), (3.0, 0.45), (3.5, 0.45)],
    &[(0.0, 1.4), (1.5, 0.9), (2.5, 0.45), (3.0, 0.9)],
];

pub fn render(score: &Score, random: &mut Random) -> Stereo {
    let mut track = silence(score.samples());
    let rhythm = random.pick(&RHYTHMS);
    for bar in 0..BARS {
        let [root, _, fifth, _] = score.chord_notes(bar).map(|note| note - 12);
        if bar + 1 == BARS {
            pluck(&mut track, score.at(bar, 0.0), 3.5 * score.beat_seconds(), root);
            break;
        }
        for (n, &(beat, length)) in rhythm.iter().enumerate() {
            let note = match n {
                0 => root,
                _ if n + 1 == rhythm.len() && random.chance(0.4) => fifth - 12 * i32::from(fifth > root + 6),
                _ if random.chance(0.15) => root + 12,
                _ => root,
            };
            pluck(&mut track, score.at(bar, beat), length * score.beat_seconds(), note);
        }
    }
    track
}

fn pluck(track: &mut Stereo, at: usize, seconds: f32, note: i32) {
    let hertz = hertz(if note < 33 { note + 12 } else { note });
    let (mut saw, mut filter, mut phase) = (Saw::default(), Filter::default(), 0.0f32);
    let samples = (seconds * RATE) as usize;
    let sound = (0..samples).map(|i| {
        phase = (phase + hertz / RATE).fract();
        let tone = filter.next(saw.next(hertz), 180.0 + 1500.0 * decay(i, 0.35), 1.1).low;
        let attack = (i as f32 / 120.0).min(1.0);
        let release = ((samples - i) as f32 / 700.0).min(1.0);
        attack * release * (0.3 + 0.7 * decay(i, 2.2)) * (0.34 * tone + 0.42 * (phase * TAU).sin())
    });
    add(track, at, 0.0, sound);
}
