//! Hypergraph attention over four scales, beside a convolutional branch.

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::{silu, softmax_last_dim};

use super::blocks::{Conv, DsC3k};
use crate::model::architecture::HyperAceSizes;
use crate::model::linear::get_f32;
use crate::model::planes::resize;

/// The reference's `HyperACE`.
pub(super) struct HyperAce {
    fuse_conv: Conv,
    /// Channels of the hypergraph, of convolutions, and unchanged.
    split: [usize; 3],
    high_order: Vec<C3ah>,
    high_order_fuse: Conv,
    low_order: Vec<DsC3k>,
    final_fuse: Conv,
}

impl HyperAce {
    pub fn new(sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let split @ [high, low, _] = sizes.split();
        let all = sizes.channels[2];
        let branch = |i: usize| C3ah::new(sizes, vb.pp(format!("high_order_branch.{i}")));
        let block = |i: usize| DsC3k::new(low, 1, vb.pp(format!("low_order_branch.{i}")));
        Ok(Self {
            fuse_conv: Conv::new(sizes.channels.iter().sum(), all, vb.pp("fuse_conv"))?,
            split,
            high_order: (0..sizes.high_order).map(branch).collect::<Result<_>>()?,
            high_order_fuse: Conv::new(sizes.high_order * high, high, vb.pp("high_order_fuse"))?,
            low_order: (0..sizes.low_order).map(block).collect::<Result<_>>()?,
            final_fuse: Conv::new(all, all, vb.pp("final_fuse"))?,
        })
    }

    /// The features of the four stages → [channels, rows, columns] of the third
    pub fn forward(&self, stages: &[Tensor]) -> Result<Tensor> {
        let Some(third) = stages.get(2) else { candle_core::bail!("an encoder of fewer than three stages") };
        let (_, rows, columns) = third.dims3()?;
        let stages = stages.iter().map(|x| resize(x, rows, columns)).collect::<Result<Vec<_>>>()?;
        let x = self.fuse_conv.forward(&Tensor::cat(&stages, 0)?)?;
        let [high, low, rest] = self.split;
        let part = |start: usize, count: usize| x.narrow(0, start, count)?.contiguous();
        let related = part(0, high)?;
        let related =
            self.high_order.iter().map(|branch| branch.forward(&related)).collect::<Result<Vec<_>>>()?;
        let related = self.high_order_fuse.forward(&Tensor::cat(&related, 0)?)?;
        let mut local = part(high, low)?;
        for block in &self.low_order {
            local = block.forward(&local)?;
        }
        self.final_fuse.forward(&Tensor::cat(&[related, local, part(high + low, rest)?], 0)?)
    }
}

/// `C3AH`: hypergraph attention beside a shortcut.
struct C3ah {
    cv1: Conv,
    cv2: Conv,
    cv3: Conv,
    /// [edges, channels]
    global_proto: Tensor,
    /// [edges · channels, 2 · channels]
    context_mapper: Tensor,
    /// [channels, channels]
    query_proj: Tensor,
    /// [channels, channels]
    edge_weight: Tensor,
    /// [channels, channels]
    point_weight: Tensor,
    scale: f64,
}

impl C3ah {
    fn new(sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let [channels, ..] = sizes.split();
        let edges = sizes.hyperedges;
        let generation = vb.pp("ahc.adaptive_hyperedge_gen");
        let convolution = vb.pp("ahc.hypergraph_conv");
        Ok(Self {
            cv1: Conv::new(channels, channels, vb.pp("cv1"))?,
            cv2: Conv::new(channels, channels, vb.pp("cv2"))?,
            cv3: Conv::new(2 * channels, channels, vb.pp("cv3"))?,
            global_proto: get_f32(&generation, (edges, channels), "global_proto")?,
            context_mapper: get_f32(&generation, (edges * channels, 2 * channels), "context_mapper.weight")?,
            query_proj: get_f32(&generation, (channels, channels), "query_proj.weight")?,
            edge_weight: get_f32(&convolution, (channels, channels), "W_e.weight")?,
            point_weight: get_f32(&convolution, (channels, channels), "W_v.weight")?,
            scale: sizes.similarity_scale(),
        })
    }

    /// x: [channels, rows, columns] → same shape
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, rows, columns) = x.dims3()?;
        let related = self.cv2.forward(x)?.reshape((channels, rows * columns))?;
        let related = self.relate(&related)?.reshape((channels, rows, columns))?;
        self.cv3.forward(&Tensor::cat(&[related, self.cv1.forward(x)?], 0)?)
    }

    /// Gathers the points in hyperedges, by softmax over all points, and gives each point its share back. x: [channels, points] → same
    /// shape
    fn relate(&self, x: &Tensor) -> Result<Tensor> {
        let (edges, channels) = self.global_proto.dims2()?;
        let context = Tensor::cat(&[x.mean(D::Minus1)?, x.max(D::Minus1)?], 0)?.unsqueeze(1)?;
        let shift = self.context_mapper.matmul(&context)?.reshape((edges, channels))?;
        let prototypes = (&self.global_proto + shift)?;
        // [edges, points]
        let similarity = (prototypes.matmul(&self.query_proj.matmul(x)?)? * self.scale)?;
        let membership = softmax_last_dim(&similarity)?;
        // [channels, edges]
        let gathered = x.matmul(&membership.t()?)?;
        let gathered = silu(&self.edge_weight.matmul(&gathered)?)?;
        x + silu(&self.point_weight.matmul(&gathered.matmul(&membership)?)?)?
    }
}
