//! BS-RoFormer and Mel-Band RoFormer on candle: what a checkpoint and its YAML say, checked and built.
//!
//! One file a block of the network. [`architecture`] resolves configuration and tensor shapes into one description and
//! lists every disagreement; [`roformer`] is the network; [`inspect`] reports on a file without running it.

pub mod architecture;
mod attention;
mod band_split;
pub mod bands;
pub mod checkpoint;
pub mod companion;
pub mod config;
pub mod convert;
#[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
pub(crate) mod cuda;
pub mod device;
mod feed_forward;
pub mod fused;
mod hyper_connections;
pub mod inspect;
mod linear;
mod linear_attention;
mod mask_estimator;
mod norm;
mod position;
pub mod precision;
pub mod roformer;
mod transformer;
pub mod weights;
