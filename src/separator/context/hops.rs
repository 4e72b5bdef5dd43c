//! One hop of each of several streams through the network together.

use num_complex::Complex32;
use rayon::prelude::*;
use smallvec::SmallVec;

use super::state::StreamState;
use crate::dsp::stft::{FrameBuffers, Stft};
use crate::kernels::JobControl;
use crate::separator::network::HopPart;
use crate::separator::{MaskRule, Recorded, SeparateError, Separator, mask};

/// Frames that a pass may always have, however short the plan's hop is.
const MIN_PASS_FRAMES: usize = 64;
/// Hops that a pass may have at most.
const MAX_PASS_HOPS: usize = 8;

/// A hop of one stream.
pub struct Hop<'a> {
    /// The stream.
    pub state: &'a mut StreamState,
    /// Frames that become final: 1 to [`StreamState::ready_frames`].
    pub frames: usize,
    /// What becomes of the part of the mixture that no mask takes.
    pub rule: MaskRule,
}

/// Memory that hops of all streams share.
#[derive(Default)]
pub(in crate::separator) struct HopWorkspace {
    /// [frames of all hops, freqs, channels]
    spectra: Vec<Complex32>,
    /// [stems, wanted frames of all hops, (f s) c]
    masks: Vec<f32>,
    buffers: Vec<FrameBuffers>,
    envelope: Vec<f32>,
}

/// What a pass does with one stream.
#[derive(Clone, Copy, Default)]
pub(super) struct Pass {
    /// First frame that is run.
    pub first: u64,
    /// Frames that are run.
    pub frames: usize,
    /// Of these, the first frame that becomes final.
    pub final_from: usize,
    /// Frames that become final.
    pub finals: usize,
    /// Frames after which the next pass begins: they leave for the context.
    pub leaving: usize,
    /// Whether the network sees nothing but silence, and is not run.
    pub silent: bool,
}

impl Pass {
    /// Frames whose masks are wanted, all from `final_from` on.
    fn wanted(&self) -> usize {
        self.frames - self.final_from
    }
}

