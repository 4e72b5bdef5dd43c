//! One set of prepared stems on disk: the audio, its stems, and an index that is written last.
//!
//! ```text
//! <id>/index.json   what is there; replaced atomically after its blocks are on disk
//! <id>/audio.bin    blocks of the mixture
//! <id>/stems.bin    blocks of the stems, stem by stem
//! <id>/envelope.bin blocks of the mixture's loudness, by which a moved clip is found
//! <id>/use.lock     locked by all who read or write
//! <id>/write.lock   locked by the one who writes
//! ```
//!
//! Files are read at explicit positions and never mapped: a truncated file is an error and not a fault.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::block::{self, BLOCK, BlockId, MAX_PLANES};
use super::error::StoreError;
use super::key::Key;
use crate::atomic_file::AtomicFile;
use crate::audio::Planar;

/// Version of the format. Entries of another one are not used.
const VERSION: u32 = 1;
/// Largest index that is read: more than a day of audio.
const MAX_INDEX_BYTES: u64 = 4 << 20;
const INDEX: &str = "index.json";
const USE_LOCK: &str = "use.lock";
const WRITE_LOCK: &str = "write.lock";

/// The three streams of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The mixture.
    Audio,
    /// The stems.
    Stems,
    /// Loudness of the mixture, see [`Envelope`](super::align::Envelope).
    Envelope,
}

impl Part {
    const ALL: [Self; 3] = [Self::Audio, Self::Stems, Self::Envelope];

    fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Stems => "stems",
            Self::Envelope => "envelope",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Audio => "audio.bin",
            Self::Stems => "stems.bin",
            Self::Envelope => "envelope.bin",
        }
    }
}

/// Offset and length of a block in its file.
pub type BlockPlace = (u64, u32);

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    version: u32,
    /// What it is identified by.
    pub key: Key,
    /// For the user: the name of the song or track.
    pub title: String,
    /// For the user: the name of the model.
    pub model: String,
    /// Names of the stems.
    pub stems: Vec<String>,
    /// Channels of the mixture and of each stem.
    pub channels: usize,
    /// Samples of the mixture.
    pub samples: u64,
    /// Song position of the first sample, where the song was learned from a host.
    #[serde(default)]
    pub at: Option<i64>,
    /// Seconds since 1970.
    pub created: u64,
    audio: Vec<BlockPlace>,
    stem_blocks: Vec<BlockPlace>,
    envelope: Vec<BlockPlace>,
}

/// What an entry will hold.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// What it is identified by.
    pub key: Key,
    /// For the user: the name of the song or track.
    pub title: String,
    /// For the user: the name of the model.
    pub model: String,
    /// Names of the stems.
    pub stems: Vec<String>,
    /// Channels of the mixture and of each stem.
    pub channels: usize,
    /// Samples of the mixture.
    pub samples: u64,
    /// Song position of the first sample.
    pub at: Option<i64>,
}

impl NewEntry {
    /// The most bytes that it takes.
    pub fn max_bytes(&self) -> u64 {
        let planes = self.channels * (1 + self.stems.len());
        self.samples.div_ceil(BLOCK as u64) * block::max_bytes(planes) as u64
    }
}

impl Index {
    fn new(new: NewEntry) -> Self {
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let NewEntry { key, title, model, stems, channels, samples, at } = new;
        Self {
            version: VERSION,
            key,
            title,
            model,
            stems,
            channels,
            samples,
            at,
            created,
            audio: Vec::new(),
            stem_blocks: Vec::new(),
            envelope: Vec::new(),
        }
    }

    pub(super) fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(INDEX);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_INDEX_BYTES).read_to_string(&mut text))
            .map_err(|source| StoreError::read(&path, source))?;
        let wrong = |what: String| StoreError::Index { path: path.clone(), what };
        let index: Self =
            serde_json::from_str(&text).map_err(|error| wrong(format!("this is no index: {error}")))?;
        if index.version != VERSION {
            return Err(wrong(format!("version {}: expected {VERSION}", index.version)));
        }
        let planes = index.channels * index.stems.len();
        if index.channels == 0 || planes == 0 || planes > MAX_PLANES {
            return Err(wrong(format!("{} channels and {} stems", index.channels, index.stems.len())));
        }
        let most = index.samples.div_ceil(BLOCK as u64);
        for part in Part::ALL {
            let limit = block::max_bytes(index.planes(part)) as u32;
            let places = index.places(part);
            if places.len() as u64 > most || places.iter().any(|(_, length)| *length > limit) {
                return Err(wrong(format!("its list of {} blocks is wrong", part.name())));
            }
        }
        Ok(index)
    }

    fn places(&self, part: Part) -> &[BlockPlace] {
        match part {
            Part::Audio => &self.audio,
            Part::Stems => &self.stem_blocks,
            Part::Envelope => &self.envelope,
        }
    }

    fn places_mut(&mut self, part: Part) -> &mut Vec<BlockPlace> {
        match part {
            Part::Audio => &mut self.audio,
            Part::Stems => &mut self.stem_blocks,
            Part::Envelope => &mut self.envelope,
        }
    }

    /// Planes of every block of a part.
    fn planes(&self, part: Part) -> usize {
        match part {
            Part::Audio => self.channels,
            Part::Stems => self.channels * self.stems.len(),
            Part::Envelope => 1,
        }
    }

    /// Samples whose stems are there, from the start on.
    pub fn prepared(&self) -> u64 {
        (self.stem_blocks.len() as u64 * BLOCK as u64).min(self.samples)
    }

    /// Whether the whole mixture is there.
    pub fn has_audio(&self) -> bool {
        self.audio.len() as u64 == self.samples.div_ceil(BLOCK as u64)
    }

    /// Whether all stems are there.
    pub fn is_complete(&self) -> bool {
        self.has_audio() && self.prepared() == self.samples
    }
}

