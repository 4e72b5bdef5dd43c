//! Separates a song in the background and keeps its stems: with pauses, cancellation, and where it left off.
//!
//! One job runs at a time in a process. It waits while work of live streams runs, also in the middle of a layer of the network.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::align::Envelope;
use super::block::{BLOCK, to_grid};
use super::entry::{EntryWriter, NewEntry, Part};
use super::error::StoreError;
use super::key::{ContentHash, Key, Settings};
use super::store::Store;
use crate::audio::Planar;
use crate::kernels::JobControl;
use crate::kernels::os::{self, Priority};
use crate::live::work;
use crate::lossless::LosslessMode;
use crate::offline::error::OfflineError;
use crate::offline::options::RenderOptions;
use crate::offline::song_stems::{Song, StemsRequest, for_each_block, separate_from};
use crate::separator::{SeparateError, Separator};

/// Held by the job that runs.
static TURN: Mutex<()> = Mutex::new(());
/// Interval at which a job looks whether it may go on.
const POLL: Duration = Duration::from_millis(1);
/// The same while it is paused, or waits for its turn.
const SLOW_POLL: Duration = Duration::from_millis(50);
/// Shortest time between two commits of what is done.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);
/// Samples written at a time.
const PIECE: usize = BLOCK;

/// Why a song was not prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The separation.
    #[error(transparent)]
    Offline(OfflineError),
    /// The model.
    #[error("the model does not load: {0}")]
    Model(String),
    /// The song has no samples.
    #[error("there is nothing to prepare: play the song first, or choose its file")]
    Empty,
    /// The recording was overwritten meanwhile.
    #[error("the recording changed while it was read; stop the transport and prepare again")]
    Changed,
    /// The user cancelled. What is done stays.
    #[error("cancelled")]
    Cancelled,
}

impl From<OfflineError> for JobError {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Cancelled | OfflineError::Separate(SeparateError::Cancelled) => Self::Cancelled,
            error => Self::Offline(error),
        }
    }
}

/// How far a job is, and its controls. Shared with the user interface.
#[derive(Debug, Default)]
pub struct JobHandle {
    cancelled: AtomicBool,
    paused: AtomicBool,
    is_running: AtomicBool,
    /// Share of the work that is done, bits of `f32`.
    fraction: AtomicU32,
    /// When separating began, and the share that was done then.
    since: Mutex<Option<(Instant, f32)>>,
}

impl JobHandle {
    /// Ends the job at the next layer of the network.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether it was told to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Pauses the job, or lets it go on.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
        // The time of the pause tells nothing about the speed.
        if let Some(since) = &mut *self.since.lock() {
            *since = (Instant::now(), self.fraction());
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    /// Whether it has its turn.
    pub fn is_running(&self) -> bool {
        self.is_running.load(Relaxed)
    }

    /// Share of the work that is done, 0 to 1.
    pub fn fraction(&self) -> f32 {
        f32::from_bits(self.fraction.load(Relaxed))
    }

    /// Expected time until the end; none before there is enough to tell.
    pub fn time_left(&self) -> Option<Duration> {
        let (since, before) = (*self.since.lock())?;
        let (now, elapsed) = (self.fraction(), since.elapsed().as_secs_f64());
        let done = f64::from(now - before);
        (done > 1e-4 && elapsed > 1.0)
            .then(|| Duration::from_secs_f64((elapsed * f64::from(1.0 - now) / done).clamp(0.0, 1e7)))
    }

    fn set_fraction(&self, fraction: f32) {
        self.fraction.store(fraction.clamp(0.0, 1.0).to_bits(), Relaxed);
        self.since.lock().get_or_insert((Instant::now(), fraction));
    }

    /// Waits while it is paused or a live stream needs the processor. `Break` when it was cancelled.
    fn wait(&self) -> ControlFlow<()> {
        loop {
            match () {
                () if self.is_cancelled() => return ControlFlow::Break(()),
                () if self.is_paused() => std::thread::sleep(SLOW_POLL),
                () if work::is_running() => std::thread::sleep(POLL),
                () => return ControlFlow::Continue(()),
            }
        }
    }
}

impl JobControl for JobHandle {
    fn checkpoint(&self) -> ControlFlow<()> {
        self.wait()
    }
}

/// A song to prepare.
pub struct Job<'a> {
    /// The song.
    pub song: &'a mut dyn Song,
    /// Song position of its first sample, if it was learned.
    pub at: Option<i64>,
    /// For the user: the name of the song or track.
    pub title: String,
    /// For the user: the name of the model.
    pub model: String,
    /// SHA-256 of the checkpoint.
    pub model_sha256: String,
    /// How it is separated. Options that concern files are ignored.
    pub options: RenderOptions,
}

