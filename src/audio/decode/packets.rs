//! Compressed files: symphonia's demuxers and decoders, with the checks that make silence about damage impossible.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use symphonia::core::audio::{Audio, AudioBuffer, GenericAudioBufferRef};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_OPUS, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE,
    CODEC_ID_PCM_F64BE_PLANAR, CODEC_ID_PCM_F64LE, CODEC_ID_PCM_S32LE,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{FORMAT_ID_FLAC, FORMAT_ID_ISOMP4};
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::mp4;
use super::opus::OpusStream;
use super::pcm::from_i32;
use super::{AudioError, Blocks, Planar, SourceFormat, SourceInfo, Warnings, check_shape};

/// Longest silence put in the place of one broken packet, in samples.
const MAX_CONCEALED: u64 = 1 << 16;

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(OpusStream),
}

/// Why a packet could not be had or decoded.
enum Trouble {
    Io(io::Error),
    Data(String),
    Unsupported(String),
}

impl From<Symphonia> for Trouble {
    fn from(error: Symphonia) -> Self {
        match error {
            Symphonia::IoError(error) => Self::Io(error),
            Symphonia::Unsupported(what) => Self::Unsupported(what.to_owned()),
            Symphonia::ResetRequired => Self::Unsupported("several streams chained in one file".to_owned()),
            error => Self::Data(error.to_string()),
        }
    }
}

impl Trouble {
    fn text(&self) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the file ends in the middle".to_owned()
            }
            Self::Io(error) => error.to_string(),
            Self::Data(what) | Self::Unsupported(what) => what.clone(),
        }
    }
}

/// Calls foreign code that reads untrusted bytes. Its panics are bugs there, and a broken file to our caller.
fn guarded<T>(call: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Trouble::Data("the decoder gave up on malformed data".to_owned())))
}

pub(super) struct PacketBlocks {
    reader: Box<dyn FormatReader>,
    codec: Codec,
    track: u32,
    path: PathBuf,
    info: SourceInfo,
    lossless: bool,
    /// An announced length is exact, and missing samples are missing bytes.
    indexed: bool,
    /// Packets carry their position in samples.
    clocked: bool,
    /// Samples of one tick of the track's clock, as a fraction.
    tick: (u64, u64),
    /// Samples of encoder delay still to be dropped.
    skip: u64,
    /// Decoded when the file was opened, to learn the channels.
    first: Planar,
    /// Samples per channel handed out.
    done: u64,
    decoded_any: bool,
}

