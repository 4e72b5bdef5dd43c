//! The description of a network, resolved from its YAML and the tensors of its checkpoint.
//!
//! Values of the YAML apply, and are checked against the tensors. Values that it omits are derived from tensor shapes. A
//! few values always come from the tensors, because YAML files are often wrong about them: the number of Linears in a
//! mask estimator, its width, and the naming scheme of the library that wrote the file.

mod checkpoint_probe;
mod error;
mod expected;
mod hyperace;
mod mismatch;
mod resolve;
mod tensor_shapes;

use serde::Deserialize;

use super::bands::BandLayout;
use crate::dsp::stft::StftConfig;

pub use error::ArchitectureError;
pub use expected::ExpectedTensor;
pub use hyperace::{HyperAceSizes, HyperAceVersion};
pub(in crate::model) use hyperace::{TDF_BOTTLENECK, TFC_TDF_BLOCKS};
pub use mismatch::{Mismatch, ShapeMismatch};
pub use tensor_shapes::TensorShapes;

/// Family of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Band-Split RoFormer (arXiv 2309.02612).
    BsRoformer,
    /// Mel-Band RoFormer (arXiv 2310.01809).
    MelBandRoformer,
}

impl Family {
    /// The `--model_type` word of the trainers: `bs_roformer` or `mel_band_roformer`.
    pub fn key(self) -> &'static str {
        match self {
            Self::BsRoformer => "bs_roformer",
            Self::MelBandRoformer => "mel_band_roformer",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BsRoformer => "BS-RoFormer",
            Self::MelBandRoformer => "Mel-Band RoFormer",
        })
    }
}

/// How positions enter the attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Rotary embedding of interleaved pairs.
    Rotary,
    /// Polar embedding, PoPE (`use_pope`).
    Polar,
}

/// How a layer's attention values are mixed with those of the first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueResidual {
    /// `to_value_residual_mix` (`bs-roformer`'s BSRoformer): `v + mix · (v₁ − v)`.
    ToValueResidualMix,
    /// `learned_value_residual_mix.0` (`bs-roformer`'s MelBandRoformer). Its softmax attention calls
    /// `v.lerp(mix, v₁)`, with the arguments exchanged: `v + v₁ · (mix − v)`; its linear attention has them in order.
    /// Checkpoints were trained with that, so it is computed here.
    LearnedValueResidualMix,
}

/// Manifold-constrained hyper-connections of `bs-roformer` 1.2 (arXiv 2409.19606, frac-connections arXiv 2503.14125).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HyperConnections {
    /// Residual streams.
    pub streams: usize,
    /// Fractions that the feature axis is cut into.
    pub fracs: usize,
    /// Rounds of Sinkhorn-Knopp normalisation of the mixing matrix.
    pub sinkhorn_iters: usize,
}

/// Sizes of a Fourier neural operator as a mask estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FnoSizes {
    /// Blocks.
    pub blocks: usize,
    /// Frequencies that have weights.
    pub modes: usize,
    /// Hidden channels in front of the blocks.
    pub lifting: usize,
    /// Hidden channels in a block's pointwise layers.
    pub mlp_hidden: usize,
    /// Hidden channels after the blocks.
    pub projection: usize,
}

/// Heads of the transformers in [`MaskKind::Axial`], whatever the trunk has.
pub(super) const AXIAL_HEADS: usize = 8;
/// Features of a head there.
pub(super) const AXIAL_DIM_HEAD: usize = 64;

/// Kind of a network's mask estimators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskKind {
    /// One MLP a band.
    #[default]
    Mlp,
    /// Pairs of transformers over time and frequency, then the MLPs (BS-RoFormer Large-Inst v2).
    Axial {
        /// Pairs.
        layers: usize,
        /// Hidden features of their feed-forward.
        ff_inner: usize,
    },
    /// One Fourier neural operator a band (BS-RoFormer FNO).
    Fno(FnoSizes),
    /// The MLPs plus a convolutional network over time and bands (BS-RoFormer HyperACE).
    HyperAce(HyperAceSizes),
}

/// Sizes of a Conformer's blocks, which take the place of the time and frequency transformers' (MSST's BS Conformer and Mel-Band
/// Conformer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConformerSizes {
    /// Channels of the convolution along the sequence.
    pub conv_channels: usize,
    /// Tokens that it spans: an odd number.
    pub conv_kernel: usize,
    /// Hidden features of the feed-forward after linear attention, which `ff_mult` does not change.
    pub linear_ff_inner: usize,
}

