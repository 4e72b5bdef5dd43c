//! The network in whichever form runs best: fused kernels on the CPU, candle for the rest.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::LoadError;
use super::arithmetic::{Arithmetic, fused};
use super::on_device::DeviceChunk;
use crate::kernels::{ENV, Pool};
use crate::model::architecture::Architecture;
use crate::model::device::device_name;
use crate::model::fused::{FusedRoformer, uncovered};
use crate::model::precision::Precision;
use crate::model::roformer::Roformer;

/// A network ready to run.
pub(super) enum Network {
    /// candle, on any device.
    Candle {
        /// The network.
        network: Box<Roformer>,
        /// Why it is not the kernels.
        reason: String,
        /// Where the whole chunk runs on its device.
        chunk: Option<Box<DeviceChunk>>,
    },
    /// The fused kernels, and what they compute in.
    Fused(Box<FusedRoformer>, Arithmetic),
}

/// The number type of candle's matrix products.
fn number_type(precision: Precision) -> DType {
    match precision {
        // Half precision has been proven on no GPU yet.
        Precision::Auto | Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

impl Network {
    /// Builds `arch` from `vb` on its device, `on_device` with the rest of a chunk. `NULLSUM_KERNEL=candle` keeps the kernels out.
    pub fn new(
        arch: &Architecture,
        vb: VarBuilder,
        pool: &Pool,
        precision: Precision,
        on_device: bool,
    ) -> Result<Self, LoadError> {
        let candle_wanted =
            on_device || std::env::var(ENV).is_ok_and(|name| name.eq_ignore_ascii_case("candle"));
        let reason = match uncovered(arch) {
            _ if !vb.device().is_cpu() => Some("not on the CPU".to_owned()),
            _ if candle_wanted => Some("asked for".to_owned()),
            option => option.map(|option| format!("no fused kernels for {option}")),
        };
        match reason {
            None => {
                let (network, arithmetic) = fused(arch, &vb, pool, precision)?;
                Ok(Self::Fused(Box::new(network), arithmetic))
            }
            Some(reason) => {
                let vb = vb.to_dtype(number_type(precision));
                let network = Box::new(Roformer::new(arch, vb)?);
                let chunk =
                    if on_device { Some(Box::new(DeviceChunk::new(arch, network.device())?)) } else { None };
                Ok(Self::Candle { network, reason, chunk })
            }
        }
    }

    /// What runs a whole chunk on the device, if anything does, and the network for it.
    pub fn on_device(&mut self) -> Option<(&mut DeviceChunk, &Roformer)> {
        match self {
            Self::Candle { network, chunk: Some(chunk), .. } => Some((chunk, network)),
            _ => None,
        }
    }

    /// Whether whole chunks run where the network does.
    pub fn is_on_device(&self) -> bool {
        matches!(self, Self::Candle { chunk: Some(_), .. })
    }

    /// Whether that is a GPU.
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

    /// What computes.
    pub fn kernel(&self) -> String {
        match self {
            Self::Candle { reason, .. } => format!("candle ({reason})"),
            Self::Fused(network, _) => network.target().isa.to_string(),
        }
    }

    /// What its products are computed in.
    pub fn arithmetic(&self) -> Arithmetic {
        match self {
            Self::Candle { network, .. } => match network.number_type() {
                DType::F16 => Precision::F16.into(),
                DType::BF16 => Precision::Bf16.into(),
                _ => Precision::F32.into(),
            },
            Self::Fused(_, arithmetic) => *arithmetic,
        }
    }

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], flat.
    pub fn forward(
        &mut self,
        spec: &[f32],
        batch: usize,
    ) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Self::Fused(network, _) => Ok(network.forward(spec, batch)?),
            Self::Candle { network, .. } => {
                let features = network.architecture().frame_features();
                let frames = spec.len() / features / batch.max(1);
                let spec = Tensor::from_slice(spec, (batch, frames, features), network.device())?;
                Ok(network.forward(&spec)?.flatten_all()?.to_vec1()?)
            }
        }
    }
}
