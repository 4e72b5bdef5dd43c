//! Keys and values that a stream keeps of past tokens, on candle.

use candle_core::{DType, Result, Tensor};

/// What one time block keeps of one stream: [bands, heads, tokens, dim_head] each, keys with their positions.
pub(super) struct KeptTokens {
    tokens: Option<(Tensor, Tensor)>,
    /// Most tokens that are kept.
    capacity: usize,
    /// Number type that they are kept in.
    dtype: DType,
    /// How many tokens of the next hop, the first, are kept.
    pub leaving: usize,
}

impl KeptTokens {
    /// Room for `capacity` tokens.
    pub fn new(capacity: usize, dtype: DType) -> Self {
        Self { tokens: None, capacity, dtype, leaving: 0 }
    }

    /// Tokens that are kept now.
    pub fn len(&self) -> usize {
        self.tokens.as_ref().and_then(|(k, _)| k.dim(2).ok()).unwrap_or(0)
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.tokens = None;
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        let bytes = |x: &Tensor| x.elem_count() * x.dtype().size_in_bytes();
        self.tokens.as_ref().map_or(0, |(k, v)| bytes(k) + bytes(v))
    }

    /// What is kept, and behind it the keys and values of a hop; the first `leaving` of these are kept from now on.
    pub fn extend(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let kept = self.len();
        let all = match &self.tokens {
            None => (k, v),
            Some((kept_k, kept_v)) => {
                let join = |kept: &Tensor, new: &Tensor| Tensor::cat(&[&kept.to_dtype(new.dtype())?, new], 2);
                (join(kept_k, &k)?, join(kept_v, &v)?)
            }
        };
        let len = kept + self.leaving.min(all.0.dim(2)? - kept);
        let from = len.saturating_sub(self.capacity);
        // Copied, so that the rest of the hop can go.
        let part = |x: &Tensor| x.narrow(2, from, len - from)?.to_dtype(self.dtype)?.force_contiguous();
        self.tokens = if len > from { Some((part(&all.0)?, part(&all.1)?)) } else { None };
        Ok(all)
    }
}