/// Everything needed to build a network and to say what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Family of the network.
    pub family: Family,
    /// Features of a token.
    pub dim: usize,
    /// Layers; each has a time and a frequency transformer, and a linear one before them where
    /// `linear_transformer_depth` > 0.
    pub depth: usize,
    /// Blocks in the linear-attention transformer of a layer.
    pub linear_transformer_depth: usize,
    /// Blocks in the time transformer of a layer.
    pub time_transformer_depth: usize,
    /// Blocks in the frequency transformer of a layer.
    pub freq_transformer_depth: usize,
    /// Position of the linear, time and frequency transformers in a layer's module list, as in the tensor names.
    pub transformer_indices: [usize; 3],
    /// Attention heads.
    pub heads: usize,
    /// Features of a head.
    pub dim_head: usize,
    /// Hidden features of the feed-forward.
    pub ff_inner: usize,
    /// Audio channels: 1 or 2.
    pub channels: usize,
    /// Stems, one mask estimator each.
    pub num_stems: usize,
    /// Bins of each band, ascending. The bands of BS-RoFormer are disjoint, mel bands overlap.
    pub bands: Vec<Vec<usize>>,
    /// Linear layers in each band's mask MLP.
    pub mask_linears: usize,
    /// Hidden features of a mask MLP (unused where it has one Linear).
    pub mask_hidden: usize,
    /// The transform.
    pub stft: StftConfig,
    /// Whether bin 0 of every output is set to 0.
    pub zero_dc: bool,
    /// Whether each layer's input gets the sum of all earlier layers' outputs.
    pub skip_connection: bool,
    /// Position embedding.
    pub position: Position,
    /// Value residuals, in every layer but the first.
    pub value_residual: Option<ValueResidual>,
    /// Hyper-connections; none means the plain residual.
    pub hyper_connections: Option<HyperConnections>,
    /// Kind of the mask estimators.
    pub masks: MaskKind,
    /// Whether the query, key, value and output projections have biases (BS-RoFormer SW as it was first published).
    pub attention_biases: bool,
    /// Whether blocks from the second layer on have no residual connection (MSST between 15 February and 27 March 2025).
    pub experimental_residuals: bool,
    /// Whether the trunk has two residual streams (SiameseNorm).
    pub siamese: bool,
    /// Conformer blocks; none means transformer blocks.
    pub conformer: Option<ConformerSizes>,
    /// Whether attention and feed-forward sit under `.branch` in the tensor names (`bs-roformer` 1.x).
    pub branch_names: bool,
}

