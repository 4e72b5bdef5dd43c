//! Sizes of HyperACE's segmentation head, the tensors that it consists of, and what it costs.

use std::fmt;

use super::expected::TensorList;

/// Version of a HyperACE head. Heads of version 2 have TFC-TDF blocks after each frequency pixel shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HyperAceVersion {
    /// `bs_hyperace.ckpt`.
    V1,
    /// `bs_roformer_inst_hyperacev2.ckpt` and `bs_roformer_voc_hyperacev2.ckpt`.
    V2,
}

impl fmt::Display for HyperAceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// Sizes of a HyperACE head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HyperAceSizes {
    /// Version of the head.
    pub version: HyperAceVersion,
    /// Channels after the stem.
    pub stem: usize,
    /// Channels of the four stages.
    pub channels: [usize; 4],
    /// Bottlenecks in each stage.
    pub depths: [usize; 4],
    /// Hyperedges.
    pub hyperedges: usize,
    /// Branches with hypergraph attention.
    pub high_order: usize,
    /// Blocks of the convolutional branch.
    pub low_order: usize,
    /// Values that the head gives for one point of its frequency axis.
    pub out_channels: usize,
    /// Whether the stages of version 1 halve the bands too.
    pub band_strides: bool,
}

/// Most channels of a layer, and most layers of one kind.
const MOST: usize = 1 << 14;
/// Heads of the hypergraph attention.
const HEADS: usize = 8;
/// The hidden features of a TDF block are its features divided by this.
pub(in crate::model) const TDF_BOTTLENECK: usize = 4;
/// TFC-TDF blocks after each pixel shuffle.
pub(in crate::model) const TFC_TDF_BLOCKS: usize = 2;
/// Tensors of the head's largest size that are in memory at once.
const LIVE_TENSORS: f64 = 8.0;

impl HyperAceSizes {
    /// The strides over frames and bands of the stem and the four stages.
    ///
    /// Both references of version 2 agree. Of version 1, splifft and the class `BSRoformerHyperACE` of others halve frames only, and
    /// MSST-WebUI halves the bands too. No tensor tells. The former gives the head almost as many points as there are bins, and is the
    /// default; `model.hyperace_band_strides` chooses the latter.
    pub(in crate::model) fn strides(&self) -> [[usize; 2]; 5] {
        match (self.version, self.band_strides) {
            (HyperAceVersion::V1, false) => [[2, 1]; 5],
            (HyperAceVersion::V1, true) => [[2, 1], [2, 2], [2, 2], [2, 2], [2, 2]],
            (HyperAceVersion::V2, _) => [[2, 1], [2, 1], [2, 1], [2, 2], [2, 2]],
        }
    }

    /// Channels before and after each of the four pixel shuffles, which halve them after their convolution.
    pub(in crate::model) fn shuffles(&self) -> [[usize; 2]; 4] {
        let c = self.channels[0];
        match self.version {
            HyperAceVersion::V1 => [[c, c], [c, c / 2], [c / 2, c / 2], [c / 2, c / 4]],
            HyperAceVersion::V2 => [[c, c / 2], [c / 2, c / 4], [c / 4, c / 8], [c / 8, c / 16]],
        }
    }

    /// Channels of the branches: hypergraph, convolutions, and those that pass unchanged.
    pub(in crate::model) fn split(&self) -> [usize; 3] {
        let all = self.channels[2];
        [all / 2, all / 4, all - all / 2 - all / 4]
    }

    /// Factor of a hypergraph's similarities: the references average the scaled products of their heads.
    pub(in crate::model) fn similarity_scale(&self) -> f64 {
        let dim_head = self.split()[0] / HEADS;
        1.0 / ((dim_head as f64).sqrt() * HEADS as f64)
    }

    /// Whether such a head can be built for `features` features of a frame. The sizes are untrusted.
    pub(super) fn is_valid(&self, features: Option<usize>) -> bool {
        let least = if self.version == HyperAceVersion::V2 { 16 } else { 4 };
        let counts = [self.stem, self.hyperedges, self.high_order, self.low_order, self.out_channels];
        let within = |sizes: &[usize]| sizes.iter().all(|size| (1..=MOST).contains(size));
        within(&counts)
            && within(&self.channels)
            && self.depths.iter().all(|&depth| depth <= MOST)
            && self.channels[0] >= least
            && self.split()[0] >= HEADS
            && self.split()[0].is_multiple_of(HEADS)
            && features.is_some_and(|features| features.is_multiple_of(self.out_channels))
    }

