//! What a client and a worker say to each other.
//!
//! Messages are JSON, each in a frame of its own ([`super::channel`]). They carry positions in the shared memory, never addresses. Whoever
//! receives one checks every number in it: neither side trusts the other.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of the protocol. Client and worker must have the same one.
pub const VERSION: u32 = 1;
/// First field of a greeting, so that another program's socket is recognised.
pub const MAGIC: &str = "nullsum-worker";
/// Most stems of a model.
pub const MAX_STEMS: usize = 64;
/// Most channels that a model separates jointly.
pub const MAX_CHANNELS: usize = 8;
/// Most samples of a window, or of new input: a minute at 192 kHz.
pub const MAX_SAMPLES: usize = 60 * 192_000;
/// Most streams of one connection.
pub const MAX_STREAMS: usize = 1024;
/// Most characters of a text in a reply that a client shows.
const MAX_TEXT: usize = 4_000;

/// From a client to its worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Opens the conversation.
    Hello { magic: String, version: u32, program: String },
    /// The file descriptor beside this message is memory of so many bytes. It replaces the memory before.
    Attach { bytes: u64 },
    /// Loads the model of this connection.
    Load(LoadRequest),
    /// Opens a stream that keeps its context in the worker.
    Open { stream: u64, plan: StreamPlan },
    /// Ends a stream. Has no reply.
    Close { stream: u64 },
    /// Separates a window.
    Window(WindowJob),
    /// Makes frames of a stream final.
    Hop(HopJob),
}

/// From a worker to a client. There is one for each request except [`Request::Close`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Welcome {
        version: u32,
        program: String,
        device: String,
    },
    /// The worker does not serve this client.
    Refused {
        version: u32,
        program: String,
        reason: String,
    },
    Attached,
    Loaded(RemoteSpec),
    /// The checkpoint cannot be used, on this device or any other.
    InvalidModel {
        reason: String,
        report: Option<String>,
    },
    /// The device does not work.
    DeviceFailed {
        reason: String,
    },
    Opened,
    Done(HopResult),
    Cancelled {
        received: u64,
        final_frames: u64,
    },
    /// The request failed; the connection goes on.
    Failed {
        reason: String,
        out_of_memory: bool,
    },
}

/// A model to load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The checkpoint; none for the model that is part of the program.
    pub checkpoint: Option<PathBytes>,
    /// SHA-256 of the checkpoint.
    pub sha256: String,
    /// Its YAML configuration; none if it is inside the checkpoint, beside it, or known to the registry.
    pub config: Option<PathBytes>,
    /// Threads on the worker's processor.
    pub threads: usize,
}

/// A path in the bytes of the system, so that names that are not Unicode survive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathBytes(Vec<u8>);

impl PathBytes {
    pub fn new(path: &Path) -> Self {
        Self(path.as_os_str().as_encoded_bytes().to_vec())
    }

    /// The path; none if the bytes cannot be a path on this system.
    pub fn to_path(&self) -> Option<PathBuf> {
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            Some(Path::new(std::ffi::OsStr::from_bytes(&self.0)).to_path_buf())
        }
        #[cfg(not(unix))]
        std::str::from_utf8(&self.0).ok().map(PathBuf::from)
    }
}

/// A loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteSpec {
    pub stems: Vec<String>,
    pub channels: usize,
    /// Sample rate in Hz.
    pub rate: u32,
    /// Chunk length in samples.
    pub chunk: u64,
    /// Samples between frames of the transform.
    pub frame_hop: u64,
    /// Samples of a frame of the transform.
    pub frame: u64,
    /// Samples of the analysis window, if the model keeps context.
    pub context_window: Option<u64>,
    /// Device, kernel, precision and threads, for display.
    pub runs_on: String,
}

