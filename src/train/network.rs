//! The network over a whole batch: forward with one kept input a block, backward with each block computed again.
//!
//! A graph over the whole network would keep every intermediate result. Here the forward pass records nothing but the input of each
//! block; the backward pass goes through the blocks from last to first, computes each again from its input, this time with its
//! gradient, and adds to the gradients of its parameters. That costs one more forward pass and keeps memory at one block's needs.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::cpu::Kernels;
use super::graph::{self, Axis, BlockPlace, Scope};
use super::parameters::{Gradients, Parameters};
use crate::model::architecture::Architecture;

/// Bytes of intermediate results that one slice of sequences may record.
const SLICE_BYTES: usize = 384 << 20;
/// Tensors of the size of the attention scores that the graph of a block and its gradient hold.
const SCORE_COPIES: usize = 10;
/// The same for tensors of a token's hidden features.
const TOKEN_COPIES: usize = 6;

/// The network of one architecture, without its parameters.
pub(super) struct Network {
    arch: Architecture,
    /// Features of all bands in the frame; none where they are the frame in order.
    indices: Option<Tensor>,
    /// 1 / number of bands that own a feature: [features of a frame]
    weights: Tensor,
    /// What runs blocks on the CPU where the architecture allows it; none runs all as graphs.
    kernels: Option<Kernels>,
    dtype: DType,
    device: Device,
}

/// What a forward pass leaves for the backward pass.
pub(super) struct Tape {
    spec: Tensor,
    blocks: Vec<BlockInput>,
    first: FirstValues,
    /// Input of the mask estimators: [batch, frames, bands, dim]
    x: Tensor,
    /// Input of the final norm, or of the sum over streams: [batch · streams, frames, bands, dim]
    last: Tensor,
}

/// A block and what it was given: [sequences, len, dim]
struct BlockInput {
    place: BlockPlace,
    x: Tensor,
}

/// The first layer's values of each axis, for value residuals.
#[derive(Default)]
struct FirstValues([Option<Tensor>; 3]);

impl FirstValues {
    fn at(&mut self, axis: Axis) -> &mut Option<Tensor> {
        &mut self.0[axis as usize]
    }

    /// What a block of `layer` mixes its values with.
    fn read(&self, place: BlockPlace) -> Option<&Tensor> {
        if place.layer == 0 { None } else { self.0[place.axis as usize].as_ref() }
    }

    fn add(&mut self, axis: Axis, gradient: Tensor) -> Result<()> {
        let sum = self.at(axis);
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
        Ok(())
    }
}

impl Network {
    /// `kernels`: whether the CPU's kernels run what they cover.
    pub fn new(arch: &Architecture, parameters: &Parameters, kernels: bool) -> Result<Self> {
        let layout = arch.band_layout();
        let (device, dtype) = (parameters.device().clone(), parameters.dtype());
        let indices: Vec<u32> = layout.indices.iter().map(|&i| i as u32).collect();
        let kernels = kernels && device.is_cpu() && dtype == DType::F32;
        Ok(Self {
            indices: if layout.whole { None } else { Some(Tensor::new(indices, &device)?) },
            weights: Tensor::new(layout.weights.clone(), &device)?.to_dtype(dtype)?,
            kernels: if kernels { Kernels::new(arch) } else { None },
            arch: arch.clone(),
            dtype,
            device,
        })
    }

    pub fn arch(&self) -> &Architecture {
        &self.arch
    }

