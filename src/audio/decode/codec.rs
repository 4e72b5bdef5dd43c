//! Decoders of compressed audio: symphonia's, and our own for Opus.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::audio::{Audio, AudioBuffer, GenericAudioBufferRef};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_OPUS,
    CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64BE_PLANAR,
    CODEC_ID_PCM_F64LE, CODEC_ID_PCM_S32LE,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::Track;

use super::opus::OpusStream;
use super::pcm::sample_from_i32;
use super::{Planar, SourceFormat};

pub(super) enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(OpusStream),
}

/// Why a packet could not be read or decoded.
pub(super) enum PacketError {
    Io(io::Error),
    Data(String),
    Unsupported(String),
    /// Another stream follows in the same file (chained Ogg).
    NextStream,
}

impl From<Symphonia> for PacketError {
    fn from(error: Symphonia) -> Self {
        match error {
            Symphonia::IoError(error) => Self::Io(error),
            Symphonia::Unsupported(what) => Self::Unsupported(what.to_owned()),
            Symphonia::ResetRequired => Self::NextStream,
            error => Self::Data(error.to_string()),
        }
    }
}

impl PacketError {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the file ends in the middle".to_owned()
            }
            Self::Io(error) => error.to_string(),
            Self::Data(what) | Self::Unsupported(what) => what.clone(),
            Self::NextStream => "another stream follows".to_owned(),
        }
    }
}

/// Calls foreign code that reads untrusted bytes. A panic there is reported as a broken file.
pub(super) fn catch_panics<T>(call: impl FnOnce() -> Result<T, PacketError>) -> Result<T, PacketError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(PacketError::Data("the decoder gave up on malformed data".to_owned())))
}

pub(super) fn make_codec(params: &AudioCodecParameters) -> Result<(Codec, String), PacketError> {
    if params.codec == CODEC_ID_OPUS {
        let head = params.extra_data.as_deref().unwrap_or_default();
        let stream = OpusStream::new(head).map_err(PacketError::Data)?;
        return Ok((Codec::Opus(stream), "Opus".to_owned()));
    }
    // The length of an MP3 may be an estimate, or that of the first of several files joined, so trimming is done here.
    let options = AudioDecoderOptions::default().verify(true).gapless(params.codec != CODEC_ID_MP3);
    let decoder =
        catch_panics(|| Ok(symphonia::default::get_codecs().make_audio_decoder(params, &options)?))?;
    let name = codec_name(params.codec, decoder.codec_info().short_name);
    Ok((Codec::Symphonia(decoder), name))
}

/// Samples that the track header states, without the encoder's delay and padding.
pub(super) fn announced_samples(track: &Track, codec: &Codec) -> Option<u64> {
    let samples = track.num_frames?;
    match codec {
        // Ogg counts from the first decoded sample, delay included.
        Codec::Opus(stream) => {
            let start = u64::try_from(track.start_ts.get()).unwrap_or(0);
            Some(samples.saturating_sub(start.saturating_add(stream.pre_skip() as u64)))
        }
        Codec::Symphonia(_) => Some(samples),
    }
}

pub(super) fn sample_format(params: &AudioCodecParameters, lossless: bool) -> SourceFormat {
    if !lossless {
        return SourceFormat::Lossy;
    }
    match params.codec {
        CODEC_ID_PCM_F32LE | CODEC_ID_PCM_F32BE => SourceFormat::Float32,
        CODEC_ID_PCM_F64LE | CODEC_ID_PCM_F64BE => SourceFormat::Float64,
        _ => {
            // ALAC states its bit depth only in the sixth byte of the decoder's configuration, which in old files stands behind
            // two boxes of 12 bytes.
            let cookie = params.extra_data.as_deref().filter(|_| params.codec == CODEC_ID_ALAC);
            let boxes = |bytes: &[u8]| if bytes.get(4..8) == Some(b"frma") { 24 } else { 0 };
            let bits = cookie.and_then(|bytes| bytes.get(boxes(bytes) + 5)).map(|&bits| u32::from(bits));
            let bits = bits.or(params.bits_per_sample).or(params.bits_per_coded_sample);
            SourceFormat::from_int_bits(bits.unwrap_or(32))
        }
    }
}

pub(super) fn codec_name(codec: AudioCodecId, short_name: &str) -> String {
    match short_name {
        _ if is_pcm(codec) => "PCM".to_owned(),
        "vorbis" => "Vorbis".to_owned(),
        name => name.to_ascii_uppercase(),
    }
}

pub(super) fn container_name(short_name: &str) -> String {
    match short_name {
        "wave" => "WAV".to_owned(),
        "isomp4" => "MP4".to_owned(),
        "ogg" => "Ogg".to_owned(),
        "matroska" => "Matroska".to_owned(),
        name => name.to_ascii_uppercase(),
    }
}

/// Appends a decoded buffer. Integers lie in the highest bits of their type, so the division is exact up to
/// 24 bits.
pub(super) fn append(decoded: &GenericAudioBufferRef<'_>, out: &mut Planar) {
    use GenericAudioBufferRef as Buffer;
    fn planes<S: symphonia::core::audio::sample::Sample>(
        buffer: &AudioBuffer<S>,
        out: &mut Planar,
        scale: impl Fn(S) -> f32,
    ) {
        for (index, to) in out.planes_mut().iter_mut().enumerate() {
            to.extend(buffer.plane(index).unwrap_or_default().iter().map(|&sample| scale(sample)));
        }
    }
    match decoded {
        Buffer::U8(buffer) => planes(buffer, out, |s| (f32::from(s) - 128.0) / 128.0),
        Buffer::U16(buffer) => planes(buffer, out, |s| (f32::from(s) - 32_768.0) / 32_768.0),
        Buffer::U24(buffer) => {
            planes(buffer, out, |s| sample_from_i32(((s.inner() as i32) - (1 << 23)) << 8))
        }
        Buffer::U32(buffer) => planes(buffer, out, |s| sample_from_i32((s ^ (1 << 31)) as i32)),
        Buffer::S8(buffer) => planes(buffer, out, |s| f32::from(s) / 128.0),
        Buffer::S16(buffer) => planes(buffer, out, |s| f32::from(s) / 32_768.0),
        Buffer::S24(buffer) => planes(buffer, out, |s| sample_from_i32(s.inner() << 8)),
        Buffer::S32(buffer) => planes(buffer, out, sample_from_i32),
        Buffer::F32(buffer) => planes(buffer, out, |s| s),
        Buffer::F64(buffer) => planes(buffer, out, |s| s as f32),
    }
}

/// Whether the codec is MPEG audio, layers I to III.
pub(super) fn is_mpeg(codec: AudioCodecId) -> bool {
    [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&codec)
}

/// Whether the codec reproduces its input exactly.
pub(super) fn is_lossless(codec: AudioCodecId) -> bool {
    is_pcm(codec) || [CODEC_ID_FLAC, CODEC_ID_ALAC].contains(&codec)
}

fn is_pcm(codec: AudioCodecId) -> bool {
    (CODEC_ID_PCM_S32LE..=CODEC_ID_PCM_F64BE_PLANAR).contains(&codec)
}
