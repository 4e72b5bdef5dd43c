//! Compressed files, through symphonia's demuxers and decoders, with checks that report all damage.

mod open;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use symphonia::core::audio::Channels;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo};
use symphonia::core::packet::Packet;
use symphonia::core::units::Timestamp;

use super::codec::{Codec, PacketError, append, catch_panics, is_mpeg, make_codec};
use super::conform::Conformer;
use super::frames::{Gap, Run};
use super::gapless::GaplessTrim;
use super::mpeg;
use super::probe::{audio_track, open_codec};
use super::timeline::{Step, Timeline};
use super::{AudioError, BlockReader, Planar, SourceInfo, Warnings};

/// Longest silence in one block, in samples.
const MAX_SILENCE_PER_BLOCK: u64 = 1 << 16;
/// Longest silence that replaces lost pages, in seconds. A longer gap means that the clock was set, not that data is lost.
const MAX_LOST_SECONDS: u64 = 60;
/// Gaps up to this many samples are ignored, since some writers round timestamps: one Vorbis block, the longest Opus packet.
const GAP_TOLERANCE: u64 = 2048;
const OPUS_GAP_TOLERANCE: u64 = 5760;
/// Samples of an AAC frame, which are also the ticks of ADTS.
const ADTS_FRAME_SAMPLES: u64 = 1024;
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
    /// Timestamp of the first packet.
    first_pts: i64,
    /// Samples per tick of the track's clock, as a fraction.
    tick: (u64, u64),
    conformer: Option<Conformer>,
    /// Samples decoded so far, before any trimming.
    decoded: u64,
    decoded_any: bool,
    /// Samples of the last packet.
    packet_samples: u64,
    /// Format of the last MPEG audio frame.
    mpeg_format: Option<(u32, usize)>,
    /// Missing frames still to come, and changes of the format still to come (ADTS).
    gaps: VecDeque<Gap>,
    runs: VecDeque<Run>,
    /// A block decoded on opening to find the format of the stream.
    peeked: Option<Planar>,

    /// The parts of the track that are played (MP4).
    timeline: Option<Timeline>,
    /// Samples of silence still to be inserted by the timeline.
    inserted_silence: u64,
    gapless: GaplessTrim,
    /// Samples per channel returned so far.
    done: u64,
    ended: bool,
}

impl PacketReader {
    /// Samples that so many ticks of the track's clock last.
    fn samples_of(&self, ticks: u64) -> u64 {
        let (numer, denom) = self.tick;
        u64::try_from(u128::from(ticks) * u128::from(numer) / u128::from(denom.max(1))).unwrap_or(u64::MAX)
    }

    /// Drops encoder delay from a block that begins at sample `done`, and what lies past the end.
    fn trim_padding(&mut self, out: &mut Planar) {
        self.gapless.drop_delay(out);
        if let (true, Some(total)) = (self.length_is_exact, self.info.samples) {
            out.truncate(usize::try_from(total.saturating_sub(self.done)).unwrap_or(usize::MAX));
        }
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
        self.gapless.hold_back(out);
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
        if let Some(gap) = self.gaps.pop_front_if(|gap| gap.at <= self.decoded) {
            self.conceal_gap(gap, warnings);
            return Ok(true);
        }
        let (deferred, packet) = match self.deferred_packet.take() {
            Some(packet) => (true, packet),
            None => match self.next_packet()? {
                Ok(packet) => (false, packet),
                Err(None) => match self.gaps.pop_front() {
                    Some(gap) => {
                        self.conceal_gap(gap, warnings);
                        return Ok(true);
                    }
                    None => return Ok(false),
                },
                Err(error) if self.is_complete() => return Ok(self.leave_rest_out(error, warnings)),
                Err(error) => return self.finish(error, out, warnings),
            },
        };
        if !self.decoded_any {
            self.first_pts = packet.pts.get();
        }
        // A demuxer that loses synchronisation skips silently to the next valid packet. The timestamp shows it.
        if self.has_frame_numbers && packet.pts.get() != self.decoded as i64 {
            if self.is_complete() {
                return Ok(self.leave_rest_out(None, warnings));
            }
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
                self.conceal_gap(Gap { at: self.decoded, packets: 1, samples: lost }, warnings);
                self.deferred_packet = Some(packet);
                return Ok(true);
            }
        }
        match catch_panics(|| self.decode(&packet, out)) {
            Ok(()) => {
                self.decoded_any = true;
                self.packet_samples = out.samples() as u64;
                let held = self.decoded + self.packet_samples;
                if let (true, Some(stated)) = (self.has_frame_numbers, self.info.samples)
                    && (1..held).contains(&stated)
                {
                    warnings.push(format!(
                        "the header states {stated} samples, the file holds more; all of them were read"
                    ));
                    self.info.samples = None;
                }
            }
            Err(error) if self.is_complete() => return Ok(self.leave_rest_out(Some(error), warnings)),
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

    /// Whether a FLAC stream has all samples that its header states.
    fn is_complete(&self) -> bool {
        self.has_frame_numbers && self.decoded > 0 && self.info.samples == Some(self.decoded)
    }

    /// Ends a complete stream, behind which there is something else. Returns that there is no further packet.
    fn leave_rest_out(&mut self, error: Option<PacketError>, warnings: &mut Warnings) -> bool {
        let what = error.map_or("no frame of this stream".to_owned(), |error| error.text());
        warnings.push(format!("what follows the last sample is no audio and was left out ({what})"));
        false
    }

    /// Inserts silence where packets are missing.
    fn conceal_gap(&mut self, gap: Gap, warnings: &mut Warnings) {
        let Gap { packets, samples, .. } = gap;
        let at = self.decoded;
        warnings.push(format!("at sample {at} a part is missing; {samples} samples of silence stand for it"));
        warnings.add_damage(packets, samples);
        self.lost_silence = samples;
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
                // Symphonia's decoders of MPEG audio and AAC keep the format of their first frame.
                let mut params = decoder.codec_params().clone();
                let format = if is_mpeg(params.codec) { mpeg::parse_header(&packet.data) } else { None };
                let format = format.map(|frame| (frame.sample_rate, frame.channels));
                let mut changes =
                    format.is_some() && self.mpeg_format.is_some_and(|before| Some(before) != format);
                self.mpeg_format = format.or(self.mpeg_format);
                let frame = u64::try_from(packet.pts.get()).unwrap_or(0) / ADTS_FRAME_SAMPLES;
                while let Some(run) = self.runs.pop_front_if(|run| run.first <= frame) {
                    let channels = u16::try_from(run.channels).unwrap_or(u16::MAX);
                    params.with_sample_rate(run.sample_rate).with_channels(Channels::Discrete(channels));
                    changes = true;
                }
                if changes && let (Codec::Symphonia(fresh), _) = make_codec(&params)? {
                    *decoder = fresh;
                }
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
            self.gapless.hold_back(out);
            self.done += out.samples() as u64;
        }
        let held = self.gapless.held();
        if self.info.samples != Some(self.done) && !held.is_empty() {
            out.append(held);
            self.done += held.samples() as u64;
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
            let missing = announced - self.done;
            if missing > GAP_TOLERANCE {
                warnings.add_damage(missing.div_ceil(self.packet_samples.max(1)), missing);
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
