//! Live separation with constant latency.

use std::time::Duration;

use super::error::{Error, Result};
use super::model::Model;
use crate::live::{
    Client, HostSamples, ModelTiming, NoStems, Plan, Scheduler, SharedModel, StemPlanes, Stream, Tier,
};
use crate::separator::MaskRule;

/// Longest wait for the worker's next progress in [`LiveStream::process_offline`].
const PATIENCE: Duration = Duration::from_secs(60);

/// How a live stream is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveOptions {
    /// Sample rate in Hz. By default 48 000.
    pub sample_rate: u32,
    /// Channels. By default 2.
    pub channels: usize,
    /// Largest block in samples. Larger blocks are processed in parts. By default 512.
    pub max_block: usize,
    /// Trades latency for load. By default [`Tier::Balanced`].
    pub tier: Tier,
    /// Whether masks are completed and the stems' sum is exact. By default true.
    pub lossless: bool,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self { sample_rate: 48_000, channels: 2, max_block: 512, tier: Tier::Balanced, lossless: true }
    }
}

/// A live separation: blocks of the mixture in, the remix out, a constant number of samples later.
///
/// A worker thread separates. If it is late, the output is the delayed input where stems are missing. With all gains at 1 the output is the
/// delayed input, bit for bit.
///
/// ```
/// use nullsum::{LiveOptions, LiveStream, Model};
///
/// let mut stream = LiveStream::open(Model::embedded()?, &LiveOptions::default())?;
/// stream.set_gain(3, 0.0); // mute the vocals
/// let (mut left, mut right) = (vec![0.0; 512], vec![0.0; 512]);
/// stream.process(&mut [&mut left, &mut right]);
/// assert!(stream.latency_samples() > 0);
/// # Ok::<(), nullsum::Error>(())
/// ```
pub struct LiveStream {
    client: Client,
    stream: Stream,
    stems: Vec<String>,
    channels: usize,
}

impl LiveStream {
    /// Opens a stream and allocates all that it needs.
    ///
    /// # Errors
    /// [`Error::Live`] if the model cannot run at this rate, or the worker cannot start.
    pub fn open(model: Model, options: &LiveOptions) -> Result<Self> {
        let separator = model.into_separator();
        let timing = ModelTiming::of(separator.info());
        let max_block = HostSamples(options.max_block as u64);
        let plan = Plan::new(options.tier.request(&timing, options.sample_rate, max_block))?;
        let model = SharedModel::new(Box::new(separator));
        let stems = model.stem_names().to_vec();
        let channels = options.channels.max(1);
        let scheduler = Scheduler::of_process()?;
        let (mut client, stream) = Stream::open(&plan, stems.len(), channels, &scheduler);
        stream.set_rule(if options.lossless { MaskRule::Complete } else { MaskRule::Plain });
        if !options.lossless {
            client.set_carrier(None);
        }
        stream.swap(Some(model))?;
        Ok(Self { client, stream, stems, channels })
    }

    /// Latency in samples. Constant for the life of the stream.
    pub fn latency_samples(&self) -> u64 {
        self.client.latency().0
    }

    /// Names of the stems, in the order of [`set_gain`](Self::set_gain).
    pub fn stems(&self) -> &[String] {
        &self.stems
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Sets the linear gain of a stem. It changes smoothly over 20 ms. Unknown stems and values that are not finite are ignored.
    ///
    /// Realtime-safe.
    pub fn set_gain(&mut self, stem: usize, gain: f32) {
        for channel in 0..self.channels {
            self.client.set_gain(stem, channel, gain);
        }
    }

    /// Replaces a block by the output. `block`: `[channels][samples]`, as many channels as the stream has.
    ///
    /// Realtime-safe: no allocation, lock or system call.
    pub fn process(&mut self, block: &mut [&mut [f32]]) {
        self.client.process(block, &mut NoStems);
    }

    /// As [`process`](Self::process), and writes each stem after its gain, aligned with the output. `stems`: plane `stem × channels + channel`,
    /// each as long as the block.
    ///
    /// Realtime-safe: no allocation, lock or system call.
    pub fn process_with_stems(&mut self, block: &mut [&mut [f32]], stems: &mut [&mut [f32]]) {
        self.client.process(block, &mut StemPlanes { planes: stems, channels: self.channels });
    }

    /// As [`process_with_stems`](Self::process_with_stems), but waits for the worker, so that no stem is missing. `stems` may be empty.
    ///
    /// # Errors
    /// [`Error::Live`] if the model failed, or the worker made no progress for a minute. The block is processed nevertheless.
    pub fn process_offline(&mut self, block: &mut [&mut [f32]], stems: &mut [&mut [f32]]) -> Result<()> {
        let mut outputs = StemPlanes { planes: stems, channels: self.channels };
        self.client.process_blocking(block, &mut outputs, PATIENCE).map_err(Error::from)
    }

    /// Forgets all past input: the output is silent until new input arrives.
    ///
    /// Realtime-safe.
    pub fn reset(&mut self) {
        self.client.reset();
    }

    /// Number of windows that were not ready in time.
    pub fn late_windows(&self) -> u64 {
        self.stream.status().late_windows()
    }

    /// Real-time factor of the worker, smoothed: processing time divided by audio time.
    pub fn load(&self) -> f32 {
        self.stream.status().load()
    }
}

impl std::fmt::Debug for LiveStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveStream")
            .field("stems", &self.stems)
            .field("latency_samples", &self.latency_samples())
            .finish_non_exhaustive()
    }
}
