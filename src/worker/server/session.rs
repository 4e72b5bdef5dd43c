//! One client of the worker. Nothing that it sends is trusted: a request that makes no sense is answered by an error, and one that cannot be read
//! ends the session.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::super::channel::{Channel, ChannelError};
use super::super::memory::SharedMemory;
use super::super::protocol::{
    self, HopJob, HopResult, LoadRequest, RemoteSpec, Reply, Request, StreamPlan, WindowJob, WireRule,
    WireUrgency,
};
use super::{ModelFailure, ServerState};
use crate::kernels::JobControl;
use crate::live::{SharedModel, WindowError};
use crate::separator::context::DEFAULT_CONTEXT_BUDGET;
use crate::separator::{ContextPlan, MaskRule, StreamState};

/// How long a client may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// How long to wait for a request at a time.
const IDLE: Duration = Duration::from_secs(60);
/// Latest time in the future at which a job can be due.
const MAX_DUE: Duration = Duration::from_secs(120);

/// A client.
pub(super) struct Session {
    channel: Channel,
    state: Arc<ServerState>,
    memory: Option<Arc<SharedMemory>>,
    model: Option<SharedModel>,
    streams: HashMap<u64, StreamState>,
    input: Vec<f32>,
    output: Vec<f32>,
}

/// Why a request is answered by an error.
struct Refusal(Reply);

impl<E: std::fmt::Display> From<E> for Refusal {
    fn from(error: E) -> Self {
        let reason = error.to_string();
        let out_of_memory = is_out_of_memory(&reason);
        Self(Reply::Failed { reason, out_of_memory })
    }
}

/// Whether an error of a device says that its memory is full.
fn is_out_of_memory(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["out_of_memory", "out of memory", "alloc_failed"].iter().any(|words| reason.contains(words))
}