    /// Convolutions and other layers with weights.
    pub(super) fn modules(&self) -> usize {
        let stages: usize = self.depths.iter().map(|depth| 4 * depth + 8).sum();
        80 + stages + 8 * self.high_order + 8 * self.low_order
    }

    /// The tensors below `at`, in the order of the modules.
    pub(super) fn tensors(&self, list: &mut TensorList, at: &str, dim: usize, bands: usize) {
        let [c2, c3, c4, c5] = self.channels;
        let [high, low, _] = self.split();
        ds_conv(list, &format!("{at}.backbone.stem"), dim, self.stem);
        let mut before = self.stem;
        for (stage, (&after, &depth)) in self.channels.iter().zip(&self.depths).enumerate() {
            let at = format!("{at}.backbone.p{}", stage + 2);
            ds_conv(list, &format!("{at}.0"), before, after);
            c3k2(list, &format!("{at}.1"), after, after, depth);
            before = after;
        }
        let ace = format!("{at}.hyperace");
        conv(list, &format!("{ace}.fuse_conv"), c2 + c3 + c4 + c5, c4);
        for branch in 0..self.high_order {
            let at = format!("{ace}.high_order_branch.{branch}");
            conv(list, &format!("{at}.cv1"), high, high);
            conv(list, &format!("{at}.cv2"), high, high);
            let edges = format!("{at}.ahc.adaptive_hyperedge_gen");
            list.add(format!("{edges}.global_proto"), [self.hyperedges, high]);
            list.linear(&format!("{edges}.context_mapper"), 2 * high, self.hyperedges * high, false);
            list.linear(&format!("{edges}.query_proj"), high, high, false);
            list.linear(&format!("{at}.ahc.hypergraph_conv.W_e"), high, high, false);
            list.linear(&format!("{at}.ahc.hypergraph_conv.W_v"), high, high, false);
            conv(list, &format!("{at}.cv3"), 2 * high, high);
        }
        conv(list, &format!("{ace}.high_order_fuse"), self.high_order * high, high);
        for block in 0..self.low_order {
            c3k(list, &format!("{ace}.low_order_branch.{block}"), low, 1);
        }
        conv(list, &format!("{ace}.final_fuse"), c4, c4);
        let decoder = format!("{at}.decoder");
        for (stage, &channels) in self.channels.iter().enumerate() {
            let stage = stage + 2;
            conv(list, &format!("{decoder}.h_to_d{stage}"), c4, channels);
            list.add(format!("{decoder}.fusion_d{stage}.gamma"), [1, channels, 1, 1]);
            conv(list, &format!("{decoder}.skip_p{stage}"), channels, channels);
        }
        for (name, from, to) in
            [("up_d5", c5, c4), ("up_d4", c4, c3), ("up_d3", c3, c2), ("final_d2", c2, c2)]
        {
            c3k2(list, &format!("{decoder}.{name}"), from, to, 1);
        }
        self.upsample_tensors(list, &format!("{at}.upsample_head"), bands);
    }

    fn upsample_tensors(&self, list: &mut TensorList, at: &str, bands: usize) {
        let shuffles = self.shuffles();
        for (i, [from, to]) in shuffles.into_iter().enumerate() {
            let block = format!("{at}.block{}", i + 1);
            ds_conv(list, &format!("{block}.conv"), from, 2 * to);
            if self.version == HyperAceVersion::V2 {
                for j in 0..TFC_TDF_BLOCKS {
                    tfc_tdf(list, &format!("{block}.out_conv.blocks.{j}"), to, bands << (i + 1));
                }
            }
        }
        let kernel = if self.version == HyperAceVersion::V2 { 3 } else { 1 };
        list.conv(&format!("{at}.final_conv"), [self.out_channels, shuffles[3][1], kernel, kernel], false);
    }

