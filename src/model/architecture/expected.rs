//! The tensors that an architecture consists of, by name and shape.

use super::{Architecture, Position, ValueResidual};

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
        let (dim, inner) = (self.dim, self.heads * self.dim_head);
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
                            (false, _) => {
                                list.add(format!("{part}.net.0.gamma"), [dim]);
                                list.linear(&format!("{part}.net.1"), dim, self.ff_inner, true);
                                list.linear(&format!("{part}.net.4"), self.ff_inner, dim, true);
                            }
                        }
                    }
                }
                if self.transformer_norm() {
                    list.add(format!("{at}.norm.gamma"), [dim]);
                }
            }
        }
        debug_assert!(inner > 0);
        if self.final_norm() {
            list.add("final_norm.gamma".into(), [dim]);
        }
        for stem in 0..self.num_stems {
            for (k, &features) in self.band_features().iter().enumerate() {
                for (i, io) in self.mask_sizes(features).windows(2).enumerate() {
                    let at = format!("mask_estimators.{stem}.to_freqs.{k}.0.{}", 2 * i);
                    list.linear(&at, io[0], io[1], true);
                }
            }
        }
        list.0
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
        list.linear(&format!("{at}.to_qkv"), self.dim, 3 * inner, false);
        self.value_residual_tensors(list, at, layer);
        list.linear(&format!("{at}.to_gates"), self.dim, self.heads, true);
        list.linear(&format!("{at}.to_out.0"), inner, self.dim, false);
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

/// Collects [`ExpectedTensor`]s.
struct TensorList(Vec<ExpectedTensor>);

impl TensorList {
    fn add<const N: usize>(&mut self, name: String, shape: [usize; N]) {
        self.0.push(ExpectedTensor { name, shape: shape.into(), optional: false });
    }

    fn optional<const N: usize>(&mut self, name: String, shape: [usize; N]) {
        self.0.push(ExpectedTensor { name, shape: shape.into(), optional: true });
    }

    fn linear(&mut self, at: &str, input: usize, output: usize, bias: bool) {
        self.add(format!("{at}.weight"), [output, input]);
        if bias {
            self.add(format!("{at}.bias"), [output]);
        }
    }
}