    fn streams(&self) -> usize {
        self.arch.hyper_connections.map_or(1, |h| h.streams)
    }

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], and the tape.
    pub fn forward(&self, parameters: &Parameters, spec: &Tensor) -> Result<(Tensor, Tape)> {
        let scope = Scope::new(&self.arch, parameters, false);
        let spec = spec.to_device(&self.device)?.to_dtype(self.dtype)?;
        let mut x = match &self.kernels {
            Some(kernels) => kernels.band_split(parameters, &spec)?,
            None => graph::band_split(&scope, &spec, self.indices.as_ref())?,
        };
        let (batch, frames, bands, dim) = x.dims4()?;
        let streams = self.streams();
        if streams > 1 {
            x = x.unsqueeze(1)?.broadcast_as((batch, streams, frames, bands, dim))?.contiguous()?;
            x = x.reshape((batch * streams, frames, bands, dim))?;
        }
        let mut blocks = Vec::new();
        let mut first = FirstValues::default();
        let mut earlier: Option<Tensor> = None;
        for layer in 0..self.arch.depth {
            if self.arch.linear_transformer_depth > 0 {
                x = self.transformer(&scope, layer, Axis::Linear, x, &mut blocks, &mut first)?;
            }
            if let Some(earlier) = &earlier {
                x = (x + earlier)?;
            }
            x = self.transformer(&scope, layer, Axis::Time, x, &mut blocks, &mut first)?;
            x = self.transformer(&scope, layer, Axis::Freq, x, &mut blocks, &mut first)?;
            if self.arch.skip_connection {
                earlier = Some(match earlier.take() {
                    Some(earlier) => (earlier + &x)?,
                    None => x.clone(),
                });
            }
        }
        let last = x;
        let x = self.join(&scope, &last)?;
        let masks = self.masks(&scope, &x)?;
        Ok((masks, Tape { spec, blocks, first, x, last }))
    }

    /// Sum over streams and final norm: [batch · streams, frames, bands, dim] → [batch, frames, bands, dim]
    fn join(&self, scope: &Scope, x: &Tensor) -> Result<Tensor> {
        let (leading, frames, bands, dim) = x.dims4()?;
        let streams = self.streams();
        let x = if streams > 1 {
            x.reshape((leading / streams, streams, frames, bands, dim))?.sum(1)?
        } else {
            x.clone()
        };
        if self.arch.final_norm() { scope.pp("final_norm").rms_norm(&x) } else { Ok(x) }
    }

    /// x: [batch, frames, bands, dim] → [batch, stems, frames, (f s) c]
    fn masks(&self, scope: &Scope, x: &Tensor) -> Result<Tensor> {
        if let Some(kernels) = &self.kernels {
            return kernels.masks(scope.parameters, x);
        }
        let masks = (0..self.arch.num_stems)
            .map(|stem| self.onto_frame(&graph::mask_estimator(scope, stem, x)?))
            .collect::<Result<Vec<_>>>()?;
        Tensor::stack(&masks, 1)
    }

    /// Masks of all bands laid onto the frame; where bands share a bin, their mean: [.., band features] → [.., (f s) c]
    fn onto_frame(&self, masks: &Tensor) -> Result<Tensor> {
        let Some(indices) = &self.indices else { return Ok(masks.clone()) };
        let mut shape = masks.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.weights.dim(0)?;
        }
        let zeros = Tensor::zeros(shape, masks.dtype(), masks.device())?;
        zeros.index_add(indices, masks, masks.rank() - 1)?.broadcast_mul(&self.weights)
    }

    /// One transformer of one layer over x: [batch · streams, frames, bands, dim], axes put in order before and after.
    fn transformer(
        &self,
        scope: &Scope,
        layer: usize,
        axis: Axis,
        x: Tensor,
        blocks: &mut Vec<BlockInput>,
        first: &mut FirstValues,
    ) -> Result<Tensor> {
        let shape = x.dims4()?;
        let mut x = into_sequences(&x, axis)?;
        for place in self.places(layer, axis) {
            blocks.push(BlockInput { place, x: x.clone() });
            let (y, own) = self.block(scope, place, &x, first.read(place))?;
            if self.arch.value_residual.is_some() && layer == 0 && place.block == 0 {
                *first.at(axis) = own;
            }
            x = y;
        }
        from_sequences(&x, axis, shape)
    }

    fn places(&self, layer: usize, axis: Axis) -> impl Iterator<Item = BlockPlace> + use<> {
        let depth = match axis {
            Axis::Linear => self.arch.linear_transformer_depth,
            Axis::Time => self.arch.time_transformer_depth,
            Axis::Freq => self.arch.freq_transformer_depth,
        };
        (0..depth).map(move |block| BlockPlace { layer, axis, block, last: block + 1 == depth })
    }

    /// Sequences of a slice.
    fn slice(&self, sequences: usize, len: usize) -> usize {
        let (arch, bytes) = (&self.arch, self.dtype.size_in_bytes());
        let scores = SCORE_COPIES * arch.heads * len;
        let token = TOKEN_COPIES * (4 * arch.heads * arch.dim_head + 2 * arch.ff_inner + 4 * arch.dim);
        let per_sequence = bytes.saturating_mul(len).saturating_mul(scores + token);
        let streams = self.streams();
        ((SLICE_BYTES / per_sequence.max(1)).max(1) * streams).min(sequences)
    }

    /// Runs a block without recording: x and, where later layers need them, its own values.
    fn block(
        &self,
        scope: &Scope,
        place: BlockPlace,
        x: &Tensor,
        first: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        if let Some(kernels) = self.kernels.as_ref().filter(|kernels| kernels.cover_blocks()) {
            return Ok((kernels.block(scope.parameters, place, x)?, None));
        }
        let (sequences, len, _) = x.dims3()?;
        let step = self.slice(sequences, len);
        let mut outputs = Vec::new();
        let mut values = Vec::new();
        for start in (0..sequences).step_by(step) {
            let count = step.min(sequences - start);
            let first = self.narrow_values(first, start, count)?;
            let (y, own) = graph::block(scope, place, &x.narrow(0, start, count)?, first.as_ref())?;
            outputs.push(y);
            values.push(own);
        }
        Ok((Tensor::cat(&outputs, 0)?, Some(Tensor::cat(&values, 0)?)))
    }

    /// The values of a slice: the branches see one sequence for every group of streams.
    fn narrow_values(&self, values: Option<&Tensor>, start: usize, count: usize) -> Result<Option<Tensor>> {
        let streams = self.streams();
        values.map(|v| v.narrow(0, start / streams, count / streams)).transpose()
    }

    /// Adds the gradients of all parameters, given that of the masks: [batch, stems, frames, (f s) c].
    pub fn backward(
        &self,
        parameters: &Parameters,
        tape: Tape,
        masks: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let scope = Scope::new(&self.arch, parameters, true);
        let masks = masks.to_device(&self.device)?.to_dtype(self.dtype)?;
        let x = self.masks_backward(&scope, &tape.x, &masks, gradients)?;
        let mut x = differentiate(parameters, &[&tape.last], &[&x], gradients, |inputs| {
            Ok(vec![self.join(&scope, &inputs[0])?])
        })?
        .swap_remove(0);
        let (leading, frames, bands, dim) = tape.last.dims4()?;
        let shape = (leading, frames, bands, dim);
        let mut first = FirstValues::default();
        let mut earlier: Option<Tensor> = None;
        let mut blocks = tape.blocks;
        for layer in (0..self.arch.depth).rev() {
            // The sum of outputs that later layers were given.
            if let Some(earlier) = &earlier {
                x = (x + earlier)?;
            }
            for axis in [Axis::Freq, Axis::Time] {
                x = self.transformer_backward(
                    &scope,
                    (layer, axis),
                    x,
                    shape,
                    &mut blocks,
                    &tape.first,
                    &mut first,
                    gradients,
                )?;
            }
            if self.arch.skip_connection && layer > 0 {
                earlier = Some(match earlier.take() {
                    Some(earlier) => (earlier + &x)?,
                    None => x.clone(),
                });
            }
            if self.arch.linear_transformer_depth > 0 {
                x = self.transformer_backward(
                    &scope,
                    (layer, Axis::Linear),
                    x,
                    shape,
                    &mut blocks,
                    &tape.first,
                    &mut first,
                    gradients,
                )?;
            }
        }
        let streams = self.streams();
        if streams > 1 {
            x = x.reshape((leading / streams, streams, frames, bands, dim))?.sum(1)?;
        }
        self.band_split_backward(&scope, &tape.spec, &x, gradients)
    }

    fn masks_backward(
        &self,
        scope: &Scope,
        x: &Tensor,
        masks: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Some(kernels) = &self.kernels {
            return kernels.masks_backward(scope.parameters, x, masks, gradients);
        }
        let mut sum: Option<Tensor> = None;
        for stem in 0..self.arch.num_stems {
            let mask = masks.narrow(1, stem, 1)?.squeeze(1)?;
            let gradient = differentiate(scope.parameters, &[x], &[&mask], gradients, |inputs| {
                Ok(vec![self.onto_frame(&graph::mask_estimator(scope, stem, &inputs[0])?)?])
            })?
            .swap_remove(0);
            sum = Some(match sum {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            });
        }
        sum.ok_or_else(|| candle_core::Error::Msg("a network without stems".into()))
    }

    fn band_split_backward(
        &self,
        scope: &Scope,
        spec: &Tensor,
        x: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        if let Some(kernels) = &self.kernels {
            return kernels.band_split_backward(scope.parameters, spec, x, gradients);
        }
        differentiate(scope.parameters, &[], &[x], gradients, |_| {
            Ok(vec![graph::band_split(scope, spec, self.indices.as_ref())?])
        })?;
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one backward pass")]
    fn transformer_backward(
        &self,
        scope: &Scope,
        (layer, axis): (usize, Axis),
        gradient: Tensor,
        shape: (usize, usize, usize, usize),
        blocks: &mut Vec<BlockInput>,
        values: &FirstValues,
        first: &mut FirstValues,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let mut gradient = into_sequences(&gradient, axis)?;
        for _ in self.places(layer, axis) {
            let Some(BlockInput { place, x }) = blocks.pop() else {
                candle_core::bail!("a backward pass without its forward pass")
            };
            if let Some(kernels) = self.kernels.as_ref().filter(|kernels| kernels.cover_blocks()) {
                gradient = kernels.block_backward(scope.parameters, place, &x, &gradient, gradients)?;
                continue;
            }
            let owns_first = layer == 0 && place.block == 0;
            let own = if owns_first { first.at(axis).take() } else { None };
            let mut first_gradient = Vec::new();
            let (sequences, len, _) = x.dims3()?;
            let step = self.slice(sequences, len);
            let mut out = Vec::new();
            for start in (0..sequences).step_by(step) {
                let count = step.min(sequences - start);
                let slice = x.narrow(0, start, count)?;
                let first = self.narrow_values(values.read(place), start, count)?;
                let own = self.narrow_values(own.as_ref(), start, count)?;
                let gradient = gradient.narrow(0, start, count)?;
                let inputs: Vec<&Tensor> = std::iter::once(&slice).chain(first.as_ref()).collect();
                let outputs: Vec<&Tensor> = std::iter::once(&gradient).chain(own.as_ref()).collect();
                let mut found = differentiate(scope.parameters, &inputs, &outputs, gradients, |inputs| {
                    let (y, own) = graph::block(scope, place, &inputs[0], inputs.get(1))?;
                    Ok(vec![y, own])
                })?;
                out.push(found.swap_remove(0));
                first_gradient.extend(found.pop());
            }
            gradient = Tensor::cat(&out, 0)?;
            if !first_gradient.is_empty() {
                first.add(axis, Tensor::cat(&first_gradient, 0)?)?;
            }
        }
        from_sequences(&gradient, axis, shape)
    }
}

