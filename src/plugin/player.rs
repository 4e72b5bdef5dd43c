//! Plays a song instead of the live input, for the standalone app: looped, at the device's sample rate. Without a song the input passes through.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;

use crate::audio::{AudioError, Decoder, Planar, Resampler};

/// Name of the decoding thread.
pub const THREAD_NAME: &str = "nullsum-player";
/// Audio decoded ahead, in seconds.
const PREFETCH_SECONDS: f64 = 1.0;
/// Samples decoded at a time.
const BLOCK: usize = 4096;
/// Interval at which the decoding thread checks for free space.
const POLL: Duration = Duration::from_millis(20);

/// What the app was started with.
struct AppOptions {
    song: Option<PathBuf>,
    has_input: bool,
}

/// Options for the next instance. `None` in a host.
static APP_OPTIONS: Mutex<Option<AppOptions>> = Mutex::new(None);

/// Gives the next instance a player. For the app, whose wrapper creates the instance. `has_input`: whether an input device was named.
///
/// # Errors
/// [`AudioError`] if `song` cannot be opened.
pub fn play_in_app(song: Option<&Path>, has_input: bool) -> Result<(), AudioError> {
    if let Some(song) = song {
        Decoder::open(song)?;
    }
    *APP_OPTIONS.lock() = Some(AppOptions { song: song.map(Path::to_path_buf), has_input });
    Ok(())
}

/// Takes the player requested with [`play_in_app`].
pub(super) fn take_app_player() -> Option<Player> {
    APP_OPTIONS.lock().take().map(|app| Player::new(app.song, app.has_input))
}

/// Plays a song in a loop.
pub struct Player {
    shared: Arc<Shared>,
    has_input: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// `None`: the input passes through.
    song: Mutex<Option<PathBuf>>,
    /// The same for the audio thread.
    has_song: AtomicBool,
    playing: AtomicBool,
    stopping: AtomicBool,
    /// Position of the next sample to play, at the device's rate. Written by the decoding thread after a seek, else by the audio thread.
    position: AtomicU64,
    /// Requested position plus 1; 0 if none.
    seek: AtomicU64,
    /// Length at the device's rate; 0 if unknown.
    length: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Player {
    pub(super) fn new(song: Option<PathBuf>, has_input: bool) -> Self {
        let shared = Shared {
            has_song: AtomicBool::new(song.is_some()),
            song: Mutex::new(song),
            playing: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            position: AtomicU64::new(0),
            seek: AtomicU64::new(0),
            length: AtomicU64::new(0),
            error: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), has_input, thread: Mutex::new(None) }
    }

    /// The open song, if any.
    pub fn song(&self) -> Option<PathBuf> {
        self.shared.song.lock().clone()
    }

    /// Whether a song is open. Otherwise the input passes through.
    pub fn has_song(&self) -> bool {
        self.shared.has_song.load(Relaxed)
    }

    /// Whether the app was started with an input device.
    pub fn has_input(&self) -> bool {
        self.has_input
    }

    /// Plays another song from its start.
    pub fn open(&self, song: PathBuf) {
        self.set_song(Some(song));
        self.set_playing(true);
    }

    /// Closes the song. The input passes through again.
    pub fn close(&self) {
        self.set_song(None);
    }

    fn set_song(&self, song: Option<PathBuf>) {
        self.shared.has_song.store(song.is_some(), Relaxed);
        *self.shared.song.lock() = song;
        self.shared.length.store(0, Relaxed);
        self.seek(0);
    }

    /// Whether the song plays. While paused, the input is silent.
    pub fn is_playing(&self) -> bool {
        self.shared.playing.load(Relaxed)
    }

    /// Plays or pauses.
    pub fn set_playing(&self, playing: bool) {
        self.shared.playing.store(playing, Relaxed);
    }

    /// Position and length in samples at the device's rate. A length of 0 is not known yet.
    pub fn position(&self) -> (u64, u64) {
        let take_seek_request = self.shared.seek.load(Relaxed).checked_sub(1);
        let position = take_seek_request.unwrap_or_else(|| self.shared.position.load(Relaxed));
        (position, self.shared.length.load(Relaxed))
    }

    /// Continues from a sample at the device's rate.
    pub fn seek(&self, position: u64) {
        self.shared.seek.store(position.saturating_add(1), Release);
    }

    /// Why the song cannot be played.
    pub fn error(&self) -> Option<String> {
        self.shared.error.lock().clone()
    }