impl PacketBlocks {
    /// Finds the container and the first audio track, and decodes up to the first samples.
    pub(super) fn open(
        mut source: Box<dyn MediaSource>,
        length: u64,
        path: &Path,
        magic: &[u8],
        warnings: &mut Warnings,
    ) -> Result<Self, AudioError> {
        let unsupported = |what: String| AudioError::Unsupported { path: path.to_path_buf(), what };
        let edit = match magic.get(4..8) {
            Some(b"ftyp") => mp4::edit(source.as_mut(), length),
            _ => None,
        };
        source.rewind().map_err(|source| AudioError::Read { path: path.to_path_buf(), source })?;
        let stream = MediaSourceStream::new(source, Default::default());
        let reader = guarded(|| {
            let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
            Ok(symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta)?)
        })
        .map_err(|trouble| match trouble {
            Trouble::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
                AudioError::Read { path: path.to_path_buf(), source }
            }
            _ if !is_known(magic) => {
                AudioError::Unrecognised { path: path.to_path_buf(), found: describe(magic) }
            }
            // The probe's own word for "nothing of what I know".
            Trouble::Unsupported(what) if what.contains("probe") => AudioError::Header {
                path: path.to_path_buf(),
                what: "it begins like an audio file, what follows is none that can be read".to_owned(),
            },
            Trouble::Unsupported(what) => unsupported(what),
            trouble => AudioError::Header { path: path.to_path_buf(), what: trouble.text() },
        })?;
        let track = reader
            .default_track(TrackType::Audio)
            .or_else(|| reader.first_track(TrackType::Audio))
            .cloned()
            .ok_or_else(|| unsupported("the file has no audio track that can be read".to_owned()))?;
        let Some(params) = track.codec_params.as_ref().and_then(|params| params.audio()) else {
            return Err(unsupported("the file has no audio track that can be read".to_owned()));
        };
        let (codec, codec_name) = make_codec(params).map_err(|trouble| match trouble {
            Trouble::Data(what) => AudioError::Header { path: path.to_path_buf(), what },
            trouble => unsupported(format!("the codec cannot be read ({})", trouble.text())),
        })?;
        let params = match &codec {
            Codec::Symphonia(decoder) => decoder.codec_params().clone(),
            Codec::Opus(_) => params.clone(),
        };
        let pcm = (CODEC_ID_PCM_S32LE..=CODEC_ID_PCM_F64BE_PLANAR).contains(&params.codec);
        let lossless = pcm || [CODEC_ID_FLAC, CODEC_ID_ALAC].contains(&params.codec);
        let container = reader.format_info();
        let mut blocks = Self {
            info: SourceInfo {
                container: container_name(container.short_name),
                codec: codec_name,
                sample_rate: params.sample_rate.unwrap_or(0),
                channels: params.channels.as_ref().map_or(0, |channels| channels.count()),
                samples: announced_samples(&track, &codec),
                sample_format: sample_format(&params, lossless),
            },
            indexed: container.format == FORMAT_ID_ISOMP4,
            clocked: container.format == FORMAT_ID_FLAC,
            reader,
            codec,
            track: track.id,
            path: path.to_path_buf(),
            lossless,
            tick: (1, 1),
            skip: 0,
            first: Planar::default(),
            done: 0,
            decoded_any: false,
        };
        blocks.apply(edit);
        // The first samples tell channels and rate where the header does not, and whether it told the truth.
        let mut first = Planar::default();
        while first.is_empty() && blocks.advance(&mut first, warnings)? {}
        blocks.first = first;
        check_shape(path, blocks.info.channels, blocks.info.sample_rate)?;
        if let Some(base) = track.time_base {
            let (numer, denom) = (u64::from(base.numer.get()), u64::from(base.denom.get()));
            blocks.tick = (numer * u64::from(blocks.info.sample_rate), denom);
        }
        Ok(blocks)
    }

    /// Takes encoder delay and padding from an MP4's edit list, for the lossy codecs that have them and no other
    /// way to tell.
    fn apply(&mut self, edit: Option<mp4::Edit>) {
        let (Some(edit), Some(samples)) = (edit, self.info.samples) else { return };
        // Opus has told its delay already.
        if self.lossless || matches!(self.codec, Codec::Opus(_)) {
            return;
        }
        self.skip = edit.delay;
        let rest = samples.saturating_sub(edit.delay);
        // The packets' own durations are exact to the sample; the edit is so only in units of its clock.
        let kept = if edit.samples > 0 && edit.samples + edit.tolerance < rest { edit.samples } else { rest };
        self.info.samples = Some(kept);
    }

    /// Drops encoder delay and padding from a block that begins at sample `done`.
    fn trim(&mut self, out: &mut Planar) {
        let front = usize::try_from(self.skip).unwrap_or(usize::MAX).min(out.samples());
        out.drop_front(front);
        self.skip -= front as u64;
        if let (true, Some(total)) = (self.indexed, self.info.samples) {
            out.truncate(usize::try_from(total.saturating_sub(self.done)).unwrap_or(usize::MAX));
        }
    }

    /// Puts the samples of the next packet into the empty `out`; `false` at the end.
    fn advance(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        let packet = loop {
            match guarded(|| Ok(self.reader.next_packet()?)) {
                Ok(Some(packet)) if packet.track_id == self.track => break packet,
                Ok(Some(_)) => {}
                Ok(None) => return self.end(None, warnings),
                Err(Trouble::Unsupported(what)) => {
                    return Err(AudioError::Unsupported { path: self.path.clone(), what });
                }
                Err(Trouble::Io(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(AudioError::Read { path: self.path.clone(), source });
                }
                Err(trouble) => return self.end(Some(trouble), warnings),
            }
        };
        // A demuxer that lost its way skips to the next whole packet without a word. The clock tells.
        if self.clocked && packet.pts.get() != self.done as i64 {
            return Err(self.damaged(format!("the next intact frame is that of sample {}", packet.pts.get())));
        }
        match guarded(|| self.decode(&packet, out)) {
            Ok(()) => {
                self.decoded_any = true;
                self.trim(out);
                self.done += out.samples() as u64;
            }
            Err(trouble) if self.lossless => return Err(self.damaged(trouble.text())),
            Err(trouble) => {
                out.clear();
                let (numer, denom) = self.tick;
                let samples = packet.dur.get().saturating_mul(numer) / denom.max(1);
                // Before the first sound the rate and channels are not settled, and there is nothing to align.
                let samples = if self.decoded_any { samples.min(MAX_CONCEALED) } else { 0 };
                warnings.push(format!(
                    "a packet at sample {} cannot be decoded ({}); {samples} samples of silence stand for it",
                    self.done,
                    trouble.text()
                ));
                out.append_silence(samples as usize);
                self.done += samples;
            }
        }
        Ok(true)
    }

    fn decode(&mut self, packet: &Packet, out: &mut Planar) -> Result<(), Trouble> {
        match &mut self.codec {
            Codec::Opus(stream) => {
                if out.channels() == 0 {
                    out.reset(stream.channels());
                }
                let trim_end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                stream.decode(&packet.data, trim_end, out).map_err(Trouble::Data)?;
            }
            Codec::Symphonia(decoder) => {
                let decoded = decoder.decode(packet)?;
                let (rate, channels) = (decoded.spec().rate(), decoded.num_planes());
                if !self.decoded_any {
                    // Headers of lossy files can be wrong about both; the stream is what is heard.
                    (self.info.sample_rate, self.info.channels) = (rate, channels);
                    out.reset(channels);
                }
                if (rate, channels) != (self.info.sample_rate, self.info.channels) {
                    return Err(Trouble::Data(format!(
                        "the stream changes to {channels} channels at {rate} Hz from {} at {} Hz",
                        self.info.channels, self.info.sample_rate
                    )));
                }
                append(&decoded, out);
            }
        }
        Ok(())
    }

    /// The stream is over, by `trouble` or in good order.
    fn end(&mut self, trouble: Option<Trouble>, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if let Some(announced) = self.info.samples
            && self.done < announced
        {
            let what = match &trouble {
                Some(trouble) => trouble.text(),
                None => "the stream ends".to_owned(),
            };
            let what = format!("{what}, {announced} samples were announced");
            if self.lossless || self.indexed {
                return Err(self.damaged(what));
            }
            warnings.push(format!("at sample {}: {what}", self.done));
        } else if let Some(trouble) = trouble {
            if self.lossless {
                return Err(self.damaged(trouble.text()));
            }
            warnings.push(format!("at sample {}: {}", self.done, trouble.text()));
        }
        if !self.decoded_any && warnings.total > 0 {
            return Err(self.damaged("not a single packet can be decoded".to_owned()));
        }
        if let Codec::Symphonia(decoder) = &mut self.codec
            && decoder.finalize().verify_ok == Some(false)
        {
            warnings.push("the checksum of the whole file does not fit its samples".to_owned());
        }
        Ok(false)
    }

    fn damaged(&self, what: String) -> AudioError {
        AudioError::Damaged {
            path: self.path.clone(),
            at_sample: self.done,
            sample_rate: self.info.sample_rate.max(1),
            what,
        }
    }
}

