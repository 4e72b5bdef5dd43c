//! The tensors that an architecture consists of, by name and shape.

use super::{
    AXIAL_DIM_HEAD as DIM_HEAD, AXIAL_HEADS as HEADS, Architecture, ConformerSizes, FnoSizes, MaskKind,
    Position, ValueResidual,
};

/// One tensor that the checkpoint of an architecture holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Name, without prefix.
    pub name: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Whether it may be missing: a constant that follows from the architecture.
    pub optional: bool,
}

impl Architecture {
    /// All tensors of the network, in the order of its modules.
    pub fn tensors(&self) -> Vec<ExpectedTensor> {
        let mut list = TensorList(Vec::new());
        let dim = self.dim;
        for (k, &features) in self.band_features().iter().enumerate() {
            let at = format!("band_split.to_features.{k}");
            list.add(format!("{at}.0.gamma"), [features]);
            list.linear(&format!("{at}.1"), features, dim, true);
        }
        for layer in 0..self.depth {
            let [linear, time, freq] = self.transformer_indices;
            let transformers = [
                (linear, self.linear_transformer_depth, true),
                (time, self.time_transformer_depth, false),
                (freq, self.freq_transformer_depth, false),
            ];
            for (index, depth, is_linear) in transformers {
                if depth == 0 {
                    continue;
                }
                let at = format!("layers.{layer}.{index}");
                for block in 0..depth {
                    if let Some(sizes) = self.conformer.filter(|_| !is_linear) {
                        self.conformer_tensors(&mut list, &format!("{at}.layers.{block}"), layer, sizes);
                        continue;
                    }
                    let ff_inner = match self.conformer {
                        Some(sizes) => sizes.linear_ff_inner,
                        None => self.ff_inner,
                    };
                    let branch = if self.branch_names { ".branch" } else { "" };
                    for (part, is_attention) in [(0, true), (1, false)] {
                        let part = format!("{at}.layers.{block}.{part}");
                        if self.hyper_connections.is_some() {
                            self.hyper_tensors(&mut list, &part);
                        }
                        let part = format!("{part}{branch}");
                        match (is_attention, is_linear) {
                            (true, true) => self.linear_attention_tensors(&mut list, &part, layer),
                            (true, false) => self.attention_tensors(&mut list, &part, layer),
                            (false, _) => list.feed_forward(&part, dim, ff_inner),
                        }
                    }
                }
                if self.siamese {
                    for block in 0..depth {
                        for norm in ["ln_y_attn", "ln_x_attn", "ln_y_mlp", "ln_x_mlp"] {
                            list.add(format!("{at}.{norm}.{block}.gamma"), [dim]);
                        }
                        list.add(format!("{at}.y_attn.{block}"), [dim]);
                    }
                } else if self.transformer_norm() {
                    list.add(format!("{at}.norm.gamma"), [dim]);
                }
            }
        }
        if self.final_norm() {
            list.add("final_norm.gamma".into(), [dim]);
        }
        if self.attention_biases {
            // The parameters that all layers share, once more at the root.
            list.optional("linear_62_bias_0".into(), [3 * self.heads * self.dim_head]);
            list.optional("linear_64_bias_0".into(), [dim]);
        }
        for stem in 0..self.num_stems {
            let at = format!("mask_estimators.{stem}");
            match self.masks {
                MaskKind::Mlp => {}
                MaskKind::HyperAce(sizes) => {
                    sizes.tensors(&mut list, &format!("{at}.segm"), dim, self.bands.len());
                }
                MaskKind::Axial { layers, ff_inner } => axial_tensors(&mut list, &at, dim, layers, ff_inner),
                MaskKind::Fno(sizes) => {
                    for (k, &features) in self.band_features().iter().enumerate() {
                        fno_tensors(&mut list, &format!("{at}.to_freqs.{k}.0"), dim, features, sizes);
                    }
                    continue;
                }
            }
            for (k, &features) in self.band_features().iter().enumerate() {
                for (i, io) in self.mask_sizes(features).windows(2).enumerate() {
                    list.linear(&format!("{at}.to_freqs.{k}.0.{}", 2 * i), io[0], io[1], true);
                }
            }
        }
        list.0
    }

