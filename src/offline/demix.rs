//! Separates a stream in chunks: batching, overlap-add, test-time augmentation.

use std::ops::ControlFlow;

use super::error::OfflineError;
use super::plan::{Chunk, ChunkPlan};
use super::reader::SongReader;
use crate::audio::Planar;
use crate::kernels::JobControl;
use crate::separator::{MaskRule, SeparateError, Separator};

/// How a stream is separated.
#[derive(Clone, Copy, Debug)]
pub struct DemixOptions {
    /// Positions of the chunks.
    pub plan: ChunkPlan,
    /// Chunks per pass of the network.
    pub batch: usize,
    /// How the residual of the masks is distributed.
    pub rule: MaskRule,
    /// Test-time augmentation: the mean of the results for the mixture, for swapped channels and for inverted polarity.
    pub tta: bool,
    /// Mean and standard deviation by which the mixture is standardised first; the stems are restored after.
    pub standardise: Option<Standardise>,
}

/// Mean and standard deviation of the mean of a song's channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standardise {
    /// Mean.
    pub mean: f32,
    /// Standard deviation, over all samples.
    pub std: f32,
}

/// Running sums for [`Standardise`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    count: u64,
    sum: f64,
    squares: f64,
}

impl Moments {
    /// Adds a block.
    pub fn add(&mut self, block: &Planar) {
        let channels = block.channels().max(1) as f64;
        for i in 0..block.samples() {
            let mono = block.iter().map(|c| f64::from(c[i])).sum::<f64>() / channels;
            self.sum += mono;
            self.squares += mono * mono;
        }
        self.count += block.samples() as u64;
    }

    /// The result; none for a song without samples or of one constant value, which cannot be standardised.
    pub fn standardise(&self) -> Option<Standardise> {
        let count = self.count.max(1) as f64;
        let mean = self.sum / count;
        let std = (self.squares / count - mean * mean).max(0.0).sqrt();
        (std > 0.0).then_some(Standardise { mean: mean as f32, std: std as f32 })
    }
}

/// Called after every batch with the finished samples at the model's rate; `Break` cancels.
pub type OnProgress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Separates all of `source`. `sink` gets the stems in order, in blocks of stems · channels planes, stem by stem; together
/// they are as long as the source. The channels of the source are taken two by two for a stereo model (an odd last one
/// alone, its two results averaged), one by one for a mono model. Chunks of digital silence are not run: their stems are
/// silent.
///
/// # Errors
/// [`OfflineError`] of the source, the network or the sink; [`OfflineError::Cancelled`].
pub fn demix(
    separator: &mut Separator,
    source: &mut dyn SongReader,
    options: &DemixOptions,
    sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
    on_progress: &mut OnProgress,
) -> Result<(), OfflineError> {
    demix_from(separator, source, options, 0, &(), sink, on_progress)
}

/// As [`demix`], but computes only the stems from sample `first` on: the same, bit for bit, as in a separation of everything. `source` starts at the
/// beginning of the song all the same. Asks `control` between the layers of the network.
///
/// # Errors
/// As [`demix`].
pub fn demix_from(
    separator: &mut Separator,
    source: &mut dyn SongReader,
    options: &DemixOptions,
    first: u64,
    control: &dyn JobControl,
    sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
    on_progress: &mut OnProgress,
) -> Result<(), OfflineError> {
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    Demix { first, ..Demix::new(separator, source, *options, control) }.run(sink, on_progress)
}

/// A variant of the mixture for test-time augmentation.
enum Variant {
    Swapped,
    Inverted,
}

impl Variant {
    /// `signal`: any number of [channels, samples], flat.
    fn apply(&self, signal: &[f32], samples: usize, channels: usize) -> Vec<f32> {
        match self {
            Self::Inverted => signal.iter().map(|x| -x).collect(),
            Self::Swapped => signal
                .chunks(samples * channels)
                .flat_map(|channels| channels.chunks(samples).rev().flatten().copied())
                .collect(),
        }
    }
}