impl Blocks for PacketBlocks {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if !self.first.is_empty() {
            out.append(&self.first);
            self.first = Planar::default();
            return Ok(true);
        }
        self.advance(out, warnings)
    }
}

fn make_codec(params: &AudioCodecParameters) -> Result<(Codec, String), Trouble> {
    if params.codec == CODEC_ID_OPUS {
        let head = params.extra_data.as_deref().unwrap_or_default();
        let stream = OpusStream::new(head).map_err(Trouble::Data)?;
        return Ok((Codec::Opus(stream), "Opus".to_owned()));
    }
    let options = AudioDecoderOptions::default().verify(true);
    let decoder = guarded(|| Ok(symphonia::default::get_codecs().make_audio_decoder(params, &options)?))?;
    let name = codec_name(params.codec, decoder.codec_info().short_name);
    Ok((Codec::Symphonia(decoder), name))
}

/// Samples that the track announces, without the encoder's delay and padding.
fn announced_samples(track: &Track, codec: &Codec) -> Option<u64> {
    let samples = track.num_frames?;
    match codec {
        // Ogg counts from the first decoded sample on, delay included.
        Codec::Opus(stream) => {
            let start = u64::try_from(track.start_ts.get()).unwrap_or(0);
            Some(samples.saturating_sub(start.saturating_add(stream.pre_skip() as u64)))
        }
        Codec::Symphonia(_) => Some(samples),
    }
}