    /// Floating-point operations for one stem of `frames` frames, two for each multiply-add. `features`: those of all bands.
    pub(super) fn flops(&self, frames: f64, bands: f64, dim: f64, features: f64) -> f64 {
        let channels = self.channels.map(|c| c as f64);
        let [high, low, _] = self.split().map(|c| c as f64);
        let c4 = channels[2];
        let mut points = [[frames, bands]; 6];
        for (i, [over_frames, over_bands]) in self.strides().into_iter().enumerate() {
            let [frames, bands] = points[i];
            points[i + 1] = [frames / over_frames as f64, bands / over_bands as f64];
        }
        let points = points.map(|[frames, bands]| frames * bands);
        let mut sum = points[1] * ds(dim, self.stem as f64);
        let mut before = self.stem as f64;
        for (stage, &after) in channels.iter().enumerate() {
            let depth = self.depths[stage] as f64;
            sum += points[stage + 2] * (ds(before, after) + stack(after, after, depth));
            before = after;
            // Skip and fused features of the decoder.
            sum += points[stage + 2] * 2.0 * after * (after + c4);
        }
        let edges = self.hyperedges as f64;
        let branch = 2.0 * high * (6.0 * high + 3.0 * edges);
        let fuse =
            2.0 * c4 * (channels.iter().sum::<f64>() + c4) + 2.0 * self.high_order as f64 * high * high;
        sum += points[4] * (fuse + self.high_order as f64 * branch + self.low_order as f64 * inner(low, 1.0));
        sum += points[4] * stack(channels[3], c4, 1.0) + points[3] * stack(c4, channels[1], 1.0);
        sum += points[2] * (stack(channels[1], channels[0], 1.0) + stack(channels[0], channels[0], 1.0));
        let mut width = points[2] / (frames / 4.0);
        for [from, to] in self.shuffles().map(|pair| pair.map(|c| c as f64)) {
            sum += frames * width * ds(from, 2.0 * to);
            width *= 2.0;
            if self.version == HyperAceVersion::V2 {
                let dense = 2.0 * 2.0 * width / TDF_BOTTLENECK as f64 * to;
                sum += frames * width * TFC_TDF_BLOCKS as f64 * (2.0 * 19.0 * to * to + dense);
            }
        }
        let last = self.shuffles()[3][1] as f64;
        let kernel = if self.version == HyperAceVersion::V2 { 9.0 } else { 1.0 };
        sum + 2.0 * frames * features * kernel * last
    }

    /// Values of the head in memory for each frame, where they are most: in the pixel shuffles, at the resolution of frames.
    pub(super) fn values_per_frame(&self, bands: usize, features: usize) -> f64 {
        let mut width = bands as f64;
        let mut most = 0.0_f64;
        for [from, to] in self.shuffles() {
            most = most.max(width * from.max(2 * to) as f64);
            width *= 2.0;
        }
        let points = features as f64 / self.out_channels.max(1) as f64;
        LIVE_TENSORS * most.max(points * self.shuffles()[3][1] as f64)
    }
}

/// Operations a point of a depthwise 3 × 3 and a pointwise convolution.
fn ds(from: f64, to: f64) -> f64 {
    18.0 * from + 2.0 * from * to
}

/// The same of the reference's `DS_C3k` with `depth` bottlenecks.
fn inner(channels: f64, depth: f64) -> f64 {
    8.0 * channels * channels + 2.0 * depth * ds(channels, channels)
}

/// The same of `DS_C3k2`.
fn stack(from: f64, to: f64, depth: f64) -> f64 {
    let hidden = (to / 2.0).floor();
    2.0 * hidden * (from + to) + inner(hidden, depth)
}

/// The reference's `Conv` of kernel 1: convolution and instance norm.
fn conv(list: &mut TensorList, at: &str, from: usize, to: usize) {
    list.conv(&format!("{at}.conv"), [to, from, 1, 1], false);
    norm(list, &format!("{at}.bn"), to);
}

fn norm(list: &mut TensorList, at: &str, channels: usize) {
    list.add(format!("{at}.weight"), [channels]);
    list.add(format!("{at}.bias"), [channels]);
}

/// `DSConv`.
fn ds_conv(list: &mut TensorList, at: &str, from: usize, to: usize) {
    list.conv(&format!("{at}.dwconv"), [from, 1, 3, 3], false);
    list.conv(&format!("{at}.pwconv"), [to, from, 1, 1], false);
    norm(list, &format!("{at}.bn"), to);
}

/// `DS_C3k`.
fn c3k(list: &mut TensorList, at: &str, channels: usize, depth: usize) {
    conv(list, &format!("{at}.cv1"), channels, channels);
    conv(list, &format!("{at}.cv2"), channels, channels);
    conv(list, &format!("{at}.cv3"), 2 * channels, channels);
    for i in 0..depth {
        ds_conv(list, &format!("{at}.m.{i}.dsconv1"), channels, channels);
        ds_conv(list, &format!("{at}.m.{i}.dsconv2"), channels, channels);
    }
}

/// `DS_C3k2`.
fn c3k2(list: &mut TensorList, at: &str, from: usize, to: usize, depth: usize) {
    conv(list, &format!("{at}.cv1"), from, to / 2);
    c3k(list, &format!("{at}.m"), to / 2, depth);
    conv(list, &format!("{at}.cv2"), to / 2, to);
}

