//! The network on its backend: fused kernels on the CPU where they support it, else candle.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::device_chunk::DevicePipeline;
use super::precision::{ResolvedPrecision, fused};
use super::{LoadError, Runtime};
use crate::kernels::{ENV, JobControl, Pool};
use crate::model::architecture::Architecture;
use crate::model::device::device_name;
use crate::model::fused::{FusedRoformer, unsupported_feature};
use crate::model::precision::Precision;
use crate::model::roformer::Roformer;

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

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], flat.
    pub fn forward(
        &mut self,
        spec: &[f32],
        batch: usize,
        control: &dyn JobControl,
    ) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Self::Fused(network, _) => Ok(network.forward_controlled(spec, batch, control)?),
            Self::Candle { network, .. } => {
                let features = network.architecture().frame_features();
                let frames = spec.len() / features / batch.max(1);
                let spec = Tensor::from_slice(spec, (batch, frames, features), network.device())?;
                Ok(network.forward_controlled(&spec, control)?.flatten_all()?.to_vec1()?)
            }
        }
    }
}