/// [leading, frames, bands, dim] → the sequences of an axis: [sequences, len, dim]
fn into_sequences(x: &Tensor, axis: Axis) -> Result<Tensor> {
    let (leading, frames, bands, dim) = x.dims4()?;
    match axis {
        Axis::Linear => x.reshape((leading, frames * bands, dim)),
        Axis::Time => x.transpose(1, 2)?.contiguous()?.reshape((leading * bands, frames, dim)),
        Axis::Freq => x.reshape((leading * frames, bands, dim)),
    }
}

/// The inverse of [`into_sequences`].
fn from_sequences(
    x: &Tensor,
    axis: Axis,
    (leading, frames, bands, dim): (usize, usize, usize, usize),
) -> Result<Tensor> {
    match axis {
        Axis::Linear | Axis::Freq => x.reshape((leading, frames, bands, dim)),
        Axis::Time => x.reshape((leading, bands, frames, dim))?.transpose(1, 2)?.contiguous(),
    }
}

/// Computes `f` of `inputs`, with its gradient: given those of its first outputs, adds to the gradients of the parameters that it
/// reads and returns those of `inputs`.
fn differentiate(
    parameters: &Parameters,
    inputs: &[&Tensor],
    outputs: &[&Tensor],
    gradients: &mut Gradients,
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let inputs = inputs
        .iter()
        .map(|x| Ok(Var::from_tensor(&x.contiguous()?)?.into_inner()))
        .collect::<Result<Vec<_>>>()?;
    let found = f(&inputs)?;
    // A scalar whose gradient with respect to each output is the one that is given.
    let mut scalar: Option<Tensor> = None;
    for (output, gradient) in found.iter().zip(outputs) {
        let part = (output * &gradient.detach())?.sum_all()?;
        scalar = Some(match scalar {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    let Some(scalar) = scalar else { candle_core::bail!("a function without outputs") };
    let mut store = scalar.backward()?;
    for (index, parameter) in parameters.iter().enumerate() {
        if let Some(gradient) = store.remove(parameter.variable()) {
            gradients.add(index, &gradient)?;
        }
    }
    inputs.iter().map(|x| store.remove(x).map_or_else(|| x.zeros_like(), |g| Ok(g.detach()))).collect()
}