/// What the first reading of a song tells.
struct Survey {
    audio: String,
    /// Hash of the song at its own rate.
    content: String,
    peak: f32,
}

impl Job<'_> {
    /// Prepares the song, or what is missing of it. Returns the name of the entry. Blocks: for a thread of its own, of which it lowers the priority.
    /// `load` loads the model, with [`Runtime::private_pool`](crate::separator::Runtime::private_pool); `on_commit` is told the name of the entry
    /// whenever more of it can be played.
    ///
    /// # Errors
    /// [`JobError`]. What was committed before stays, and the next job continues there.
    pub fn run(
        mut self,
        store: &Store,
        handle: &Arc<JobHandle>,
        load: &mut dyn FnMut() -> Result<Separator, String>,
        on_commit: &mut dyn FnMut(&str),
    ) -> Result<String, JobError> {
        if self.song.samples() == 0 {
            return Err(JobError::Empty);
        }
        let _turn = loop {
            match TURN.try_lock_for(SLOW_POLL) {
                Some(turn) => break turn,
                None if handle.is_cancelled() => return Err(JobError::Cancelled),
                None => {}
            }
        };
        handle.is_running.store(true, Relaxed);
        os::set_priority(Priority::Background);
        let mut separator = load().map_err(JobError::Model)?;
        let survey = self.survey(&separator, handle)?;
        let key = self.key(&separator, survey.audio.clone());
        let mut stems = separator.info().stems.clone();
        stems.extend(separator.info().complement.clone());
        let mut writer = store.write(NewEntry {
            key,
            title: self.title.clone(),
            model: self.model.clone(),
            stems,
            channels: self.song.channels(),
            samples: self.song.samples(),
            at: self.at,
        })?;
        if !writer.index().has_audio() {
            self.write_audio(&mut writer, &survey, handle)?;
        }
        writer.commit()?;
        on_commit(writer.id());
        if !writer.index().is_complete() {
            let pool = separator.pool().clone();
            pool.set_priority(Priority::Background);
            let waiting = Arc::clone(handle);
            pool.set_pause(Some(Arc::new(move |_lane| _ = waiting.wait())));
            let separated = self.write_stems(&mut separator, &mut writer, &survey, handle, on_commit);
            pool.set_pause(None);
            separated?;
        }
        handle.set_fraction(1.0);
        Ok(writer.id().to_owned())
    }

    /// Reads the song once.
    fn survey(&mut self, separator: &Separator, handle: &JobHandle) -> Result<Survey, JobError> {
        let (rate, channels) = (self.song.rate(), self.song.channels());
        let model_rate = separator.info().sample_rate;
        let mut audio = ContentHash::new(model_rate, channels);
        for_each_block(self.song, model_rate, &mut |block| {
            audio.add(block);
            if handle.wait().is_break() { Err(OfflineError::Cancelled) } else { Ok(()) }
        })?;
        let mut content = ContentHash::new(rate, channels);
        let mut peak = 0f32;
        for_each_block(self.song, rate, &mut |block| {
            content.add(block);
            peak = block.iter().flatten().fold(peak, |peak, x| peak.max(x.abs()));
            if handle.wait().is_break() { Err(OfflineError::Cancelled) } else { Ok(()) }
        })?;
        Ok(Survey { audio: audio.finish(), content: content.finish(), peak })
    }

    fn key(&self, separator: &Separator, audio: String) -> Key {
        let (info, options) = (separator.info(), &self.options);
        Key {
            audio,
            model: self.model_sha256.clone(),
            settings: Settings {
                rate: self.song.rate(),
                chunk: options.chunk.unwrap_or(info.chunk),
                overlap: options.overlap.unwrap_or(info.overlap as f64),
                lossless: options.lossless.to_string(),
                precision: separator.precision().precision.to_string(),
                tta: options.tta,
                shifts: options.big_shifts.max(1),
                normalize: options.normalize.unwrap_or(info.normalize),
            },
        }
    }

    fn write_audio(
        &mut self,
        writer: &mut EntryWriter,
        survey: &Survey,
        handle: &JobHandle,
    ) -> Result<(), JobError> {
        let rate = self.song.rate();
        let mut content = ContentHash::new(rate, self.song.channels());
        let mut envelope = Envelope::default();
        for part in [Part::Audio, Part::Envelope, Part::Stems] {
            writer.keep_blocks(part, 0)?;
        }
        let mut failed = None;
        let read = for_each_block(self.song, rate, &mut |block| {
            content.add(block);
            envelope.add_planes(block);
            let written = writer.append(Part::Audio, block);
            failed = written.err();
            if failed.is_some() || handle.wait().is_break() { Err(OfflineError::Cancelled) } else { Ok(()) }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        read?;
        if content.finish() != survey.content {
            return Err(JobError::Changed);
        }
        writer.append(Part::Envelope, &Planar::from_equal(vec![envelope.steps().to_vec()]))?;
        writer.finish(Part::Audio)?;
        writer.finish(Part::Envelope)?;
        Ok(())
    }

    fn write_stems(
        &mut self,
        separator: &mut Separator,
        writer: &mut EntryWriter,
        survey: &Survey,
        handle: &JobHandle,
        on_commit: &mut dyn FnMut(&str),
    ) -> Result<(), JobError> {
        let (samples, channels) = (self.song.samples(), self.song.channels());
        let has_complement = separator.info().complement.is_some();
        let first = writer.index().prepared();
        handle.set_fraction(first as f32 / samples as f32);
        let mut stems = StemWriter { writer, at: first, channels, has_complement, failed: None };
        let mut committed = Instant::now();
        let request = StemsRequest { options: &self.options, peak: survey.peak, first, control: handle };
        // The song is read by the separation, and again for the complement.
        let song = RefCell::new(&mut *self.song);
        let mut shared = SharedSong(&song);
        let cell = RefCell::new(&mut stems);
        let separated = separate_from(
            separator,
            &mut shared,
            request,
            &mut |block| cell.borrow_mut().push(block, &mut SharedSong(&song)),
            &mut |progress| {
                let mut stems = cell.borrow_mut();
                let done = progress.fraction.unwrap_or(0.0) as f32;
                let share = (first as f32 / samples as f32).max(done);
                handle.set_fraction(share.min(0.999));
                if committed.elapsed() >= COMMIT_INTERVAL && stems.failed.is_none() {
                    committed = Instant::now();
                    match stems.writer.commit() {
                        Ok(()) => on_commit(stems.writer.id()),
                        Err(error) => stems.failed = Some(error),
                    }
                }
                if stems.failed.is_some() { ControlFlow::Break(()) } else { handle.wait() }
            },
        );
        if let Some(error) = stems.failed {
            return Err(error.into());
        }
        if separated.is_err() {
            // Whole blocks that are done need not be computed again.
            let _ = stems.writer.commit();
        }
        separated?;
        stems.writer.finish(Part::Stems)?;
        stems.writer.commit()?;
        on_commit(stems.writer.id());
        Ok(())
    }
}

/// Adds the complement, rounds to the grid and writes.
struct StemWriter<'a> {
    writer: &'a mut EntryWriter,
    /// Position of the next sample.
    at: u64,
    channels: usize,
    has_complement: bool,
    failed: Option<StoreError>,
}

