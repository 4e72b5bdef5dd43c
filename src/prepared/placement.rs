//! Where a track's file lies in a song of which parts were heard, and whether it is that track at all.

use std::io;
use std::ops::Range;

use super::align::{self, Envelope, QUERY};
use super::ranges::Ranges;
use super::recording::RecordedPart;
use crate::audio::Planar;
use crate::offline::song_stems::Song;

/// Places of what was heard that are compared with the file.
const QUERIES: usize = 8;
/// Largest residual between what was heard and the file, in decibels of what was heard.
const MAX_RESIDUAL_DB: f64 = -60.0;
/// Samples read at a time.
const BLOCK: usize = 1 << 15;

/// Why a file cannot take the place of what was heard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// Nothing of what was heard is in the file.
    #[error(
        "this file is not what was heard: none of {heard} seconds that were compared is in it; choose the file of this track, or prepare what was heard"
    )]
    NotFound {
        /// Seconds that were compared.
        heard: usize,
    },
    /// It is in the file, but changed.
    #[error(
        "this file differs from what was heard by {residual_db:.0} dB (expected −60 dB or less): effects or edits come before the plugin; prepare what was heard instead"
    )]
    Different {
        /// The residual after the best gain, in decibels of what was heard.
        residual_db: f64,
    },
    /// Something cannot be read.
    #[error("the recording cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// What was heard at one place, with the place in the file.
struct Found {
    heard: Planar,
    /// Song position of the file's first sample.
    offset: i64,
    /// Position in the file.
    at: i64,
}

/// The song position of the first sample of `file`, from what was heard of the song: to the sample, by correlation. None if not even a second was
/// heard, so that nothing can be compared.
///
/// # Errors
/// [`PlacementError`] if the file is not what was heard.
pub fn place_file(
    file: &mut dyn Song,
    heard: &mut RecordedPart,
    ranges: &Ranges,
) -> Result<Option<i64>, PlacementError> {
    let positions = align::query_positions(ranges, QUERIES);
    if positions.is_empty() {
        return Ok(None);
    }
    let mut envelope = Envelope::default();
    for at in (0..file.samples()).step_by(BLOCK) {
        let count = BLOCK.min((file.samples() - at) as usize);
        envelope.add_planes(&file.read(at, count)?);
    }
    let mut found = Vec::new();
    let mut audible = 0;
    for position in positions {
        let block = heard.read_song(position..position + QUERY as i64)?;
        if block.iter().flatten().all(|x| *x == 0.0) {
            continue;
        }
        audible += 1;
        let query = mono(&block);
        if let Some(at) = align::find(&query, &envelope, &mut |at, count| read_mono(file, at, count))? {
            found.push(Found { heard: block, offset: position - at, at });
        }
    }
    if audible == 0 {
        return Ok(None);
    }
    // A chorus that repeats may be found at another place; the place of most is right.
    let votes = |offset: i64| found.iter().filter(|other| other.offset == offset).count();
    let Some(best) = found.iter().map(|place| place.offset).max_by_key(|offset| votes(*offset)) else {
        return Err(PlacementError::NotFound { heard: audible });
    };
    let mut residuals = Vec::new();
    for place in found.iter().filter(|place| place.offset == best) {
        residuals.push(residual_db(&place.heard, &read_padded(file, place.at, QUERY)?));
    }
    residuals.sort_by(f64::total_cmp);
    let residual_db = residuals.get(residuals.len() / 2).copied().unwrap_or(0.0);
    if residual_db > MAX_RESIDUAL_DB {
        return Err(PlacementError::Different { residual_db });
    }
    Ok(Some(best))
}

impl RecordedPart {
    /// Samples by song position.
    fn read_song(&mut self, range: Range<i64>) -> io::Result<Planar> {
        let count = usize::try_from(range.end - range.start).unwrap_or(0);
        self.read((range.start - self.start()).unsigned_abs(), count)
    }
}