impl RemoteSpec {
    /// Whether all numbers are within limits.
    pub fn is_sane(&self) -> bool {
        (1..=MAX_STEMS).contains(&self.stems.len())
            && (1..=MAX_CHANNELS).contains(&self.channels)
            && (1_000..=384_000).contains(&self.rate)
            && (1..=60 * u64::from(self.rate)).contains(&self.chunk)
            && (1..=1 << 16).contains(&self.frame_hop)
            && (2..=1 << 17).contains(&self.frame)
            && self.frame_hop <= self.frame
            && self.context_window.is_none_or(|window| (self.frame_hop..=self.frame).contains(&window))
            && self.stems.iter().chain([&self.runs_on]).all(|text| text.len() <= MAX_TEXT)
    }
}

/// How a stream is cut into hops, in frames. See `ContextPlan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPlan {
    pub hop_frames: usize,
    pub lookahead_frames: usize,
    pub context_frames: usize,
    pub margin_frames: usize,
    pub memory_budget: usize,
}

/// What happens to the part of the mixture that no stem claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireRule {
    Plain,
    Complete,
}

/// What a job says of its urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireUrgency {
    /// Microseconds until its result is due; negative if it is late.
    pub due_us: i64,
    /// Whether it may wait for all other jobs.
    pub background: bool,
}

/// A window [channels, samples], flat, at value `input` of the shared memory. Its stems [stems, channels, samples] go to value `output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowJob {
    /// Number of the job, for its cancellation. Never 0.
    pub job: u32,
    pub samples: usize,
    pub input: usize,
    pub output: usize,
    pub rule: WireRule,
    pub urgency: WireUrgency,
}

/// New input of a stream [channels, samples] at value `input`, and how many frames become final. The stems [stems, channels, final +
/// provisional samples] go to value `output`, one line of `stride` values for each channel of a stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopJob {
    /// Number of the job, for its cancellation. Never 0.
    pub job: u32,
    pub stream: u64,
    pub samples: usize,
    pub input: usize,
    /// Whether the stream ends with this input.
    pub finished: bool,
    /// Whether the kept context is forgotten first.
    pub forget: bool,
    pub frames: usize,
    pub output: usize,
    pub stride: usize,
    pub rule: WireRule,
    pub urgency: WireUrgency,
}

/// The end of a job. For a window all fields but `seconds` are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HopResult {
    pub final_len: usize,
    pub provisional_len: usize,
    /// Whether the network was run: false for silence.
    pub ran: bool,
    pub final_frames: u64,
    pub received: u64,
    /// Seconds that the job ran, without waiting for others.
    pub seconds: f64,
}

/// A text of the other side, short enough to be shown.
pub fn shorten(text: &str) -> String {
    let cleaned = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
    cleaned.take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RemoteSpec {
        RemoteSpec {
            stems: vec!["vocals".into(), "other".into()],
            channels: 2,
            rate: 44_100,
            chunk: 88_200,
            frame_hop: 441,
            frame: 2048,
            context_window: Some(2048),
            runs_on: "cpu".into(),
        }
    }

    #[test]
    fn models_out_of_limits_are_refused() {
        assert!(spec().is_sane());
        let wrong: [fn(&mut RemoteSpec); 11] = [
            |spec| spec.stems.clear(),
            |spec| spec.stems = vec![String::new(); 65],
            |spec| spec.stems[0] = "x".repeat(4_001),
            |spec| spec.channels = 0,
            |spec| spec.channels = 9,
            |spec| spec.rate = 0,
            |spec| spec.chunk = u64::MAX,
            |spec| spec.frame_hop = 0,
            |spec| spec.frame_hop = 4096,
            |spec| spec.frame = u64::MAX,
            |spec| spec.context_window = Some(0),
        ];
        for change in wrong {
            let mut spec = spec();
            change(&mut spec);
            assert!(!spec.is_sane(), "{spec:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_are_not_unicode_survive() {
        use std::os::unix::ffi::OsStrExt;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/m/M\xfcller.ckpt"));
        let text = serde_json::to_string(&PathBytes::new(odd)).unwrap();
        assert_eq!(serde_json::from_str::<PathBytes>(&text).unwrap().to_path().unwrap(), odd);
    }

    #[test]
    fn texts_of_the_other_side_are_shortened() {
        assert_eq!(shorten("a\u{7}b\nc"), "a b\nc");
        assert_eq!(shorten(&"ä".repeat(9_000)).chars().count(), 4_000);
    }
}