struct Demix<'a> {
    separator: &'a mut Separator,
    source: &'a mut dyn SongReader,
    options: DemixOptions,
    control: &'a dyn JobControl,
    /// First sample whose stems are wanted.
    first: usize,
    channels: usize,
    stems: usize,
    /// The padded song, from sample `base` on.
    input: Planar,
    base: usize,
    /// Length of the song without padding, once known.
    length: Option<usize>,
    read: usize,
    padded: bool,
    /// Weighted sums of the stems and their weights, from sample `done` of the padded song on.
    sums: Planar,
    weights: Vec<f32>,
    done: usize,
}

impl<'a> Demix<'a> {
    fn new(
        separator: &'a mut Separator,
        source: &'a mut dyn SongReader,
        options: DemixOptions,
        control: &'a dyn JobControl,
    ) -> Self {
        let channels = source.channels();
        let stems = separator.info().architecture.num_stems;
        Self {
            separator,
            source,
            options,
            control,
            first: 0,
            channels,
            stems,
            input: Planar::new(channels),
            base: 0,
            length: None,
            read: 0,
            padded: false,
            sums: Planar::new(stems * channels),
            weights: Vec::new(),
            done: 0,
        }
    }

    fn run(
        mut self,
        sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
        on_progress: &mut OnProgress,
    ) -> Result<(), OfflineError> {
        self.read_head()?;
        let mut batch = Vec::new();
        let mut next = self.skip_unwanted()?;
        while let Some(chunk) = next {
            batch.push(chunk);
            next = self.next_chunk(Some(chunk.start))?;
            if batch.len() < self.options.batch && next.is_some() {
                continue;
            }
            self.separate_batch(&batch)?;
            batch.clear();
            let finished = next.map_or(usize::MAX, |chunk| chunk.start);
            self.emit_finished(finished, sink)?;
            if let Some(chunk) = next {
                self.input.drop_front(chunk.start - self.base);
                self.base = chunk.start;
            }
            let offset = if self.padded { self.options.plan.border } else { 0 };
            if on_progress(self.done.saturating_sub(offset) as u64).is_break() {
                return Err(OfflineError::Cancelled);
            }
        }
        Ok(())
    }

    /// Position in the padded song from which stems are wanted.
    fn first_wanted(&self) -> usize {
        self.first.saturating_add(if self.padded { self.options.plan.border } else { 0 })
    }

    /// Skips the chunks that end before the first wanted sample. Returns the first chunk that is run.
    fn skip_unwanted(&mut self) -> Result<Option<Chunk>, OfflineError> {
        let mut next = self.next_chunk(None)?;
        while let Some(chunk) = next
            && self.first > 0
            && chunk.start + chunk.len <= self.first_wanted()
        {
            next = self.next_chunk(Some(chunk.start))?;
            if let Some(chunk) = next {
                self.input.drop_front(chunk.start - self.base);
                (self.base, self.done) = (chunk.start, chunk.start);
            }
        }
        Ok(next)
    }

    /// Reads enough to know whether the song is padded, and pads its head.
    fn read_head(&mut self) -> Result<(), OfflineError> {
        let border = self.options.plan.border;
        self.fill_input(2 * border + 1)?;
        self.padded = self.options.plan.is_padded(self.read);
        if self.padded {
            let planes = (0..self.channels)
                .map(|c| {
                    let song = self.input.channel(c);
                    (1..=border).rev().map(|i| song[i]).chain(song.iter().copied()).collect()
                })
                .collect();
            self.input = Planar::from_equal(planes);
            if self.length.is_some() {
                self.pad_tail();
            }
        }
        Ok(())
    }