/// One block of `TFC_TDF` for `width` points of the frequency axis.
fn tfc_tdf(list: &mut TensorList, at: &str, channels: usize, width: usize) {
    norm(list, &format!("{at}.tfc1.0"), channels);
    list.conv(&format!("{at}.tfc1.2"), [channels, channels, 3, 3], false);
    norm(list, &format!("{at}.tdf.0"), channels);
    list.linear(&format!("{at}.tdf.2"), width, width / TDF_BOTTLENECK, false);
    norm(list, &format!("{at}.tdf.3"), channels);
    list.linear(&format!("{at}.tdf.5"), width / TDF_BOTTLENECK, width, false);
    norm(list, &format!("{at}.tfc2.0"), channels);
    list.conv(&format!("{at}.tfc2.2"), [channels, channels, 3, 3], false);
    list.conv(&format!("{at}.shortcut"), [channels, channels, 1, 1], false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::{Architecture, ConformerSizes, MaskKind};

    /// The head of the public files.
    fn public(version: HyperAceVersion) -> HyperAceSizes {
        let (hyperedges, high_order, low_order) =
            if version == HyperAceVersion::V2 { (32, 2, 1) } else { (16, 3, 2) };
        HyperAceSizes {
            version,
            stem: 64,
            channels: [256, 384, 512, 768],
            depths: [2, 4, 4, 2],
            hyperedges,
            high_order,
            low_order,
            out_channels: 4,
            band_strides: false,
        }
    }

    fn network(masks: MaskKind) -> Architecture {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.ff_inner, arch.mask_hidden) = (256, 12, 1024, 1024);
        (arch.num_stems, arch.masks) = (1, masks);
        arch
    }

    #[test]
    fn networks_have_the_sizes_of_the_public_files() {
        // Parameters that PyTorch counts, without the shared rotary frequencies. With four bytes each they leave half a megabyte of
        // the 274 890 855 and 288 725 646 bytes of the files for their index.
        let head = |version| network(MaskKind::HyperAce(public(version)));
        assert_eq!(head(HyperAceVersion::V1).parameters(), 274_372_912 / 4 - 64);
        assert_eq!(head(HyperAceVersion::V2).parameters(), 288_168_432 / 4 - 64);
        // MSST's config_vocals_bs_conformer.yaml; the statistics of 24 batch norms are not parameters there.
        let sizes = ConformerSizes { conv_channels: 512, conv_kernel: 31, linear_ff_inner: 0 };
        let arch = Architecture { conformer: Some(sizes), ..network(MaskKind::Mlp) };
        assert_eq!(arch.parameters(), 73_567_244 - 64 + 24 * 2 * 512);
    }

    #[test]
    fn heads_cost_what_pytorch_counts() {
        // torch.utils.flop_counter over 801 frames of 62 bands.
        for (version, counted) in
            [(HyperAceVersion::V1, 136_829_406_464.0), (HyperAceVersion::V2, 349_236_699_776.0)]
        {
            let found = public(version).flops(801.0, 62.0, 256.0, 4100.0);
            assert!((found / counted - 1.0).abs() < 0.03, "{version}: {found} for {counted}");
        }
    }

    #[test]
    fn memory_and_work_of_a_head_bound_the_chunk() {
        for version in [HyperAceVersion::V1, HyperAceVersion::V2] {
            let arch = network(MaskKind::HyperAce(public(version)));
            assert!(arch.activation_bytes(352_800) > 1.5 * network(MaskKind::Mlp).activation_bytes(352_800));
            assert!(arch.check_cost(485_100, 44_100).is_ok());
            let wide = HyperAceSizes { channels: [1 << 17; 4], ..public(version) };
            let wide = network(MaskKind::HyperAce(wide));
            assert!(wide.check_cost(485_100, 44_100).is_err());
        }
    }

    #[test]
    fn sizes_of_no_network_are_invalid() {
        let valid = public(HyperAceVersion::V2);
        assert!(valid.is_valid(Some(4100)));
        for sizes in [
            HyperAceSizes { stem: 0, ..valid },
            HyperAceSizes { stem: usize::MAX, ..valid },
            HyperAceSizes { channels: [256, 384, usize::MAX, 768], ..valid },
            HyperAceSizes { channels: [256, 384, 510, 768], ..valid },
            HyperAceSizes { channels: [8, 384, 512, 768], ..valid },
            HyperAceSizes { depths: [usize::MAX; 4], ..valid },
            HyperAceSizes { high_order: 0, ..valid },
            HyperAceSizes { out_channels: 0, ..valid },
            HyperAceSizes { out_channels: 3, ..valid },
        ] {
            assert!(!sizes.is_valid(Some(4100)), "{sizes:?}");
        }
        assert!(!valid.is_valid(None));
    }
}