impl Architecture {
    /// The name of a feature that plain networks lack, and that only the network in candle computes.
    pub fn special_feature(&self) -> Option<&'static str> {
        match self.masks {
            MaskKind::Axial { .. } => Some("transformers in the mask estimators"),
            MaskKind::Fno(_) => Some("Fourier neural operators"),
            MaskKind::HyperAce(_) => Some("HyperACE's segmentation head"),
            MaskKind::Mlp if self.conformer.is_some() => Some("Conformer blocks"),
            MaskKind::Mlp if self.siamese => Some("two residual streams (SiameseNorm)"),
            MaskKind::Mlp if self.attention_biases => Some("biases in the attention"),
            MaskKind::Mlp if self.experimental_residuals => Some("layers without residual connections"),
            MaskKind::Mlp => None,
        }
    }

    /// The usual name of the network.
    pub fn title(&self) -> String {
        let trunk = match (self.family, self.conformer) {
            (Family::BsRoformer, Some(_)) => "BS Conformer".to_owned(),
            (Family::MelBandRoformer, Some(_)) => "Mel-Band Conformer".to_owned(),
            (family, None) => family.to_string(),
        };
        match self.masks {
            MaskKind::HyperAce(sizes) => format!("{trunk} HyperACE {}", sizes.version),
            _ => trunk,
        }
    }

    /// Whether a norm follows each transformer (`norm.gamma`, Mel-Band RoFormer).
    pub fn transformer_norm(&self) -> bool {
        self.family == Family::MelBandRoformer && self.conformer.is_none()
    }

    /// Whether one norm follows all layers (`final_norm.gamma`, BS-RoFormer).
    pub fn final_norm(&self) -> bool {
        self.family == Family::BsRoformer
    }

    /// Features of a band's input, (f s) c.
    pub fn band_features(&self) -> Vec<usize> {
        self.bands.iter().map(|bins| bins.len() * self.channels * 2).collect()
    }

    /// Positions of the bands' features in a frame.
    pub fn band_layout(&self) -> BandLayout {
        BandLayout::new(&self.bands, 2 * self.channels, self.frame_features())
    }

    /// Features of a frame's spectrum, (f s) c.
    pub fn frame_features(&self) -> usize {
        self.stft.freqs() * self.channels * 2
    }

    /// Number of transformer blocks and mask layers, saturating. It bounds the length of [`tensors`](Self::tensors), and is
    /// checked first because the sizes are untrusted.
    pub(super) fn modules(&self) -> usize {
        let blocks =
            self.linear_transformer_depth + self.time_transformer_depth + self.freq_transformer_depth;
        let mask_layers = match self.masks {
            MaskKind::Mlp => self.mask_linears,
            MaskKind::Axial { layers, .. } => self.mask_linears.saturating_add(layers.saturating_mul(2)),
            MaskKind::Fno(sizes) => sizes.blocks.saturating_mul(6).saturating_add(4),
            MaskKind::HyperAce(_) => self.mask_linears,
        };
        let heads = match self.masks {
            MaskKind::HyperAce(sizes) => self.num_stems.saturating_mul(sizes.modules()),
            _ => 0,
        };
        let masks = self.bands.len().saturating_mul(self.num_stems).saturating_mul(mask_layers);
        let masks = masks.saturating_add(heads);
        self.depth.saturating_mul(blocks).saturating_add(masks)
    }

    /// Number of parameters of the network.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().filter(|t| !t.optional).map(|t| t.shape.iter().product::<usize>()).sum()
    }

    /// Floating-point operations of one pass over a chunk of `samples` samples: two for each multiply-add of the matrix
    /// products, which are nearly all of the work.
    pub fn flops(&self, samples: usize) -> f64 {
        let frames = self.stft.frames(samples) as f64;
        let bands = self.bands.len() as f64;
        let inner = (self.heads * self.dim_head) as f64;
        let dim = self.dim as f64;
        let tokens = frames * bands;
        let streams = self.hyper_connections.map_or(1.0, |h| h.streams as f64);
        let block = |sequence: f64| {
            2.0 * tokens * (dim * 4.0 * inner + 2.0 * dim * self.ff_inner as f64 + 2.0 * inner * sequence)
        };
        // The second feed-forward and the convolution of a Conformer's block.
        let conformer = self.conformer.map_or(0.0, |sizes| {
            let channels = sizes.conv_channels as f64;
            2.0 * dim * self.ff_inner as f64 + channels * (3.0 * dim + sizes.conv_kernel as f64)
        });
        let axial = |depth: usize, sequence: f64| depth as f64 * (block(sequence) + 2.0 * tokens * conformer);
        let linear = self.linear_transformer_depth as f64 * block(self.dim_head as f64);
        let time = axial(self.time_transformer_depth, frames);
        let freq = axial(self.freq_transformer_depth, bands);
        let hyper = if streams > 1.0 { 2.0 * tokens * streams * streams * dim * 4.0 } else { 0.0 };
        let features: f64 = self.band_features().iter().map(|&f| f as f64).sum();
        let split = 2.0 * frames * features * dim;
        let masks: f64 = self.num_stems as f64
            * self
                .band_features()
                .iter()
                .map(|&features| {
                    let sizes = self.mask_sizes(features);
                    sizes.windows(2).map(|w| 2.0 * frames * (w[0] * w[1]) as f64).sum::<f64>()
                })
                .sum::<f64>();
        let head = match self.masks {
            MaskKind::Mlp => masks,
            MaskKind::Axial { layers, ff_inner } => {
                let inner = (AXIAL_HEADS * AXIAL_DIM_HEAD) as f64;
                let block = |sequence: f64| {
                    2.0 * tokens * (dim * 4.0 * inner + 2.0 * dim * ff_inner as f64 + 2.0 * inner * sequence)
                };
                masks + (self.num_stems * layers) as f64 * (block(frames) + block(bands))
            }
            MaskKind::Fno(sizes) => {
                let (lifting, hidden, projection) =
                    (sizes.lifting as f64, sizes.mlp_hidden as f64, sizes.projection as f64);
                let block = dim * dim + 2.0 * dim * hidden + 4.0 * dim * sizes.modes as f64;
                let fixed = 2.0 * dim * lifting + sizes.blocks as f64 * block + dim * projection;
                2.0 * frames * self.num_stems as f64 * (bands * fixed + 2.0 * features * projection)
            }
            MaskKind::HyperAce(sizes) => {
                masks + self.num_stems as f64 * sizes.flops(frames, bands, dim, features)
            }
        };
        self.depth as f64 * (linear + time + freq + hyper) + split + head
    }

    /// Bytes of the largest tensors of one pass over a chunk of `samples` samples: spectra, tokens and masks, in f32.
    pub fn activation_bytes(&self, samples: usize) -> f64 {
        let frames = self.stft.frames(samples) as f64;
        let streams = self.hyper_connections.map_or(1.0, |h| h.streams as f64);
        let tokens = (self.bands.len() * self.dim) as f64 * (1.0 + 2.0 * streams);
        let features: usize = self.band_features().iter().sum();
        let masks = (self.num_stems * (2 * features + self.frame_features())) as f64;
        let head = match self.masks {
            MaskKind::HyperAce(sizes) => sizes.values_per_frame(self.bands.len(), features),
            _ => 0.0,
        };
        4.0 * frames * (self.frame_features() as f64 + tokens + masks + head)
    }

    /// Refuses a chunk that no computer runs in a useful time or memory, before anything is allocated for it.
    ///
    /// # Errors
    /// [`ArchitectureError::TooCostly`].
    pub fn check_cost(&self, samples: usize, sample_rate: u32) -> Result<(), ArchitectureError> {
        // 400 times the default checkpoint's work, and more memory than workstations have.
        const MAX_FLOPS_PER_SECOND: f64 = 2e14;
        const MAX_BYTES: f64 = 64.0 * (1_u64 << 30) as f64;
        let seconds = samples as f64 / f64::from(sample_rate.max(1));
        let (flops, bytes) = (self.flops(samples) / seconds.max(1e-9), self.activation_bytes(samples));
        if flops <= MAX_FLOPS_PER_SECOND && bytes <= MAX_BYTES {
            return Ok(());
        }
        Err(ArchitectureError::TooCostly {
            chunk: samples,
            n_fft: self.stft.n_fft,
            hop: self.stft.hop_length,
            teraflops: flops / 1e12,
            gigabytes: bytes / 1e9,
        })
    }

    /// Layer sizes of a band's mask MLP: input, hidden…, and twice the band's features for the gated linear unit.
    pub(crate) fn mask_sizes(&self, features: usize) -> Vec<usize> {
        let mut sizes = vec![self.dim];
        sizes.extend(std::iter::repeat_n(self.mask_hidden, self.mask_linears - 1));
        sizes.push(2 * features);
        sizes
    }

    /// The default checkpoint of the registry: dim 384, depth 8, 62 bands, 4 stems, 131.7 M parameters.
    pub fn reference_default() -> Self {
        Self {
            family: Family::BsRoformer,
            dim: 384,
            depth: 8,
            linear_transformer_depth: 0,
            time_transformer_depth: 1,
            freq_transformer_depth: 1,
            transformer_indices: [0, 0, 1],
            heads: 8,
            dim_head: 64,
            ff_inner: 1536,
            channels: 2,
            num_stems: 4,
            bands: contiguous_bands(&super::bands::default_freqs_per_bands(), 0),
            mask_linears: 2,
            mask_hidden: 768,
            stft: StftConfig { n_fft: 2048, hop_length: 441, win_length: 2048, normalized: false },
            zero_dc: false,
            skip_connection: false,
            position: Position::Rotary,
            value_residual: None,
            hyper_connections: None,
            masks: MaskKind::Mlp,
            attention_biases: false,
            experimental_residuals: false,
            siamese: false,
            conformer: None,
            branch_names: false,
        }
    }
}