fn mono(block: &Planar) -> Vec<f32> {
    let share = 1.0 / block.channels().max(1) as f32;
    (0..block.samples()).map(|i| share * block.iter().map(|plane| plane[i]).sum::<f32>()).collect()
}

/// Samples of a file, with silence outside it.
fn read_padded(file: &mut dyn Song, at: i64, count: usize) -> io::Result<Planar> {
    let length = i64::try_from(file.samples()).unwrap_or(i64::MAX);
    let (from, to) = (at.clamp(0, length), (at + count as i64).clamp(0, length));
    let mut out = Planar::zeros(file.channels(), (from - at) as usize);
    if to > from {
        out.append(&file.read(from as u64, (to - from) as usize)?);
    }
    out.resize(count);
    Ok(out)
}

fn read_mono(file: &mut dyn Song, at: i64, count: usize) -> io::Result<Vec<f32>> {
    Ok(mono(&read_padded(file, at, count)?))
}

/// What is left of `heard` after the best multiple of `file`, in decibels of `heard`.
fn residual_db(heard: &Planar, file: &Planar) -> f64 {
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    let pairs = || heard.iter().zip(file.iter()).flat_map(|(x, y)| x.iter().zip(y));
    for (x, y) in pairs() {
        let (x, y) = (f64::from(*x), f64::from(*y));
        (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
    }
    let gain = if yy > 0.0 { xy / yy } else { 0.0 };
    let left: f64 = pairs().map(|(x, y)| (f64::from(*x) - gain * f64::from(*y)).powi(2)).sum();
    10.0 * (left.max(1e-30) / xx.max(1e-30)).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared::recording::Recording;

    /// Noise whose loudness changes as in music.
    fn music(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        let mut level = 0.5;
        (0..count)
            .map(|i| {
                if i % 3_000 == 0 {
                    level = 0.05 + (next() + 0.5) * 0.5;
                }
                level * next()
            })
            .collect()
    }

    fn record(parts: &[(i64, &[f32])]) -> Recording {
        let mut recording = Recording::new(&std::env::temp_dir(), 44_100, 1, 1 << 30).unwrap();
        for (at, samples) in parts {
            recording.write(*at, &Planar::from_equal(vec![samples.to_vec()])).unwrap();
        }
        recording
    }

    fn place(file: &[f32], heard: &[(i64, &[f32])]) -> Result<Option<i64>, PlacementError> {
        let file = record(&[(0, file)]);
        let length = file.heard().total() as i64;
        let heard = record(heard);
        let (from, to) = (-1_000_000, 10_000_000);
        place_file(&mut file.part(0..length), &mut heard.part(from..to), heard.heard())
    }

    #[test]
    fn a_file_is_placed_to_the_sample() {
        let song = music(1, 400_000);
        for offset in [0, 1, -77_777, 441_001] {
            let louder: Vec<f32> = song[250_000..340_000].iter().map(|x| 0.7 * x).collect();
            let heard = [(offset + 30_000, &song[30_000..130_000]), (offset + 250_000, &louder[..])];
            assert_eq!(place(&song, &heard).unwrap(), Some(offset));
        }
        assert_eq!(place(&song, &[(0, &song[..1_000])]).unwrap(), None, "too short to tell");
        assert_eq!(place(&song, &[(0, &[0.0; 100_000])]).unwrap(), None, "silence tells nothing");
    }

    #[test]
    fn another_file_and_a_changed_one_are_refused() {
        let (song, other) = (music(1, 400_000), music(2, 400_000));
        let error = place(&other, &[(0, &song[..200_000])]).unwrap_err();
        assert!(matches!(error, PlacementError::NotFound { .. }), "{error}");
        let changed: Vec<f32> = song.iter().zip(music(3, 400_000)).map(|(x, n)| x + 0.02 * n).collect();
        let error = place(&song, &[(0, &changed[..200_000])]).unwrap_err();
        assert!(matches!(error, PlacementError::Different { residual_db } if residual_db > -50.0), "{error}");
    }
}
