//! Streams whose model runs in another process: input and output are here, the kept context is there.

use std::any::Any;

use super::overlap::OverlapSums;
use super::state::Output;
use super::{ContextPlan, FrameTiming, StreamState};
use crate::separator::SeparateError;
use crate::separator::network::NetworkContext;

/// The owner of all streams of other processes; no [`Separator`](crate::separator::Separator) has this number.
const REMOTE_OWNER: u64 = u64::MAX;

/// What the other process is to do with a stream before a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteInput {
    /// New samples of each channel.
    pub samples: usize,
    /// Whether the stream ends with them.
    pub finished: bool,
    /// Whether the kept context is to be forgotten first.
    pub forget: bool,
}

/// The result of a hop of the other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteHop {
    /// Frames that became final.
    pub frames: usize,
    /// Final samples of each channel of each stem.
    pub final_len: usize,
    /// Provisional samples behind them.
    pub provisional_len: usize,
    /// Whether the network was run: false for silence.
    pub ran: bool,
}

impl StreamState {
    /// A stream of a model of `channels` channels and `stems` stems that runs in another process. `context` is what the stream is known by
    /// there; it is dropped with the state.
    pub fn remote(
        timing: FrameTiming,
        (channels, stems): (usize, usize),
        plan: ContextPlan,
        context: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let n_fft = timing.n_fft();
        Self {
            owner: REMOTE_OWNER,
            plan,
            timing,
            n_fft,
            channels,
            stems,
            received: 0,
            finished: false,
            input: vec![Vec::new(); channels],
            input_first: 0,
            spectra: Vec::new(),
            spectra_first: 0,
            last_loud: None,
            final_frames: 0,
            context: NetworkContext::Remote { context, forget: false },
            // The overlap sums are in the other process.
            sums: OverlapSums::new(0, 1),
            output: Output::default(),
            interrupted: false,
        }
    }

    /// What the stream is known by in the other process; none if it is a stream of this one, or of another type.
    pub fn remote_context<T: Any>(&self) -> Option<&T> {
        match &self.context {
            NetworkContext::Remote { context, .. } => context.downcast_ref(),
            _ => None,
        }
    }

    /// Lines of the output: channels of all stems.
    pub fn output_lines(&self) -> usize {
        self.stems * self.channels
    }

    /// Begins a hop of `frames` frames: moves the input that was not sent yet into `out`, [channels, samples], flat. Returns that, and the most
    /// samples that a line of the output can have.
    ///
    /// # Errors
    /// [`SeparateError::ForeignStream`] for a stream of this process, [`SeparateError::NotReady`] if there are not so many frames.
    pub fn begin_remote_hop(
        &mut self,
        frames: usize,
        out: &mut Vec<f32>,
    ) -> Result<(RemoteInput, usize), SeparateError> {
        let ready = self.ready_frames();
        if frames == 0 || frames as u64 > ready {
            return Err(SeparateError::NotReady { asked: frames, ready });
        }
        let interrupted = std::mem::replace(&mut self.interrupted, true);
        let NetworkContext::Remote { forget, .. } = &mut self.context else {
            return Err(SeparateError::ForeignStream);
        };
        let forget = std::mem::take(forget) || interrupted;
        out.clear();
        self.input.iter_mut().for_each(|channel| out.append(channel));
        let samples = out.len() / self.channels;
        self.input_first += samples as u64;
        let end = self.final_samples_after(self.final_frames + frames as u64);
        let ahead = self.plan.provisional_samples(&self.timing);
        let stride = ((end - self.final_samples() + ahead) as usize).max(1);
        Ok((RemoteInput { samples, finished: self.finished, forget }, stride))
    }