/// An entry that is read.
#[derive(Debug)]
pub struct Entry {
    folder: PathBuf,
    id: String,
    index: Index,
    files: [Option<File>; 3],
    in_use: Option<UseLock>,
}

impl Entry {
    /// Opens the entry in `folder`.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Index`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let index = Index::read(folder)?;
        if index.key.id() != id {
            let path = folder.join(INDEX);
            return Err(StoreError::Index { path, what: "it belongs to another folder".into() });
        }
        Ok(Self { folder: folder.into(), id, index, files: [None, None, None], in_use: None })
    }

    /// Marks the entry as in use for as long as this lives: nobody erases it, and it is not the oldest any more.
    pub fn hold(&mut self) {
        if self.in_use.is_none() {
            self.in_use = Some(UseLock::shared(&self.folder));
            // A folder that cannot be written keeps its time.
            let lock = File::options().write(true).open(self.folder.join(USE_LOCK));
            let _ = lock.and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    /// The name of the entry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it holds.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Reads the index again, after somebody has prepared more.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Index`]; what was known before stays.
    pub fn reload(&mut self) -> Result<(), StoreError> {
        let index = Index::read(&self.folder)?;
        if index.key == self.index.key {
            self.index = index;
        }
        Ok(())
    }

    /// Reads a block of [`BLOCK`] samples, the last one shorter.
    ///
    /// # Errors
    /// [`StoreError::NotPrepared`], [`StoreError::Read`], [`StoreError::Damaged`].
    pub fn read(&mut self, part: Part, number: u64) -> Result<Planar, StoreError> {
        let place =
            usize::try_from(number).ok().and_then(|number| self.index.places(part).get(number).copied());
        let Some((offset, length)) = place else { return Err(StoreError::NotPrepared) };
        let path = self.folder.join(part.file());
        let slot = &mut self.files[part as usize];
        let file = match slot {
            Some(file) => file,
            None => slot.insert(File::open(&path).map_err(|source| StoreError::read(&path, source))?),
        };
        let mut bytes = vec![0; length as usize];
        read_exact_at(file, offset, &mut bytes).map_err(|source| StoreError::read(&path, source))?;
        let id = BlockId { entry: &self.id, stream: part.name(), number };
        let planes = block::decode(id, &bytes);
        let damaged = |source| StoreError::Damaged { path: path.clone(), number, source };
        let planes = planes.map_err(damaged)?;
        let expected = self.index.planes(part);
        if planes.channels() == expected { Ok(planes) } else { Err(damaged(block::BlockError::Header)) }
    }
}

/// An entry that is written. Only one exists at a time, in all processes.
#[derive(Debug)]
pub struct EntryWriter {
    folder: PathBuf,
    id: String,
    index: Index,
    /// Samples that do not fill a block yet.
    pending: [Planar; 3],
    files: [File; 3],
    _in_use: UseLock,
    _write_lock: File,
}

impl EntryWriter {
    /// Creates the entry in `folder`, or continues one that is incomplete.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Write`].
    pub fn open(folder: &Path, new: NewEntry) -> Result<Self, StoreError> {
        let failed = |source| StoreError::write(folder, source);
        fs::create_dir_all(folder).map_err(failed)?;
        let lock_path = folder.join(WRITE_LOCK);
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(StoreError::Busy { path: folder.into() });
        }
        let in_use = UseLock::shared(folder);
        let id = new.key.id();
        let fresh = Index::new(new);
        // What cannot be used is written anew.
        let mut index = Index::read(folder)
            .ok()
            .filter(|index| {
                let same =
                    |index: &Index| (index.key.clone(), index.samples, index.channels, index.stems.clone());
                same(index) == same(&fresh)
            })
            .unwrap_or_else(|| fresh.clone());
        (index.title, index.model, index.at) = (fresh.title, fresh.model, fresh.at.or(index.at));
        let mut files = Vec::new();
        for part in Part::ALL {
            let path = folder.join(part.file());
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .read(true)
                .open(&path)
                .map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            let places = index.places_mut(part);
            places.truncate(places.partition_point(|(offset, size)| offset + u64::from(*size) <= length));
            files.push(file);
        }
        let pending = Part::ALL.map(|part| Planar::new(index.planes(part)));
        let files: [File; 3] = files.try_into().map_err(|_| StoreError::NotPrepared)?;
        let mut writer =
            Self { folder: folder.into(), id, index, pending, files, _in_use: in_use, _write_lock: lock };
        for part in Part::ALL {
            writer.keep_blocks(part, usize::MAX)?;
        }
        Ok(writer)
    }

    /// What is there so far.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The name of the entry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Discards all blocks of a part from number `count` on. The next samples come after what is left.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn keep_blocks(&mut self, part: Part, count: usize) -> Result<(), StoreError> {
        // A last, shorter block can only be replaced.
        let places = self.index.places_mut(part);
        places.truncate(count);
        let end = places.last().map_or(0, |(offset, length)| offset + u64::from(*length));
        self.pending[part as usize].clear();
        let path = self.folder.join(part.file());
        let mut file = &self.files[part as usize];
        let mut cut = || -> io::Result<()> {
            // A file that is complete keeps its time.
            if file.metadata()?.len() != end {
                file.set_len(end)?;
            }
            file.seek(SeekFrom::Start(end)).map(drop)
        };
        cut().map_err(|source| StoreError::write(&path, source))
    }

    /// Appends samples to a part; whole blocks are written.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn append(&mut self, part: Part, samples: &Planar) -> Result<(), StoreError> {
        self.pending[part as usize].append(samples);
        while self.pending[part as usize].samples() >= BLOCK {
            let block = self.pending[part as usize].slice(0..BLOCK);
            self.pending[part as usize].drop_front(BLOCK);
            self.write_block(part, &block)?;
        }
        Ok(())
    }

    /// Writes the last, shorter block of a part.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn finish(&mut self, part: Part) -> Result<(), StoreError> {
        let rest = self.pending[part as usize].clone();
        self.pending[part as usize].clear();
        if rest.is_empty() { Ok(()) } else { self.write_block(part, &rest) }
    }

    fn write_block(&mut self, part: Part, planes: &Planar) -> Result<(), StoreError> {
        let number = self.index.places(part).len() as u64;
        let bytes = block::encode(BlockId { entry: &self.id, stream: part.name(), number }, planes);
        let offset = self.index.places(part).last().map_or(0, |(offset, length)| offset + u64::from(*length));
        let file = &mut self.files[part as usize];
        // An earlier write may have failed in the middle, on a full disk.
        let written = file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(&bytes));
        written.map_err(|source| StoreError::write(&self.folder.join(part.file()), source))?;
        self.index.places_mut(part).push((offset, bytes.len() as u32));
        Ok(())
    }

    /// Makes what was written so far known to readers, and safe from a crash.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let path = self.folder.join(INDEX);
        let publish = || -> io::Result<()> {
            for file in &self.files {
                file.sync_data()?;
            }
            let mut file = AtomicFile::create_beside(&path)?;
            serde_json::to_writer(&mut file, &self.index)?;
            file.sync()?;
            file.publish(&path)
        };
        publish().map_err(|source| StoreError::write(&path, source))
    }
}

/// Shows that an entry is in use, to all processes.
#[derive(Debug)]
pub(super) struct UseLock {
    /// None where the file cannot be opened, as on a read-only drive, where nothing is erased either.
    _file: Option<File>,
}

impl UseLock {
    /// For readers and the writer. Never waits: who holds it alone is about to erase the entry, and reading it then fails.
    fn shared(folder: &Path) -> Self {
        let path = folder.join(USE_LOCK);
        let create = || File::options().create(true).truncate(false).write(true).read(true).open(&path);
        let file = create().or_else(|_| File::open(&path)).ok();
        if let Some(file) = &file {
            let _ = file.try_lock_shared();
        }
        Self { _file: file }
    }

    /// For who erases. None if somebody uses the entry.
    ///
    /// # Errors
    /// Those of opening the lock.
    pub(super) fn exclusive(folder: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).open(folder.join(USE_LOCK))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            // File systems without locks cannot tell.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(Self { _file: Some(file) })),
        }
    }

    /// When the entry was last opened.
    pub(super) fn last_use(folder: &Path) -> SystemTime {
        let modified = |name: &str| fs::metadata(folder.join(name)).and_then(|meta| meta.modified());
        modified(USE_LOCK).or_else(|_| modified(INDEX)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = out.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
