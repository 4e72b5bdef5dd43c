//! BS-RoFormer and Mel-Band RoFormer networks, built from a checkpoint and its YAML configuration.
//!
//! [`checkpoint`] reads weights and [`config`] reads the YAML. [`architecture`] combines both into one description and
//! lists every disagreement. [`roformer`] is the network in candle, with one file for each block; [`fused`] is the same
//! network on the CPU kernels. [`inspect`] reports on a file without running it.

pub mod architecture;
mod attention;
mod axial_masks;
mod band_split;
pub mod bands;
pub mod checkpoint;
pub mod config;
mod conformer;
pub mod context;
pub mod convert;
#[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
pub(crate) mod cuda;
pub mod device;
mod feed_forward;
mod fno_masks;
pub mod fused;
mod hyper_connections;
mod hyperace;
pub mod inspect;
mod kept_tokens;
mod linear;
mod linear_attention;
mod mask_estimator;
mod mask_head;
mod norm;
mod planes;
mod position;
pub mod precision;
pub mod roformer;
mod siamese;
pub mod sidecar_config;
mod transformer;
pub mod weights;
