//! Compressed files, through symphonia's demuxers and decoders, with checks that report all damage.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_MP3};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MKV, FORMAT_ID_OGG,
};
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::Timestamp;

use super::codec::{
    Codec, PacketError, announced_samples, append, catch_panics, container_name, is_lossless, make_codec,
    sample_format,
};
use super::conform::Conformer;
use super::mp4::{self, Playback};
use super::mpeg::{self, MixedFormat};
use super::timeline::{Step, Timeline};
use super::{AudioError, BlockReader, Planar, SourceInfo, Warnings, check_shape};

/// Longest silence in one block, in samples.
const MAX_SILENCE_PER_BLOCK: u64 = 1 << 16;
/// Longest silence that replaces lost pages, in seconds. A longer gap means that the clock was set, not that data is lost.
const MAX_LOST_SECONDS: u64 = 60;
/// Gaps up to this many samples are ignored, since some writers round timestamps: one Vorbis block, the longest Opus packet.
const GAP_TOLERANCE: u64 = 2048;
const OPUS_GAP_TOLERANCE: u64 = 5760;
/// Highest rate at which AAC may be the lower half of HE-AAC.
const HALF_RATE: u32 = 24_000;
/// Samples decoded before the target of a seek, since AAC blocks overlap.
const SEEK_PREROLL: u64 = 4096;

pub(super) struct PacketReader {
    reader: Box<dyn FormatReader>,
    codec: Codec,
    track: u32,
    path: PathBuf,
    info: SourceInfo,
    lossless: bool,
    /// The stated length is exact, so missing samples mean missing bytes.
    length_is_exact: bool,
    /// The stated length is an estimate.
    length_is_estimate: bool,
    /// Packets carry their position in samples, so a gap is an error.
    has_frame_numbers: bool,
    /// For containers whose demuxer skips broken pages silently (Ogg): the gap in samples that may be rounding.
    gap_tolerance: Option<u64>,
    /// Timestamp of the next packet, computed from those before it.
    expected_pts: Option<i64>,
    /// Samples of silence still to be decoded in place of lost data, and the packet after the gap.
    lost_silence: u64,
    deferred_packet: Option<Packet>,
    /// Samples per tick of the track's clock, as a fraction.
    tick: (u64, u64),
    conformer: Option<Conformer>,
    /// Samples decoded so far, before any trimming.
    decoded: u64,
    decoded_any: bool,
    /// Format of the last MP3 frame.
    mpeg_format: Option<(u8, u8, bool)>,
    /// A block decoded on opening to find the format of the stream.
    peeked: Option<Planar>,

