//! Tags, cover art and the production chunks of WAV: read from the input, written to every output.
//!
//! lofty reads and converts tags. The chunks `bext`, `iXML`, `cue `, `smpl`, `inst`, `acid` and `LIST adtl` go from WAV to
//! WAV as they are, so that stems land on the timeline where the song was. ReplayGain and other facts about the encoding
//! of the input are left out, since they are not true of a stem.
//!
//! Every output also has a `NULLSUM` tag ([`Origin`]), by which later runs recognise it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lofty::config::{ParseOptions, WriteOptions};
use lofty::file::TaggedFileExt;
use lofty::id3::v2::Id3v2Tag;
use lofty::iff::wav::RiffInfoList;
use lofty::mp4::{Atom, AtomData, AtomIdent, Ilst};
use lofty::ogg::tag::VorbisComments;
use lofty::picture::PictureInformation;
use lofty::probe::Probe;
use lofty::tag::{ItemKey, Tag, TagExt, TagType};
use serde_json::json;

use super::decode::mp4::find_box;
use super::encode::stem_file::boxed;

/// Name of the tag that says how a file was made.
const ORIGIN_KEY: &str = "NULLSUM";
/// WAV chunks that are copied.
const COPIED_CHUNKS: [&[u8; 4]; 6] = [b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"acid"];
/// Longest chunk that is copied, in bytes.
const MAX_CHUNK_BYTES: u64 = 4 << 20;
/// More chunks than any real file has.
const MAX_CHUNKS: usize = 4096;
/// Longest FLAC metadata block: its size has 24 bits.
const MAX_FLAC_BLOCK: usize = (1 << 24) - 1;
/// Bytes at either end of a file that may hold the tag of its origin.
const MAX_ORIGIN_BYTES: u64 = 32 << 20;

/// How a stem was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the model.
    pub model: String,
    /// Version of the program.
    pub version: String,
    /// Lossless mode.
    pub mode: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The model's name comes last, since it is the only part that may hold anything.
        write!(f, "version={}; mode={}; model={}", self.version, self.mode, self.model)
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("version=")?;
        let (version, rest) = rest.split_once("; mode=")?;
        let (mode, model) = rest.split_once("; model=")?;
        Some(Self { model: model.into(), version: version.into(), mode: mode.into() })
    }

    /// Reads the origin of a WAV, FLAC or M4A file that this program wrote; `None` for all others.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let mut magic = [0; 12];
        file.read_exact(&mut magic).ok()?;
        let bytes = match &magic {
            [b'f', b'L', b'a', b'C', ..] => flac_comments(&mut file)?,
            [b'R' | b'B', _, _, _, .., b'W', b'A', b'V', b'E'] => {
                wav_chunk(&mut file, |id, _| id == *b"id3 ").ok()??
            }
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => {
                let length = file.seek(SeekFrom::End(0)).ok()?;
                let movie = find_box(&mut file, 0..length, b"moov")?;
                let tags = find_box(&mut file, movie, b"udta")?;
                let mut bytes = Vec::new();
                file.seek(SeekFrom::Start(tags.start)).ok()?;
                file.take((tags.end - tags.start).min(MAX_ORIGIN_BYTES)).read_to_end(&mut bytes).ok()?;
                bytes
            }
            _ => return None,
        };
        let at = bytes.windows(ORIGIN_KEY.len()).position(|word| word == ORIGIN_KEY.as_bytes())?;
        let rest = &bytes[at..];
        let start = rest.windows(8).position(|word| word == b"version=").filter(|start| *start < 64)?;
        let rest = &rest[start..];
        // Ends with the field; no field is longer.
        let end = rest.iter().take(1024).position(|byte| *byte < b' ').unwrap_or(rest.len().min(1024));
        Self::parse(std::str::from_utf8(&rest[..end]).ok()?.trim_end())
    }
}

/// Everything beside the samples that an output keeps of its input.
#[derive(Clone)]
pub struct Metadata {
    tag: Tag,
    /// WAV chunks with their ids.
    chunks: Vec<([u8; 4], Vec<u8>)>,
    origin: Option<Origin>,
    /// Names of the stems of a stem file.
    stem_names: Vec<String>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            tag: Tag::new(TagType::VorbisComments),
            chunks: Vec::new(),
            origin: None,
            stem_names: Vec::new(),
        }
    }
}