    /// Starts decoding for a device at `rate` Hz. Returns the audio thread's half.
    pub(super) fn start(&self, rate: u32) -> Feed {
        self.stop();
        self.shared.stopping.store(false, Release);
        let queue = Arc::new(ArrayQueue::new((PREFETCH_SECONDS * f64::from(rate.max(1))) as usize + BLOCK));
        let feed = Feed { queue: queue.clone(), shared: self.shared.clone() };
        let reader = Reader { shared: self.shared.clone(), queue, rate, whole: None };
        let spawned = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || reader.run());
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

/// One sample of the left and right channel.
#[derive(Clone, Copy, Debug)]
struct StereoFrame {
    pair: [f32; 2],
    /// Samples from the start of the song.
    position: u64,
}

/// The audio thread's half of a player.
pub(super) struct Feed {
    queue: Arc<ArrayQueue<StereoFrame>>,
    shared: Arc<Shared>,
}

impl Feed {
    /// Realtime-safe: fills a block with the next samples, or with silence while paused. Leaves it unchanged if no song is open.
    pub fn fill(&self, main: &mut [&mut [f32]]) {
        if !self.shared.has_song.load(Relaxed) {
            return;
        }
        let playing = self.shared.playing.load(Relaxed);
        let samples = main.iter().map(|plane| plane.len()).min().unwrap_or(0);
        let mut position = None;
        for i in 0..samples {
            let next = if playing { self.queue.pop() } else { None };
            position = next.map(|next| next.position + 1).or(position);
            let pair = next.map_or([0.0; 2], |next| next.pair);
            for (plane, sample) in main.iter_mut().zip(pair) {
                if let Some(x) = plane.get_mut(i) {
                    *x = sample;
                }
            }
        }
        if let Some(position) = position {
            self.shared.position.store(position, Relaxed);
        }
    }
}

/// The decoding thread's half of a player.
struct Reader {
    shared: Arc<Shared>,
    queue: Arc<ArrayQueue<StereoFrame>>,
    rate: u32,
    /// The last song decoded to its end, with its length. Lossy files may announce a wrong length.
    whole: Option<(PathBuf, u64)>,
}

impl Reader {
    fn run(mut self) {
        let mut from = 0;
        while !self.is_stopped() {
            let read = self.read(from);
            *self.shared.error.lock() = read.as_ref().err().map(ToString::to_string);
            from = match read {
                Ok(Some(next)) => next,
                Ok(None) | Err(_) => self.wait(),
            };
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stopping.load(Acquire)
    }

    /// Waits for a seek or another song. Returns the position to start from.
    fn wait(&self) -> u64 {
        while !self.is_stopped() {
            if let Some(from) = self.take_seek_request() {
                return from;
            }
            std::thread::sleep(POLL);
        }
        0
    }

    /// Takes the requested position, and discards what was decoded ahead.
    fn take_seek_request(&self) -> Option<u64> {
        let from = self.shared.seek.load(Acquire).checked_sub(1)?;
        while self.queue.pop().is_some() {}
        self.shared.position.store(from, Relaxed);
        // A newer request stays. The same position in another song is correct too, because the path is read again.
        let _ = self.shared.seek.compare_exchange(from + 1, 0, AcqRel, Relaxed);
        Some(from)
    }

    /// Decodes the song once from a sample at the device's rate, until its end or the next request. Returns where to continue, or `None` if there is
    /// nothing to play.
    fn read(&mut self, from: u64) -> Result<Option<u64>, AudioError> {
        let Some(song) = self.shared.song.lock().clone() else {
            self.shared.length.store(0, Relaxed);
            return Ok(None);
        };
        let mut decoder = Decoder::open(&song)?;
        *self.shared.error.lock() = None;
        let (own, channels) = (decoder.info().sample_rate, decoder.info().channels);
        let announced = decoder.info().samples.map_or(0, |samples| scaled(samples, own, self.rate));
        let known = self.whole.as_ref().filter(|(whole, _)| *whole == song).map(|(_, length)| *length);
        self.shared.length.store(known.unwrap_or(announced), Relaxed);
        let mut resampler =
            if own == self.rate { None } else { Some(Resampler::new(own, self.rate, channels)?) };
        let (mut block, mut ready) = (Planar::new(channels), Planar::new(channels));
        // We do not seek inside files. Samples before the position are decoded and discarded.
        let mut skip = scaled(from, self.rate, own);
        while skip > 0 {
            block.clear();
            let most = usize::try_from(skip).unwrap_or(BLOCK).min(BLOCK);
            let read = decoder.read(most, &mut block)?;
            if read == 0 {
                break;
            }
            skip -= read as u64;
            if self.is_stopped() {
                return Ok(None);
            }
            if let Some(next) = self.take_seek_request() {
                return Ok(Some(next));
            }
        }
        let mut position = scaled(decoder.position(), own, self.rate);
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
            for (left, right) in left.iter().zip(right) {
                let mut next = StereoFrame { pair: [*left, *right], position };
                position += 1;
                while let Err(back) = self.queue.push(next) {
                    if self.is_stopped() {
                        return Ok(None);
                    }
                    if self.shared.seek.load(Acquire) > 0 {
                        break;
                    }
                    next = back;
                    std::thread::sleep(POLL);
                }
            }
            if self.is_stopped() {
                return Ok(None);
            }
            if let Some(next) = self.take_seek_request() {
                return Ok(Some(next));
            }
        }
        let length = scaled(decoder.position(), own, self.rate);
        self.shared.length.store(length, Relaxed);
        self.whole = Some((song, length));
        // An empty file would otherwise be read in an endless loop.
        Ok((length > 0).then_some(0))
    }
}

/// Converts a sample count to another rate. Halves round up.
fn scaled(samples: u64, from: u32, to: u32) -> u64 {
    let (from, to) = (u128::from(from.max(1)), u128::from(to));
    u64::try_from((u128::from(samples) * to * 2 + from) / (2 * from)).unwrap_or(u64::MAX)
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
    fn another_file_plays_even_after_an_invalid_one() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, gone] = ["a.wav", "b.wav", "gone.wav"].map(|name| folder.path().join(name));
        ramp(&first, 1.0);
        let falling = ramp(&second, -1.0);
        let player = Player::new(Some(first), false);
        let feed = player.start(48_000);
        player.open(gone);
        until("no error", &|| player.error().is_some());
        player.set_playing(false);
        player.open(second.clone());
        until("the error stays", &|| player.error().is_none());
        assert!(player.is_playing() && player.song() == Some(second));
        // The queue is emptied as soon as the decoder sees the request.
        until("the first file goes on", &|| {
            let mut next = [0.0; 10];
            feed.queue.len() > 10 && {
                feed.fill(&mut [&mut next]);
                next.iter().any(|x| *x < 0.0)
            }
        });
        let mut next = [0.0; 1000];
        until("too few samples", &|| feed.queue.len() > 1000);
        feed.fill(&mut [&mut next]);
        assert!(next.iter().all(|x| falling.contains(x)));
    }

    #[test]
    fn a_song_plays_in_a_loop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let ramp = ramp(&path, 1.0);
        let player = Player::new(Some(path), false);
        let feed = player.start(48_000);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        while left.len() < 2_500 {
            until("too few samples", &|| feed.queue.len() >= 100);
            let (mut l, mut r) = ([9.0; 100], [9.0; 100]);
            feed.fill(&mut [&mut l, &mut r]);
            left.extend(l);
            right.extend(r);
        }
        assert!(left.iter().enumerate().all(|(i, x)| *x == ramp[i % 1000]));
        assert_eq!(left, right);
        assert_eq!(player.position(), (500, 1000));
        player.set_playing(false);
        let mut silent = [9.0; 64];
        feed.fill(&mut [&mut silent]);
        assert_eq!(silent, [0.0; 64]);
    }

    #[test]
    fn seeking_works_while_paused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let ramp = ramp(&path, 1.0);
        let player = Player::new(Some(path), false);
        let feed = player.start(48_000);
        player.set_playing(false);
        for (target, played) in [(600, 600), (0, 0), (999, 999), (5_000_000, 0)] {
            player.seek(target);
            assert_eq!(player.position().0, target);
            until("the seek is not taken", &|| player.shared.seek.load(Relaxed) == 0);
            assert_eq!(player.position().0, target);
            until("too few samples", &|| feed.queue.len() >= 10);
            player.set_playing(true);
            let mut next = [9.0; 10];
            feed.fill(&mut [&mut next]);
            player.set_playing(false);
            let expected: Vec<f32> = (played..played + 10).map(|at| ramp[at % 1000]).collect();
            assert_eq!(next, *expected, "{target}");
            assert_eq!(player.position(), ((played as u64 + 9) % 1000 + 1, 1000));
        }
    }

    #[test]
    fn the_length_is_known_before_playback_at_any_rate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        ramp(&path, 1.0);
        for (rate, length) in [(48_000, 1000), (96_000, 2000), (44_100, 919)] {
            let player = Player::new(Some(path.clone()), false);
            let _feed = player.start(rate);
            until("no length", &|| player.position() == (0, length));
        }
        assert_eq!((scaled(u64::MAX, 1, 768_000), scaled(3, 2, 1), scaled(5, 0, 1)), (u64::MAX, 2, 5));
    }

    #[test]
    fn without_a_song_the_input_passes_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        ramp(&path, 1.0);
        let player = Player::new(None, true);
        let feed = player.start(48_000);
        let through = || {
            let mut block = [9.0; 64];
            feed.fill(&mut [&mut block]);
            block == [9.0; 64]
        };
        assert!(through() && !player.has_song());
        player.open(path);
        until("nothing is played", &|| player.has_song() && player.position().1 == 1000);
        assert!(!through());
        player.close();
        assert!(through() && player.song().is_none());
        until("it still reads", &|| player.position() == (0, 0) && player.shared.seek.load(Relaxed) == 0);
        assert_eq!(player.error(), None);
    }
}