impl Session {
    pub fn new(channel: Channel, state: Arc<ServerState>) -> Self {
        Self {
            channel,
            state,
            memory: None,
            model: None,
            streams: HashMap::new(),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Serves the client until it goes.
    pub fn run(mut self) {
        match self.greet().and_then(|()| self.answer_requests()) {
            Ok(()) | Err(ChannelError::Closed) => {}
            Err(error) => log::warn!("a client is disconnected: {error}"),
        }
    }

    fn greet(&mut self) -> Result<(), ChannelError> {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let version = protocol::VERSION;
        let reason = match self.channel.receive(GREETING)? {
            Some(Request::Hello { magic, version: theirs, .. })
                if magic == protocol::MAGIC && theirs == version =>
            {
                let welcome = Reply::Welcome { version, program, device: self.state.device.clone() };
                return self.channel.send(&welcome, None);
            }
            Some(Request::Hello { version: theirs, program: other, .. }) => format!(
                "this worker of version {program} speaks protocol {version}, the client of version {} speaks {theirs}",
                protocol::shorten(&other)
            ),
            Some(_) => "the first message must be a greeting".into(),
            None => return Err(ChannelError::Malformed("no greeting".into())),
        };
        self.channel.send(&Reply::Refused { version, program, reason: reason.clone() }, None)?;
        Err(ChannelError::Malformed(reason))
    }

    fn answer_requests(&mut self) -> Result<(), ChannelError> {
        loop {
            let Some(request) = self.channel.receive::<Request>(IDLE)? else { continue };
            let answered = catch_unwind(AssertUnwindSafe(|| self.answer(request)));
            let reply = match answered {
                Ok(Ok(None)) => continue,
                Ok(Ok(Some(reply))) => reply,
                Ok(Err(Refusal(reply))) => reply,
                Err(_) => Reply::Failed { reason: "the model panicked".into(), out_of_memory: false },
            };
            self.channel.send(&reply, None)?;
        }
    }

    /// The reply to a request; none for a request without one.
    fn answer(&mut self, request: Request) -> Result<Option<Reply>, Refusal> {
        Ok(Some(match request {
            Request::Hello { .. } => return Err("the client has greeted before".into()),
            Request::Attach { bytes } => {
                let descriptor = self.channel.take_descriptor().ok_or("no memory came with the message")?;
                let memory = Arc::new(SharedMemory::open(descriptor, bytes)?);
                self.state.keep_alive(&memory);
                self.memory = Some(memory);
                Reply::Attached
            }
            Request::Load(request) => self.load(&request)?,
            Request::Open { stream, plan } => self.open_stream(stream, plan)?,
            Request::Close { stream } => {
                self.streams.remove(&stream);
                return Ok(None);
            }
            Request::Window(job) => self.run_window(job)?,
            Request::Hop(job) => self.run_hop(job)?,
        }))
    }

    fn load(&mut self, request: &LoadRequest) -> Result<Reply, Refusal> {
        // Of the model before.
        self.streams.clear();
        self.model = None;
        let model = match self.state.models.load(request) {
            Ok(model) => model,
            Err(ModelFailure::Invalid { reason, report }) => {
                return Ok(Reply::InvalidModel { reason, report });
            }
            Err(ModelFailure::Device(reason)) => return Ok(Reply::DeviceFailed { reason }),
        };
        let timing = model.timing();
        let spec = RemoteSpec {
            stems: model.stem_names().to_vec(),
            channels: model.channels(),
            rate: timing.rate,
            chunk: timing.chunk.0,
            frame_hop: timing.frame_hop.0,
            frame: timing.frame.0,
            context_window: timing.context.map(|context| context.win_length() as u64),
            runs_on: model.runs_on().to_owned(),
        };
        if !spec.is_sane() {
            let reason = "the model is too large for the worker's protocol".into();
            return Ok(Reply::InvalidModel { reason, report: None });
        }
        self.model = Some(model);
        Ok(Reply::Loaded(spec))
    }

    fn open_stream(&mut self, stream: u64, plan: StreamPlan) -> Result<Reply, Refusal> {
        let model = self.model.as_ref().ok_or(NO_MODEL)?;
        if self.streams.len() >= protocol::MAX_STREAMS || self.streams.contains_key(&stream) {
            return Err(format!("stream {stream} cannot be opened: {} are open", self.streams.len()).into());
        }
        let state = model.new_stream(&ContextPlan {
            hop_frames: plan.hop_frames,
            lookahead_frames: plan.lookahead_frames,
            context_frames: plan.context_frames,
            margin_frames: plan.margin_frames,
            memory_budget: plan.memory_budget.min(DEFAULT_CONTEXT_BUDGET),
        })?;
        self.streams.insert(stream, state);
        Ok(Reply::Opened)
    }

    fn run_window(&mut self, job: WindowJob) -> Result<Reply, Refusal> {
        let (model, memory) = (self.model.clone().ok_or(NO_MODEL)?, self.memory.clone().ok_or(NO_MEMORY)?);
        let values = values(job.samples, model.channels()).filter(|_| job.samples > 0).ok_or(TOO_LONG)?;
        let output = values.checked_mul(model.stems()).ok_or(TOO_LONG)?;
        check_place(&memory, job.output, output)?;
        read_into(&memory, job.input, values, &mut self.input)?;
        self.output.clear();
        self.output.resize(output, 0.0);
        let control = SessionControl::new(&self.channel, &memory, job.job);
        let turn = self.state.turns.wait(due(job.urgency), job.urgency.background, &|| control.is_over());
        if turn.is_none() {
            return Ok(Reply::Cancelled { received: 0, final_frames: 0 });
        }
        let started = Instant::now();
        let done = model.separate_controlled(&self.input, rule(job.rule), &mut self.output, &control);
        drop(turn);
        if let Err(error) = done {
            return control.outcome(error, (0, 0));
        }
        if !memory.write(job.output, &self.output) {
            return Err(TOO_LONG.into());
        }
        Ok(Reply::Done(HopResult {
            ran: true,
            seconds: started.elapsed().as_secs_f64(),
            ..HopResult::default()
        }))
    }

    fn run_hop(&mut self, job: HopJob) -> Result<Reply, Refusal> {
        let (model, memory) = (self.model.clone().ok_or(NO_MODEL)?, self.memory.clone().ok_or(NO_MEMORY)?);
        let state = self.streams.get_mut(&job.stream).ok_or("there is no such stream")?;
        let lines = state.output_lines();
        let values = values(job.samples, model.channels()).ok_or(TOO_LONG)?;
        check_place(&memory, job.output, lines.checked_mul(job.stride).ok_or(TOO_LONG)?)?;
        read_into(&memory, job.input, values, &mut self.input)?;
        if job.forget {
            state.drop_context();
        }
        state.push(&self.input)?;
        if job.finished {
            state.finish();
        }
        let control = SessionControl::new(&self.channel, &memory, job.job);
        let turn = self.state.turns.wait(due(job.urgency), job.urgency.background, &|| control.is_over());
        if turn.is_none() {
            return Ok(Reply::Cancelled {
                received: state.received_samples(),
                final_frames: state.final_frames(),
            });
        }
        let started = Instant::now();
        let done = model.separate_hop(state, job.frames, rule(job.rule), &control);
        drop(turn);
        if let Err(error) = done {
            return control.outcome(error, (state.received_samples(), state.final_frames()));
        }
        let seconds = started.elapsed().as_secs_f64();
        write_stems(state, (model.stems(), model.channels()), &memory, job)?;
        let output = state.output();
        Ok(Reply::Done(HopResult {
            final_len: output.final_len(),
            provisional_len: output.provisional_len(),
            ran: !output.is_silent(),
            final_frames: state.final_frames(),
            received: state.received_samples(),
            seconds,
        }))
    }
}

const NO_MODEL: &str = "no model is loaded";
const NO_MEMORY: &str = "no memory is attached";
const TOO_LONG: &str = "the samples do not fit into the shared memory";

/// Values of so many samples of all channels; none if that is too much.
fn values(samples: usize, channels: usize) -> Option<usize> {
    samples.checked_mul(channels).filter(|_| samples <= protocol::MAX_SAMPLES)
}

fn check_place(memory: &SharedMemory, at: usize, values: usize) -> Result<(), Refusal> {
    match at.checked_add(values) {
        Some(end) if end <= memory.capacity() => Ok(()),
        _ => Err(TOO_LONG.into()),
    }
}

fn read_into(memory: &SharedMemory, at: usize, values: usize, into: &mut Vec<f32>) -> Result<(), Refusal> {
    check_place(memory, at, values)?;
    into.clear();
    into.resize(values, 0.0);
    if memory.read(at, into) { Ok(()) } else { Err(TOO_LONG.into()) }
}

/// Writes the stems of a hop to the place that the job names.
fn write_stems(
    state: &StreamState,
    (stems, channels): (usize, usize),
    memory: &SharedMemory,
    job: HopJob,
) -> Result<(), Refusal> {
    let output = state.output();
    let (last, ahead) = (output.final_len(), output.provisional_len());
    if last + ahead > job.stride {
        return Err(TOO_LONG.into());
    }
    let lines = (0..stems).flat_map(|stem| (0..channels).map(move |channel| (stem, channel)));
    for (line, (stem, channel)) in lines.enumerate() {
        // These positions were checked before the run.
        let at = job.output + line * job.stride;
        let written = memory.write(at, output.final_samples(stem, channel))
            && memory.write(at + last, output.provisional_samples(stem, channel));
        if !written {
            return Err(TOO_LONG.into());
        }
    }
    Ok(())
}

fn rule(rule: WireRule) -> MaskRule {
    match rule {
        WireRule::Plain => MaskRule::Plain,
        WireRule::Complete => MaskRule::Complete,
    }
}

/// When a job is due. A client cannot claim to be later than everybody else for ever.
fn due(urgency: WireUrgency) -> Instant {
    let now = Instant::now();
    let span = Duration::from_micros(urgency.due_us.unsigned_abs()).min(MAX_DUE);
    if urgency.due_us < 0 { now.checked_sub(span).unwrap_or(now) } else { now + span }
}

/// Ends a job when its client cancels it, or has gone.
struct SessionControl<'a> {
    channel: &'a Channel,
    memory: &'a SharedMemory,
    job: u32,
    cancelled: AtomicBool,
}

impl<'a> SessionControl<'a> {
    fn new(channel: &'a Channel, memory: &'a SharedMemory, job: u32) -> Self {
        Self { channel, memory, job, cancelled: AtomicBool::new(false) }
    }

    fn is_over(&self) -> bool {
        let is_over = self.memory.cancelled_job().load(Relaxed) == self.job || self.channel.is_closed();
        if is_over {
            self.cancelled.store(true, Relaxed);
        }
        is_over
    }

    /// The reply for a job that ended with an error.
    fn outcome(&self, error: WindowError, (received, final_frames): (u64, u64)) -> Result<Reply, Refusal> {
        if self.cancelled.load(Relaxed) {
            Ok(Reply::Cancelled { received, final_frames })
        } else {
            Err(error.into())
        }
    }
}

impl JobControl for SessionControl<'_> {
    fn checkpoint(&self) -> ControlFlow<()> {
        if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
