//! Fused CPU kernels in f32, one set for each instruction set, on a thread pool of our own.
//!
//! Weights come as plain slices in PyTorch's layout and are packed once; activations are plain slices too. The model
//! (`model`) is the definition and the reference; these are the same mathematics (SPEC section 3) in an order that keeps a
//! sequence in cache. A result has the same bits whatever the number of threads: tasks own whole rows, and every sum runs in
//! an order that depends on the shapes alone. Between instruction sets the last bits differ.
//!
//! No call allocates after the first of its shape: each worker keeps its scratch.
//!
//! Covered: softmax attention with gates and rotary embedding, feed-forward, the norms of both architectures, band split, mask
//! estimators of any depth. Not covered, and left to the model: linear attention, value residuals, hyper-connections, PoPE.
//!
//! An instruction set that computes in f32 is one implementation of the `Simd` trait and a line in `isa`. One that does not
//! (AMX in bf16) packs and tiles differently: it belongs behind the constructors of [`TransformerBlock`], [`BandMlp`] and
//! [`BandSplit`], which alone know how weights are packed, with a variant of [`Isa`] to choose it; tasks, rows and the pool
//! stay as they are.

mod attention;
mod band_split;
mod error;
mod gemm;
mod isa;
mod mask_estimator;
mod math;
mod ops;
pub mod pool;
mod rotary;
mod rows;
mod scratch;
mod simd;
mod small;
mod transformer;

pub use band_split::{BandSplit, BandWeights};
pub use error::KernelError;
pub use isa::{ENV, Isa};
pub use mask_estimator::{BandMlp, MaskEstimator};
pub use pool::Pool;
pub use rotary::Rotary;
pub use rows::{Axis, Sequences};
pub use small::Ops;
#[doc(hidden)]
pub use small::PackedLinear;
pub use transformer::{Linear, TransformerBlock, TransformerWeights};
