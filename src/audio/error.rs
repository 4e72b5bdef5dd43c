//! What can go wrong between a file and samples. Every message names the file, what was expected, what was
//! found, and what to do about it.

use std::io;
use std::path::PathBuf;

/// What helps against an error of writing.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            ", free some space and try again"
        }
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
            "; the file system refuses the name, choose another one"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; check that the folder may be written"
        }
        _ => "",
    }
}

/// An error of the audio layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// File that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a folder or another thing that holds no samples.
    #[error("{} is {kind}, not an audio file; give the path of a file", path.display())]
    NotAFile {
        /// Path that was asked for.
        path: PathBuf,
        /// What is there instead.
        kind: &'static str,
    },
    /// The file has no bytes at all.
    #[error("{} is empty (0 bytes); copy or export it again", path.display())]
    Empty {
        /// The empty file.
        path: PathBuf,
    },
    /// No reader knows the file's first bytes.
    #[error(
        "{} is not an audio file that can be read ({found}); \
         expected WAV, AIFF, FLAC, MP3, Ogg Vorbis, Opus, AAC or ALAC in M4A, Matroska or CAF",
        path.display()
    )]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What its beginning looks like.
        found: String,
    },
    /// A known container with a codec or layout that is not read.
    #[error("{}: {what}; convert it to WAV or FLAC first, for instance with ffmpeg", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The codec or feature.
        what: String,
    },
    /// The header contradicts itself or claims the impossible.
    #[error("{}: broken header: {what}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The field, what was expected, and what was found.
        what: String,
    },
    /// Lossless files of different rates, one after the other in one file.
    #[error(
        "{}: {count} files are joined in this one, with different sample rates ({} Hz, {} Hz); split it into its files first",
        path.display(),
        rates.0,
        rates.1
    )]
    Joined {
        /// The file.
        path: PathBuf,
        /// How many files are joined in it.
        count: usize,
        /// Two of their rates, in Hz.
        rates: (u32, u32),
    },
    /// The file ends before the bytes that its header announces.
    #[error(
        "{} is truncated: the header announces {expected} bytes of samples, {found} are there, \
         {} are missing; copy or export it again",
        path.display(),
        expected - found
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes of samples that the header announces.
        expected: u64,
        /// Bytes of samples that the file holds.
        found: u64,
    },
    /// A compressed stream ends early or breaks in the middle.
    #[error("{}: damaged at sample {at_sample} ({:.3} s): {what}", path.display(), *at_sample as f64 / f64::from(*sample_rate))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Samples per channel decoded before the damage.
        at_sample: u64,
        /// Sample rate, for the time in the message.
        sample_rate: u32,
        /// What the decoder met.
        what: String,
    },
    /// The system failed to deliver bytes of an open file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The requested output cannot exist.
    #[error("cannot write {}: {what}", path.display())]
    Spec {
        /// The output.
        path: PathBuf,
        /// What is wrong, and what to choose instead.
        what: String,
    },
    /// The output file could not be created.
    #[error("cannot create {}: {source}; check that the folder exists and may be written", path.display())]
    Create {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output could not be written to its end, for instance because the disk is full. Nothing stays behind.
    #[error(
        "cannot write {} after {written} samples: {source}; no partial file was left{}",
        path.display(),
        advice(source)
    )]
    Write {
        /// The output.
        path: PathBuf,
        /// Samples per channel accepted before the failure.
        written: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Two sample rates between which no conversion exists.
    #[error("cannot convert from {from} Hz to {to} Hz: {what}")]
    Resample {
        /// Rate of the input, in Hz.
        from: u32,
        /// Rate of the output, in Hz.
        to: u32,
        /// What is wrong.
        what: String,
    },
    /// A block with another number of channels than the stream has.
    #[error("expected a block of {expected} channels, found {found}")]
    Channels {
        /// Channels of the stream.
        expected: usize,
        /// Channels of the block.
        found: usize,
    },
}
