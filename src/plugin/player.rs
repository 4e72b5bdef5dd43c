//! A file in place of the live input, for the standalone app: looped, at the device's rate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;

use crate::audio::{AudioError, Decoder, Planar, Resampler};

/// Name of the decoding thread.
pub const THREAD_NAME: &str = "nullsum-player";
/// Audio that is decoded ahead, in seconds.
const AHEAD: f64 = 1.0;
/// Samples decoded at a time.
const BLOCK: usize = 4096;
/// Between two looks whether there is room.
const POLL: Duration = Duration::from_millis(20);

/// The file that the next instance plays instead of its input; none: the live input.
static NEXT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Plays `path` in the next instance that is made. For the app, whose instance the wrapper makes.
///
/// # Errors
/// [`AudioError`] when it cannot be opened.
pub fn play_in_app(path: &Path) -> Result<(), AudioError> {
    Decoder::open(path)?;
    *NEXT.lock() = Some(path.to_path_buf());
    Ok(())
}

/// A player for the file that was given to [`play_in_app`], once.
pub(super) fn of_app() -> Option<Player> {
    NEXT.lock().take().map(Player::new)
}

/// Plays a file, over and over.
pub struct Player {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    path: Mutex<PathBuf>,
    playing: AtomicBool,
    stopping: AtomicBool,
    /// Samples played since the file began, at the device's rate.
    position: AtomicU64,
    /// Where the decoder is asked to go on, plus 1; 0: nowhere.
    seek: AtomicU64,
    /// Length at the device's rate, once it is known.
    length: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Shared {
    /// Whether it was asked for from the start. What was decoded ahead is then forgotten.
    fn begins_anew(&self, queue: &ArrayQueue<[f32; 2]>) -> bool {
        let asked = self.seek.swap(0, Acquire) > 0;
        if asked {
            while queue.pop().is_some() {}
            self.position.store(0, Relaxed);
        }
        asked
    }
}

impl Player {
    fn new(path: PathBuf) -> Self {
        let shared = Shared {
            path: Mutex::new(path),
            playing: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            position: AtomicU64::new(0),
            seek: AtomicU64::new(0),
            length: AtomicU64::new(0),
            error: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.shared.path.lock().clone()
    }

    /// Plays another file, from its start.
    pub fn open(&self, path: PathBuf) {
        *self.shared.path.lock() = path;
        self.shared.length.store(0, Relaxed);
        self.rewind();
        self.set_playing(true);
    }

    /// Whether it plays; else the input is silent.
    pub fn is_playing(&self) -> bool {
        self.shared.playing.load(Relaxed)
    }

    /// Plays or pauses.
    pub fn set_playing(&self, playing: bool) {
        self.shared.playing.store(playing, Relaxed);
    }

    /// Position and length in samples of the device's rate; a length of 0 is not known yet.
    pub fn position(&self) -> (u64, u64) {
        (self.shared.position.load(Relaxed), self.shared.length.load(Relaxed))
    }

    /// Back to the start.
    pub fn rewind(&self) {
        self.shared.seek.store(1, Release);
    }

    /// What went wrong with the file.
    pub fn error(&self) -> Option<String> {
        self.shared.error.lock().clone()
    }

    /// Starts decoding for a device of `rate` Hz. The audio thread's end of it.
    pub(super) fn start(&self, rate: u32) -> Feed {
        self.stop();
        self.shared.stopping.store(false, Release);
        let queue = Arc::new(ArrayQueue::new((AHEAD * f64::from(rate.max(1))) as usize + BLOCK));
        let feed = Feed { queue: queue.clone(), shared: self.shared.clone() };
        let shared = self.shared.clone();
        let spawned = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || {
            while !shared.stopping.load(Acquire) {
                *shared.error.lock() = decode(&shared, &queue, rate).err().map(|error| error.to_string());
                // Until another file is opened, or this one is tried again.
                while !shared.begins_anew(&queue) && !shared.stopping.load(Acquire) {
                    std::thread::sleep(POLL);
                }
            }
        });
        match spawned {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => *self.shared.error.lock() = Some(error.to_string()),
        }
        feed
    }

