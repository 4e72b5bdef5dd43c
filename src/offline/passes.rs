//! The passes of the network over one song: plain, standardised, shifted and hybrid.

use std::ops::ControlFlow;

use super::demix::{DemixOptions, Moments, Standardise, demix_from};
use super::error::OfflineError;
use super::options::{RenderOptions, hybrid_stems};
use super::plan::{ChunkPlan, MAX_OVERLAP};
use super::reader::{ShiftedReader, SongReader};
use super::render::RenderProgress;
use super::spool::Spool;
use crate::audio::Planar;
use crate::kernels::JobControl;
use crate::lossless::LosslessMode;
use crate::lossless::hybrid::{Energies, distribute};
use crate::separator::{MaskRule, ModelSpec, Separator, check_chunk};

/// The passes over one song.
pub(super) struct SongPasses<'a> {
    separator: &'a mut Separator,
    info: &'a ModelSpec,
    options: DemixOptions,
    hybrid: bool,
    passes: usize,
    shifts: usize,
    normalize: bool,
    /// Length of the song at the model's rate, if the header states it.
    expected: Option<u64>,
    /// First sample whose stems are wanted.
    first: u64,
    control: &'a dyn JobControl,
}

impl<'a> SongPasses<'a> {
    /// `samples` is the length of the song at `sample_rate`, if known.
    pub fn new(
        separator: &'a mut Separator,
        info: &'a ModelSpec,
        options: &RenderOptions,
        samples: Option<u64>,
        sample_rate: u32,
    ) -> Result<Self, OfflineError> {
        let chunk = options.chunk.unwrap_or(info.chunk);
        check_chunk(chunk, &info.architecture)
            .map_err(|error| OfflineError::Options { what: error.to_string() })?;
        let overlap = options.overlap.unwrap_or(info.overlap as f64);
        if !(1.0..=MAX_OVERLAP).contains(&overlap) {
            return Err(OfflineError::Options { what: format!("overlap {overlap}: expected 1 to 64") });
        }
        let rule = info.rule(match options.lossless {
            LosslessMode::Spectral => MaskRule::Complete,
            LosslessMode::Hybrid | LosslessMode::Off => MaskRule::Plain,
        });
        Ok(Self {
            options: DemixOptions {
                plan: ChunkPlan::new(chunk, overlap),
                batch: options.batch.unwrap_or(separator.batch()).max(1),
                rule,
                tta: options.tta,
                standardise: None,
            },
            hybrid: options.is_hybrid(info),
            passes: options.passes(info),
            shifts: options.big_shifts.max(1),
            normalize: options.normalize.unwrap_or(info.normalize),
            expected: samples
                .map(|n| (n as f64 * f64::from(info.sample_rate) / f64::from(sample_rate)).round() as u64),
            separator,
            info,
            first: 0,
            control: &(),
        })
    }

    /// Leaves out the stems before sample `first`, which a pass before has computed.
    #[must_use]
    pub fn starting_at(self, first: u64) -> Self {
        Self { first, ..self }
    }

    /// Asks `control` between the layers of the network.
    #[must_use]
    pub fn controlled(self, control: &'a dyn JobControl) -> Self {
        Self { control, ..self }
    }

    /// One pass over `source`; stems from sample `first` on.
    fn demix(
        &mut self,
        source: &mut dyn SongReader,
        first: u64,
        sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
        on_progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), OfflineError> {
        demix_from(self.separator, source, &self.options, first, self.control, sink, on_progress)
    }

    /// Runs all passes over `source`, which is at the model's rate. `sink` gets the final stems in order.
    pub fn run(
        mut self,
        source: &mut dyn SongReader,
        sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
        on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
    ) -> Result<(), OfflineError> {
        let passes = self.passes;
        let direct = self.shifts == 1 && !self.hybrid;
        let rate = f64::from(self.info.sample_rate);
        let mut expected = self.expected;
        let mut report = |pass: usize, done: u64, expected: Option<u64>| {
            let whole = expected.map(|n| (n.max(1) * passes as u64) as f64);
            let before = expected.unwrap_or(0) * pass as u64;
            on_progress(RenderProgress {
                fraction: whole.map(|whole| ((before + done) as f64 / whole).min(1.0)),
                seconds: (before + done) as f64 / rate,
            })
        };
        if direct && !self.normalize {
            return self.demix(source, self.first, sink, &mut |done| report(0, done, expected));
        }

        let (mut mixture, moments) = spool_song(source, &mut || report(0, 0, expected))?;
        expected = Some(mixture.samples() as u64);
        if self.normalize {
            self.options.standardise = moments.standardise();
        }
        if direct {
            let mut shifted = ShiftedReader::new(&mut mixture, 0);
            return self.demix(&mut shifted, self.first, sink, &mut |done| report(0, done, expected));
        }
        let mut stems = Spool::new(self.info.architecture.num_stems * mixture.channels())?;
        for pass in 0..self.shifts {
            let shift = pass * (mixture.samples() / self.shifts);
            let share = 1.0 / self.shifts as f32;
            let mut at = (mixture.samples() - shift) % mixture.samples().max(1);
            let total = mixture.samples();
            let mut add = |block: &Planar| add_to_spool(&mut stems, block, &mut at, total, share, pass > 0);
            let mut shifted = ShiftedReader::new(&mut mixture, shift);
            self.demix(&mut shifted, 0, &mut add, &mut |done| report(pass, done, expected))?;
        }
        if self.hybrid {
            // Without a second pass, progress stays at the end of the last one.
            let (pass, length) = (passes - 1, mixture.samples() as u64);
            let second = passes > self.shifts;
            self.distribute_residual(&mut mixture, &mut stems, &mut |done| {
                report(pass, if second { done } else { length }, expected)
            })?;
        }
        let mut block = Planar::new(stems.channels());
        let whole = stems.samples() as u64;
        let first = usize::try_from(self.first).unwrap_or(usize::MAX).min(stems.samples());
        for at in (first..stems.samples()).step_by(BLOCK) {
            check_cancelled(report(passes - 1, whole, expected))?;
            block.clear();
            stems.read(at, BLOCK.min(stems.samples() - at), &mut block)?;
            sink(&block)?;
        }
        Ok(())
    }
}

