//! Compressed files, through symphonia's demuxers and decoders, with checks that report all damage.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use symphonia::core::audio::{Audio, AudioBuffer, GenericAudioBufferRef};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_PCM_F32BE,
    CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64BE_PLANAR, CODEC_ID_PCM_F64LE,
    CODEC_ID_PCM_S32LE,
};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_OGG};
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::mp4;
use super::opus::OpusStream;
use super::pcm::sample_from_i32;
use super::{AudioError, BlockReader, Planar, SourceFormat, SourceInfo, Warnings, check_shape};

/// Longest silence that replaces one broken packet, in samples.
const MAX_SILENCE_PER_PACKET: u64 = 1 << 16;
/// Longest silence that replaces lost pages, in seconds. A longer gap means that the clock was set, not that data is lost.
const MAX_LOST_SECONDS: u64 = 60;
/// Gaps up to this many samples are ignored, since some writers round timestamps: one Vorbis block, the longest Opus packet.
const GAP_TOLERANCE: u64 = 2048;
const OPUS_GAP_TOLERANCE: u64 = 5760;
/// Highest rate at which AAC may be the lower half of HE-AAC.
const HALF_RATE: u32 = 24_000;

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(OpusStream),
}

/// Why a packet could not be read or decoded.
enum PacketError {
    Io(io::Error),
    Data(String),
    Unsupported(String),
}

impl From<Symphonia> for PacketError {
    fn from(error: Symphonia) -> Self {
        match error {
            Symphonia::IoError(error) => Self::Io(error),
            Symphonia::Unsupported(what) => Self::Unsupported(what.to_owned()),
            Symphonia::ResetRequired => Self::Unsupported("several streams chained in one file".to_owned()),
            error => Self::Data(error.to_string()),
        }
    }
}

impl PacketError {
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

/// Calls foreign code that reads untrusted bytes. A panic there is reported as a broken file.
fn catch_panics<T>(call: impl FnOnce() -> Result<T, PacketError>) -> Result<T, PacketError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(PacketError::Data("the decoder gave up on malformed data".to_owned())))
}

pub(super) struct PacketReader {
    reader: Box<dyn FormatReader>,
    codec: Codec,
    track: u32,
    path: PathBuf,
    info: SourceInfo,
    lossless: bool,
    /// The stated length is exact, so missing samples mean missing bytes.
    length_is_exact: bool,
    /// The stated length is an estimate from the bit rate.
    length_is_estimate: bool,
    /// Packets carry their position in samples, so a gap is an error.
    has_frame_numbers: bool,
    /// For containers whose demuxer skips broken pages silently (Ogg): the gap in samples that may be rounding.
    gap_tolerance: Option<u64>,
    /// Timestamp of the next packet, computed from those before it.
    expected_pts: Option<i64>,
    /// Samples of silence still to be returned for lost data, and the packet after the gap.
    pending_silence: u64,
    deferred_packet: Option<Packet>,
    /// Samples per tick of the track's clock, as a fraction.
    tick: (u64, u64),
    /// Samples of encoder delay still to be dropped.
    skip_start: u64,
    /// Encoder padding at the end in samples, valid if the stream is as long as stated.
    padding: usize,
    /// The last `padding` samples, held back until it is known whether more follow.
    held: Planar,
    /// First block, decoded on opening to find the channel count.
    first: Planar,
    /// Samples per channel returned so far.
    done: u64,
    decoded_any: bool,
    ended: bool,
}

