//! Facts about a network, derived from the names and shapes of its tensors.

use std::collections::BTreeSet;

use super::{
    ArchitectureError, ConformerSizes, Family, FnoSizes, HyperAceSizes, HyperAceVersion, MaskKind,
    TensorShapes, ValueResidual,
};

/// Most modules in a module list of a real network.
const MAX_MODULES: usize = 4096;

/// Counts and sizes derived from the tensors; `None` where no tensor states them.
pub(super) struct CheckpointProbe<'a> {
    tensors: &'a dyn TensorShapes,
    pub branch: &'static str,
    pub indices: [usize; 3],
    pub has_linear: bool,
    /// Whether the layers hold Conformer blocks.
    pub is_conformer: bool,
    pub family: Option<Family>,
}

impl<'a> CheckpointProbe<'a> {
    pub fn new(tensors: &'a dyn TensorShapes) -> Result<Self, ArchitectureError> {
        // Checked first, because the file of an adapter may hold nothing else.
        if let Some((name, _)) =
            tensors.shapes().find(|(name, _)| name.contains(".lora_A") || name.contains(".lora_B"))
        {
            return Err(ArchitectureError::Adapter { tensor: name.into() });
        }
        if tensors.shape("band_split.to_features.0.1.weight").is_none() {
            let first: Vec<&str> = tensors.shapes().map(|(name, _)| name).take(3).collect();
            return Err(ArchitectureError::NotARoformer {
                count: tensors.shapes().count(),
                first: if first.is_empty() { "none".into() } else { first.join(", ") },
            });
        }
        if let Some((what, name)) = unsupported_variant(tensors) {
            return Err(ArchitectureError::Unsupported { what, tensor: name.into() });
        }
        let transformers: BTreeSet<usize> =
            tensors.shapes().filter_map(|(name, _)| index_after(name, "layers.0.")).collect();
        let has_linear = transformers.len() == 3;
        let transformers: Vec<usize> = transformers.into_iter().collect();
        let indices = match transformers[..] {
            [linear, time, freq] => [linear, time, freq],
            [time, freq] => [0, time, freq],
            _ => [0, 0, 1],
        };
        let norm = format!("layers.0.{}.norm.gamma", indices[1]);
        let conformer = format!("layers.0.{}.layers.0.ff1.ff.net.1.weight", indices[1]);
        let is_conformer = tensors.shape(&conformer).is_some();
        let family = match (tensors.shape("final_norm.gamma"), tensors.shape(&norm)) {
            (Some(_), None) => Some(Family::BsRoformer),
            // No norm follows the blocks of a Mel-Band Conformer.
            (None, None) if is_conformer => Some(Family::MelBandRoformer),
            (None, Some(_)) => Some(Family::MelBandRoformer),
            _ => None,
        };
        let attention = format!("layers.0.{}.layers.0.0", indices[1]);
        let branch = if tensors.shape(&format!("{attention}.branch.to_qkv.weight")).is_some() {
            ".branch"
        } else {
            ""
        };
        Ok(Self { tensors, branch, indices, has_linear, is_conformer, family })
    }

    /// Number of modules under `prefix`: the highest index plus one.
    pub fn count(&self, prefix: &str) -> Option<usize> {
        let indices = self.tensors.shapes().filter_map(|(name, _)| index_after(name, prefix));
        // No network is that large: a name with a larger index is reported as unexpected.
        indices.filter(|&i| i < MAX_MODULES).max().map(|i| i + 1)
    }

    /// Dimension `axis` of a tensor of the first block of the first time transformer.
    fn block_axis(&self, part: usize, tensor: &str, axis: usize) -> Option<usize> {
        let part = match (self.is_conformer, part) {
            (true, 0) => "attn".to_owned(),
            (true, _) => "ff1.ff".to_owned(),
            (false, part) => format!("{part}{}", self.branch),
        };
        let name = format!("layers.0.{}.layers.0.{part}.{tensor}", self.indices[1]);
        self.tensors.shape(&name)?.get(axis).copied()
    }

    pub fn dim(&self) -> Option<usize> {
        self.tensors.shape("band_split.to_features.0.1.weight")?.first().copied()
    }

    pub fn heads(&self) -> Option<usize> {
        self.block_axis(0, "to_gates.weight", 0)
    }