    /// Ends a hop. `read` fills a line of the output, and returns false if it is not there.
    ///
    /// # Errors
    /// [`SeparateError::Remote`] if the result does not fit the stream.
    pub fn accept_remote_hop(
        &mut self,
        hop: RemoteHop,
        mut read: impl FnMut(usize, &mut [f32]) -> bool,
    ) -> Result<(), SeparateError> {
        let next = self.final_frames + hop.frames as u64;
        let first = self.final_samples();
        let expected = self.final_samples_after(next).saturating_sub(first);
        let most = self.plan.provisional_samples(&self.timing);
        if hop.frames as u64 > self.ready_frames()
            || hop.final_len as u64 != expected
            || hop.provisional_len as u64 > most
        {
            return Err(SeparateError::Remote(format!(
                "{} final and {} provisional samples after {} frames: expected {expected}, and at most {most}",
                hop.final_len, hop.provisional_len, hop.frames
            )));
        }
        let stride = (hop.final_len + hop.provisional_len).max(1);
        self.output.clear(first);
        self.output.samples.resize(self.output_lines() * stride, 0.0);
        for (line, samples) in self.output.samples.chunks_exact_mut(stride).enumerate() {
            let samples = &mut samples[..hop.final_len + hop.provisional_len];
            if !read(line, samples) {
                return Err(SeparateError::Remote("a line of samples is missing".into()));
            }
            samples.iter_mut().filter(|x| !x.is_finite()).for_each(|x| *x = 0.0);
        }
        self.output.stride = stride;
        (self.output.final_len, self.output.provisional_len) = (hop.final_len, hop.provisional_len);
        self.output.ran = hop.ran;
        self.final_frames = next;
        self.interrupted = false;
        Ok(())
    }

    /// After a hop that was cancelled: the other process stands where it did before it, without context, and has the input.
    pub fn keep_after_cancelled_hop(&mut self) {
        self.interrupted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: ContextPlan = ContextPlan {
        hop_frames: 1,
        lookahead_frames: 1,
        context_frames: 4,
        margin_frames: 0,
        memory_budget: 1 << 20,
    };

    fn state() -> StreamState {
        StreamState::remote(FrameTiming::of_lengths(64, 16, 64), (2, 3), PLAN, Box::new(7u64))
    }

    #[test]
    fn input_is_handed_out_once_and_results_must_fit() {
        let mut state = state();
        assert_eq!(state.remote_context::<u64>(), Some(&7));
        assert_eq!(state.remote_context::<u32>(), None);
        let mut sent = Vec::new();
        assert!(matches!(state.begin_remote_hop(1, &mut sent), Err(SeparateError::NotReady { .. })));
        state.push(&(0..160).map(|x| x as f32).collect::<Vec<_>>()).unwrap();
        let (input, stride) = state.begin_remote_hop(3, &mut sent).unwrap();
        assert_eq!((input.samples, input.finished, input.forget, sent.len()), (80, false, false, 160));
        let fits = RemoteHop { frames: 3, final_len: 16, provisional_len: 16, ran: true };
        assert!(stride >= 32);
        for wrong in [
            RemoteHop { frames: 9, ..fits },
            RemoteHop { final_len: 17, ..fits },
            RemoteHop { provisional_len: 1_000, ..fits },
        ] {
            assert!(matches!(state.accept_remote_hop(wrong, |_, _| true), Err(SeparateError::Remote(_))));
        }
        assert!(state.accept_remote_hop(fits, |line, _| line < 5).is_err(), "a line is missing");
        let read = |line: usize, samples: &mut [f32]| {
            samples.fill(if line == 4 { f32::NAN } else { line as f32 });
            true
        };
        state.accept_remote_hop(fits, read).unwrap();
        let output = state.output();
        assert_eq!((output.first_sample(), output.is_silent()), (0, false));
        assert_eq!(output.final_samples(1, 1), [3.0; 16]);
        assert_eq!(output.provisional_samples(2, 0), [0.0; 16], "not finite");
        assert_eq!(state.final_frames(), 3);
    }

    #[test]
    fn an_interrupted_hop_forgets_the_context() {
        let mut state = state();
        let mut sent = Vec::new();
        state.push(&[0.5; 400]).unwrap();
        assert!(!state.begin_remote_hop(1, &mut sent).unwrap().0.forget);
        let (input, _) = state.begin_remote_hop(1, &mut sent).unwrap();
        assert!(input.forget && input.samples == 0);
        state.keep_after_cancelled_hop();
        assert!(!state.begin_remote_hop(1, &mut sent).unwrap().0.forget);
        state.keep_after_cancelled_hop();
        state.drop_context();
        assert!(state.begin_remote_hop(1, &mut sent).unwrap().0.forget);
    }
}
