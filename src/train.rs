//! Training: `loss = model.loss(x, target)`, `loss.backward()`, and what a training program needs around them.
//!
//! [`RoformerForTraining`] is a network of any architecture of the library whose parameters have the names of its checkpoint.
//! A loss is that of the reference packages: L1 of the waveform, and of the complex STFT at several resolutions. Its gradient
//! comes back as [`Gradients`], one tensor a parameter.
//!
//! The forward pass keeps the input of every block and nothing else; the backward pass computes each block again. On the CPU blocks,
//! band split and mask estimators are functions of their own, forward and backward; candle computes what they do not cover (linear
//! attention, value residuals, hyper-connections, PoPE), and everything on other devices.

mod architecture;
mod batches;
mod cpu;
mod data;
mod error;
mod export;
mod graph;
mod initial;
mod loss;
mod model;
mod network;
mod optimizer;
mod parameters;
pub mod teacher;
mod trainer;
mod validate;
mod waveform;

pub use batches::{Batch, Batches, Confidence, MixConfig};
pub use data::{DataOptions, MissingStems, Song, SongSet};
pub use error::TrainError;
pub use loss::{LossConfig, LossParts};
pub use model::{Loss, ModelOptions, RoformerForTraining};
pub use optimizer::{Optimizer, OptimizerConfig};
pub use parameters::{Gradients, Parameter, Parameters};
pub use trainer::{Schedule, TrainData, TrainEvent, Trainer};
pub use validate::StemScore;