impl Metadata {
    /// Reads what `path` holds. Metadata that cannot be read is left out: it never keeps a song from being separated.
    pub fn read(path: &Path) -> Self {
        let read = || {
            let options = ParseOptions::new().read_properties(false);
            let file = Probe::open(path).ok()?.options(options).guess_file_type().ok()?.read().ok()?;
            let tag = file.primary_tag().or_else(|| file.first_tag())?;
            let mut all = tag.clone();
            // Some files have a second tag that says more.
            for other in file.tags().iter().filter(|other| other.tag_type() != tag.tag_type()) {
                for item in other.items().filter(|item| tag.get(item.key()).is_none()) {
                    all.push_unchecked(item.clone());
                }
                if all.pictures().is_empty() {
                    other.pictures().iter().for_each(|picture| all.push_picture(picture.clone()));
                }
            }
            Some(all)
        };
        // The file is untrusted, and a panic in the reader of tags is no reason to lose the song.
        let tag = catch_unwind(AssertUnwindSafe(read)).ok().flatten();
        let mut metadata = Self { chunks: copied_chunks(path).unwrap_or_default(), ..Self::default() };
        if let Some(mut tag) = tag {
            tag.retain(|item| !is_about_encoding(item.key()));
            metadata.tag = tag;
        }
        metadata
    }

    /// States how the output was made.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// Names the stems of a stem file, of which there are four.
    #[must_use]
    pub fn with_stem_names(self, stem_names: Vec<String>) -> Self {
        Self { stem_names, ..self }
    }

    /// Metadata of a part of the input that starts at `sample`, counted at the sample rate of the input: the time reference
    /// moves along, and cue points and loops, which would be wrong, are left out.
    #[must_use]
    pub fn from_sample(mut self, sample: u64) -> Self {
        /// Position of the time reference in `bext`: after description, originator, reference, date and time.
        const TIME_REFERENCE: std::ops::Range<usize> = 338..346;
        self.chunks.retain(|(id, _)| ![*b"cue ", *b"smpl", *b"LIST"].contains(id));
        for (_, bytes) in self.chunks.iter_mut().filter(|(id, _)| id == b"bext") {
            if let Some(field) = bytes.get_mut(TIME_REFERENCE) {
                let mut reference = [0; 8];
                reference.copy_from_slice(field);
                field.copy_from_slice(&u64::from_le_bytes(reference).saturating_add(sample).to_le_bytes());
            }
        }
        self
    }