impl Separator {
    /// Makes the next frames of each stream final, all streams in one pass of the network. [`StreamState::output`] then has their stems. What
    /// comes out of a stream does not depend on the others.
    ///
    /// A hop of more than eight times the plan's frames (64 at least) takes several passes.
    ///
    /// # Errors
    /// [`SeparateError`]. Then the streams stand where the last whole pass left them, without context, and the hop may be asked for again.
    /// [`SeparateError::Cancelled`] if `control` cancelled the pass.
    pub fn separate_hops(
        &mut self,
        hops: &mut [Hop<'_>],
        control: &dyn JobControl,
    ) -> Result<(), SeparateError> {
        for hop in hops.iter() {
            let ready = hop.state.ready_frames();
            if hop.state.owner != self.id {
                return Err(SeparateError::ForeignStream);
            }
            if hop.frames == 0 || hop.frames as u64 > ready {
                return Err(SeparateError::NotReady { asked: hop.frames, ready });
            }
        }
        let recorded = Recorded::new(control);
        let done = if self.network.is_on_gpu() {
            self.separate_hops_here(hops, &recorded)
        } else {
            // All parallel work, candle's included, stays in the pool.
            let pool = self.pool.clone();
            pool.install(|| self.separate_hops_here(hops, &recorded))
        };
        if recorded.is_cancelled() { Err(SeparateError::Cancelled) } else { done }
    }

    fn separate_hops_here(
        &mut self,
        hops: &mut [Hop<'_>],
        control: &dyn JobControl,
    ) -> Result<(), SeparateError> {
        let mut left: SmallVec<[usize; 16]> = hops.iter().map(|hop| hop.frames).collect();
        for hop in hops.iter_mut() {
            hop.state.begin_hop(hop.frames);
        }
        while left.iter().any(|left| *left > 0) {
            let mut passes: SmallVec<[Pass; 16]> = SmallVec::with_capacity(hops.len());
            for (hop, left) in hops.iter_mut().zip(&mut left) {
                let frames = hop.state.pass_frames(*left);
                *left -= frames;
                passes.push(hop.state.plan_pass(frames));
            }
            for (hop, pass) in hops.iter_mut().zip(&mut passes) {
                if pass.frames > 0 {
                    hop.state.transform(&self.stft, pass.first + pass.frames as u64, &mut self.hops.buffers);
                    pass.silent = hop.state.is_silent(pass);
                    hop.state.output.ran |= !pass.silent;
                    hop.state.interrupted = true;
                }
            }
            if let Err(error) = self.run_pass(hops, &passes, control) {
                hops.iter_mut().for_each(|hop| hop.state.drop_context());
                return Err(error);
            }
        }
        Ok(())
    }

    /// The network over one pass of all hops, then its masks into their outputs.
    fn run_pass(
        &mut self,
        hops: &mut [Hop<'_>],
        passes: &[Pass],
        control: &dyn JobControl,
    ) -> Result<(), SeparateError> {
        let work = &mut self.hops;
        let arch = &self.info.architecture;
        work.spectra.clear();
        let mut parts: SmallVec<[HopPart<'_>; 16]> = SmallVec::new();
        for (hop, pass) in hops.iter_mut().zip(passes) {
            let state = &mut *hop.state;
            if pass.silent {
                state.context.clear();
            } else if pass.frames > 0 {
                let from = (pass.first - state.spectra_first) as usize * state.bins();
                let len = pass.frames * state.bins();
                work.spectra.extend_from_slice(&state.spectra[from..from + len]);
                parts.push(HopPart {
                    context: &mut state.context,
                    first: pass.first,
                    frames: pass.frames,
                    leaving: pass.leaving,
                    wanted_from: pass.final_from,
                });
            }
        }
        let total: usize = parts.iter().map(|part| part.frames - part.wanted_from).sum();
        if !parts.is_empty() {
            let spectra = bytemuck::cast_slice(&work.spectra);
            if let Err(source) = self.network.forward_hops(spectra, &mut parts, &mut work.masks, control) {
                return Err(SeparateError::Network { device: self.network.device(), source });
            }
        }
        drop(parts);
        let masks: &mut [Complex32] = bytemuck::cast_slice_mut(&mut work.masks);
        let mut row = 0;
        for (hop, pass) in hops.iter_mut().zip(passes).filter(|(_, pass)| pass.frames > 0) {
            let rule = self.info.rule(hop.rule);
            let mut view = StemSpectra { values: &mut *masks, stems: arch.num_stems, total, first: row };
            if !pass.silent {
                let state = &hop.state;
                let from = (pass.first - state.spectra_first) as usize + pass.final_from;
                let spectra = &state.spectra[from * state.bins()..][..pass.wanted() * state.bins()];
                view.mask(rule, spectra, state.channels, arch.zero_dc);
                row += pass.wanted();
            }
            hop.state.add_frames(&self.stft, pass, &view, &mut work.buffers, &mut work.envelope);
        }
        Ok(())
    }
}

/// The stems' masks or spectra of one stream in those of all: [stems, total, bins] from frame `first` on.
pub(super) struct StemSpectra<'a> {
    values: &'a mut [Complex32],
    stems: usize,
    total: usize,
    first: usize,
}

impl StemSpectra<'_> {
    /// Masks → spectra of the stems. `spectra`: the mixture's, [frames, bins].
    fn mask(&mut self, rule: MaskRule, spectra: &[Complex32], channels: usize, zero_dc: bool) {
        let stem_len = self.values.len() / self.stems;
        let bins = stem_len / self.total;
        let from = self.first * bins;
        let stems = self.values.chunks_exact_mut(stem_len);
        let mut stems: SmallVec<[&mut [Complex32]; 8]> =
            stems.map(|stem| &mut stem[from..from + spectra.len()]).collect();
        if zero_dc {
            for row in stems.iter_mut().flat_map(|stem| stem.chunks_exact_mut(bins)) {
                row[..channels].fill(Complex32::default());
            }
        }
        mask::apply_block(rule, spectra, &mut stems);
    }

    /// Frame `frame` of `stem`.
    pub fn row(&self, stem: usize, frame: usize) -> &[Complex32] {
        let stem_len = self.values.len() / self.stems;
        let bins = stem_len / self.total;
        &self.values[stem * stem_len + (self.first + frame) * bins..][..bins]
    }
}

impl StreamState {
    /// Frames of the next pass of a hop with `left` frames to go.
    fn pass_frames(&self, left: usize) -> usize {
        left.min((MAX_PASS_HOPS * self.plan().hop_frames).max(MIN_PASS_FRAMES))
    }

    /// Makes room for the output of a hop of `frames` frames.
    fn begin_hop(&mut self, frames: usize) {
        if self.interrupted {
            self.drop_context();
        }
        let first = self.final_samples();
        let end = self.final_samples_after(self.final_frames + frames as u64);
        let ahead = self.plan().provisional_samples(&self.timing());
        // Never 0, so that there are always as many lines.
        let stride = ((end - first + ahead) as usize).max(1);
        self.output.clear(first);
        self.output.stride = stride;
        self.output.samples.resize(self.stems * self.channels * stride, 0.0);
    }

    /// The pass that makes `finals` frames final.
    fn plan_pass(&self, finals: usize) -> Pass {
        if finals == 0 {
            return Pass::default();
        }
        let (next, margin) = (self.final_frames + finals as u64, self.plan().margin_frames as u64);
        let end = (next + self.plan().lookahead_frames as u64).min(self.available_frames());
        let first = self.final_frames.saturating_sub(margin);
        Pass {
            first,
            frames: (end - first) as usize,
            final_from: (self.final_frames - first) as usize,
            finals,
            leaving: (next.saturating_sub(margin) - first) as usize,
            silent: false,
        }
    }

    /// Whether all frames that the network would see in `pass` are silent.
    fn is_silent(&self, pass: &Pass) -> bool {
        let seen = pass.first.saturating_sub(self.plan().context_frames as u64);
        self.last_loud.is_none_or(|loud| loud < seen)
    }

    /// Spectra of the frames before `end` that are not there yet.
    fn transform(&mut self, stft: &Stft, end: u64, buffers: &mut Vec<FrameBuffers>) {
        let next = self.spectra_first + self.frames_of_spectra();
        let (bins, channels, held) = (self.bins(), self.channels, self.spectra.len());
        let mut spectra = std::mem::take(&mut self.spectra);
        spectra.resize(held + (end.saturating_sub(next)) as usize * bins, Complex32::default());
        let count = self.stems * channels;
        while buffers.len() < count {
            buffers.push(stft.buffers());
        }
        let state = &*self;
        // A part for each of the buffers.
        let part = (spectra.len() - held).div_ceil(bins * count).max(1);
        let loud = spectra[held..]
            .par_chunks_mut(part * bins)
            .zip(buffers.par_iter_mut())
            .enumerate()
            .map(|(index, (rows, buffers))| {
                let mut loud = None;
                for (frame, row) in (next + (index * part) as u64..).zip(rows.chunks_exact_mut(bins)) {
                    let start = state.frame_start(frame);
                    for channel in 0..channels {
                        let read = state.reader(channel);
                        let mut silent = true;
                        let sample = |i: usize| {
                            let x = read(start + i as i64);
                            silent &= x == 0.0;
                            x
                        };
                        stft.forward_frame(sample, channel, channels, row, buffers);
                        if !silent {
                            loud = Some(frame);
                        }
                    }
                }
                loud
            })
            .max()
            .flatten();
        self.spectra = spectra;
        self.last_loud = self.last_loud.max(loud);
    }
}
