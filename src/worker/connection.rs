//! A client's connection to a worker.
//!
//! A request waits for its reply with a limit: the worker counts up a heartbeat in the shared memory, and one whose heartbeat stands still is
//! *hung*. A job is cancelled through the shared memory too, so that the worker sees it between two layers.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::channel::{Channel, ChannelError};
use super::endpoint::{self, Endpoint};
use super::error::WorkerError;
use super::memory::SharedMemory;
use super::protocol::{
    self, HopJob, HopResult, LoadRequest, RemoteSpec, Reply, Request, StreamPlan, WindowJob, WireRule,
    WireUrgency,
};
use crate::kernels::JobControl;
use crate::live::RemoteUrgency;
use crate::separator::{MaskRule, RemoteInput};

/// How often a caller that waits is asked whether to go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Longest time without a heartbeat.
const MAX_SILENCE: Duration = Duration::from_secs(3);
/// Longest time between a cancellation and the end of the job: one layer of a large model on a slow processor.
const MAX_CANCEL: Duration = Duration::from_secs(10);
/// Longest time for a greeting.
const GREETING: Duration = Duration::from_secs(3);
/// Values of the first memory: enough for the hops of small models.
const FIRST_VALUES: usize = 32 << 10;

/// Asked every few milliseconds whether to wait on.
pub type GoOn<'a> = &'a mut dyn FnMut() -> ControlFlow<()>;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    memory: SharedMemory,
    process: Option<WorkerProcess>,
    last_job: u32,
    last_stream: u64,
}