    /// One block of a Conformer.
    fn conformer_tensors(&self, list: &mut TensorList, at: &str, layer: usize, sizes: ConformerSizes) {
        let (dim, channels) = (self.dim, sizes.conv_channels);
        list.feed_forward(&format!("{at}.ff1.ff"), dim, self.ff_inner);
        self.attention_tensors(list, &format!("{at}.attn"), layer);
        let conv = format!("{at}.conv.net");
        list.add(format!("{conv}.0.gamma"), [dim]);
        list.conv(&format!("{conv}.2"), [2 * channels, dim, 1], true);
        list.conv(&format!("{conv}.4"), [channels, 1, sizes.conv_kernel], true);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            list.add(format!("{conv}.5.{part}"), [channels]);
        }
        // A counter of training.
        list.optional(format!("{conv}.5.num_batches_tracked"), []);
        list.conv(&format!("{conv}.7"), [dim, channels, 1], true);
        list.feed_forward(&format!("{at}.ff2.ff"), dim, self.ff_inner);
        list.add(format!("{at}.out_norm.gamma"), [dim]);
    }

    fn attention_tensors(&self, list: &mut TensorList, at: &str, layer: usize) {
        let inner = self.heads * self.dim_head;
        match self.position {
            Position::Rotary => list.optional(format!("{at}.rotary_embed.freqs"), [self.dim_head / 2]),
            Position::Polar => {
                list.add(format!("{at}.pope_embed.bias"), [self.heads, self.dim_head]);
                list.optional(format!("{at}.pope_embed.inv_freqs"), [self.dim_head]);
            }
        }
        list.add(format!("{at}.norm.gamma"), [self.dim]);
        list.linear(&format!("{at}.to_qkv"), self.dim, 3 * inner, self.attention_biases);
        self.value_residual_tensors(list, at, layer);
        list.linear(&format!("{at}.to_gates"), self.dim, self.heads, true);
        list.linear(&format!("{at}.to_out.0"), inner, self.dim, self.attention_biases);
    }

    fn linear_attention_tensors(&self, list: &mut TensorList, at: &str, layer: usize) {
        let inner = self.heads * self.dim_head;
        list.add(format!("{at}.temperature"), [self.heads, 1, 1]);
        list.add(format!("{at}.norm.gamma"), [self.dim]);
        list.linear(&format!("{at}.to_qkv.0"), self.dim, 3 * inner, false);
        self.value_residual_tensors(list, at, layer);
        list.linear(&format!("{at}.to_out.1"), inner, self.dim, false);
    }

    fn value_residual_tensors(&self, list: &mut TensorList, at: &str, layer: usize) {
        let name = match self.value_residual {
            Some(ValueResidual::ToValueResidualMix) => "to_value_residual_mix",
            Some(ValueResidual::LearnedValueResidualMix) => "learned_value_residual_mix.0",
            None => return,
        };
        if layer > 0 {
            list.linear(&format!("{at}.{name}"), self.dim, self.heads, true);
        }
    }

    fn hyper_tensors(&self, list: &mut TensorList, at: &str) {
        let Some(hyper) = self.hyper_connections else { return };
        let (fracs, dim) = (hyper.fracs, self.dim / hyper.fracs);
        let rows = hyper.streams * fracs;
        list.add(format!("{at}.static_alpha"), [rows, rows + fracs]);
        list.add(format!("{at}.dynamic_alpha_fn"), [1, dim, rows + fracs]);
        list.add(format!("{at}.pre_branch_scale"), [1]);
        list.add(format!("{at}.residual_scale"), [1]);
        list.add(format!("{at}.static_beta"), [rows]);
        if fracs == 1 {
            list.add(format!("{at}.dynamic_beta_fn"), [dim]);
        } else {
            list.add(format!("{at}.dynamic_beta_fn"), [dim, fracs]);
        }
        list.add(format!("{at}.h_post_scale"), []);
        list.add(format!("{at}.norm.gamma"), [dim]);
    }
}

