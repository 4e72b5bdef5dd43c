//! Fused CPU kernels, one set for each instruction set and number format, on a thread pool of our own.
//!
//! Weights come as plain slices in PyTorch's layout and are packed once; activations are plain slices too. The model
//! (`model`) is the definition and the reference; these are the same mathematics in an order that keeps a sequence
//! in cache. A result has the same bits whatever the number of threads: tasks own whole rows, and every sum runs in
//! an order that depends on the shapes alone. Between instruction sets the last bits differ.
//!
//! No call allocates after the first of its shape: each worker keeps its scratch.
//!
//! Covered: softmax attention with gates and rotary embedding, feed-forward, the norms of both architectures, band split, mask
//! estimators of any depth. Not covered, and left to the model: linear attention, value residuals, hyper-connections, PoPE.
//!
//! An instruction set is one implementation of the `Simd` trait and a line in `isa`. Weights may be bf16: then they are widened a
//! part of a panel at a time, and everything else stays as it is. AMX multiplies tiles of bf16 (`tiles`): whoever makes an
//! operand narrows it where it lies, which costs nothing where products are f32.

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
mod tiles;
mod transformer;

pub use band_split::{BandSplit, BandWeights};
pub use error::KernelError;
pub use isa::{ENV, Format, Isa, Target};
pub use mask_estimator::{BandMlp, MaskEstimator};
pub use pool::Pool;
pub use rotary::Rotary;
pub use rows::{Axis, Sequences};
pub use small::Ops;
#[doc(hidden)]
pub use small::PackedLinear;
pub use transformer::{Linear, TransformerBlock, TransformerWeights};
