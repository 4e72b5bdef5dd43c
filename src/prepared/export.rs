//! Writes prepared stems as WAV files that a host places where the song was.

use std::path::{Path, PathBuf};

use super::block::BLOCK;
use super::entry::{Entry, Part};
use super::error::StoreError;
use crate::audio::{AudioError, AudioWriter, Container, Metadata, Planar, SampleFormat, WriterSpec};
use crate::lossless::grid::ExactGrid;
use crate::separator::stem_position;

/// Longest part of a title in a file name, in characters.
const MAX_TITLE: usize = 100;

/// Why stems were not exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The stems cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The folder cannot be created.
    #[error("{}: the folder cannot be created: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// Not all stems are prepared.
    #[error("only {prepared} of {samples} samples are prepared; finish the preparation first")]
    Incomplete {
        /// Samples whose stems are there.
        prepared: u64,
        /// Samples of the song.
        samples: u64,
    },
}

/// Writes every stem of an entry into `folder` as a 32-bit float WAV file with the song position as `bext` time reference. The files sum to the song bit
/// for bit, unless it was prepared without the lossless modes. They get their names when each is complete. Returns their paths.
///
/// # Errors
/// [`ExportError`].
pub fn export(entry: &mut Entry, folder: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let index = entry.index().clone();
    if !index.is_complete() {
        return Err(ExportError::Incomplete { prepared: index.prepared(), samples: index.samples });
    }
    let failed = |source| ExportError::Folder { path: folder.into(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let spec = WriterSpec {
        container: Container::Wav,
        format: SampleFormat::Float32,
        channels: index.channels,
        sample_rate: index.key.settings.rate,
    };
    let metadata = Metadata::default().spotted_at(index.at.map_or(0, |at| u64::try_from(at).unwrap_or(0)));
    let mut writers = index
        .stems
        .iter()
        .map(|stem| {
            let name = format!("{} ({}).wav", safe_name(&index.title), safe_name(stem));
            AudioWriter::create_with(folder.join(name), spec, &metadata)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // The stem that takes what rounding leaves, as in files of the command line.
    let remainder = stem_position(&index.stems, "other").unwrap_or(index.stems.len() - 1);
    let grid = (index.key.settings.lossless != "off").then(|| ExactGrid::float(remainder));
    for number in 0..index.samples.div_ceil(BLOCK as u64) {
        let mixture = entry.read(Part::Audio, number)?;
        let mut stems = entry.read(Part::Stems, number)?.into_planes();
        for c in 0..index.channels {
            if let Some(grid) = grid {
                let mut views: Vec<&mut [f32]> =
                    stems.iter_mut().skip(c).step_by(index.channels).map(Vec::as_mut_slice).collect();
                grid.quantise(mixture.channel(c), &mut views);
            }
        }
        for (writer, planes) in writers.iter_mut().zip(stems.chunks(index.channels)) {
            writer.write(&Planar::from_equal(planes.to_vec()))?;
        }
    }
    Ok(writers.into_iter().map(AudioWriter::finish).collect::<Result<Vec<_>, _>>()?)
}

/// A name that every file system accepts.
fn safe_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c })
        .take(MAX_TITLE)
        .collect();
    let safe = safe.trim_matches([' ', '.']);
    if safe.is_empty() { "song".into() } else { safe.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Decoder;
    use crate::prepared::entry::NewEntry;
    use crate::prepared::key::{Key, Settings};
    use crate::prepared::store::Store;

    fn new_entry(samples: usize) -> NewEntry {
        let settings = Settings {
            rate: 48_000,
            chunk: 1,
            overlap: 1.0,
            lossless: "spectral".into(),
            precision: "f32".into(),
            tta: false,
            shifts: 1,
            normalize: false,
        };
        NewEntry {
            key: Key { audio: "a".into(), model: "m".into(), settings },
            title: "What/now?".into(),
            model: "M".into(),
            stems: vec!["vocals".into(), "other".into()],
            channels: 2,
            samples: samples as u64,
            at: Some(123_456),
        }
    }

    #[test]
    fn exported_stems_sum_to_the_song_and_carry_its_position() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let samples = BLOCK + 500;
        let mixture =
            Planar::from_equal(vec![(0..samples).map(|i| (i as f32 * 0.37).sin() * 0.7).collect(); 2]);
        let mut writer = store.write(new_entry(samples)).unwrap();
        let part = |share: f32| mixture.channel(0).iter().map(|x| share * x).collect::<Vec<f32>>();
        writer.append(Part::Audio, &mixture).unwrap();
        writer
            .append(Part::Stems, &Planar::from_equal(vec![part(0.3), part(0.3), part(0.6), part(0.6)]))
            .unwrap();
        let out = folder.path().join("out");
        writer.commit().unwrap();
        let mut entry = store.open(writer.id()).unwrap();
        assert!(matches!(export(&mut entry, &out), Err(ExportError::Incomplete { .. })) && !out.exists());
        writer.finish(Part::Audio).unwrap();
        writer.finish(Part::Stems).unwrap();
        writer.commit().unwrap();
        entry.reload().unwrap();
        let files = export(&mut entry, &out).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["What_now_ (vocals).wav", "What_now_ (other).wav"]);
        let mut sum = Planar::zeros(2, samples);
        for file in &files {
            let mut stem = Planar::new(2);
            Decoder::open(file).unwrap().read(samples + 1, &mut stem).unwrap();
            for (sum, stem) in sum.iter_mut().zip(stem.iter()) {
                sum.iter_mut().zip(stem).for_each(|(x, y)| *x += y);
            }
            let bytes = std::fs::read(file).unwrap();
            let bext = bytes.windows(4).position(|word| word == b"bext").unwrap();
            let reference = &bytes[bext + 8 + 338..][..8];
            assert_eq!(u64::from_le_bytes(reference.try_into().unwrap()), 123_456);
        }
        assert!(sum == mixture);
    }
}
