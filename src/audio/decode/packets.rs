//! Compressed files: symphonia's demuxers and decoders, with the checks that make silence about damage impossible.

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
use super::pcm::from_i32;
use super::{AudioError, Blocks, Planar, SourceFormat, SourceInfo, Warnings, check_shape};

/// Longest silence put in the place of one broken packet, in samples.
const MAX_CONCEALED: u64 = 1 << 16;
/// Longest silence put in the place of lost pages, in seconds. More is a clock that was set, not a loss.
const MAX_LOST: u64 = 60;
/// Lost samples that are let pass, as some writers round their clocks: a block of Vorbis, and the longest packet of Opus.
const SLACK: u64 = 2048;
const OPUS_SLACK: u64 = 5760;
/// Highest rate at which AAC may be the lower half of HE-AAC.
const HALF_RATE: u32 = 24_000;

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
    /// An announced length is a guess from the bit rate.
    guessed: bool,
    /// Packets carry their position in samples.
    clocked: bool,
    /// Broken pages are left out without a word, and of lost samples so many may be rounding; none elsewhere.
    slack: Option<u64>,
    /// Where the next packet begins by those before it.
    due: Option<i64>,
    /// Samples of silence still to be given for what is lost, and the packet behind it.
    gap: u64,
    late: Option<Packet>,
    /// Samples of one tick of the track's clock, as a fraction.
    tick: (u64, u64),
    /// Samples of encoder delay still to be dropped.
    skip: u64,
    /// Samples at the end that are the encoder's padding where the stream is as long as announced.
    padding: usize,
    /// As many samples, held back until it is known whether more follow.
    held: Planar,
    /// Decoded when the file was opened, to learn the channels.
    first: Planar,
    /// Samples per channel handed out.
    done: u64,
    decoded_any: bool,
    over: bool,
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
        let (edit, fragmented) = match magic.get(4..8) {
            Some(b"ftyp") => {
                (mp4::edit(source.as_mut(), length), mp4::is_fragmented(source.as_mut(), length))
            }
            _ => (None, false),
        };
        let tagged = tells_length(source.as_mut());
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
        let mp3 = params.codec == CODEC_ID_MP3;
        let pcm = (CODEC_ID_PCM_S32LE..=CODEC_ID_PCM_F64BE_PLANAR).contains(&params.codec);
        let slack = if matches!(codec, Codec::Opus(_)) { OPUS_SLACK } else { SLACK };
        let lossless = pcm || [CODEC_ID_FLAC, CODEC_ID_ALAC].contains(&params.codec);
        let container = reader.format_info();
        let mut blocks = Self {
            info: SourceInfo {
                container: container_name(container.short_name),
                codec: codec_name,
                sample_rate: params.sample_rate.unwrap_or(0),
                channels: params.channels.as_ref().map_or(0, |channels| channels.count()),
                // The head of a fragmented file knows of its first fragment at most.
                samples: announced_samples(&track, &codec).filter(|_| !fragmented),
                sample_format: sample_format(&params, lossless),
            },
            indexed: container.format == FORMAT_ID_ISOMP4 && !fragmented,
            guessed: mp3 && !tagged || container.format == FORMAT_ID_ADTS,
            clocked: container.format == FORMAT_ID_FLAC,
            slack: (container.format == FORMAT_ID_OGG).then_some(slack),
            due: None,
            gap: 0,
            late: None,
            reader,
            codec,
            track: track.id,
            path: path.to_path_buf(),
            lossless,
            tick: (1, 1),
            skip: track.delay.filter(|_| mp3).map_or(0, u64::from),
            padding: track.padding.filter(|_| mp3).map_or(0, |padding| padding as usize),
            held: Planar::default(),
            first: Planar::default(),
            done: 0,
            decoded_any: false,
            over: false,
        };
        blocks.apply(edit);
        // The first samples tell channels and rate where the header does not, and whether it told the truth.
        let mut first = Planar::default();
        while first.is_empty() && blocks.advance(&mut first, warnings)? {}
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

    /// Takes encoder delay and padding from an MP4's edit list, for the lossy codecs that have them and no other
    /// way to tell.
    fn apply(&mut self, edit: Option<mp4::Edit>) {
        // Opus has told its delay already.
        let Some(edit) = edit.filter(|_| !self.lossless && !matches!(self.codec, Codec::Opus(_))) else {
            return;
        };
        self.skip = edit.delay;
        let Some(samples) = self.info.samples else { return };
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

    /// Takes away what may be padding, and gives what was taken before.
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

    /// Samples that got lost in front of `packet` in an Ogg file, whose demuxer leaves out broken pages. It learns of a
    /// loss from the end of the page behind it: that page comes early, all others in time.
    fn lost(&mut self, packet: &Packet, slack: u64) -> u64 {
        let at = packet.pts.get();
        let due = self.due.unwrap_or(at);
        let gap = at.saturating_sub(due);
        let most = MAX_LOST * u64::from(self.info.sample_rate);
        let lost = u64::try_from(gap).ok().filter(|&gap| gap > slack && gap <= most && self.decoded_any);
        // Where more is missing, or the clock runs backwards, it was set anew.
        let start = if gap.unsigned_abs() > slack { at } else { due };
        let length = packet.dur.get() + packet.trim_start.get() + packet.trim_end.get();
        self.due = Some(start.saturating_add_unsigned(length));
        lost.unwrap_or(0)
    }

    /// Puts the samples of the next packet into the empty `out`; `false` at the end.
    fn advance(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if self.over {
            return Ok(false);
        }
        if self.gap > 0 {
            // In pieces, as headers claim any rate and number of channels.
            let samples = self.gap.min(MAX_CONCEALED);
            out.append_silence(samples as usize);
            self.gap -= samples;
            self.done += samples;
            return Ok(true);
        }
        let (late, packet) = match self.late.take() {
            Some(packet) => (true, packet),
            None => match self.next_packet()? {
                Ok(packet) => (false, packet),
                Err(trouble) => return self.end(trouble, out, warnings),
            },
        };
        // A demuxer that lost its way skips to the next whole packet without a word. The clock tells.
        if self.clocked && packet.pts.get() != self.done as i64 {
            return Err(self.damaged(format!("the next intact frame is that of sample {}", packet.pts.get())));
        }
        if let Some(slack) = self.slack.filter(|_| !late) {
            let lost = self.lost(&packet, slack);
            if lost > 0 {
                let at = self.done;
                if self.lossless {
                    return Err(self.damaged(format!("{lost} samples are missing")));
                }
                warnings.push(format!(
                    "before sample {at} a part is missing; {lost} samples of silence stand for it"
                ));
                (self.gap, self.late) = (lost, Some(packet));
                return Ok(true);
            }
        }
        match guarded(|| self.decode(&packet, out)) {
            Ok(()) => {
                self.decoded_any = true;
                self.trim(out);
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
                    self.done + self.held.samples() as u64,
                    trouble.text()
                ));
                out.append_silence(samples as usize);
            }
        }
        self.hold_back(out);
        self.done += out.samples() as u64;
        Ok(true)
    }

    /// The next packet of the track, or why there is none: the end, or what a decoder may make the best of.
    fn next_packet(&mut self) -> Result<Result<Packet, Option<Trouble>>, AudioError> {
        loop {
            match guarded(|| Ok(self.reader.next_packet()?)) {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Ok(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Err(None)),
                Err(Trouble::Unsupported(what)) => {
                    return Err(AudioError::Unsupported { path: self.path.clone(), what });
                }
                Err(Trouble::Io(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(AudioError::Read { path: self.path.clone(), source });
                }
                Err(trouble) => return Ok(Err(Some(trouble))),
            }
        }
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

    /// The stream is over, by `trouble` or in good order. Gives what was held back unless it is padding.
    fn end(
        &mut self,
        trouble: Option<Trouble>,
        out: &mut Planar,
        warnings: &mut Warnings,
    ) -> Result<bool, AudioError> {
        self.over = true;
        if self.info.samples != Some(self.done) && !self.held.is_empty() {
            out.reset(self.held.channels());
            out.append(&self.held);
            self.done += out.samples() as u64;
        }
        if let Some(announced) = self.info.samples
            && self.done < announced
            && !(self.guessed && trouble.is_none())
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
        Ok(!out.is_empty())
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

/// Whether the first frame of an MP3 is none, but a tag with the number of frames. Not asked of other files.
fn tells_length(mut source: &mut dyn MediaSource) -> bool {
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

fn make_codec(params: &AudioCodecParameters) -> Result<(Codec, String), Trouble> {
    if params.codec == CODEC_ID_OPUS {
        let head = params.extra_data.as_deref().unwrap_or_default();
        let stream = OpusStream::new(head).map_err(Trouble::Data)?;
        return Ok((Codec::Opus(stream), "Opus".to_owned()));
    }
    // The length of an MP3 may be a guess, or that of the first of several in one file: its ends are trimmed here.
    let options = AudioDecoderOptions::default().verify(true).gapless(params.codec != CODEC_ID_MP3);
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