/// Samples of spooled signals processed at a time.
const BLOCK: usize = 1 << 16;

/// Turns a `Break` from the progress callback into an error.
fn check_cancelled(flow: ControlFlow<()>) -> Result<(), OfflineError> {
    if flow.is_break() { Err(OfflineError::Cancelled) } else { Ok(()) }
}

/// Reads all of `source` into a temporary file. `on_step` may cancel.
fn spool_song(
    source: &mut dyn SongReader,
    on_step: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(Spool, Moments), OfflineError> {
    let mut spool = Spool::new(source.channels())?;
    let mut moments = Moments::default();
    let mut block = Planar::new(source.channels());
    while source.read(BLOCK, &mut block)? > 0 {
        check_cancelled(on_step())?;
        moments.add(&block);
        spool.append(&block)?;
        block.clear();
    }
    Ok((spool, moments))
}

/// Adds a block, scaled by `share`, at position `at` (or stores it, in the first pass), wrapping at `total`.
fn add_to_spool(
    stems: &mut Spool,
    block: &Planar,
    at: &mut usize,
    total: usize,
    share: f32,
    add: bool,
) -> Result<(), OfflineError> {
    let mut done = 0;
    while done < block.samples() {
        let count = (block.samples() - done).min(total - *at);
        let mut part = block.slice(done..done + count);
        part.iter_mut().flatten().for_each(|x| *x *= share);
        if add {
            let mut held = Planar::new(stems.channels());
            stems.read(*at, count, &mut held)?;
            for (x, h) in part.iter_mut().zip(held.iter()) {
                x.iter_mut().zip(h).for_each(|(x, h)| *x += h);
            }
        }
        stems.write(*at, &part)?;
        *at = (*at + count) % total;
        done += count;
    }
    Ok(())
}

impl SongPasses<'_> {
    /// The second pass of the hybrid rule: distributes the residual of `mixture` to `stems`.
    fn distribute_residual(
        &mut self,
        mixture: &mut Spool,
        stems: &mut Spool,
        on_progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), OfflineError> {
        let channels = mixture.channels();
        let samples = mixture.samples();
        let mut residual = Spool::new(channels)?;
        for at in (0..samples).step_by(BLOCK) {
            check_cancelled(on_progress(0))?;
            let count = BLOCK.min(samples - at);
            let (mut left, mut held) = (Planar::new(channels), Planar::new(stems.channels()));
            mixture.read(at, count, &mut left)?;
            stems.read(at, count, &mut held)?;
            for (i, stem) in held.iter().enumerate() {
                left.channel_mut(i % channels).iter_mut().zip(stem).for_each(|(x, s)| *x -= s);
            }
            residual.append(&left)?;
        }
        let Some((drums, other)) = hybrid_stems(self.info) else {
            // Without these two stems, the first stem gets the whole residual.
            for at in (0..samples).step_by(BLOCK) {
                check_cancelled(on_progress(0))?;
                let count = BLOCK.min(samples - at);
                let (mut held, mut left) = (Planar::new(stems.channels()), Planar::new(channels));
                stems.read(at, count, &mut held)?;
                residual.read(at, count, &mut left)?;
                for (c, left) in left.iter().enumerate() {
                    held.channel_mut(c).iter_mut().zip(left).for_each(|(x, r)| *x += r);
                }
                stems.write(at, &held)?;
            }
            return Ok(());
        };
        let mut energies = Energies::default();
        let mut second_pass = Spool::new(2 * channels)?;
        let options = DemixOptions { tta: false, standardise: None::<Standardise>, ..self.options };
        let mut sink = |block: &Planar| {
            let pick = |stem: usize| (0..channels).map(move |c| stem * channels + c);
            for (d, o) in pick(drums).zip(pick(other)) {
                energies.add(block.channel(d), block.channel(o));
            }
            let planes = pick(drums).chain(pick(other)).map(|i| block.channel(i).to_vec()).collect();
            second_pass.append(&Planar::from_equal(planes))
        };
        let mut source = ShiftedReader::new(&mut residual, 0);
        demix_from(self.separator, &mut source, &options, 0, self.control, &mut sink, on_progress)?;
        let ratio = energies.ratio();
        for at in (0..samples).step_by(BLOCK) {
            check_cancelled(on_progress(samples as u64))?;
            let count = BLOCK.min(samples - at);
            let mut held = Planar::new(stems.channels());
            let (mut left, mut second) = (Planar::new(channels), Planar::new(2 * channels));
            stems.read(at, count, &mut held)?;
            residual.read(at, count, &mut left)?;
            second_pass.read(at, count, &mut second)?;
            let mut planes = held.into_planes();
            for c in 0..channels {
                let mut to_drums = std::mem::take(&mut planes[drums * channels + c]);
                distribute(
                    left.channel(c),
                    second.channel(c),
                    second.channel(channels + c),
                    ratio,
                    &mut to_drums,
                    &mut planes[other * channels + c],
                );
                planes[drums * channels + c] = to_drums;
            }
            stems.write(at, &Planar::from_equal(planes))?;
        }
        Ok(())
    }
}