    /// Reads until `upto` samples of the padded song are known, or all are.
    fn fill_input(&mut self, upto: usize) -> Result<(), OfflineError> {
        while self.length.is_none() && self.base + self.input.samples() < upto {
            let want = upto - self.base - self.input.samples();
            let from = self.input.samples();
            let got = self.source.read(want, &mut self.input)?;
            if got == 0 {
                self.length = Some(self.read);
                if self.padded {
                    self.pad_tail();
                }
            } else if let Some(Standardise { mean, std }) = self.options.standardise {
                for channel in self.input.iter_mut() {
                    channel[from..].iter_mut().for_each(|x| *x = (*x - mean) / std);
                }
            }
            self.read += got;
        }
        Ok(())
    }

    /// Reflects the end of the song. At least a border of it is still in `input`.
    fn pad_tail(&mut self) {
        let end = self.input.samples();
        let border = self.options.plan.border;
        let planes: Vec<Vec<f32>> =
            self.input.iter().map(|song| (2..border + 2).map(|i| song[end - i]).collect()).collect();
        self.input.append(&Planar::from_equal(planes));
    }

    fn next_chunk(&mut self, start: Option<usize>) -> Result<Option<Chunk>, OfflineError> {
        let plan = self.options.plan;
        let at = start.map_or(0, |start| start + plan.step);
        self.fill_input(at + plan.lookahead())?;
        let known = self.base + self.input.samples();
        Ok(plan.next_chunk(start, known, self.length.is_some(), self.padded))
    }

    /// Runs a batch of chunks and adds their stems to the sums.
    fn separate_batch(&mut self, batch: &[Chunk]) -> Result<(), OfflineError> {
        let plan = self.options.plan;
        let model_channels = self.separator.info().architecture.channels;
        let shortest = self.separator.info().architecture.stft.min_samples();
        let groups = self.channels.div_ceil(model_channels);
        // A very short song needs no full chunk.
        let samples = match batch {
            [only] if only.first && only.len <= plan.min_tail => plan.fade.max(shortest),
            _ => plan.chunk,
        };
        let mut inputs: Vec<Vec<f32>> = Vec::new();
        // The index of the input for each chunk and group of channels; none for silence.
        let mut input_of = Vec::with_capacity(batch.len() * groups);
        for chunk in batch {
            for group in 0..groups {
                let input = self.chunk_input(chunk, group, model_channels, samples);
                let audible = input.iter().any(|x| *x != 0.0);
                input_of.push(audible.then_some(inputs.len()));
                if audible {
                    inputs.push(input);
                }
            }
        }
        let mut outputs = Vec::with_capacity(inputs.len());
        for inputs in inputs.chunks(self.options.batch.max(1)) {
            outputs.extend(self.separate_augmented(inputs, model_channels, samples)?);
        }
        for (i, chunk) in batch.iter().enumerate() {
            self.overlap_add(
                chunk,
                samples,
                &input_of[i * groups..(i + 1) * groups],
                &outputs,
                model_channels,
            );
        }
        Ok(())
    }

    /// One group of channels of a chunk: [model channels, samples], flat.
    fn chunk_input(&self, chunk: &Chunk, group: usize, model_channels: usize, samples: usize) -> Vec<f32> {
        let from = chunk.start - self.base;
        let mut input = Vec::with_capacity(model_channels * samples);
        for m in 0..model_channels {
            // An odd last channel is used for both.
            let channel = (group * model_channels + m).min(self.channels - 1);
            let part = &self.input.channel(channel)[from..from + chunk.len];
            input.extend_from_slice(part);
            let missing = samples - chunk.len;
            if chunk.len > self.options.plan.chunk / 2 {
                input.extend((0..missing).map(|i| part[chunk.len.saturating_sub(2 + i)]));
            } else {
                input.resize(input.len() + missing, 0.0);
            }
        }
        input
    }