    pub fn qkv_rows(&self) -> Option<usize> {
        self.block_axis(0, "to_qkv.weight", 0)
    }

    pub fn ff_inner(&self) -> Option<usize> {
        self.block_axis(1, "net.1.weight", 0)
    }

    fn any_name_contains(&self, part: &str) -> bool {
        self.tensors.shapes().any(|(name, _)| name.contains(part))
    }

    pub fn polar(&self) -> bool {
        self.any_name_contains(".pope_embed.bias")
    }

    pub fn value_residual(&self) -> Option<ValueResidual> {
        if self.any_name_contains(".to_value_residual_mix.") {
            Some(ValueResidual::ToValueResidualMix)
        } else if self.any_name_contains(".learned_value_residual_mix.0.") {
            Some(ValueResidual::LearnedValueResidualMix)
        } else {
            None
        }
    }

    /// Streams and fractions, from the mixing matrix [streams·fracs, streams·fracs + fracs].
    pub fn hyper_connections(&self) -> Result<Option<(usize, usize)>, ArchitectureError> {
        let name = format!("layers.0.{}.layers.0.0.static_alpha", self.indices[1]);
        let Some(shape) = self.tensors.shape(&name) else { return Ok(None) };
        if let &[rows, columns] = shape
            && rows > 0
            && columns > rows
            && rows.is_multiple_of(columns - rows)
        {
            let fracs = columns - rows;
            return Ok(Some((rows / fracs, fracs)));
        }
        Err(ArchitectureError::Unsupported { what: "this form of hyper-connections", tensor: name })
    }

    /// The known variant that unexpected tensors belong to, in words; `None` for other tensors.
    pub fn known_variant(&self) -> Option<String> {
        let splifft = ["cos_emb_time", "sin_emb_time", "shared_qkv_bias"];
        if let Some(name) = splifft.into_iter().find(|name| self.tensors.shape(name).is_some()) {
            return Some(format!(
                "`{name}` is a tensor of splifft's variant of BS-RoFormer, which is not supported; if this is the model called \
                 SW, its release called \"fixed\" can be loaded"
            ));
        }
        None
    }

    /// Whether the attention of the trunk has biases.
    pub fn attention_biases(&self) -> bool {
        self.block_axis(0, "to_qkv.bias", 0).is_some()
    }

    /// Whether the trunk has two residual streams.
    pub fn siamese(&self) -> bool {
        self.tensors.shape(&format!("layers.0.{}.ln_y_attn.0.gamma", self.indices[1])).is_some()
    }

    /// Sizes of the Conformer blocks.
    pub fn conformer(&self) -> Option<ConformerSizes> {
        if !self.is_conformer {
            return None;
        }
        let [linear_at, time_at, _] = self.indices;
        let axis = |name: String, axis: usize| self.tensors.shape(&name)?.get(axis).copied();
        let conv = |axis_of: usize| axis(format!("layers.0.{time_at}.layers.0.conv.net.4.weight"), axis_of);
        Some(ConformerSizes {
            conv_channels: conv(0).unwrap_or(0),
            conv_kernel: conv(2).unwrap_or(0),
            linear_ff_inner: axis(format!("layers.0.{linear_at}.layers.0.1.net.1.weight"), 0).unwrap_or(0),
        })
    }

    /// Sizes of HyperACE's head; `None` without one.
    pub fn hyperace(&self, band_strides: bool) -> Option<HyperAceSizes> {
        let at = "mask_estimators.0.segm";
        let axis = |name: &str, axis: usize| self.tensors.shape(&format!("{at}.{name}"))?.get(axis).copied();
        let rows = |name: &str| axis(name, 0).unwrap_or(0);
        let count = |prefix: &str| self.count(&format!("{at}.{prefix}.")).unwrap_or(0);
        let stem = axis("backbone.stem.pwconv.weight", 0)?;
        let is_v2 = axis("upsample_head.block1.out_conv.blocks.0.tfc1.2.weight", 0).is_some();
        Some(HyperAceSizes {
            version: if is_v2 { HyperAceVersion::V2 } else { HyperAceVersion::V1 },
            stem,
            channels: [2, 3, 4, 5].map(|stage| rows(&format!("backbone.p{stage}.0.pwconv.weight"))),
            depths: [2, 3, 4, 5].map(|stage| count(&format!("backbone.p{stage}.1.m.m"))),
            hyperedges: rows("hyperace.high_order_branch.0.ahc.adaptive_hyperedge_gen.global_proto"),
            high_order: count("hyperace.high_order_branch"),
            low_order: count("hyperace.low_order_branch"),
            out_channels: rows("upsample_head.final_conv.weight"),
            band_strides: band_strides && !is_v2,
        })
    }

