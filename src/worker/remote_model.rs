//! A model that a worker runs, as the live engine sees it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::connection::{Connection, GoOn};
use super::error::WorkerError;
use super::launch::Launcher;
use super::protocol::{LoadRequest, RemoteSpec, StreamPlan};
use super::supervisor::{RemoteState, RestartPolicy, Supervisor};
use crate::kernels::JobControl;
use crate::live::{ModelSamples, ModelTiming, WindowError, WindowSeparator};
use crate::separator::{ContextPlan, FrameTiming, MaskRule, RemoteHop, StreamState};

/// Attempts to load a model in workers that end meanwhile.
const MAX_LOADS: usize = 3;

/// A model in a worker. It keeps its connection; the weights are there as long as any connection uses them.
pub struct RemoteModel {
    spec: RemoteSpec,
    device: String,
    link: Mutex<Link>,
    supervisor: Arc<Supervisor>,
    input: Vec<f32>,
}

/// The connection, while there is one.
struct Link {
    connection: Option<Connection>,
    /// Counts connections. Streams of an earlier one are lost.
    epoch: u64,
    /// Streams that were dropped here and are to be ended there.
    closed: Arc<Mutex<Vec<RemoteStreamId>>>,
}

/// A stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RemoteStreamId {
    epoch: u64,
    stream: u64,
}

/// What a stream is known by in the worker. Ends it there when it is dropped.
struct RemoteStream {
    id: RemoteStreamId,
    closed: Arc<Mutex<Vec<RemoteStreamId>>>,
}

impl Drop for RemoteStream {
    fn drop(&mut self) {
        // Sent with the next request: a stream is dropped on threads that must not wait for a socket.
        self.closed.lock().push(self.id);
    }
}

