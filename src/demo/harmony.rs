//! Chords held by detuned strings, and an arpeggio plucked above them.

use super::Stereo;
use super::score::{BARS, BEATS, Score, hertz};
use super::synth::{Filter, RATE, Saw, add, echo, room, silence};
use crate::dsp::Random;

pub fn render(score: &Score, random: &mut Random) -> Stereo {
    let mut pad = silence(score.samples());
    let mut pluck = silence(score.samples());
    let order = random.pick(&[[0, 1, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0]]);
    let mut bar = 0;
    while bar < BARS {
        let notes = score.chord_notes(bar);
        let seconds = BEATS as f32 * score.beat_seconds() * if bar + 1 == BARS { 0.9 } else { 1.0 };
        for &note in &notes[..3] {
            // Into one octave around middle C, whatever the chord's root.
            let note = 55 + (note - 55).rem_euclid(12);
            for pan in [-0.7, 0.7] {
                let detune = 1.0 + 0.004 * random.bipolar();
                string(&mut pad, score.at(bar, 0.0), seconds, hertz(note) * detune, pan, random);
            }
        }
        let steps = if bar + 1 == BARS { 1 } else { 2 * BEATS };
        for step in 0..steps {
            if step > 0 && random.chance(0.12) {
                continue;
            }
            let note = notes[order[step % 4]] + if step % 8 >= 4 { 24 } else { 12 };
            let pan = if step % 2 == 0 { -0.4 } else { 0.4 };
            string_pluck(&mut pluck, score.at(bar, step as f32 / 2.0), hertz(note), pan, random);
        }
        bar += 1;
    }
    echo(&mut pluck, 0.75 * score.beat_seconds(), 0.35);
    for (track, sound) in pad.iter_mut().flatten().zip(pluck.iter().flatten()) {
        *track += sound;
    }
    room(&mut pad, 0.2);
    pad
}

fn string(track: &mut Stereo, at: usize, seconds: f32, hertz: f32, pan: f32, random: &mut Random) {
    let (mut saw, mut filter) = (Saw::new(random.unit()), Filter::default());
    let samples = ((seconds + 0.25) * RATE) as usize;
    let sound = (0..samples).map(|i| {
        let time = i as f32 / RATE;
        let attack = (time / 0.12).min(1.0);
        let release = ((seconds + 0.25 - time) / 0.3).clamp(0.0, 1.0);
        let cutoff = 900.0 + 500.0 * (time * 1.3).sin();
        0.075 * attack * release * filter.next(saw.next(hertz), cutoff, 0.7).low
    });
    add(track, at, pan, sound);
}

/// A delay line that sounds like a plucked string: noise circulates and is smoothed every time round.
fn string_pluck(track: &mut Stereo, at: usize, hertz: f32, pan: f32, random: &mut Random) {
    let length = (RATE / hertz).max(2.0) as usize;
    let mut line: Vec<f32> = (0..length).map(|_| random.bipolar()).collect();
    let mut last = 0.0;
    let sound = (0..(1.2 * RATE) as usize).map(|i| {
        let place = i % length;
        let out = line[place];
        line[place] = 0.996 * 0.5 * (out + last);
        last = out;
        0.22 * out * (i as f32 / 60.0).min(1.0)
    });
    add(track, at, pan, sound);
}
