//! Opening of a compressed file: container, track, format, and what is played of it.

use std::path::Path;

use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_ALAC, CODEC_ID_MP3};
use symphonia::core::formats::Track;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_CAF, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MKV, FORMAT_ID_OGG,
};
use symphonia::core::io::MediaSource;

use super::super::caf;
use super::super::codec::{Codec, announced_samples, container_name, is_lossless, is_mpeg, sample_format};
use super::super::conform::Conformer;
use super::super::frames::{self, MixedFormat, Scan};
use super::super::gapless::GaplessTrim;
use super::super::mp4::{self, Playback};
use super::super::probe::{after_id3v2, audio_track, has_length_tag, open_codec, probe};
use super::super::timeline::Timeline;
use super::super::{AudioError, Planar, SourceInfo, Warnings, check_shape};
use super::{GAP_TOLERANCE, OPUS_GAP_TOLERANCE, PacketReader};

/// A first timestamp above a twentieth of a second is a late start; less may be encoder delay.
const LATE_START_PER_SECOND: u64 = 20;
/// Latest start of audio, in seconds. More is treated as a clock that does not begin at 0.
const MAX_LATE_SECONDS: u64 = 3600;
/// Highest rate at which AAC may be the lower half of HE-AAC.
const HALF_RATE: u32 = 24_000;

impl PacketReader {
    /// Finds the container and the first audio track, and decodes up to the first samples.
    pub(in super::super) fn open(
        mut source: Box<dyn MediaSource>,
        length: u64,
        path: &Path,
        magic: &[u8],
        warnings: &mut Warnings,
    ) -> Result<Self, AudioError> {
        let read_error = |source| AudioError::Read { path: path.to_path_buf(), source };
        let is_mp4 = magic.get(4..8) == Some(b"ftyp");
        let playback = match magic.get(..4) {
            Some(b"caff") => caf::read_playback(source.as_mut()),
            _ if is_mp4 => mp4::read_playback(source.as_mut(), length),
            _ => None,
        };
        let fragmented = is_mp4 && mp4::is_fragmented(source.as_mut(), length);
        let audio_at = after_id3v2(source.as_mut()).map_err(read_error)?;
        let tagged = has_length_tag(source.as_mut(), audio_at);
        let scan = match is_mp4 {
            true => Scan::default(),
            false => frames::scan(source.as_mut(), audio_at).map_err(read_error)?,
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
        let container = reader.format_info();
        let container_format = container.format;
        let is_adts = container_format == FORMAT_ID_ADTS;
        let scan = if is_mpeg(params.codec) || is_adts { scan } else { Scan::default() };
        let lossless = is_lossless(params.codec);
        let gap_tolerance = if matches!(codec, Codec::Opus(_)) { OPUS_GAP_TOLERANCE } else { GAP_TOLERANCE };
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
                // Some writers count a short last packet as a whole one.
                || container.format == FORMAT_ID_CAF && params.codec == CODEC_ID_ALAC
                || scan.mixed.is_some(),
            has_frame_numbers: container.format == FORMAT_ID_FLAC,
            gap_tolerance: (container.format == FORMAT_ID_OGG).then_some(gap_tolerance),
            expected_pts: None,
            lost_silence: 0,
            deferred_packet: None,
            first_pts: 0,
            reader,
            codec,
            track: track.id,
            path: path.to_path_buf(),
            lossless,
            tick: (1, 1),
            conformer: None,
            decoded: 0,
            decoded_any: false,
            packet_samples: 0,
            mpeg_format: None,
            gaps: scan.gaps.into(),
            // The first is the one that the decoder was opened for.
            runs: scan.runs.into_iter().skip(1).filter(|_| is_adts).collect(),
            peeked: None,
            timeline: None,
            inserted_silence: 0,
            gapless: GaplessTrim::new(
                track.delay.filter(|_| is_mp3).map_or(0, u64::from),
                track.padding.filter(|_| is_mp3).map_or(0, |padding| padding as usize),
            ),
            done: 0,
            ended: false,
        };
        if scan.trailing_bytes > 0 {
            warnings.push(format!("{} bytes at the end are no audio and were left out", scan.trailing_bytes));
        }
        packets.start(scan.mixed, warnings)?;
        if params.codec == CODEC_ID_AAC && packets.info.sample_rate <= HALF_RATE {
            warnings.push(format!(
                "AAC at {} Hz: should it be HE-AAC, its upper half is missing; convert it to WAV or FLAC first",
                packets.info.sample_rate
            ));
        }
        packets.set_clock(&track);
        if container_format == FORMAT_ID_MKV {
            packets.insert_late_start();
        }
        if let Some(playback) = playback {
            packets.set_timeline(&playback, &track, fragmented);
        }
        Ok(packets)
    }

    /// Decodes the first samples, which give channels and rate where the header does not, or where it is wrong.
    fn start(&mut self, mixed: Option<MixedFormat>, warnings: &mut Warnings) -> Result<(), AudioError> {
        if let Some(MixedFormat { channels, sample_rate, samples }) = mixed {
            (self.info.channels, self.info.sample_rate) = (channels, sample_rate);
            self.info.samples = Some(samples.saturating_sub(self.gapless.samples()));
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

    /// Inserts silence before audio that starts late, on a clock that all tracks share.
    fn insert_late_start(&mut self) {
        let late = self.samples_of(u64::try_from(self.first_pts).unwrap_or(0));
        let rate = u64::from(self.info.sample_rate);
        if late * LATE_START_PER_SECOND > rate && late <= MAX_LATE_SECONDS * rate {
            self.inserted_silence = late;
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
}
