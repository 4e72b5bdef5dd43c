//! Finds the demuxer, the track and the decoder of a compressed file.

use std::io::{self, Read};
use std::path::Path;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

use super::AudioError;
use super::codec::{Codec, PacketError, catch_panics, make_codec};

/// Finds the demuxer of a file.
pub(super) fn probe(
    source: Box<dyn MediaSource>,
    path: &Path,
    magic: &[u8],
) -> Result<Box<dyn FormatReader>, AudioError> {
    let stream = MediaSourceStream::new(source, Default::default());
    let probed = catch_panics(|| {
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        Ok(symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta)?)
    });
    probed.map_err(|error| match error {
        PacketError::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            AudioError::Read { path: path.to_path_buf(), source }
        }
        _ if !is_known(magic) => {
            AudioError::Unrecognised { path: path.to_path_buf(), found: describe(magic) }
        }
        // The probe's message when no reader accepts the file.
        PacketError::Unsupported(what) if what.contains("probe") => AudioError::Header {
            path: path.to_path_buf(),
            what: "it begins like an audio file, what follows is none that can be read".to_owned(),
        },
        PacketError::Unsupported(what) => AudioError::Unsupported { path: path.to_path_buf(), what },
        error => AudioError::Header { path: path.to_path_buf(), what: error.text() },
    })
}

/// The first audio track.
pub(super) fn audio_track(
    reader: &dyn FormatReader,
    path: &Path,
) -> Result<(Track, AudioCodecParameters), AudioError> {
    let track = reader.default_track(TrackType::Audio).or_else(|| reader.first_track(TrackType::Audio));
    let params = track.and_then(|track| track.codec_params.as_ref()?.audio());
    match (track, params) {
        (Some(track), Some(params)) => Ok((track.clone(), params.clone())),
        _ => Err(AudioError::Unsupported {
            path: path.to_path_buf(),
            what: "the file has no audio track that can be read".to_owned(),
        }),
    }
}

pub(super) fn open_codec(params: &AudioCodecParameters, path: &Path) -> Result<(Codec, String), AudioError> {
    make_codec(params).map_err(|error| match error {
        PacketError::Data(what) => AudioError::Header { path: path.to_path_buf(), what },
        error => AudioError::Unsupported {
            path: path.to_path_buf(),
            what: format!("the codec cannot be read ({})", error.text()),
        },
    })
}

/// Position after the ID3v2 tags at the start of the file.
pub(super) fn after_id3v2(source: &mut dyn MediaSource) -> io::Result<u64> {
    let mut at = 0;
    for _ in 0..16 {
        source.seek(io::SeekFrom::Start(at))?;
        let mut head = Vec::new();
        Read::take(&mut *source, 10).read_to_end(&mut head)?;
        match head[..] {
            [b'I', b'D', b'3', _, _, _, a, b, c, d] => {
                at +=
                    10 + [a, b, c, d].into_iter().fold(0, |size, seven| size << 7 | u64::from(seven & 0x7F));
            }
            _ => break,
        }
    }
    Ok(at)
}

/// Whether the first frame of an MP3 is a tag with the number of frames (Xing, Info, VBRI).
pub(super) fn has_length_tag(source: &mut dyn MediaSource, audio_at: u64) -> bool {
    let mut frame = Vec::new();
    let read = source.seek(io::SeekFrom::Start(audio_at));
    read.and_then(|_| Read::take(&mut *source, 4096).read_to_end(&mut frame)).is_ok()
        && frame
            .windows(4)
            .any(|word| [b"Xing", b"Info", b"VBRI"].contains(&word.first_chunk().unwrap_or(b"    ")))
}

/// Whether the first bytes belong to a known container, so that a failure means a broken file, not an unknown format.
fn is_known(magic: &[u8]) -> bool {
    [&b"RIFF"[..], b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b"\x1A\x45\xDF\xA3"]
        .iter()
        .any(|known| magic.starts_with(known))
        || magic.get(4..8) == Some(b"ftyp")
}

fn describe(magic: &[u8]) -> String {
    if magic.iter().all(|byte| (32..127).contains(byte) || b"\t\r\n".contains(byte)) {
        format!("it begins with the text {:?}", String::from_utf8_lossy(magic))
    } else {
        format!("it begins with the bytes {magic:02x?}")
    }
}