    /// Adds a `bext` chunk with the song position of the first sample, in samples, where a host places the file.
    #[must_use]
    pub fn spotted_at(mut self, sample: u64) -> Self {
        /// Length of the chunk without a coding history, and the places of originator, time reference and version in it.
        const LENGTH: usize = 602;
        const ORIGINATOR: usize = 256;
        const TIME_REFERENCE: usize = 338;
        const VERSION: usize = 346;
        let mut chunk = vec![0; LENGTH];
        let fields: [(usize, &[u8]); 3] =
            [(ORIGINATOR, b"Nullsum"), (TIME_REFERENCE, &sample.to_le_bytes()), (VERSION, &[1, 0])];
        for (at, bytes) in fields {
            chunk[at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.chunks.retain(|(id, _)| id != b"bext");
        self.chunks.push((*b"bext", chunk));
        self
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.tag.item_count() == 0
            && self.tag.picture_count() == 0
            && self.chunks.is_empty()
            && self.origin.is_none()
    }

    /// WAV chunks that stand before the samples.
    pub(super) fn wav_head(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.chunks.iter().for_each(|(id, chunk)| push_chunk(&mut bytes, *id, chunk));
        bytes
    }

    /// WAV chunks that stand behind the samples: tags, whose size nothing limits.
    pub(super) fn wav_tail(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut info = Vec::new();
        let list: RiffInfoList = self.tag.clone().into();
        if !TagExt::is_empty(&list) && list.dump_to(&mut info, WriteOptions::default()).is_ok() {
            bytes.extend(&info);
            if bytes.len() % 2 == 1 {
                bytes.push(0);
            }
        }
        let mut id3: Id3v2Tag = self.tag.clone().into();
        if let Some(origin) = &self.origin {
            id3.insert_user_text(ORIGIN_KEY.into(), origin.to_string());
        }
        let mut tag = Vec::new();
        let options = WriteOptions::new().preferred_padding(0);
        if !TagExt::is_empty(&id3) && id3.dump_to(&mut tag, options).is_ok() {
            push_chunk(&mut bytes, *b"id3 ", &tag);
        }
        bytes
    }

    /// The content of the `udta` box of a stem file: the names of the stems, and the tags.
    pub(super) fn mp4_user_data(&self) -> Vec<u8> {
        const COLORS: [&str; 4] = ["#009E73", "#D55E00", "#CC79A7", "#56B4E9"];
        let stems =
            self.stem_names.iter().zip(COLORS).map(|(name, color)| json!({"name": name, "color": color}));
        // Players may run the sum of the stems through these two. Both are off, so the sum stays the song.
        let description = json!({
            "mastering_dsp": {
                "compressor": {
                    "enabled": false, "input_gain": 0.5, "output_gain": 0.5, "threshold": 0, "ratio": 3,
                    "attack": 0.003, "release": 0.3, "hp_cutoff": 300, "dry_wet": 50
                },
                "limiter": {"enabled": false, "threshold": 0, "ceiling": -0.35, "release": 0.05}
            },
            "version": 1,
            "stems": stems.collect::<Vec<_>>()
        });
        let mut bytes = boxed(b"stem", description.to_string().as_bytes());
        let mut tags: Ilst = self.tag.clone().into();
        if let Some(origin) = &self.origin {
            let ident = AtomIdent::Freeform { mean: "com.apple.iTunes".into(), name: ORIGIN_KEY.into() };
            tags.insert(Atom::new(ident, AtomData::UTF8(origin.to_string())));
        }
        let mut list = Vec::new();
        let options = WriteOptions::new().preferred_padding(0);
        if !TagExt::is_empty(&tags) && tags.dump_to(&mut list, options).is_ok() {
            let handler = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0mdirappl\0\0\0\0\0\0\0\0\0");
            bytes.extend(boxed(b"meta", &[&[0; 4], &handler[..], &list].concat()));
        }
        bytes
    }

    /// FLAC metadata blocks behind STREAMINFO, the last one marked as such; empty if there are none.
    pub(super) fn flac_blocks(&self) -> Vec<u8> {
        const VORBIS_COMMENT: u8 = 4;
        const PICTURE: u8 = 6;
        if self.tag.item_count() == 0 && self.tag.picture_count() == 0 && self.origin.is_none() {
            return Vec::new();
        }
        let mut blocks: Vec<(u8, Vec<u8>)> = vec![(VORBIS_COMMENT, self.vorbis_comments())];
        for picture in self.tag.pictures() {
            let information = PictureInformation::from_picture(picture).unwrap_or_default();
            blocks.push((PICTURE, picture.as_flac_bytes(information, false)));
        }
        blocks.retain(|(_, block)| block.len() <= MAX_FLAC_BLOCK);
        let last = blocks.len().saturating_sub(1);
        let mut bytes = Vec::new();
        for (n, (kind, block)) in blocks.iter().enumerate() {
            bytes.push(if n == last { kind | 0x80 } else { *kind });
            bytes.extend(&(block.len() as u32).to_be_bytes()[1..]);
            bytes.extend(block);
        }
        bytes
    }

    /// The content of a VORBIS_COMMENT block.
    fn vorbis_comments(&self) -> Vec<u8> {
        let comments: VorbisComments = self.tag.clone().into();
        let mut lines: Vec<String> = comments
            .items()
            .filter(|(key, _)| *key != ORIGIN_KEY)
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if let Some(origin) = &self.origin {
            lines.push(format!("{ORIGIN_KEY}={origin}"));
        }
        let mut bytes = Vec::new();
        let mut push = |text: &str| {
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        push(&format!("Nullsum {}", env!("CARGO_PKG_VERSION")));
        let count = (lines.len() as u32).to_le_bytes();
        let mut list = Vec::new();
        for line in &lines {
            list.extend((line.len() as u32).to_le_bytes());
            list.extend(line.as_bytes());
        }
        bytes.extend(count);
        bytes.extend(list);
        bytes
    }
}

/// Whether an item describes the encoding or the loudness of the input, which is not that of a stem.
fn is_about_encoding(key: ItemKey) -> bool {
    matches!(
        key,
        ItemKey::ReplayGainAlbumGain
            | ItemKey::ReplayGainAlbumPeak
            | ItemKey::ReplayGainTrackGain
            | ItemKey::ReplayGainTrackPeak
            | ItemKey::EncoderSoftware
            | ItemKey::EncoderSettings
            | ItemKey::Length
    )
}

fn push_chunk(bytes: &mut Vec<u8>, id: [u8; 4], chunk: &[u8]) {
    bytes.extend(id);
    bytes.extend((chunk.len() as u32).to_le_bytes());
    bytes.extend(chunk);
    if chunk.len() % 2 == 1 {
        bytes.push(0);
    }
}

/// The production chunks of a WAV file; none for other files.
fn copied_chunks(path: &Path) -> io::Result<Vec<([u8; 4], Vec<u8>)>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 12];
    file.read_exact(&mut magic)?;
    let mut chunks = Vec::new();
    if magic[8..] == *b"WAVE" && [*b"RIFF", *b"RF64", *b"BW64"].iter().any(|id| magic.starts_with(id)) {
        walk_wav(&mut file, |id, size, file| {
            let wanted = COPIED_CHUNKS.contains(&&id) || id == *b"LIST";
            if wanted && size <= MAX_CHUNK_BYTES {
                let mut bytes = Vec::new();
                file.take(size).read_to_end(&mut bytes)?;
                if bytes.len() as u64 == size && (id != *b"LIST" || bytes.starts_with(b"adtl")) {
                    chunks.push((id, bytes));
                }
            }
            Ok(true)
        })?;
    }
    Ok(chunks)
}

/// Positions of the cue points of a WAV file in seconds, in order, without those at its start; none for other files.
pub fn cue_seconds(path: &Path) -> Vec<f64> {
    let read = || -> io::Result<Vec<f64>> {
        let mut file = File::open(path)?;
        let format = wav_chunk(&mut file, |id, size| id == *b"fmt " && size >= 16)?.unwrap_or_default();
        let rate = format
            .get(4..8)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let cues =
            wav_chunk(&mut file, |id, size| id == *b"cue " && size <= MAX_CHUNK_BYTES)?.unwrap_or_default();
        // Number of points, then 24 bytes each, of which the last four are the sample.
        let points = cues.get(4..).unwrap_or_default().chunks_exact(24);
        let samples = points.filter_map(|point| point.last_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
        let mut samples: Vec<u32> = samples.filter(|sample| *sample > 0 && rate > 0).collect();
        samples.sort_unstable();
        samples.dedup();
        Ok(samples.into_iter().map(|sample| f64::from(sample) / f64::from(rate)).collect())
    };
    read().unwrap_or_default()
}

/// The first WAV chunk that `wanted` accepts by id and size.
fn wav_chunk(file: &mut File, wanted: impl Fn([u8; 4], u64) -> bool) -> io::Result<Option<Vec<u8>>> {
    let mut found = None;
    walk_wav(file, |id, size, file| {
        if !wanted(id, size) {
            return Ok(true);
        }
        let mut bytes = Vec::new();
        file.take(size.min(MAX_ORIGIN_BYTES)).read_to_end(&mut bytes)?;
        found = Some(bytes);
        Ok(false)
    })?;
    Ok(found)
}

/// Calls `visit` at the payload of each chunk, until it returns `false`. Knows the 64-bit size of the samples in RF64.
fn walk_wav(
    file: &mut File,
    mut visit: impl FnMut([u8; 4], u64, &mut File) -> io::Result<bool>,
) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut at = 12;
    let mut long_data_size = None;
    for _ in 0..MAX_CHUNKS {
        if at + 8 > length {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        let [a, b, c, d, size @ ..] = header;
        let id = [a, b, c, d];
        let mut size = u64::from(u32::from_le_bytes(size));
        if id == *b"ds64" && size >= 16 {
            let mut sizes = [0; 16];
            file.read_exact(&mut sizes)?;
            long_data_size = sizes.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            file.seek(SeekFrom::Start(at + 8))?;
        }
        if id == *b"data" && size == u64::from(u32::MAX) {
            size = long_data_size.unwrap_or(length);
        }
        if !visit(id, size, file)? {
            break;
        }
        at = at.saturating_add(8).saturating_add(size).saturating_add(size % 2);
    }
    Ok(())
}

/// The VORBIS_COMMENT block of a FLAC file.
fn flac_comments(file: &mut File) -> Option<Vec<u8>> {
    let mut at = 4;
    for _ in 0..MAX_CHUNKS {
        file.seek(SeekFrom::Start(at)).ok()?;
        let mut header = [0; 4];
        file.read_exact(&mut header).ok()?;
        let size = u64::from(u32::from_be_bytes([0, header[1], header[2], header[3]]));
        if header[0] & 0x7F == 4 {
            let mut bytes = Vec::new();
            file.take(size).read_to_end(&mut bytes).ok()?;
            return Some(bytes);
        }
        if header[0] & 0x80 != 0 {
            return None;
        }
        at += 4 + size;
    }
    None
}
