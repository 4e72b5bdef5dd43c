//! A wordless voice: a glottal source through vowel formants, with breath noise and consonants.

use std::f32::consts::TAU;

use super::Stereo;
use super::score::{BARS, Score, hertz};
use super::synth::{Filter, RATE, Saw, add, room, silence};
use crate::dsp::Random;

/// Frequency in Hz and gain of the first four resonances of a, e, i, o, u.
const VOWELS: [[(f32, f32); 4]; 5] = [
    [(800.0, 1.0), (1150.0, 0.63), (2900.0, 0.16), (3900.0, 0.08)],
    [(450.0, 1.0), (1900.0, 0.35), (2700.0, 0.20), (3600.0, 0.10)],
    [(320.0, 1.0), (2300.0, 0.28), (3000.0, 0.22), (3700.0, 0.10)],
    [(450.0, 1.0), (800.0, 0.50), (2830.0, 0.12), (3800.0, 0.06)],
    [(325.0, 1.0), (700.0, 0.30), (2700.0, 0.08), (3800.0, 0.04)],
];
/// Q of the resonances.
const SHARPNESS: [f32; 4] = [7.0, 9.0, 14.0, 16.0];

/// Phrases as beat and length in beats.
const PHRASES: [&[(f32, f32)]; 4] = [
    &[(0.0, 1.0), (1.0, 0.5), (1.5, 1.0), (2.5, 1.3)],
    &[(0.5, 0.5), (1.0, 0.5), (1.5, 0.5), (2.0, 1.8)],
    &[(0.0, 1.5), (1.5, 0.5), (2.0, 0.5), (2.5, 1.3)],
    &[(0.0, 0.75), (0.75, 0.75), (1.5, 0.5), (2.0, 1.0), (3.0, 0.9)],
];

pub fn render(score: &Score, random: &mut Random) -> Stereo {
    let mut track = silence(score.samples());
    let phrases = [random.pick(&PHRASES), random.pick(&PHRASES)];
    let mut degree = score.chord_degree(2, 0);
    let mut previous = hertz(score.melody_note(degree));
    // Two bars of introduction, two of coda.
    for bar in 2..BARS - 2 {
        let phrase = phrases[bar % 2];
        for (n, &(beat, length)) in phrase.iter().enumerate() {
            degree = if n == 0 || n + 1 == phrase.len() {
                nearest(degree, (0..3).map(|which| score.chord_degree(bar, which)))
            } else {
                (degree + random.pick(&[-2, -1, -1, 1, 1, 2])).clamp(-1, 8)
            };
            let pitch = hertz(score.melody_note(degree));
            let note = Note {
                seconds: length * score.beat_seconds(),
                from: previous,
                to: pitch,
                vowel: random.pick(&VOWELS),
                consonant: random.chance(0.6),
            };
            sing(&mut track, score.at(bar, beat), &note, random);
            previous = pitch;
        }
    }
    room(&mut track, 0.3);
    track
}

/// The one of `degrees` that is nearest to `degree`.
fn nearest(degree: i32, degrees: impl Iterator<Item = i32>) -> i32 {
    degrees.min_by_key(|d| (d - degree).abs()).unwrap_or(degree)
}

struct Note {
    seconds: f32,
    /// The voice slides from this pitch, in Hz…
    from: f32,
    /// …to this.
    to: f32,
    vowel: [(f32, f32); 4],
    consonant: bool,
}

fn sing(track: &mut Stereo, at: usize, note: &Note, random: &mut Random) {
    let mut throat = Saw::new(random.unit());
    let mut resonances: [Filter; 4] = Default::default();
    let (mut tilt, mut hiss) = (Filter::default(), Filter::default());
    let samples = (note.seconds * RATE) as usize;
    let sing = |i: usize, random: &mut Random| {
        let time = i as f32 / RATE;
        let slide = (-time / 0.03).exp();
        // Vibrato comes in as the note is held.
        let vibrato = 0.008 * ((time - 0.2) / 0.3).clamp(0.0, 1.0) * (TAU * 5.4 * time).sin();
        let pitch = (note.to + (note.from - note.to) * slide) * (1.0 + vibrato + 0.002 * random.bipolar());
        let source = tilt.next(throat.next(pitch), 1800.0, 0.6).low + 0.03 * random.bipolar();
        let formed: f32 = resonances
            .iter_mut()
            .zip(note.vowel)
            .zip(SHARPNESS)
            .map(|((filter, (hertz, gain)), q)| gain * filter.next(source, hertz, q).band)
            .sum();
        let start = if note.consonant { 0.06 } else { 0.0 };
        let attack = ((time - start) / 0.04).clamp(0.0, 1.0);
        let release = ((note.seconds - time) / 0.07).clamp(0.0, 1.0);
        let breath = if note.consonant && time < 0.09 {
            0.25 * hiss.next(random.bipolar(), 5500.0, 1.5).band * (time / 0.09 * std::f32::consts::PI).sin()
        } else {
            0.0
        };
        0.62 * formed * attack * release + breath
    };
    let mut sing = sing;
    let sound: Vec<f32> = (0..samples).map(|i| sing(i, random)).collect();
    add(track, at, 0.0, sound.into_iter());
}