impl StemWriter<'_> {
    fn push(&mut self, block: &Planar, song: &mut dyn Song) -> Result<(), OfflineError> {
        let mut done = 0;
        while done < block.samples() {
            let count = PIECE.min(block.samples() - done);
            let mut planes = block.slice(done..done + count).into_planes();
            if self.has_complement {
                let mixture = song.read(self.at, count);
                let mixture = mixture.map_err(|source| {
                    let folder = std::env::temp_dir().display().to_string();
                    OfflineError::Spool { folder, source }
                })?;
                let stem: Vec<Vec<f32>> = planes.iter().take(self.channels).cloned().collect();
                planes.extend(
                    mixture.iter().zip(&stem).map(|(x, y)| x.iter().zip(y).map(|(x, y)| x - y).collect()),
                );
            }
            planes.iter_mut().flatten().for_each(|x| *x = to_grid(*x));
            if let Err(error) = self.writer.append(Part::Stems, &Planar::from_equal(planes)) {
                self.failed = Some(error);
                return Err(OfflineError::Cancelled);
            }
            self.at += count as u64;
            done += count;
        }
        Ok(())
    }
}

/// A song that two readers take turns with.
struct SharedSong<'a, 'b, 'c>(&'a RefCell<&'b mut (dyn Song + 'c)>);

impl Song for SharedSong<'_, '_, '_> {
    fn rate(&self) -> u32 {
        self.0.borrow().rate()
    }

    fn channels(&self) -> usize {
        self.0.borrow().channels()
    }

    fn samples(&self) -> u64 {
        self.0.borrow().samples()
    }

    fn read(&mut self, at: u64, count: usize) -> std::io::Result<Planar> {
        self.0.borrow_mut().read(at, count)
    }
}

/// The options with which a song is prepared: those that the live stream has.
pub fn options(lossless: bool, overlap: Option<f64>) -> RenderOptions {
    let lossless = if lossless { LosslessMode::Spectral } else { LosslessMode::Off };
    RenderOptions { lossless, overlap, ..RenderOptions::default() }
}

#[cfg(test)]
mod tests;
