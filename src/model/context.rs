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
    } else if arch.siamese {
        Some("a trunk with two residual streams keeps no context")
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
