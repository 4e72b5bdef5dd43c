//! A song in place of the live input, for the standalone app: looped, at the device's rate. Without one the input goes through.

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
/// Audio that is decoded ahead, in seconds.
const AHEAD: f64 = 1.0;
/// Samples decoded at a time.
const BLOCK: usize = 4096;
/// Between two looks whether there is room.
const POLL: Duration = Duration::from_millis(20);

/// What the app was started with.
struct App {
    song: Option<PathBuf>,
    has_input: bool,
}

/// For the next instance; none: it is a host's, and has no player.
static NEXT: Mutex<Option<App>> = Mutex::new(None);

/// Gives the next instance that is made a player. For the app, whose instance the wrapper makes. `has_input`: whether somebody has named
/// an input.
///
/// # Errors
/// [`AudioError`] when `song` cannot be opened.
pub fn play_in_app(song: Option<&Path>, has_input: bool) -> Result<(), AudioError> {
    if let Some(song) = song {
        Decoder::open(song)?;
    }
    *NEXT.lock() = Some(App { song: song.map(Path::to_path_buf), has_input });
    Ok(())
}

/// A player as it was asked for with [`play_in_app`], once.
pub(super) fn of_app() -> Option<Player> {
    NEXT.lock().take().map(|app| Player::new(app.song, app.has_input))
}

/// Plays a song, over and over.
pub struct Player {
    shared: Arc<Shared>,
    has_input: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// None: the input goes through.
    song: Mutex<Option<PathBuf>>,
    /// Whether there is one, for the audio thread.
    has_song: AtomicBool,
    playing: AtomicBool,
    stopping: AtomicBool,
    /// Samples from the song's start to what is played next, at the device's rate. The decoding thread where it goes elsewhere, then the
    /// audio thread.
    position: AtomicU64,
    /// Where the decoder is asked to go on, plus 1; 0: nowhere.
    seek: AtomicU64,
    /// Length at the device's rate; 0: not known.
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

    /// The song.
    pub fn song(&self) -> Option<PathBuf> {
        self.shared.song.lock().clone()
    }

    /// Whether there is one; else the input goes through.
    pub fn has_song(&self) -> bool {
        self.shared.has_song.load(Relaxed)
    }

    /// Whether the app was started with an input.
    pub fn has_input(&self) -> bool {
        self.has_input
    }

    /// Plays another song, from its start.
    pub fn open(&self, song: PathBuf) {
        self.put(Some(song));
        self.set_playing(true);
    }

    /// Lets the song go: the input goes through again.
    pub fn close(&self) {
        self.put(None);
    }

    fn put(&self, song: Option<PathBuf>) {
        self.shared.has_song.store(song.is_some(), Relaxed);
        *self.shared.song.lock() = song;
        self.shared.length.store(0, Relaxed);
        self.seek(0);
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
        let asked = self.shared.seek.load(Relaxed).checked_sub(1);
        let position = asked.unwrap_or_else(|| self.shared.position.load(Relaxed));
        (position, self.shared.length.load(Relaxed))
    }

    /// Goes on from a sample of the device's rate.
    pub fn seek(&self, position: u64) {
        self.shared.seek.store(position.saturating_add(1), Release);
    }

    /// What went wrong with the song.
    pub fn error(&self) -> Option<String> {
        self.shared.error.lock().clone()
    }

    /// Starts decoding for a device of `rate` Hz. The audio thread's end of it.
    pub(super) fn start(&self, rate: u32) -> Feed {
        self.stop();
        self.shared.stopping.store(false, Release);
        let queue = Arc::new(ArrayQueue::new((AHEAD * f64::from(rate.max(1))) as usize + BLOCK));
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

/// Samples of the left and the right channel.
#[derive(Clone, Copy, Debug)]
struct Decoded {
    pair: [f32; 2],
    /// Samples from the song's start.
    position: u64,
}

/// The audio thread's end.
pub(super) struct Feed {
    queue: Arc<ArrayQueue<Decoded>>,
    shared: Arc<Shared>,
}

impl Feed {
    /// Fills a block with the song's next samples, or silence; without a song the block stays as it is. Realtime-safe.
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

/// The decoding thread's end.
struct Reader {
    shared: Arc<Shared>,
    queue: Arc<ArrayQueue<Decoded>>,
    rate: u32,
    /// The song that was read to its end last, and its length: what a lossy file says of itself is an announcement.
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

    /// Until another song is opened, or this one is tried again. Where to begin.
    fn wait(&self) -> u64 {
        while !self.is_stopped() {
            if let Some(from) = self.asked() {
                return from;
            }
            std::thread::sleep(POLL);
        }
        0
    }

    /// Where it is asked to go. What was decoded ahead is then forgotten.
    fn asked(&self) -> Option<u64> {
        let from = self.shared.seek.load(Acquire).checked_sub(1)?;
        while self.queue.pop().is_some() {}
        self.shared.position.store(from, Relaxed);
        // Another wish that has come meanwhile stays; the same one for another song is met by reading the song's path anew.
        let _ = self.shared.seek.compare_exchange(from + 1, 0, AcqRel, Relaxed);
        Some(from)
    }

    /// Reads the song once, from a sample of the device's rate to its end or until it is asked to go elsewhere. Where to go on; none: there is
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
        // No format is sought in: what comes before is decoded, and left out.
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
            if let Some(next) = self.asked() {
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
                let mut next = Decoded { pair: [*left, *right], position };
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
            if let Some(next) = self.asked() {
                return Ok(Some(next));
            }
        }
        let length = scaled(decoder.position(), own, self.rate);
        self.shared.length.store(length, Relaxed);
        self.whole = Some((song, length));
        // An empty file would be read for ever.
        Ok((length > 0).then_some(0))
    }
}

/// A count of samples at another rate, halves upwards.
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
    fn another_file_is_played_also_after_one_that_is_none() {
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
        let player = Player::new(Some(path), false);
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
        assert_eq!(player.position(), (500, 1000));
        player.set_playing(false);
        let mut silent = [9.0; 64];
        feed.fill(&mut [&mut silent]);
        assert_eq!(silent, [0.0; 64]);
    }

    #[test]
    fn a_song_goes_on_from_where_it_is_asked_also_while_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let ramp = ramp(&path, 1.0);
        let player = Player::new(Some(path), false);
        let feed = player.start(48_000);
        player.set_playing(false);
        for (asked, played) in [(600, 600), (0, 0), (999, 999), (5_000_000, 0)] {
            player.seek(asked);
            assert_eq!(player.position().0, asked);
            until("nobody heeds it", &|| player.shared.seek.load(Relaxed) == 0);
            assert_eq!(player.position().0, asked);
            until("too little", &|| feed.queue.len() >= 10);
            player.set_playing(true);
            let mut next = [9.0; 10];
            feed.fill(&mut [&mut next]);
            player.set_playing(false);
            let expected: Vec<f32> = (played..played + 10).map(|at| ramp[at % 1000]).collect();
            assert_eq!(next, *expected, "{asked}");
            assert_eq!(player.position(), ((played as u64 + 9) % 1000 + 1, 1000));
        }
    }

    #[test]
    fn a_song_s_length_is_known_before_it_was_played_at_any_rate() {
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
    fn without_a_song_the_input_goes_through() {
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
