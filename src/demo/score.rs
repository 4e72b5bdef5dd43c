//! The score: tempo, key, chords, form.

use super::SAMPLE_RATE;
use crate::dsp::Random;

/// Bars of the piece.
pub const BARS: usize = 12;
/// Beats of a bar.
pub const BEATS: usize = 4;
/// The last bar rings out.
const TAIL_SECONDS: f32 = 1.0;

/// Chord progressions as degrees of the scale, one a bar.
const PROGRESSIONS: [[usize; 4]; 5] = [[0, 5, 2, 6], [0, 3, 5, 4], [5, 3, 0, 4], [0, 4, 5, 3], [0, 6, 5, 6]];
/// Semitones of the scales: natural minor and major.
const SCALES: [[i32; 7]; 2] = [[0, 2, 3, 5, 7, 8, 10], [0, 2, 4, 5, 7, 9, 11]];

/// The score of a piece.
pub struct Score {
    /// Beats per minute.
    pub tempo: f32,
    /// MIDI number of the key's first note, in the octave below middle C.
    root: i32,
    scale: [i32; 7],
    progression: [usize; 4],
    second: [usize; 4],
}

impl Score {
    pub fn new(random: &mut Random) -> Self {
        Self {
            tempo: random.range(104.0, 124.0).round(),
            root: 48 + (random.unit() * 12.0) as i32 - 5,
            scale: random.pick(&SCALES),
            progression: random.pick(&PROGRESSIONS),
            second: random.pick(&PROGRESSIONS),
        }
    }

    /// Samples of the whole piece.
    pub fn samples(&self) -> usize {
        self.at(BARS, 0.0) + (TAIL_SECONDS * SAMPLE_RATE as f32) as usize
    }

    /// The sample at `beat` of `bar`.
    pub fn at(&self, bar: usize, beat: f32) -> usize {
        (((bar * BEATS) as f32 + beat) * self.beat_seconds() * SAMPLE_RATE as f32) as usize
    }

    /// Seconds of a beat.
    pub fn beat_seconds(&self) -> f32 {
        60.0 / self.tempo
    }

    /// Degree of the chord of `bar`.
    fn chord(&self, bar: usize) -> usize {
        match bar {
            _ if bar + 1 >= BARS => 0,
            4..8 => self.second[bar % 4],
            _ => self.progression[bar % 4],
        }
    }

    /// MIDI number of a note of the scale, `degree` steps above the root, which may be beyond an octave either way.
    fn note(&self, degree: i32) -> i32 {
        self.root + 12 * degree.div_euclid(7) + self.scale[degree.rem_euclid(7) as usize]
    }

    /// Notes of the chord of `bar`: root, third, fifth, seventh.
    pub fn chord_notes(&self, bar: usize) -> [i32; 4] {
        let chord = self.chord(bar) as i32;
        [0, 2, 4, 6].map(|step| self.note(chord + step))
    }

    /// Degree of a note of the chord of `bar`, for melodies: 0 is its root, 1 its third, 2 its fifth.
    pub fn chord_degree(&self, bar: usize, which: usize) -> i32 {
        // Folded into one octave, so that a melody need not leap with the chords.
        (self.chord(bar) as i32 + 2 * which as i32).rem_euclid(7)
    }

    /// MIDI number of a melody's note.
    pub fn melody_note(&self, degree: i32) -> i32 {
        self.note(degree) + 12
    }
}

/// Frequency of a MIDI number in Hz.
pub fn hertz(note: i32) -> f32 {
    440.0 * ((note - 69) as f32 / 12.0).exp2()
}