/// Disjoint bands of the given sizes, starting at bin `first`.
fn contiguous_bands(sizes: &[usize], first: usize) -> Vec<Vec<usize>> {
    let mut start = first;
    sizes
        .iter()
        .map(|&size| {
            let bins = (start..start + size).collect();
            start += size;
            bins
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_default_has_published_size() {
        let arch = Architecture::reference_default();
        assert_eq!(arch.tensors().len(), 1355);
        assert!((131.6e6..131.8e6).contains(&(arch.parameters() as f64)), "{}", arch.parameters());
    }

    #[test]
    fn excessive_chunks_are_refused() {
        let arch = Architecture::reference_default();
        assert!(arch.check_cost(485_100, 44_100).is_ok() && arch.check_cost(30 * 44_100, 44_100).is_ok());
        let with_hop =
            |hop_length| Architecture { stft: StftConfig { hop_length, ..arch.stft }, ..arch.clone() };
        for (arch, chunk) in [(with_hop(1), 485_100), (arch.clone(), 1 << 30), (with_hop(4), 3_000_000)] {
            let message = arch.check_cost(chunk, 44_100).unwrap_err().to_string();
            assert!(
                message.contains(&format!("chunk_size {chunk}")) && message.contains("TFLOP"),
                "{message}"
            );
        }
    }

    #[test]
    fn reference_default_costs_measured_flops() {
        // About 460 GFLOP per second of audio in 2 s chunks, 520 in 8 s.
        let arch = Architecture::reference_default();
        let per_second = |seconds: usize| arch.flops(44_100 * seconds) / seconds as f64 / 1e9;
        assert!((420.0..480.0).contains(&per_second(2)), "{}", per_second(2));
        assert!((480.0..540.0).contains(&per_second(8)), "{}", per_second(8));
    }
}
