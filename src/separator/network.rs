//! The network on its backend: fused kernels on the CPU where they support it, else candle.

use std::any::Any;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use smallvec::SmallVec;

use super::device_chunk::DevicePipeline;
use super::precision::{ResolvedPrecision, fused};
use super::{LoadError, Runtime};
use crate::kernels::{CacheFormat, ContextHop, ENV, JobControl, Pool};
use crate::model::architecture::Architecture;
use crate::model::device::device_name;
use crate::model::fused::{FusedContext, FusedRoformer, unsupported_feature};
use crate::model::precision::Precision;
use crate::model::roformer::{Roformer, RoformerContext};

/// A network ready to run.
pub(super) enum Network {
    /// candle on any device.
    Candle {
        /// The network.
        network: Box<Roformer>,
        /// Why the fused kernels are not used.
        reason: String,
        /// Transforms and masks on the device, if the whole chunk runs there.
        pipeline: Option<Box<DevicePipeline>>,
    },
    /// The fused kernels and their precision.
    Fused(Box<FusedRoformer>, ResolvedPrecision),
}

/// What a network keeps of a stream.
pub(super) enum NetworkContext {
    Candle(RoformerContext),
    Fused(FusedContext),
    /// Of a network in another process.
    Remote {
        /// What it is known by there.
        context: Box<dyn Any + Send + Sync>,
        /// Whether it is to be forgotten before the next hop.
        forget: bool,
    },
}

impl NetworkContext {
    /// Frames that are kept now.
    pub fn len(&self) -> usize {
        match self {
            Self::Candle(context) => context.len(),
            Self::Fused(context) => context.len(),
            Self::Remote { .. } => 0,
        }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        match self {
            Self::Candle(context) => context.clear(),
            Self::Fused(context) => context.clear(),
            Self::Remote { forget, .. } => *forget = true,
        }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Candle(context) => context.bytes(),
            Self::Fused(context) => context.bytes(),
            Self::Remote { .. } => 0,
        }
    }
}

/// One stream's part of [`Network::forward_hops`].
pub(super) struct HopPart<'a> {
    pub context: &'a mut NetworkContext,
    /// Number of its first frame in the stream.
    pub first: u64,
    /// Frames that are run.
    pub frames: usize,
    /// How many of them, the first, are kept afterwards.
    pub leaving: usize,
    /// The first of them whose masks are wanted.
    pub wanted_from: usize,
}