fn sample_format(params: &AudioCodecParameters, lossless: bool) -> SourceFormat {
    if !lossless {
        return SourceFormat::Lossy;
    }
    match params.codec {
        CODEC_ID_PCM_F32LE | CODEC_ID_PCM_F32BE => SourceFormat::Float32,
        CODEC_ID_PCM_F64LE | CODEC_ID_PCM_F64BE => SourceFormat::Float64,
        _ => {
            // ALAC tells its depth only in the decoder's configuration, at its sixth byte.
            let cookie = params.extra_data.as_deref().filter(|_| params.codec == CODEC_ID_ALAC);
            let bits = cookie.and_then(|bytes| bytes.get(5)).map(|&bits| u32::from(bits));
            let bits = bits.or(params.bits_per_sample).or(params.bits_per_coded_sample);
            SourceFormat::from_int_bits(bits.unwrap_or(32))
        }
    }
}

fn codec_name(codec: AudioCodecId, short_name: &str) -> String {
    match short_name {
        _ if (CODEC_ID_PCM_S32LE..=CODEC_ID_PCM_F64BE_PLANAR).contains(&codec) => "PCM".to_owned(),
        "vorbis" => "Vorbis".to_owned(),
        name => name.to_ascii_uppercase(),
    }
}

fn container_name(short_name: &str) -> String {
    match short_name {
        "wave" => "WAV".to_owned(),
        "isomp4" => "MP4".to_owned(),
        "ogg" => "Ogg".to_owned(),
        name => name.to_ascii_uppercase(),
    }
}

/// Appends a decoded buffer. Integers lie in the highest bits of their type, so the division is exact up to
/// 24 bits.
fn append(decoded: &GenericAudioBufferRef<'_>, out: &mut Planar) {
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
        Buffer::U24(buffer) => planes(buffer, out, |s| from_i32(((s.inner() as i32) - (1 << 23)) << 8)),
        Buffer::U32(buffer) => planes(buffer, out, |s| from_i32((s ^ (1 << 31)) as i32)),
        Buffer::S8(buffer) => planes(buffer, out, |s| f32::from(s) / 128.0),
        Buffer::S16(buffer) => planes(buffer, out, |s| f32::from(s) / 32_768.0),
        Buffer::S24(buffer) => planes(buffer, out, |s| from_i32(s.inner() << 8)),
        Buffer::S32(buffer) => planes(buffer, out, from_i32),
        Buffer::F32(buffer) => planes(buffer, out, |s| s),
        Buffer::F64(buffer) => planes(buffer, out, |s| s as f32),
    }
}

/// Whether the first bytes promise a container, so that a failure means a broken file, not a foreign one.
fn is_known(magic: &[u8]) -> bool {
    [&b"RIFF"[..], b"FORM", b"fLaC", b"OggS", b"ID3"].iter().any(|known| magic.starts_with(known))
        || magic.get(4..8) == Some(b"ftyp")
}

fn describe(magic: &[u8]) -> String {
    if magic.iter().all(|byte| (32..127).contains(byte) || b"\t\r\n".contains(byte)) {
        format!("it begins with the text {:?}", String::from_utf8_lossy(magic))
    } else {
        format!("it begins with the bytes {magic:02x?}")
    }
}