impl PacketReader {
    /// Finds the container and the first audio track, and decodes up to the first samples.
    pub(super) fn open(
        mut source: Box<dyn MediaSource>,
        length: u64,
        path: &Path,
        magic: &[u8],
        warnings: &mut Warnings,
    ) -> Result<Self, AudioError> {
        let unsupported = |what: String| AudioError::Unsupported { path: path.to_path_buf(), what };
        let (edit, fragmented) = match magic.get(4..8) {
            Some(b"ftyp") => {
                (mp4::read_edit(source.as_mut(), length), mp4::is_fragmented(source.as_mut(), length))
            }
            _ => (None, false),
        };
        let tagged = has_length_tag(source.as_mut());
        source.rewind().map_err(|source| AudioError::Read { path: path.to_path_buf(), source })?;
        let stream = MediaSourceStream::new(source, Default::default());
        let reader = catch_panics(|| {
            let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
            Ok(symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta)?)
        })
        .map_err(|error| match error {
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
            PacketError::Unsupported(what) => unsupported(what),
            error => AudioError::Header { path: path.to_path_buf(), what: error.text() },
        })?;
        let track = reader
            .default_track(TrackType::Audio)
            .or_else(|| reader.first_track(TrackType::Audio))
            .cloned()
            .ok_or_else(|| unsupported("the file has no audio track that can be read".to_owned()))?;
        let Some(params) = track.codec_params.as_ref().and_then(|params| params.audio()) else {
            return Err(unsupported("the file has no audio track that can be read".to_owned()));
        };
        let (codec, codec_name) = make_codec(params).map_err(|error| match error {
            PacketError::Data(what) => AudioError::Header { path: path.to_path_buf(), what },
            error => unsupported(format!("the codec cannot be read ({})", error.text())),
        })?;
        let params = match &codec {
            Codec::Symphonia(decoder) => decoder.codec_params().clone(),
            Codec::Opus(_) => params.clone(),
        };
        let mp3 = params.codec == CODEC_ID_MP3;
        let pcm = (CODEC_ID_PCM_S32LE..=CODEC_ID_PCM_F64BE_PLANAR).contains(&params.codec);
        let gap_tolerance = if matches!(codec, Codec::Opus(_)) { OPUS_GAP_TOLERANCE } else { GAP_TOLERANCE };
        let lossless = pcm || [CODEC_ID_FLAC, CODEC_ID_ALAC].contains(&params.codec);
        let container = reader.format_info();
        let mut blocks = Self {
            info: SourceInfo {
                container: container_name(container.short_name),
                codec: codec_name,
                sample_rate: params.sample_rate.unwrap_or(0),
                channels: params.channels.as_ref().map_or(0, |channels| channels.count()),
                // The header of a fragmented file covers its first fragment at most.
                samples: announced_samples(&track, &codec).filter(|_| !fragmented),
                sample_format: sample_format(&params, lossless),
            },
            length_is_exact: container.format == FORMAT_ID_ISOMP4 && !fragmented,
            length_is_estimate: mp3 && !tagged || container.format == FORMAT_ID_ADTS,
            has_frame_numbers: container.format == FORMAT_ID_FLAC,
            gap_tolerance: (container.format == FORMAT_ID_OGG).then_some(gap_tolerance),
            expected_pts: None,
            pending_silence: 0,
            deferred_packet: None,
            reader,
            codec,
            track: track.id,
            path: path.to_path_buf(),
            lossless,
            tick: (1, 1),
            skip_start: track.delay.filter(|_| mp3).map_or(0, u64::from),
            padding: track.padding.filter(|_| mp3).map_or(0, |padding| padding as usize),
            held: Planar::default(),
            first: Planar::default(),
            done: 0,
            decoded_any: false,
            ended: false,
        };
        blocks.apply_edit(edit);
        // The first samples give channels and rate where the header does not, or where it is wrong.
        let mut first = Planar::default();
        while first.is_empty() && blocks.decode_next(&mut first, warnings)? {}
        blocks.first = first;
        check_shape(path, blocks.info.channels, blocks.info.sample_rate)?;
        if params.codec == CODEC_ID_AAC && blocks.info.sample_rate <= HALF_RATE {
            warnings.push(format!(
                "AAC at {} Hz: should it be HE-AAC, its upper half is missing; convert it to WAV or FLAC first",
                blocks.info.sample_rate
            ));
        }
        if let Some(base) = track.time_base {
            let (numer, denom) = (u64::from(base.numer.get()), u64::from(base.denom.get()));
            blocks.tick = (numer * u64::from(blocks.info.sample_rate), denom);
        }
        Ok(blocks)
    }

    /// Takes encoder delay and padding from an MP4's edit list, for lossy codecs that store them nowhere else.
    fn apply_edit(&mut self, edit: Option<mp4::EditList>) {
        // The Opus header states its own delay.
        let Some(edit) = edit.filter(|_| !self.lossless && !matches!(self.codec, Codec::Opus(_))) else {
            return;
        };
        self.skip_start = edit.delay;
        let Some(samples) = self.info.samples else { return };
        let rest = samples.saturating_sub(edit.delay);
        // The packets' own durations are exact to the sample; the edit is so only in units of its clock.
        let kept = if edit.samples > 0 && edit.samples + edit.tolerance < rest { edit.samples } else { rest };
        self.info.samples = Some(kept);
    }

    /// Drops encoder delay and padding from a block that begins at sample `done`.
    fn trim_padding(&mut self, out: &mut Planar) {
        let front = usize::try_from(self.skip_start).unwrap_or(usize::MAX).min(out.samples());
        out.drop_front(front);
        self.skip_start -= front as u64;
        if let (true, Some(total)) = (self.length_is_exact, self.info.samples) {
            out.truncate(usize::try_from(total.saturating_sub(self.done)).unwrap_or(usize::MAX));
        }
    }

    /// Holds back what may be padding and returns what was held back before.
    fn hold_back(&mut self, out: &mut Planar) {
        if self.padding == 0 {
            return;
        }
        if self.held.channels() != out.channels() {
            self.held.reset(out.channels());
        }
        self.held.append(out);
        let count = self.held.samples().saturating_sub(self.padding);
        out.clear();
        out.append_range(&self.held, 0..count);
        self.held.drop_front(count);
    }

    /// Samples lost before `packet` in an Ogg file, whose demuxer skips broken pages. A timestamp later than expected
    /// shows the loss.
    fn lost_samples(&mut self, packet: &Packet, gap_tolerance: u64) -> u64 {
        let at = packet.pts.get();
        let expected_pts = self.expected_pts.unwrap_or(at);
        let gap = at.saturating_sub(expected_pts);
        let most = MAX_LOST_SECONDS * u64::from(self.info.sample_rate);
        let lost =
            u64::try_from(gap).ok().filter(|&gap| gap > gap_tolerance && gap <= most && self.decoded_any);
        // A larger gap, or a clock that runs backwards, means that the clock was set.
        let start = if gap.unsigned_abs() > gap_tolerance { at } else { expected_pts };
        let length = packet.dur.get() + packet.trim_start.get() + packet.trim_end.get();
        self.expected_pts = Some(start.saturating_add_unsigned(length));
        lost.unwrap_or(0)
    }

    /// Puts the samples of the next packet into the empty `out`; `false` at the end.
    fn decode_next(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if self.ended {
            return Ok(false);
        }
        if self.pending_silence > 0 {
            // In pieces, since an untrusted header could ask for any amount.
            let samples = self.pending_silence.min(MAX_SILENCE_PER_PACKET);
            out.append_silence(samples as usize);
            self.pending_silence -= samples;
            self.done += samples;
            return Ok(true);
        }
        let (deferred, packet) = match self.deferred_packet.take() {
            Some(packet) => (true, packet),
            None => match self.next_packet()? {
                Ok(packet) => (false, packet),
                Err(error) => return self.finish_stream(error, out, warnings),
            },
        };
        // A demuxer that loses synchronisation skips silently to the next valid packet. The timestamp shows it.
        if self.has_frame_numbers && packet.pts.get() != self.done as i64 {
            return Err(
                self.damaged_error(format!("the next intact frame is that of sample {}", packet.pts.get()))
            );
        }
        if let Some(gap_tolerance) = self.gap_tolerance.filter(|_| !deferred) {
            let lost = self.lost_samples(&packet, gap_tolerance);
            if lost > 0 {
                let at = self.done;
                if self.lossless {
                    return Err(self.damaged_error(format!("{lost} samples are missing")));
                }
                warnings.push(format!(
                    "before sample {at} a part is missing; {lost} samples of silence stand for it"
                ));
                (self.pending_silence, self.deferred_packet) = (lost, Some(packet));
                return Ok(true);
            }
        }
        match catch_panics(|| self.decode(&packet, out)) {
            Ok(()) => {
                self.decoded_any = true;
                self.trim_padding(out);
            }
            Err(error) if self.lossless => return Err(self.damaged_error(error.text())),
            Err(error) => {
                out.clear();
                let (numer, denom) = self.tick;
                let samples = packet.dur.get().saturating_mul(numer) / denom.max(1);
                // Before the first decoded block, rate and channels are unknown and there is nothing to keep aligned.
                let samples = if self.decoded_any { samples.min(MAX_SILENCE_PER_PACKET) } else { 0 };
                warnings.push(format!(
                    "a packet at sample {} cannot be decoded ({}); {samples} samples of silence stand for it",
                    self.done + self.held.samples() as u64,
                    error.text()
                ));
                out.append_silence(samples as usize);
            }
        }
        self.hold_back(out);
        self.done += out.samples() as u64;
        Ok(true)
    }

    /// The next packet of the track. The inner error is the end of the stream (`None`) or damage that may be concealed.
    fn next_packet(&mut self) -> Result<Result<Packet, Option<PacketError>>, AudioError> {
        loop {
            match catch_panics(|| Ok(self.reader.next_packet()?)) {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Ok(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Err(None)),
                Err(PacketError::Unsupported(what)) => {
                    return Err(AudioError::Unsupported { path: self.path.clone(), what });
                }
                Err(PacketError::Io(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(AudioError::Read { path: self.path.clone(), source });
                }
                Err(error) => return Ok(Err(Some(error))),
            }
        }
    }

    fn decode(&mut self, packet: &Packet, out: &mut Planar) -> Result<(), PacketError> {
        match &mut self.codec {
            Codec::Opus(stream) => {
                if out.channels() == 0 {
                    out.reset(stream.channels());
                }
                let trim_end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                stream.decode(&packet.data, trim_end, out).map_err(PacketError::Data)?;
            }
            Codec::Symphonia(decoder) => {
                let decoded = decoder.decode(packet)?;
                let (rate, channels) = (decoded.spec().rate(), decoded.num_planes());
                if !self.decoded_any {
                    // Headers of lossy files can be wrong about both; the stream counts.
                    (self.info.sample_rate, self.info.channels) = (rate, channels);
                    out.reset(channels);
                }
                if (rate, channels) != (self.info.sample_rate, self.info.channels) {
                    return Err(PacketError::Data(format!(
                        "the stream changes to {channels} channels at {rate} Hz from {} at {} Hz",
                        self.info.channels, self.info.sample_rate
                    )));
                }
                append(&decoded, out);
            }
        }
        Ok(())
    }

    /// Ends the stream, with `error` or normally. Returns the held-back samples unless they are padding.
    fn finish_stream(
        &mut self,
        error: Option<PacketError>,
        out: &mut Planar,
        warnings: &mut Warnings,
    ) -> Result<bool, AudioError> {
        self.ended = true;
        if self.info.samples != Some(self.done) && !self.held.is_empty() {
            out.reset(self.held.channels());
            out.append(&self.held);
            self.done += out.samples() as u64;
        }
        if let Some(announced) = self.info.samples
            && self.done < announced
            && !(self.length_is_estimate && error.is_none())
        {
            let what = match &error {
                Some(error) => error.text(),
                None => "the stream ends".to_owned(),
            };
            let what = format!("{what}, {announced} samples were announced");
            if self.lossless || self.length_is_exact {
                return Err(self.damaged_error(what));
            }
            warnings.push(format!("at sample {}: {what}", self.done));
        } else if let Some(error) = error {
            if self.lossless {
                return Err(self.damaged_error(error.text()));
            }
            warnings.push(format!("at sample {}: {}", self.done, error.text()));
        }
        if !self.decoded_any && warnings.total > 0 {
            return Err(self.damaged_error("not a single packet can be decoded".to_owned()));
        }
        if let Codec::Symphonia(decoder) = &mut self.codec
            && decoder.finalize().verify_ok == Some(false)
        {
            warnings.push("the checksum of the whole file does not fit its samples".to_owned());
        }
        Ok(!out.is_empty())
    }

    fn damaged_error(&self, what: String) -> AudioError {
        AudioError::Damaged {
            path: self.path.clone(),
            at_sample: self.done,
            sample_rate: self.info.sample_rate.max(1),
            what,
        }
    }
}