    /// Runs the network, with test-time augmentation if requested. Each result: [stems, model channels, samples].
    fn separate_augmented(
        &mut self,
        inputs: &[Vec<f32>],
        channels: usize,
        samples: usize,
    ) -> Result<Vec<Vec<f32>>, SeparateError> {
        let rule = self.options.rule;
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let mut outputs = self.separator.separate_controlled(&views, rule, self.control)?;
        if !self.options.tta {
            return Ok(outputs);
        }
        let (mut passes, variants) = match channels {
            2 => (1.0, [Variant::Swapped, Variant::Inverted].as_slice()),
            _ => {
                // Swapping a single channel changes nothing, so the plain result counts twice in the mean.
                outputs.iter_mut().flatten().for_each(|x| *x *= 2.0);
                (2.0, [Variant::Inverted].as_slice())
            }
        };
        for variant in variants {
            let changed: Vec<Vec<f32>> =
                inputs.iter().map(|input| variant.apply(input, samples, channels)).collect();
            let views: Vec<&[f32]> = changed.iter().map(Vec::as_slice).collect();
            for (output, answer) in
                outputs.iter_mut().zip(self.separator.separate_controlled(&views, rule, self.control)?)
            {
                // A variant undoes itself.
                let undone = variant.apply(&answer, samples, channels);
                output.iter_mut().zip(undone).for_each(|(x, y)| *x += y);
            }
            passes += 1.0;
        }
        outputs.iter_mut().flatten().for_each(|x| *x /= passes);
        Ok(outputs)
    }

    /// Adds one chunk's stems, weighted.
    fn overlap_add(
        &mut self,
        chunk: &Chunk,
        samples: usize,
        input_of: &[Option<usize>],
        outputs: &[Vec<f32>],
        model_channels: usize,
    ) {
        let plan = self.options.plan;
        let offset = chunk.start - self.done;
        let end = offset + chunk.len;
        if self.weights.len() < end {
            self.weights.resize(end, 0.0);
            self.sums.resize(end);
        }
        let weights: Vec<f32> = (0..chunk.len).map(|i| plan.weight(i, chunk)).collect();
        self.weights[offset..end].iter_mut().zip(&weights).for_each(|(sum, w)| *sum += w);
        for (group, output) in input_of.iter().enumerate() {
            let Some(output) = output.and_then(|i| outputs.get(i)) else { continue };
            for stem in 0..self.stems {
                let signal = |m: usize| &output[(stem * model_channels + m) * samples..][..chunk.len];
                let first = group * model_channels;
                let alone = model_channels == 2 && first + 1 == self.channels;
                for m in 0..model_channels.min(self.channels - first) {
                    let sums = &mut self.sums.channel_mut(stem * self.channels + first + m)[offset..end];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let x = if alone { 0.5 * (signal(0)[i] + signal(1)[i]) } else { signal(m)[i] };
                        *sum += weights[i] * x;
                    }
                }
            }
        }
    }

    /// Returns the samples that no later chunk reaches: all before sample `upto` of the padded song.
    fn emit_finished(
        &mut self,
        upto: usize,
        sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
    ) -> Result<(), OfflineError> {
        let count = upto.saturating_sub(self.done).min(self.weights.len());
        let border = if self.padded { self.options.plan.border } else { 0 };
        // The part of them that is not padding, and that is wanted.
        let from = self.first_wanted().saturating_sub(self.done).min(count);
        let to = self.length.map_or(count, |length| (border + length).saturating_sub(self.done).min(count));
        if from < to {
            let mut block = self.sums.slice(from..to);
            for plane in block.iter_mut() {
                plane.iter_mut().zip(&self.weights[from..to]).for_each(|(x, w)| *x /= w);
            }
            if let Some(Standardise { mean, std }) = self.options.standardise {
                // Completed masks sum to 1, so the stems share the mean.
                let mean = match self.options.rule {
                    MaskRule::Plain => mean,
                    MaskRule::Complete => mean / self.stems as f32,
                };
                block.iter_mut().flatten().for_each(|x| *x = *x * std + mean);
            }
            sink(&block)?;
        }
        self.sums.drop_front(count);
        self.weights.drain(..count);
        self.done += count;
        Ok(())
    }
}