    fn stop(&self) {
        self.shared.stopping.store(true, Release);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The audio thread's end.
pub(super) struct Feed {
    queue: Arc<ArrayQueue<[f32; 2]>>,
    shared: Arc<Shared>,
}

impl Feed {
    /// Fills a block with the next samples, or silence. Realtime-safe.
    pub fn fill(&self, main: &mut [&mut [f32]]) {
        let playing = self.shared.playing.load(Relaxed);
        let samples = main.iter().map(|plane| plane.len()).min().unwrap_or(0);
        let mut played = 0;
        for i in 0..samples {
            let next = if playing { self.queue.pop() } else { None };
            played += u64::from(next.is_some());
            let pair = next.unwrap_or_default();
            for (plane, sample) in main.iter_mut().zip(pair) {
                if let Some(x) = plane.get_mut(i) {
                    *x = sample;
                }
            }
        }
        let (position, length) =
            (self.shared.position.load(Relaxed) + played, self.shared.length.load(Relaxed));
        self.shared.position.store(if length > 0 { position % length } else { position }, Relaxed);
    }
}

fn decode(shared: &Shared, queue: &ArrayQueue<[f32; 2]>, rate: u32) -> Result<(), AudioError> {
    loop {
        let path = shared.path.lock().clone();
        let mut decoder = Decoder::open(&path)?;
        *shared.error.lock() = None;
        let (from, channels) = (decoder.info().sample_rate, decoder.info().channels);
        let mut resampler = if from == rate { None } else { Some(Resampler::new(from, rate, channels)?) };
        let (mut block, mut ready) = (Planar::new(channels), Planar::new(channels));
        let mut total = 0;
        let mut at_end = false;
        while !at_end {
            block.clear();
            at_end = decoder.read(BLOCK, &mut block)? == 0;
            let out = match &mut resampler {
                Some(resampler) => {
                    ready.clear();
                    if at_end {
                        resampler.finish(&mut ready)?
                    } else {
                        resampler.push(&block, &mut ready)?
                    }
                    &ready
                }
                None => &block,
            };
            let left = out.planes().first().map_or(&[][..], Vec::as_slice);
            let right = out.planes().get(1).map_or(left, Vec::as_slice);
            for pair in left.iter().zip(right) {
                let mut pair = [*pair.0, *pair.1];
                while let Err(back) = queue.push(pair) {
                    if shared.stopping.load(Acquire) {
                        return Ok(());
                    }
                    if shared.seek.load(Acquire) > 0 {
                        break;
                    }
                    pair = back;
                    std::thread::sleep(POLL);
                }
            }
            total += left.len() as u64;
            if shared.stopping.load(Acquire) {
                return Ok(());
            }
            if shared.begins_anew(queue) {
                break;
            }
            if at_end {
                shared.length.store(total, Relaxed);
                // An empty file would be read for ever.
                if total == 0 {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{AudioWriter, Container, SampleFormat, WriterSpec};

    /// Writes a file of 1000 samples that rise to `top`.
    fn ramp(path: &Path, top: f32) -> Vec<f32> {
        let ramp: Vec<f32> = (0..1000).map(|i| top * i as f32 / 1024.0).collect();
        let spec = WriterSpec {
            container: Container::Wav,
            sample_rate: 48_000,
            channels: 1,
            format: SampleFormat::Float32,
        };
        let mut writer = AudioWriter::create(path, spec).unwrap();
        writer.write(&Planar::from_planes(vec![ramp.clone()]).unwrap()).unwrap();
        writer.finish().unwrap();
        ramp
    }

    fn until(what: &str, done: &dyn Fn() -> bool) {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn another_file_is_played_also_after_one_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, gone] = ["a.wav", "b.wav", "gone.wav"].map(|name| folder.path().join(name));
        ramp(&first, 1.0);
        let falling = ramp(&second, -1.0);
        let player = Player::new(first);
        let feed = player.start(48_000);
        player.open(gone);
        until("no error", &|| player.error().is_some());
        player.set_playing(false);
        player.open(second.clone());
        until("the error stays", &|| player.error().is_none());
        assert!(player.is_playing() && player.path() == second);
        // What was decoded ahead is gone as soon as the decoder has seen the wish.
        until("the first file goes on", &|| {
            let mut next = [0.0; 10];
            feed.queue.len() > 10 && {
                feed.fill(&mut [&mut next]);
                next.iter().any(|x| *x < 0.0)
            }
        });
        let mut next = [0.0; 1000];
        until("too little", &|| feed.queue.len() > 1000);
        feed.fill(&mut [&mut next]);
        assert!(next.iter().all(|x| falling.contains(x)));
    }

    #[test]
    fn a_file_is_played_from_its_start_and_again_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let ramp = ramp(&path, 1.0);
        let player = Player::new(path);
        let feed = player.start(48_000);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        while left.len() < 2_500 {
            until("too little", &|| feed.queue.len() >= 100);
            let (mut l, mut r) = ([9.0; 100], [9.0; 100]);
            feed.fill(&mut [&mut l, &mut r]);
            left.extend(l);
            right.extend(r);
        }
        assert!(left.iter().enumerate().all(|(i, x)| *x == ramp[i % 1000]));
        assert_eq!(left, right);
        player.set_playing(false);
        let mut silent = [9.0; 64];
        feed.fill(&mut [&mut silent]);
        assert_eq!(silent, [0.0; 64]);
    }
}
