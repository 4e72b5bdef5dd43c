//! What a network can keep between hops of a stream, and what that takes.
//!
//! Attention over time looks at the frames of a window through their keys and values alone. A stream that keeps those of past frames need
//! not run the frames again: its next hop runs the new frames, and their queries attend to what is kept. All else in the network
//! looks at one frame at a time.

use super::architecture::{Architecture, MaskKind, Position};

/// Why a stream of `arch` cannot keep its context and must run whole windows again; none when it can.
pub fn kept_context_unsupported(arch: &Architecture) -> Option<&'static str> {
    if arch.linear_transformer_depth > 0 {
        Some("linear attention runs over all frames and bands at once")
    } else if arch.hyper_connections.is_some_and(|hyper| hyper.streams > 1) {
        // The groups of rows that the references mix span neighbouring frames in the frequency transformers.
        Some("hyper-connections of several streams mix neighbouring frames")
    } else if arch.conformer.is_some() {
        // A frame's neighbours on both sides reach it in every block, so that hundreds of frames would have to run again.
        Some("a Conformer's convolutions look at the frames on both sides in every layer")
    } else if arch.siamese {
        Some("a trunk with two residual streams keeps no context")
    } else if matches!(arch.masks, MaskKind::HyperAce(_)) {
        Some("HyperACE's instance norms look at all frames of a window")
    } else if arch.masks != MaskKind::Mlp {
        Some("the mask estimators run over all frames at once")
    } else {
        None
    }
}

/// Keys and values that a stream of `arch` keeps for each frame, over all layers.
pub fn kept_values_per_frame(arch: &Architecture) -> usize {
    // Polar keys have a real and an imaginary part.
    let parts = if arch.position == Position::Polar { 3 } else { 2 };
    let blocks = arch.depth.saturating_mul(arch.time_transformer_depth);
    let tokens = arch.bands.len().saturating_mul(arch.heads).saturating_mul(arch.dim_head);
    blocks.saturating_mul(tokens).saturating_mul(parts)
}

/// Bytes of keys and values of a stream up to which they are kept in f32.
const F32_LIMIT: usize = 64 << 20;

/// Memory that the keys and values of a stream take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextMemory {
    /// Bytes when the context is full.
    pub bytes: usize,
    /// Bytes of one value: 4 in f32, 2 in bf16. Kernels that multiply bf16 keep bf16 even if this says f32.
    pub bytes_per_value: usize,
}

impl ContextMemory {
    /// Of a stream of `arch` that keeps `frames` frames: f32 as long as they are small.
    pub fn new(arch: &Architecture, frames: usize) -> Self {
        let values = kept_values_per_frame(arch).saturating_mul(frames);
        let bytes_per_value = if values.saturating_mul(4) <= F32_LIMIT { 4 } else { 2 };
        Self { bytes: values.saturating_mul(bytes_per_value), bytes_per_value }
    }
}

/// Floating-point operations of one hop of a stream of `arch`: `frames` frames run, `wanted` of them through the mask estimators, with
/// `kept` frames in the context. As [`Architecture::flops`], two for every multiply-add of the matrix products.
pub fn hop_flops(arch: &Architecture, frames: usize, wanted: usize, kept: usize) -> f64 {
    let (run, dim) = (frames as f64, arch.dim as f64);
    let bands = arch.bands.len() as f64;
    let inner = (arch.heads * arch.dim_head) as f64;
    let block = |keys: f64| {
        2.0 * run * bands * (dim * 4.0 * inner + 2.0 * dim * arch.ff_inner as f64 + 2.0 * inner * keys)
    };
    let time = arch.time_transformer_depth as f64 * block((frames + kept) as f64);
    let freq = arch.freq_transformer_depth as f64 * block(bands);
    let features = arch.band_features();
    let split: f64 = features.iter().map(|&features| 2.0 * run * features as f64 * dim).sum();
    let masks: f64 = features
        .iter()
        .flat_map(|&features| {
            let sizes = arch.mask_sizes(features);
            sizes.windows(2).map(|io| 2.0 * (io[0] * io[1]) as f64).collect::<Vec<_>>()
        })
        .sum();
    arch.depth as f64 * (time + freq) + split + masks * (wanted * arch.num_stems) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_without_context_costs_what_a_chunk_of_its_frames_costs() {
        let arch = Architecture::reference_default();
        let frames = arch.stft.frames(44_100);
        let (hop, chunk) = (hop_flops(&arch, frames, frames, 0), arch.flops(44_100));
        assert!((hop / chunk - 1.0).abs() < 1e-9, "{hop} {chunk}");
        // Half a second with a quarter of lookahead and four seconds of context: one and a half passes, and the longer sequences.
        let hop = hop_flops(&arch, 75, 75, 400) / 0.5;
        let pass = arch.flops(8 * 44_100) / 8.0;
        assert!((1.35..1.65).contains(&(hop / pass)), "{}", hop / pass);
    }

    #[test]
    fn the_default_architecture_takes_the_published_memory() {
        let memory = ContextMemory::new(&Architecture::reference_default(), 400);
        assert_eq!(memory.bytes_per_value, 2);
        assert!((0.39e9..0.42e9).contains(&(memory.bytes as f64)), "{}", memory.bytes);
        assert_eq!(ContextMemory::new(&Architecture::reference_default(), 8).bytes_per_value, 4);
    }
}