impl Connection {
    /// Connects to the worker of `device`, greets it, and shares memory with it.
    ///
    /// # Errors
    /// [`WorkerError`]. A worker that hangs is ended first.
    pub fn open(endpoint: &Endpoint, device: &str) -> Result<Self, WorkerError> {
        let socket = endpoint.connect().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                WorkerError::NotRunning { device: device.to_owned() }
            }
            _ => error.into(),
        })?;
        let process = WorkerProcess::of(&socket);
        let mut channel = Channel::new(socket)?;
        if let Err(error) = greet(&mut channel, device) {
            if matches!(error, WorkerError::Hung) {
                end_process(process.as_ref());
            }
            return Err(error);
        }
        let memory = SharedMemory::create(FIRST_VALUES).map_err(WorkerError::Memory)?;
        let mut connection = Self { channel, memory, process, last_job: 0, last_stream: 0 };
        connection.attach()?;
        Ok(connection)
    }

    /// Loads the model of this connection. `go_on` may end the wait; the connection is then of no use.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn load(&mut self, request: &LoadRequest, go_on: GoOn<'_>) -> Result<RemoteSpec, WorkerError> {
        self.send(&Request::Load(request.clone()))?;
        match self.wait(None, go_on)? {
            Reply::Loaded(spec) if spec.is_sane() => Ok(spec),
            Reply::Loaded(_) => Err(WorkerError::Protocol("a model out of limits".into())),
            other => Err(unexpected(other)),
        }
    }

    /// Opens a stream. Returns its number.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn open_stream(&mut self, plan: StreamPlan) -> Result<u64, WorkerError> {
        self.last_stream += 1;
        let stream = self.last_stream;
        self.send(&Request::Open { stream, plan })?;
        match self.wait(None, &mut || ControlFlow::Continue(()))? {
            Reply::Opened => Ok(stream),
            other => Err(unexpected(other)),
        }
    }

    /// Ends a stream.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn close_stream(&mut self, stream: u64) -> Result<(), WorkerError> {
        self.send(&Request::Close { stream })
    }

    /// Separates a window [channels, samples] into `stems` [stems, channels, samples]. `samples` of each channel.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn separate_window(
        &mut self,
        (input, samples): (&[f32], usize),
        rule: MaskRule,
        stems: &mut [f32],
        control: &dyn JobControl,
    ) -> Result<(), WorkerError> {
        self.reserve(input.len() + stems.len())?;
        let job = WindowJob {
            job: self.next_job(),
            samples,
            input: 0,
            output: input.len(),
            rule: wire_rule(rule),
            urgency: urgency(),
        };
        self.write(input)?;
        self.send(&Request::Window(job))?;
        match self.wait(Some(job.job), &mut || control.checkpoint())? {
            Reply::Done(_) if self.memory.read(job.output, stems) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Runs a hop of a stream. `input`: the new samples, [channels, samples]. The result has `lines` lines, which [`read_line`](Self::read_line)
    /// returns until the next request.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn run_hop(
        &mut self,
        stream: u64,
        (input, description): (&[f32], RemoteInput),
        (frames, lines, stride): (usize, usize, usize),
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<(HopResult, HopLines), WorkerError> {
        self.reserve(input.len() + lines * stride)?;
        let job = HopJob {
            job: self.next_job(),
            stream,
            samples: description.samples,
            input: 0,
            finished: description.finished,
            forget: description.forget,
            frames,
            output: input.len(),
            stride,
            rule: wire_rule(rule),
            urgency: urgency(),
        };
        self.write(input)?;
        self.send(&Request::Hop(job))?;
        match self.wait(Some(job.job), &mut || control.checkpoint())? {
            Reply::Done(result) => Ok((result, HopLines { output: job.output, stride })),
            other => Err(unexpected(other)),
        }
    }

    /// Reads a line of the last hop. False if it is not there.
    pub fn read_line(&self, lines: HopLines, line: usize, samples: &mut [f32]) -> bool {
        let at = line.checked_mul(lines.stride).and_then(|at| at.checked_add(lines.output));
        samples.len() <= lines.stride && at.is_some_and(|at| self.memory.read(at, samples))
    }

    /// Ends the worker if it hangs: nothing else could use its device until then.
    pub fn end_hung_worker(&self) {
        end_process(self.process.as_ref());
    }

    fn next_job(&mut self) -> u32 {
        self.last_job = self.last_job.checked_add(1).unwrap_or(1);
        self.last_job
    }

    /// Shares larger memory if `values` do not fit into the present one.
    fn reserve(&mut self, values: usize) -> Result<(), WorkerError> {
        if values <= self.memory.capacity() {
            return Ok(());
        }
        self.memory = SharedMemory::create(values).map_err(WorkerError::Memory)?;
        self.attach()
    }

    fn attach(&mut self) -> Result<(), WorkerError> {
        let request = Request::Attach { bytes: self.memory.bytes() };
        self.channel.send(&request, Some(self.memory.descriptor())).map_err(lost)?;
        match self.wait(None, &mut || ControlFlow::Continue(()))? {
            Reply::Attached => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn write(&self, input: &[f32]) -> Result<(), WorkerError> {
        if self.memory.write(0, input) {
            return Ok(());
        }
        Err(WorkerError::Memory(std::io::Error::other("the input does not fit")))
    }

    fn send(&self, request: &Request) -> Result<(), WorkerError> {
        self.channel.send(request, None).map_err(lost)
    }

    /// Waits for the reply to a request, for as long as the worker lives. `go_on` may cancel `job`.
    fn wait(&mut self, job: Option<u32>, go_on: GoOn<'_>) -> Result<Reply, WorkerError> {
        let mut beat = (self.memory.heartbeat().load(Relaxed), Instant::now());
        let mut cancelled: Option<Instant> = None;
        loop {
            if let Some(reply) = self.channel.receive::<Reply>(LOOK_INTERVAL).map_err(lost)? {
                return Ok(reply);
            }
            let now = Instant::now();
            let count = self.memory.heartbeat().load(Relaxed);
            if count != beat.0 {
                beat = (count, now);
            }
            let is_stuck = cancelled.is_some_and(|since| now - since > MAX_CANCEL);
            if now - beat.1 > MAX_SILENCE || is_stuck {
                self.end_hung_worker();
                return Err(WorkerError::Hung);
            }
            if go_on().is_break() && cancelled.is_none() {
                let Some(job) = job else { return Err(WorkerError::Cancelled) };
                self.memory.cancelled_job().store(job, Relaxed);
                cancelled = Some(now);
            }
        }
    }
}

/// Where the result of a hop is.
#[derive(Clone, Copy, Debug)]
pub struct HopLines {
    output: usize,
    stride: usize,
}

fn greet(channel: &mut Channel, device: &str) -> Result<(), WorkerError> {
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let hello = Request::Hello {
        magic: protocol::MAGIC.into(),
        version: protocol::VERSION,
        program: program.clone(),
    };
    channel.send(&hello, None).map_err(lost)?;
    let reply = channel.receive::<Reply>(GREETING).map_err(lost)?.ok_or(WorkerError::Hung)?;
    let versions = |found: String, found_protocol| WorkerError::Version {
        found: protocol::shorten(&found),
        found_protocol,
        expected: program.clone(),
        expected_protocol: protocol::VERSION,
    };
    match reply {
        Reply::Welcome { version, device: theirs, .. }
            if version == protocol::VERSION && theirs == device =>
        {
            Ok(())
        }
        Reply::Welcome { version, program, .. } | Reply::Refused { version, program, .. }
            if version != protocol::VERSION =>
        {
            Err(versions(program, version))
        }
        Reply::Welcome { device: theirs, .. } => {
            Err(WorkerError::Protocol(format!("the name of another device, {}", protocol::shorten(&theirs))))
        }
        Reply::Refused { reason, .. } => Err(WorkerError::Device(protocol::shorten(&reason))),
        other => Err(unexpected(other)),
    }
}

fn lost(error: ChannelError) -> WorkerError {
    match error {
        ChannelError::Closed => WorkerError::Lost,
        ChannelError::Malformed(what) => WorkerError::Protocol(protocol::shorten(&what)),
        ChannelError::Io(error) => WorkerError::Io(error),
    }
}

/// The error that a reply stands for.
fn unexpected(reply: Reply) -> WorkerError {
    match reply {
        Reply::InvalidModel { reason, report } => WorkerError::InvalidModel {
            reason: protocol::shorten(&reason),
            report: report.map(|report| protocol::shorten(&report)),
        },
        Reply::DeviceFailed { reason } => WorkerError::Device(protocol::shorten(&reason)),
        Reply::Failed { reason, out_of_memory } => {
            WorkerError::Failed { reason: protocol::shorten(&reason), out_of_memory }
        }
        Reply::Cancelled { .. } => WorkerError::Cancelled,
        _ => WorkerError::Protocol("a reply to another request".into()),
    }
}

fn wire_rule(rule: MaskRule) -> WireRule {
    match rule {
        MaskRule::Plain => WireRule::Plain,
        MaskRule::Complete => WireRule::Complete,
    }
}

/// Urgency of the job of this thread; outside the live engine it is due now.
fn urgency() -> WireUrgency {
    let Some(RemoteUrgency { due, is_background }) = RemoteUrgency::of_this_thread() else {
        return WireUrgency::default();
    };
    let now = Instant::now();
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    let due_us = match due.checked_duration_since(now) {
        Some(left) => micros(left),
        None => -micros(now - due),
    };
    WireUrgency { due_us, background: is_background }
}

/// The worker's process, identified so that no other process can be meant.
#[derive(Debug)]
struct WorkerProcess {
    #[cfg(target_os = "linux")]
    descriptor: std::os::fd::OwnedFd,
}

impl WorkerProcess {
    /// The process at the other end of a socket that is connected.
    #[cfg(target_os = "linux")]
    fn of(socket: &std::os::fd::OwnedFd) -> Option<Self> {
        use rustix::process::{PidfdFlags, pidfd_open};
        let descriptor = pidfd_open(endpoint::peer_process(socket)?, PidfdFlags::empty()).ok()?;
        Some(Self { descriptor })
    }

    #[cfg(not(target_os = "linux"))]
    fn of(socket: &std::os::fd::OwnedFd) -> Option<Self> {
        endpoint::peer_process(socket).map(|_| Self {})
    }
}

/// Ends a process at once, if it still runs.
fn end_process(process: Option<&WorkerProcess>) {
    #[cfg(target_os = "linux")]
    if let Some(process) = process {
        log::warn!("the worker does not respond; it is ended");
        let _ = rustix::process::pidfd_send_signal(&process.descriptor, rustix::process::Signal::KILL);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = process;
}
