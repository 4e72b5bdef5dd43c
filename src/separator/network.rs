//! The network in whichever form runs best: fused kernels on the CPU, candle for the rest.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::LoadError;
use crate::kernels::{ENV, Format, Pool, Target};
use crate::model::architecture::Architecture;
use crate::model::device::device_name;
use crate::model::fused::{FusedRoformer, uncovered};
use crate::model::roformer::Roformer;

/// A network ready to run.
pub(super) enum Network {
    /// candle, on any device, and why it is not the kernels.
    Candle(Box<Roformer>, &'static str),
    /// The fused kernels.
    Fused(Box<FusedRoformer>),
}

impl Network {
    /// Builds `arch` from `vb` on its device. `NULLSUM_KERNEL=candle` keeps the kernels out.
    pub fn new(arch: &Architecture, vb: VarBuilder, pool: &Pool) -> Result<Self, LoadError> {
        let candle_wanted = std::env::var(ENV).is_ok_and(|name| name.eq_ignore_ascii_case("candle"));
        let reason = match uncovered(arch) {
            _ if !vb.device().is_cpu() => Some("not on the CPU"),
            _ if candle_wanted => Some("asked for"),
            reason => reason,
        };
        match reason {
            None => {
                let target = Target::select(Format::F32)?;
                Ok(Self::Fused(Box::new(FusedRoformer::new(arch, vb, target, pool.clone())?)))
            }
            Some(reason) => Ok(Self::Candle(Box::new(Roformer::new(arch, vb)?), reason)),
        }
    }

    /// Name of the device.
    pub fn device(&self) -> String {
        match self {
            Self::Candle(network, _) => device_name(network.device()),
            Self::Fused(_) => "cpu".into(),
        }
    }

    /// What computes.
    pub fn kernel(&self) -> String {
        match self {
            Self::Candle(_, reason) => format!("candle ({reason})"),
            Self::Fused(network) => network.target().to_string(),
        }
    }

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], flat.
    pub fn forward(
        &mut self,
        spec: &[f32],
        batch: usize,
    ) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Self::Fused(network) => Ok(network.forward(spec, batch)?),
            Self::Candle(network, _) => {
                let features = network.architecture().frame_features();
                let frames = spec.len() / features / batch.max(1);
                let spec = Tensor::from_slice(spec, (batch, frames, features), network.device())?;
                Ok(network.forward(&spec)?.flatten_all()?.to_vec1()?)
            }
        }
    }
}
