//! Sources of a network's tensors: a checkpoint, or seeded random numbers for benchmarks.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use super::architecture::TensorShapes;
use super::checkpoint::Checkpoint;
use crate::dsp::Random;

impl TensorShapes for Checkpoint {
    fn shapes(&self) -> Box<dyn Iterator<Item = (&str, &[usize])> + '_> {
        Box::new(self.names().filter_map(|name| Some((name, self.get(name).map(|view| view.shape())?))))
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.get(name).map(|view| view.shape())
    }
}

/// A builder that reads tensors of `checkpoint` on demand and converts them to f32.
pub fn from_checkpoint<'a>(checkpoint: &'a Checkpoint, device: &Device) -> VarBuilder<'a> {
    VarBuilder::from_backend(Box::new(CheckpointBackend(checkpoint)), DType::F32, device.clone())
}

/// A builder of random tensors, determined by seed, name and shape: Linears uniform within ±1/sqrt(inputs), gains 1.
/// Such a network separates nothing, but costs exactly as much as a trained one.
pub fn seeded(seed: u64, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(SeededBackend(seed)), DType::F32, device.clone())
}

struct CheckpointBackend<'a>(&'a Checkpoint);

impl SimpleBackend for CheckpointBackend<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        dev: &Device,
    ) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, dev)?;
        if tensor.elem_count() != shape.elem_count() {
            candle_core::bail!("{name}: expected shape {shape:?}, found {:?}", tensor.shape())
        }
        tensor.reshape(shape)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, dev: &Device) -> Result<Tensor> {
        let Some(view) = self.0.get(name) else {
            candle_core::bail!("{}: no tensor {name}", self.0.origin())
        };
        let (values, shape) = if view.dtype().is_complex() {
            let shape = view.shape().iter().copied().chain([2]).collect();
            (view.to_complex().map_err(candle_core::Error::wrap)?, shape)
        } else if view.dtype().is_float() {
            (view.to_f32().map_err(candle_core::Error::wrap)?, view.shape().to_vec())
        } else {
            return Err(candle_core::Error::wrap(view.not_a_weight()));
        };
        // A single NaN would spread through the whole network. The largest bit pattern without sign is a fast check.
        let largest = values.iter().fold(0, |most: u32, value| most.max(value.to_bits() & !(1 << 31)));
        if largest >= f32::INFINITY.to_bits()
            && let Some((at, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite())
        {
            candle_core::bail!(
                "{}: {name}: value {at} is {value}, expected a finite number; the checkpoint is damaged, or its training diverged",
                self.0.origin()
            )
        }
        Tensor::from_vec(values, shape, dev)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }
}

struct SeededBackend(u64);

impl SimpleBackend for SeededBackend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        dev: &Device,
    ) -> Result<Tensor> {
        // FNV-1a of the name, so that every tensor has its own numbers.
        let seed = name.bytes().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Random::new(seed);
        let dims = shape.dims();
        let (centre, spread) = if name.ends_with("gamma") || name.ends_with("running_var") {
            (1.0, 0.0)
        } else {
            (0.0, 1.0 / (dims.last().copied().unwrap_or(1).max(1) as f32).sqrt())
        };
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| centre + spread * random.bipolar()).collect();
        Tensor::from_vec(values, shape, dev)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a random tensor needs a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        // Constants that follow from the architecture are computed, not random.
        !name.ends_with("freqs")
    }
}