    /// Kind of the mask estimators but HyperACE's.
    pub fn masks(&self) -> MaskKind {
        let at = "mask_estimators.0";
        let axis = |name: &str, axis: usize| self.tensors.shape(&format!("{at}.{name}"))?.get(axis).copied();
        if let Some(ff_inner) = axis("layers.0.0.layers.0.1.net.1.weight", 0) {
            let layers = self.count(&format!("{at}.layers.")).unwrap_or(1);
            return MaskKind::Axial { layers, ff_inner };
        }
        let fno = |name: &str, index: usize| axis(&format!("to_freqs.0.0.{name}"), index);
        if let Some(modes) = fno("fno_blocks.convs.0.weight.tensor", 1) {
            return MaskKind::Fno(FnoSizes {
                blocks: self.count(&format!("{at}.to_freqs.0.0.fno_blocks.convs.")).unwrap_or(1),
                modes,
                lifting: fno("lifting.fcs.0.weight", 0).unwrap_or(0),
                mlp_hidden: fno("fno_blocks.channel_mlp.0.fcs.0.weight", 0).unwrap_or(0),
                projection: fno("projection.fcs.0.weight", 0).unwrap_or(0),
            });
        }
        MaskKind::Mlp
    }

    /// Input features of each band.
    pub fn band_features(&self) -> Vec<usize> {
        (0..)
            .map_while(|k| {
                self.tensors.shape(&format!("band_split.to_features.{k}.1.weight"))?.get(1).copied()
            })
            .collect()
    }

    pub fn mask_linears(&self) -> usize {
        self.count("mask_estimators.0.to_freqs.0.0.").map_or(1, |last| last / 2 + 1)
    }

    pub fn mask_hidden(&self) -> Option<usize> {
        if self.mask_linears() < 2 {
            return None;
        }
        self.tensors.shape("mask_estimators.0.to_freqs.0.0.0.weight")?.first().copied()
    }
}

/// The number that follows `prefix` in `name`.
fn index_after(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// A known variant that is refused, with a tensor that proves it. Names are compared exactly: a part such as `.conv.` is in
/// several of them.
fn unsupported_variant(tensors: &dyn TensorShapes) -> Option<(&'static str, &str)> {
    /// A pattern of a name; `*` stands for a number. It matches the beginning of a name.
    const VARIANTS: [(&str, &str); 8] = [
        (
            "layers.*.*.layers.*.attn.fn.to_q.weight",
            "a Conformer of the package `conformer` (MSST's first Mel-Band Conformer)",
        ),
        (
            "layers.*.*.layers.*.ff1.fn.fn.net.",
            "a Conformer of the package `conformer` (MSST's first Mel-Band Conformer)",
        ),
        ("layers.*.*.mixer.A_log", "a Mamba network"),
        ("layers.*.*.*.mamba.", "a Mamba network"),
        (
            "layers.*.*.layers.*.*.dynamic_alpha_scale",
            "the first revision of hyper-connections (bs-roformer before 1.0)",
        ),
        ("layers.*.*.layers.*.*.attend.sink", "attention sinks"),
        (
            "layers.*.*.layers.*.*.to_q.weight",
            "separate query, key and value projections (a port to another library)",
        ),
        ("layers.*.*.layers.*.*.branch.attend.sink", "attention sinks"),
    ];
    tensors.shapes().find_map(|(name, _)| {
        VARIANTS.iter().find(|(pattern, _)| begins_like(name, pattern)).map(|(_, what)| (*what, name))
    })
}

/// Whether the parts of `name` begin with those of `pattern`.
fn begins_like(name: &str, pattern: &str) -> bool {
    let mut parts = name.split('.');
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    pattern.split('.').all(|wanted| {
        parts.next().is_some_and(|part| {
            part == wanted || (wanted == "*" && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        })
    })
}