    /// The parts of the track that are played (MP4).
    timeline: Option<Timeline>,
    /// Samples of silence still to be inserted by the timeline.
    inserted_silence: u64,
    /// Samples of encoder delay still to be dropped (MP3).
    skip_start: u64,
    /// Encoder padding at the end in samples, valid if the stream is as long as stated (MP3).
    padding: usize,
    /// The last `padding` samples, held back until it is known whether more follow.
    held: Planar,
    /// Samples per channel returned so far.
    done: u64,
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
        let read_error = |source| AudioError::Read { path: path.to_path_buf(), source };
        let is_mp4 = magic.get(4..8) == Some(b"ftyp");
        let playback = is_mp4.then(|| mp4::read_playback(source.as_mut(), length)).flatten();
        let fragmented = is_mp4 && mp4::is_fragmented(source.as_mut(), length);
        let audio_at = after_id3v2(source.as_mut()).map_err(read_error)?;
        let tagged = has_length_tag(source.as_mut(), audio_at);
        let mixed = match is_mp4 {
            true => None,
            false => mpeg::mixed_format(source.as_mut(), audio_at).map_err(read_error)?,
        };
        source.rewind().map_err(read_error)?;
        let reader = probe(source, path, magic)?;
        let (track, params) = audio_track(reader.as_ref(), path)?;
        let (codec, codec_name) = open_codec(&params, path)?;
        let params = match &codec {
            Codec::Symphonia(decoder) => decoder.codec_params().clone(),
            Codec::Opus(_) => params,
        };
        let is_mp3 = params.codec == CODEC_ID_MP3;
        let mixed = mixed.filter(|_| is_mp3);
        let lossless = is_lossless(params.codec);
        let gap_tolerance = if matches!(codec, Codec::Opus(_)) { OPUS_GAP_TOLERANCE } else { GAP_TOLERANCE };
        let container = reader.format_info();
        let mut packets = Self {
            info: SourceInfo {
                container: container_name(container.short_name),
                codec: codec_name,
                sample_rate: params.sample_rate.unwrap_or(0),
                channels: params.channels.as_ref().map_or(0, |channels| channels.count()),
                // The header of a fragmented file covers its first fragment at most.
                samples: announced_samples(&track, &codec).filter(|_| !fragmented),
                sample_format: sample_format(&params, lossless),
            },
            length_is_exact: container.format == FORMAT_ID_ISOMP4
                && !fragmented
                && track.num_frames.is_some(),
            length_is_estimate: is_mp3 && !tagged
                || [FORMAT_ID_ADTS, FORMAT_ID_MKV].contains(&container.format)
                || mixed.is_some(),
            has_frame_numbers: container.format == FORMAT_ID_FLAC,
            gap_tolerance: (container.format == FORMAT_ID_OGG).then_some(gap_tolerance),
            expected_pts: None,
            lost_silence: 0,
            deferred_packet: None,
            reader,
            codec,
            track: track.id,
            path: path.to_path_buf(),
            lossless,
            tick: (1, 1),
            conformer: None,
            decoded: 0,
            decoded_any: false,
            mpeg_format: None,
            peeked: None,
            timeline: None,
            inserted_silence: 0,
            skip_start: track.delay.filter(|_| is_mp3).map_or(0, u64::from),
            padding: track.padding.filter(|_| is_mp3).map_or(0, |padding| padding as usize),
            held: Planar::default(),
            done: 0,
            ended: false,
        };
        packets.start(mixed, warnings)?;
        if params.codec == CODEC_ID_AAC && packets.info.sample_rate <= HALF_RATE {
            warnings.push(format!(
                "AAC at {} Hz: should it be HE-AAC, its upper half is missing; convert it to WAV or FLAC first",
                packets.info.sample_rate
            ));
        }
        packets.set_clock(&track);
        if let Some(playback) = playback {
            packets.set_timeline(&playback, &track, fragmented);
        }
        Ok(packets)
    }

    /// Decodes the first samples, which give channels and rate where the header does not, or where it is wrong.
    fn start(&mut self, mixed: Option<MixedFormat>, warnings: &mut Warnings) -> Result<(), AudioError> {
        if let Some(MixedFormat { channels, sample_rate, samples }) = mixed {
            (self.info.channels, self.info.sample_rate) = (channels, sample_rate);
            self.info.samples = Some(samples.saturating_sub(self.skip_start + self.padding as u64));
            self.conformer = Some(Conformer::new(channels, sample_rate));
        }
        let mut first = Planar::default();
        while first.is_empty() && self.decode_packet(&mut first, warnings)? {}
        check_shape(&self.path, self.info.channels, self.info.sample_rate)?;
        self.peeked = Some(first);
        Ok(())
    }

    fn set_clock(&mut self, track: &Track) {
        if let Some(base) = track.time_base {
            let (numer, denom) = (u64::from(base.numer.get()), u64::from(base.denom.get()));
            self.tick = (numer * u64::from(self.info.sample_rate), denom);
        }
    }

    /// Applies an edit list or gapless tag of an MP4.
    fn set_timeline(&mut self, playback: &Playback, track: &Track, fragmented: bool) {
        let ticks = track.num_frames.or(track.duration.map(|duration| duration.get()));
        let media = ticks.filter(|_| !fragmented).map(|ticks| self.samples_of(ticks));
        let Some(timeline) = Timeline::new(playback, self.info.sample_rate, media) else { return };
        if let Codec::Opus(stream) = &mut self.codec
            && let Some(peeked) = &mut self.peeked
        {
            // The edit list covers the delay that the Opus header states too.
            let dropped = stream.keep_delay();
            let silence = Planar::zeros(peeked.channels(), dropped);
            let decoded = std::mem::replace(peeked, silence);
            peeked.append(&decoded);
        }
        self.info.samples = timeline.total().filter(|_| media.is_some());
        self.timeline = Some(timeline);
    }

    /// Samples that so many ticks of the track's clock last.
    fn samples_of(&self, ticks: u64) -> u64 {
        let (numer, denom) = self.tick;
        u64::try_from(u128::from(ticks) * u128::from(numer) / u128::from(denom.max(1))).unwrap_or(u64::MAX)
    }

    /// Drops encoder delay from a block that begins at sample `done`, and what lies past the end.
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

    /// Puts the next samples that are played into the empty `out`; `false` at the end.
    fn next_played(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if self.ended {
            return Ok(false);
        }
        if self.inserted_silence > 0 {
            append_silence(&mut self.inserted_silence, self.info.channels, out);
            self.done += out.samples() as u64;
            return Ok(true);
        }
        match self.timeline.as_mut().map(Timeline::next_step) {
            None | Some(Step::Decode) => {}
            Some(Step::Silence(samples)) => {
                self.inserted_silence = samples;
                return Ok(true);
            }
            Some(Step::CutAgain) => {
                if let Some(timeline) = &mut self.timeline {
                    timeline.cut_again(out);
                }
                self.done += out.samples() as u64;
                return Ok(true);
            }
            Some(Step::Seek(to)) => return self.seek(to).map(|()| true),
            Some(Step::End) => {
                self.ended = true;
                return Ok(false);
            }
        }
        match self.peeked.take() {
            Some(first) => *out = first,
            None if self.decode_packet(out, warnings)? => {}
            // An error has ended the stream already.
            None if self.ended => return Ok(false),
            None => return self.finish(None, out, warnings),
        }
        if self.ended {
            // The stream ended within this call; what is in `out` is its rest.
            return Ok(!out.is_empty());
        }
        match &mut self.timeline {
            Some(timeline) if out.channels() > 0 => timeline.cut_next(out),
            _ => {}
        }
        self.trim_padding(out);
        self.hold_back(out);
        self.done += out.samples() as u64;
        Ok(true)
    }

    /// Continues decoding at sample `to` of the track, for an edit list that goes back.
    fn seek(&mut self, to: u64) -> Result<(), AudioError> {
        let (numer, denom) = self.tick;
        let ticks =
            u128::from(to.saturating_sub(SEEK_PREROLL)) * u128::from(denom) / u128::from(numer.max(1));
        let ts = Timestamp::from(i64::try_from(ticks).unwrap_or(i64::MAX));
        let (reader, track_id) = (&mut self.reader, self.track);
        let target = SeekTo::Timestamp { ts, track_id };
        let found = catch_panics(|| Ok(reader.seek(SeekMode::Accurate, target)?));
        let at = match found {
            Ok(found) => self.samples_of(u64::try_from(found.actual_ts.get()).unwrap_or(0)),
            Err(error) => {
                return Err(self.damaged_error(format!(
                    "the edit list goes back to sample {to}, which cannot be reached ({})",
                    error.text()
                )));
            }
        };
        if at > to {
            return Err(
                self.damaged_error(format!("the edit list goes back to sample {to}, the file only to {at}"))
            );
        }
        match &mut self.codec {
            Codec::Symphonia(decoder) => decoder.reset(),
            Codec::Opus(stream) => stream.reset(),
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.seeked(at);
        }
        Ok(())
    }

    /// Decodes the next packet into the empty `out`, without any trimming; `false` at the end.
    fn decode_packet(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        if self.lost_silence > 0 {
            append_silence(&mut self.lost_silence, self.info.channels, out);
            self.decoded += out.samples() as u64;
            return Ok(true);
        }
        let (deferred, packet) = match self.deferred_packet.take() {
            Some(packet) => (true, packet),
            None => match self.next_packet()? {
                Ok(packet) => (false, packet),
                Err(None) => return Ok(false),
                Err(error) => return self.finish(error, out, warnings),
            },
        };
        // A demuxer that loses synchronisation skips silently to the next valid packet. The timestamp shows it.
        if self.has_frame_numbers && packet.pts.get() != self.decoded as i64 {
            return Err(
                self.damaged_error(format!("the next intact frame is that of sample {}", packet.pts.get()))
            );
        }
        if let Some(gap_tolerance) = self.gap_tolerance.filter(|_| !deferred) {
            let lost = self.lost_samples(&packet, gap_tolerance);
            if lost > 0 {
                if self.lossless {
                    return Err(self.damaged_error(format!("{lost} samples are missing")));
                }
                let at = self.decoded;
                warnings.push(format!(
                    "before sample {at} a part is missing; {lost} samples of silence stand for it"
                ));
                warnings.add_damage(1, lost);
                (self.lost_silence, self.deferred_packet) = (lost, Some(packet));
                return Ok(true);
            }
        }
        match catch_panics(|| self.decode(&packet, out)) {
            Ok(()) => self.decoded_any = true,
            Err(error) if self.lossless => return Err(self.damaged_error(error.text())),
            Err(error) => {
                out.clear();
                let samples = self.samples_of(packet.dur.get());
                // Before the first decoded block, rate and channels are unknown and there is nothing to keep aligned.
                let mut samples = if self.decoded_any { samples.min(MAX_SILENCE_PER_BLOCK) } else { 0 };
                warnings.push(format!(
                    "a packet at sample {} cannot be decoded ({}); {samples} samples of silence stand for it",
                    self.decoded,
                    error.text()
                ));
                warnings.add_damage(1, samples);
                append_silence(&mut samples, self.info.channels, out);
            }
        }
        self.decoded += out.samples() as u64;
        Ok(true)
    }

    /// The next packet of the track. The inner error is the end of the stream (`None`) or damage that may be concealed.
    fn next_packet(&mut self) -> Result<Result<Packet, Option<PacketError>>, AudioError> {
        loop {
            match catch_panics(|| Ok(self.reader.next_packet()?)) {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Ok(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Err(None)),
                Err(PacketError::NextStream) => self.open_next_stream()?,
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

    /// Opens the decoder of the next of several streams chained in one file.
    fn open_next_stream(&mut self) -> Result<(), AudioError> {
        let (track, params) = audio_track(self.reader.as_ref(), &self.path)?;
        let (codec, _) = open_codec(&params, &self.path)?;
        self.codec = codec;
        self.track = track.id;
        self.expected_pts = None;
        // The header covers the first stream only.
        self.info.samples = None;
        Ok(())
    }

    fn decode(&mut self, packet: &Packet, out: &mut Planar) -> Result<(), PacketError> {
        let mut block = Planar::default();
        let rate = match &mut self.codec {
            Codec::Opus(stream) => {
                block.reset(stream.channels());
                let trim_end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                stream.decode(&packet.data, trim_end, &mut block).map_err(PacketError::Data)?;
                super::opus::SAMPLE_RATE
            }
            Codec::Symphonia(decoder) => {
                // Symphonia's MP3 decoder keeps the format of its first frame.
                let params = decoder.codec_params();
                let format = (params.codec == CODEC_ID_MP3).then(|| mpeg_format(&packet.data)).flatten();
                if format.is_some() && self.mpeg_format.is_some_and(|before| Some(before) != format) {
                    let params = params.clone();
                    if let (Codec::Symphonia(fresh), _) = make_codec(&params)? {
                        *decoder = fresh;
                    }
                }
                self.mpeg_format = format.or(self.mpeg_format);
                let decoded = decoder.decode(packet)?;
                block.reset(decoded.num_planes());
                append(&decoded, &mut block);
                decoded.spec().rate()
            }
        };
        if !self.decoded_any && self.conformer.is_none() {
            // Headers of lossy files can be wrong about both; the stream counts.
            (self.info.sample_rate, self.info.channels) = (rate, block.channels());
        }
        let (channels, sample_rate) = (self.info.channels, self.info.sample_rate);
        if self.conformer.is_none() && (block.channels(), rate) == (channels, sample_rate) {
            *out = block;
            return Ok(());
        }
        let change = format!(
            "the stream changes to {} channels at {rate} Hz from {channels} at {sample_rate} Hz",
            block.channels()
        );
        if self.lossless {
            return Err(PacketError::Data(change));
        }
        out.reset(channels);
        let conformer = self.conformer.get_or_insert_with(|| Conformer::new(channels, sample_rate));
        conformer.conform(block, rate, out).map_err(|error| PacketError::Data(format!("{change}; {error}")))
    }

    /// Ends the stream, with `error` or normally. Returns the held-back samples unless they are padding.
    fn finish(
        &mut self,
        error: Option<PacketError>,
        out: &mut Planar,
        warnings: &mut Warnings,
    ) -> Result<bool, AudioError> {
        self.ended = true;
        out.reset(self.info.channels);
        if let Some(conformer) = &mut self.conformer {
            conformer.flush(out)?;
            self.hold_back(out);
            self.done += out.samples() as u64;
        }
        if self.info.samples != Some(self.done) && !self.held.is_empty() {
            out.append(&self.held);
            self.done += self.held.samples() as u64;
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
            if announced - self.done > GAP_TOLERANCE {
                warnings.add_damage(0, announced - self.done);
            }
        } else if let Some(error) = error {
            if self.lossless {
                return Err(self.damaged_error(error.text()));
            }
            warnings.push(format!("at sample {}: {}", self.done, error.text()));
            warnings.add_damage(1, 0);
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
            at_sample: self.done.max(self.decoded),
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
        self.next_played(out, warnings)
    }
}

/// Appends a part of `samples` of silence and subtracts it. In parts, since an untrusted header could ask for any amount.
fn append_silence(samples: &mut u64, channels: usize, out: &mut Planar) {
    let count = (*samples).min(MAX_SILENCE_PER_BLOCK);
    if out.channels() != channels {
        out.reset(channels);
    }
    out.append_silence(count as usize);
    *samples -= count;
}

/// Finds the demuxer of a file.
fn probe(
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
fn audio_track(reader: &dyn FormatReader, path: &Path) -> Result<(Track, AudioCodecParameters), AudioError> {
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

/// Version, sample rate index and whether the frame is mono, of an MPEG audio frame.
fn mpeg_format(frame: &[u8]) -> Option<(u8, u8, bool)> {
    let header: &[u8; 4] = frame.first_chunk()?;
    (header[0] == 0xFF && header[1] & 0xE0 == 0xE0).then_some((
        header[1] >> 3 & 3,
        header[2] >> 2 & 3,
        header[3] >> 6 == 3,
    ))
}

fn open_codec(params: &AudioCodecParameters, path: &Path) -> Result<(Codec, String), AudioError> {
    make_codec(params).map_err(|error| match error {
        PacketError::Data(what) => AudioError::Header { path: path.to_path_buf(), what },
        error => AudioError::Unsupported {
            path: path.to_path_buf(),
            what: format!("the codec cannot be read ({})", error.text()),
        },
    })
}

/// Position after the ID3v2 tags at the start of the file.
fn after_id3v2(source: &mut dyn MediaSource) -> io::Result<u64> {
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
fn has_length_tag(source: &mut dyn MediaSource, audio_at: u64) -> bool {
    let mut frame = Vec::new();
    let read = source.seek(io::SeekFrom::Start(audio_at));
    read.and_then(|_| Read::take(&mut *source, 4096).read_to_end(&mut frame)).is_ok()
        && frame
            .windows(4)
            .any(|word| [b"Xing", b"Info", b"VBRI"].contains(&word.first_chunk().unwrap_or(b"    ")))
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