impl RemoteModel {
    /// Loads a model in the worker of `device`, which is started if none runs. `go_on` may end the wait.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn load(
        launcher: Launcher,
        device: &str,
        request: LoadRequest,
        policy: RestartPolicy,
        go_on: GoOn<'_>,
    ) -> Result<Self, WorkerError> {
        let mut attempt = 1;
        let (connection, spec) = loop {
            let loaded = launcher.connect(device).and_then(|mut connection| {
                let spec = connection.load(&request, &mut *go_on)?;
                Ok((connection, spec))
            });
            match loaded {
                Ok(loaded) => break loaded,
                Err(error) if error.is_crash() && attempt < policy.crashes.min(MAX_LOADS) => {
                    log::warn!("the worker of {device} is started again: {error}");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let link = Link { connection: Some(connection), epoch: 0, closed: Arc::default() };
        let supervisor = Supervisor::new(launcher, device, request, spec.clone(), policy);
        Ok(Self { spec, device: device.to_owned(), link: Mutex::new(link), supervisor, input: Vec::new() })
    }

    /// Watches over the worker, and knows its state.
    pub fn supervisor(&self) -> Arc<Supervisor> {
        self.supervisor.clone()
    }

    /// Runs `request` on the connection, if there is one. Starts the worker again if it turns out to have ended.
    fn with_connection<T>(
        &self,
        request: impl FnOnce(&mut Connection, u64) -> Result<T, WorkerError>,
    ) -> Result<T, WorkerError> {
        let mut link = self.link.lock();
        if link.connection.is_none() {
            link.connection = self.supervisor.take_connection();
            link.epoch += u64::from(link.connection.is_some());
        }
        let epoch = link.epoch;
        let closed = std::mem::take(&mut *link.closed.lock());
        let Some(connection) = &mut link.connection else { return Err(self.not_running()) };
        let done = closed
            .into_iter()
            .filter(|closed| closed.epoch == epoch)
            .try_for_each(|closed| connection.close_stream(closed.stream))
            .and_then(|()| request(connection, epoch));
        match &done {
            Ok(_) => self.supervisor.note_success(),
            Err(WorkerError::Cancelled | WorkerError::StreamLost) => {}
            Err(error) if error.is_recoverable() => self.supervisor.note_failure(error),
            Err(error) => {
                link.connection = None;
                self.supervisor.note_crash(error);
            }
        }
        done
    }

    fn not_running(&self) -> WorkerError {
        let reason = match self.supervisor.state() {
            RemoteState::GivenUp(reason) => format!("the worker of {} has stopped: {reason}", self.device),
            _ => format!("the worker of {} is being started again", self.device),
        };
        WorkerError::Failed { reason, out_of_memory: false }
    }

    fn run_hop(
        &self,
        state: &mut StreamState,
        frames: usize,
        rule: MaskRule,
        (input, control): (&mut Vec<f32>, &dyn JobControl),
    ) -> Result<(), WindowError> {
        let id = state.remote_context::<RemoteStream>().map(|stream| stream.id);
        let id = id.ok_or_else(|| WindowError("the stream was opened by another model".into()))?;
        let (description, stride) = state.begin_remote_hop(frames, input)?;
        let lines = state.output_lines();
        let done = self.with_connection(|connection, epoch| {
            if id.epoch != epoch {
                return Err(WorkerError::StreamLost);
            }
            let size = (frames, lines, stride);
            let hop = connection.run_hop(id.stream, (input, description), size, rule, control);
            let (result, places) = hop?;
            let expected = (state.final_frames() + frames as u64, state.received_samples());
            if (result.final_frames, result.received) != expected {
                return Err(WorkerError::Protocol("the position of another stream".into()));
            }
            let hop = RemoteHop {
                frames,
                final_len: result.final_len,
                provisional_len: result.provisional_len,
                ran: result.ran,
            };
            state
                .accept_remote_hop(hop, |line, samples| connection.read_line(places, line, samples))
                .map_err(|error| WorkerError::Protocol(error.to_string()))
        });
        if matches!(done, Err(WorkerError::Cancelled)) {
            state.keep_after_cancelled_hop();
        }
        Ok(done?)
    }
}

impl From<WorkerError> for WindowError {
    fn from(error: WorkerError) -> Self {
        Self(error.to_string())
    }
}

impl WindowSeparator for RemoteModel {
    fn stems(&self) -> usize {
        self.spec.stems.len()
    }

    fn channels(&self) -> usize {
        self.spec.channels
    }

    fn timing(&self) -> ModelTiming {
        let spec = &self.spec;
        let lengths = |window: u64| (spec.frame as usize, spec.frame_hop as usize, window as usize);
        ModelTiming {
            rate: spec.rate,
            chunk: ModelSamples(spec.chunk),
            frame_hop: ModelSamples(spec.frame_hop),
            frame: ModelSamples(spec.frame),
            context: spec
                .context_window
                .map(lengths)
                .map(|(n_fft, hop, window)| FrameTiming::of_lengths(n_fft, hop, window)),
        }
    }

    fn stem_names(&self) -> Vec<String> {
        self.spec.stems.clone()
    }

    fn runs_on(&self) -> String {
        format!("worker: {}", self.spec.runs_on)
    }

    fn remote_device(&self) -> Option<String> {
        Some(self.device.clone())
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        self.separate_controlled(window, rule, out, &())
    }

    fn separate_controlled(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        let (channels, stems) = (self.spec.channels, self.spec.stems.len());
        let samples = window.len() / channels;
        if samples * channels != window.len() || out.len() != window.len() * stems {
            return Err(WindowError(format!(
                "a window of {} values and stems of {}: expected {channels} channels of equal length, and {stems} times as many",
                window.len(),
                out.len()
            )));
        }
        Ok(self.with_connection(|connection, _| {
            connection.separate_window((window, samples), rule, out, control)
        })?)
    }

    fn new_stream(&self, plan: &ContextPlan) -> Result<StreamState, WindowError> {
        let timing = self.timing().context;
        let timing =
            timing.ok_or_else(|| WindowError("this model keeps no context; run whole windows".into()))?;
        let wire = StreamPlan {
            hop_frames: plan.hop_frames,
            lookahead_frames: plan.lookahead_frames,
            context_frames: plan.context_frames,
            margin_frames: plan.margin_frames,
            memory_budget: plan.memory_budget,
        };
        let id = self.with_connection(|connection, epoch| {
            Ok(RemoteStreamId { epoch, stream: connection.open_stream(wire)? })
        })?;
        let closed = self.link.lock().closed.clone();
        let stream = RemoteStream { id, closed };
        Ok(StreamState::remote(timing, (self.spec.channels, self.spec.stems.len()), *plan, Box::new(stream)))
    }

    fn separate_hop(
        &mut self,
        state: &mut StreamState,
        frames: usize,
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        let mut input = std::mem::take(&mut self.input);
        let done = self.run_hop(state, frames, rule, (&mut input, control));
        self.input = input;
        done
    }
}