/// The number type of candle's matrix products.
fn number_type(precision: Precision) -> DType {
    match precision {
        // Half precision has not been verified on a GPU yet.
        Precision::Auto | Precision::F32 | Precision::Int8 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

impl Network {
    /// Builds `arch` from `vb` on its device. With `on_device`, transforms and masks run on the device too.
    /// `NULLSUM_KERNEL=candle` disables the fused kernels.
    pub fn new(
        arch: &Architecture,
        vb: VarBuilder,
        pool: &Pool,
        runtime: &Runtime,
        on_device: bool,
    ) -> Result<Self, LoadError> {
        let candle_wanted =
            on_device || std::env::var(ENV).is_ok_and(|name| name.eq_ignore_ascii_case("candle"));
        let reason = match unsupported_feature(arch) {
            _ if !vb.device().is_cpu() => Some("not on the CPU".to_owned()),
            _ if candle_wanted => Some("asked for".to_owned()),
            option => option.map(|option| format!("no fused kernels for {option}")),
        };
        match reason {
            None => {
                let (network, precision) =
                    fused(arch, &vb, pool, runtime.precision, runtime.auto_may_use_int8)?;
                Ok(Self::Fused(Box::new(network), precision))
            }
            Some(reason) if runtime.precision == Precision::Int8 => Err(LoadError::Precision(format!(
                "int8 is only available in the fused CPU kernels, which are not used here ({reason}): expected auto, f32, f16 or bf16"
            ))),
            Some(reason) => {
                let vb = vb.to_dtype(number_type(runtime.precision));
                let network = Box::new(Roformer::new(arch, vb)?);
                let pipeline = if on_device {
                    Some(Box::new(DevicePipeline::new(arch, network.device())?))
                } else {
                    None
                };
                Ok(Self::Candle { network, reason, pipeline })
            }
        }
    }

    /// The device pipeline and the network, if whole chunks run on the device.
    pub fn device_pipeline(&mut self) -> Option<(&mut DevicePipeline, &Roformer)> {
        match self {
            Self::Candle { network, pipeline: Some(pipeline), .. } => Some((pipeline, network)),
            _ => None,
        }
    }

    /// Whether whole chunks run on the network's device.
    pub fn is_on_device(&self) -> bool {
        matches!(self, Self::Candle { pipeline: Some(_), .. })
    }

    /// Whether the device is a GPU.
    pub fn is_on_gpu(&self) -> bool {
        matches!(self, Self::Candle { network, .. } if !network.device().is_cpu())
    }

    /// Name of the device.
    pub fn device(&self) -> String {
        match self {
            Self::Candle { network, .. } => device_name(network.device()),
            Self::Fused(..) => "cpu".into(),
        }
    }

    /// Name of the backend: an instruction set, or `candle` with the reason.
    pub fn kernel(&self) -> String {
        match self {
            Self::Candle { reason, .. } => format!("candle ({reason})"),
            Self::Fused(network, _) => network.target().isa.to_string(),
        }
    }

    /// Precision of the matrix products.
    pub fn precision(&self) -> ResolvedPrecision {
        match self {
            Self::Candle { network, .. } => match network.number_type() {
                DType::F16 => Precision::F16.into(),
                DType::BF16 => Precision::Bf16.into(),
                _ => Precision::F32.into(),
            },
            Self::Fused(_, precision) => *precision,
        }
    }

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], flat, in memory that earlier passes may have used.
    pub fn forward(
        &mut self,
        spec: &[f32],
        batch: usize,
        masks: &mut Vec<f32>,
        control: &dyn JobControl,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Self::Fused(network, _) => Ok(network.forward_into(spec, batch, masks, control)?),
            Self::Candle { network, .. } => {
                let features = network.architecture().frame_features();
                let frames = spec.len() / features / batch.max(1);
                let spec = Tensor::from_slice(spec, (batch, frames, features), network.device())?;
                *masks = network.forward_controlled(&spec, control)?.flatten_all()?.to_vec1()?;
                Ok(())
            }
        }
    }

    /// Room for `frames` kept frames of a stream.
    pub fn new_context(&self, frames: usize, format: CacheFormat) -> NetworkContext {
        match self {
            Self::Candle { network, .. } => {
                NetworkContext::Candle(network.new_context(frames, format == CacheFormat::Bf16))
            }
            Self::Fused(network, _) => NetworkContext::Fused(network.new_context(frames, format)),
        }
    }

    /// spec: [frames of all parts, (f s) c] → masks [stems, wanted frames of all parts, (f s) c]. After an error, which is also what comes
    /// of a cancelled pass, the contexts must be cleared.
    pub fn forward_hops(
        &mut self,
        spec: &[f32],
        parts: &mut [HopPart<'_>],
        masks: &mut Vec<f32>,
        control: &dyn JobControl,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Self::Fused(network, _) => {
                let mut hops: SmallVec<[ContextHop<'_>; 16]> = SmallVec::with_capacity(parts.len());
                for part in parts {
                    let NetworkContext::Fused(context) = &mut *part.context else {
                        return Err(OTHER_NETWORK.into());
                    };
                    hops.push(context.hop(part.first, part.frames, part.leaving, part.wanted_from));
                }
                Ok(network.forward_hops(spec, &mut hops, masks, control)?)
            }
            Self::Candle { network, .. } => candle_hops(network, spec, parts, masks, control),
        }
    }
}

/// What is said of a context that another network made.
const OTHER_NETWORK: &str = "the stream belongs to another network";

/// One stream after the other, so that the bits of each are its own: candle's products depend on the number of rows.
fn candle_hops(
    network: &Roformer,
    spec: &[f32],
    parts: &mut [HopPart<'_>],
    masks: &mut Vec<f32>,
    control: &dyn JobControl,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (features, stems) = (network.architecture().frame_features(), network.architecture().num_stems);
    let total: usize = parts.iter().map(|part| part.frames - part.wanted_from).sum();
    masks.resize(stems * total * features, 0.0);
    let (mut first, mut row) = (0, 0);
    for HopPart { context, first: number, frames, leaving, wanted_from } in parts {
        let NetworkContext::Candle(context) = &mut **context else { return Err(OTHER_NETWORK.into()) };
        let frames_of = &spec[first * features..(first + *frames) * features];
        let tensor = Tensor::from_slice(frames_of, (1, *frames, features), network.device())?;
        let found = network.forward_hop(&tensor, context, *number, *leaving, *wanted_from, control)?;
        let found = found.flatten_all()?.to_vec1::<f32>()?;
        let len = (*frames - *wanted_from) * features;
        for (stem, found) in found.chunks_exact(len).enumerate() {
            masks[(stem * total + row) * features..][..len].copy_from_slice(found);
        }
        first += *frames;
        row += *frames - *wanted_from;
    }
    Ok(())
}