/// The transformers of an axial mask estimator, and the norm after them.
fn axial_tensors(list: &mut TensorList, at: &str, dim: usize, layers: usize, ff_inner: usize) {
    let inner = HEADS * DIM_HEAD;
    for layer in 0..layers {
        for axis in 0..2 {
            let at = format!("{at}.layers.{layer}.{axis}.layers.0");
            list.optional(format!("{at}.0.rotary_embed.freqs"), [DIM_HEAD / 2]);
            list.add(format!("{at}.0.norm.gamma"), [dim]);
            list.linear(&format!("{at}.0.to_qkv"), dim, 3 * inner, false);
            list.linear(&format!("{at}.0.to_gates"), dim, HEADS, true);
            list.linear(&format!("{at}.0.to_out.0"), inner, dim, false);
            list.feed_forward(&format!("{at}.1"), dim, ff_inner);
        }
    }
    list.add(format!("{at}.norm.gamma"), [dim]);
}

/// The Fourier neural operator of one band.
fn fno_tensors(list: &mut TensorList, at: &str, dim: usize, features: usize, sizes: FnoSizes) {
    let mut pointwise = |at: String, input: usize, output: usize, bias: bool| {
        list.add(format!("{at}.weight"), [output, input, 1]);
        if bias {
            list.add(format!("{at}.bias"), [output]);
        }
    };
    pointwise(format!("{at}.lifting.fcs.0"), dim + 1, sizes.lifting, true);
    pointwise(format!("{at}.lifting.fcs.1"), sizes.lifting, dim, true);
    for block in 0..sizes.blocks {
        let at = format!("{at}.fno_blocks");
        pointwise(format!("{at}.fno_skips.{block}.conv"), dim, dim, false);
        pointwise(format!("{at}.channel_mlp.{block}.fcs.0"), dim, sizes.mlp_hidden, true);
        pointwise(format!("{at}.channel_mlp.{block}.fcs.1"), sizes.mlp_hidden, dim, true);
    }
    pointwise(format!("{at}.projection.fcs.0"), dim, sizes.projection, true);
    pointwise(format!("{at}.projection.fcs.1"), sizes.projection, 2 * features, true);
    for block in 0..sizes.blocks {
        let at = format!("{at}.fno_blocks");
        // Complex numbers.
        list.add(format!("{at}.convs.{block}.weight.tensor"), [dim, sizes.modes]);
        list.add(format!("{at}.convs.{block}.bias"), [dim, 1]);
        list.add(format!("{at}.channel_mlp_skips.{block}.weight"), [1, dim, 1]);
    }
}

/// Collects [`ExpectedTensor`]s.
pub(super) struct TensorList(Vec<ExpectedTensor>);

impl TensorList {
    pub fn add<const N: usize>(&mut self, name: String, shape: [usize; N]) {
        self.0.push(ExpectedTensor { name, shape: shape.into(), optional: false });
    }

    fn optional<const N: usize>(&mut self, name: String, shape: [usize; N]) {
        self.0.push(ExpectedTensor { name, shape: shape.into(), optional: true });
    }

    /// A convolution: [output, input, kernel…]
    pub fn conv<const N: usize>(&mut self, at: &str, shape: [usize; N], bias: bool) {
        self.add(format!("{at}.weight"), shape);
        if bias {
            self.add(format!("{at}.bias"), [shape[0]]);
        }
    }

    /// Norm and two Linears.
    fn feed_forward(&mut self, at: &str, dim: usize, inner: usize) {
        self.add(format!("{at}.net.0.gamma"), [dim]);
        self.linear(&format!("{at}.net.1"), dim, inner, true);
        self.linear(&format!("{at}.net.4"), inner, dim, true);
    }

    pub fn linear(&mut self, at: &str, input: usize, output: usize, bias: bool) {
        self.add(format!("{at}.weight"), [output, input]);
        if bias {
            self.add(format!("{at}.bias"), [output]);
        }
    }
}
