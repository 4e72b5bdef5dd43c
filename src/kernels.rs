//! Fused CPU kernels, one set for each instruction set and number format, on their own thread pool.
//!
//! Weights arrive as plain slices in PyTorch's layout and are packed once. Activations are plain slices too. The candle
//! network in `model` is the reference; the kernels compute the same mathematics in an order that keeps a sequence in cache.
//! A result has the same bits for any number of threads: tasks own whole rows, and the order of every sum depends on the
//! shapes alone. Between instruction sets the last bits differ.
//!
//! A call allocates nothing after the first call of its shape, because each worker keeps its scratch memory.
//!
//! Supported: softmax attention with gates and rotary embedding, feed-forward, the norms of both architectures, band split,
//! mask estimators of any depth. Not supported, and left to candle: linear attention, value residuals, hyper-connections, PoPE.
//!
//! An instruction set is an implementation of the `Simd` or `Tiles` trait and a module in `compiled`. Imports go one way: `layout`,
//! `simd` ← `ops`, `gemm`, `tiles` ← `product` ← `compiled` ← `target`, `packed` ← the blocks.

mod attention;
mod band_split;
mod compiled;
mod context;
mod error;
mod gemm;
mod isa;
mod job;
mod layout;
mod mask_estimator;
mod masks;
mod math;
#[cfg(feature = "train")]
mod matmul;
mod ops;
pub mod os;
mod packed;
pub mod pool;
mod product;
mod rotary;
mod row_kernels;
mod rows;
mod scratch;
mod simd;
mod target;
mod testing;
mod tiles;
mod transformer;

pub use band_split::{BandSplit, BandWeights};
pub use context::{CacheFormat, ContextHop, KeyValueCache};
pub use error::KernelError;
pub use isa::{Format, Isa};
pub use job::JobControl;
pub use mask_estimator::{BandMlp, MaskEstimator};
pub use masks::apply_masks;
#[cfg(feature = "train")]
pub use matmul::{MatrixView, multiply};
pub use pool::{LANES, Pool, enter_lane};
pub use rotary::Rotary;
pub use row_kernels::sum_of_products;
pub use rows::{Axis, Sequences};
pub use target::{ENV, Target};
#[doc(hidden)]
pub use testing::PackedLinear;
pub use testing::RowOps;
pub use transformer::{Linear, TransformerBlock, TransformerWeights};