impl BlockReader for PacketReader {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read_block(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if !self.first.is_empty() {
            out.append(&self.first);
            self.first = Planar::default();
            return Ok(true);
        }
        self.decode_next(out, warnings)
    }
}

/// Whether the first frame of an MP3 is a tag with the number of frames (Xing, Info, VBRI).
fn has_length_tag(mut source: &mut dyn MediaSource) -> bool {
    let mut head = [0; 10];
    let frames = source.rewind().and_then(|()| source.read_exact(&mut head)).map(|()| match head {
        [b'I', b'D', b'3', _, _, _, a, b, c, d] => {
            10 + [a, b, c, d].into_iter().fold(0, |size, seven| size << 7 | u64::from(seven & 0x7F))
        }
        _ => 0,
    });
    let mut frame = Vec::new();
    let read = frames.and_then(|at| source.seek(io::SeekFrom::Start(at)));
    let read = read.and_then(|_| Read::take(&mut source, 4096).read_to_end(&mut frame));
    read.is_ok()
        && frame
            .windows(4)
            .any(|word| [b"Xing", b"Info", b"VBRI"].contains(&word.first_chunk().unwrap_or(b"    ")))
}

fn make_codec(params: &AudioCodecParameters) -> Result<(Codec, String), PacketError> {
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
fn announced_samples(track: &Track, codec: &Codec) -> Option<u64> {
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

fn sample_format(params: &AudioCodecParameters, lossless: bool) -> SourceFormat {
    if !lossless {
        return SourceFormat::Lossy;
    }
    match params.codec {
        CODEC_ID_PCM_F32LE | CODEC_ID_PCM_F32BE => SourceFormat::Float32,
        CODEC_ID_PCM_F64LE | CODEC_ID_PCM_F64BE => SourceFormat::Float64,
        _ => {
            // ALAC states its bit depth only in the sixth byte of the decoder's configuration.
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

/// Whether the first bytes belong to a known container, so that a failure means a broken file, not an unknown format.
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
