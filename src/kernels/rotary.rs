//! Rotary position embedding: a table of cosines and sines that grows with the longest sequence so far.

use std::sync::Arc;

use parking_lot::RwLock;

use super::error::KernelError;

/// Rotation of interleaved pairs by `position · freqs[i]`. Blocks with the same frequencies share one table.
#[derive(Debug)]
pub struct Rotary {
    freqs: Vec<f32>,
    dim_head: usize,
    /// `[positions][2][dim_head]`: cosines, each twice, then sines, the first of a pair negated.
    table: RwLock<Arc<[f32]>>,
}

impl Rotary {
    /// `freqs` as in the checkpoint's `rotary_embed.freqs`, at most `dim_head / 2`. Features beyond them are not rotated.
    pub fn new(freqs: &[f32], dim_head: usize) -> Result<Self, KernelError> {
        if 2 * freqs.len() > dim_head {
            return Err(KernelError::Value {
                what: "number of rotary frequencies".to_owned(),
                expected: format!("at most half of dim_head {dim_head}"),
                found: freqs.len(),
            });
        }
        Ok(Self { freqs: freqs.to_vec(), dim_head, table: RwLock::new(Arc::from([])) })
    }

    /// Features per head.
    pub fn dim_head(&self) -> usize {
        self.dim_head
    }

    /// The table for at least `len` positions. Allocates only when `len` is the longest yet.
    pub(super) fn table(&self, len: usize) -> Arc<[f32]> {
        let stride = 2 * self.dim_head;
        {
            let table = self.table.read();
            if table.len() >= len * stride {
                return Arc::clone(&table);
            }
        }
        let mut table = self.table.write();
        if table.len() < len * stride {
            let mut rows = vec![0.0f32; len * stride];
            for (position, row) in rows.chunks_exact_mut(stride.max(1)).enumerate() {
                // The product in f32, as the reference forms it; its cosine as exact as can be.
                self.fill(row, |freq| f64::from(position as f32 * freq));
            }
            *table = Arc::from(rows);
        }
        Arc::clone(&table)
    }

    /// SequenceRows of the table for positions `first..first + len` into `rows`: [len][2][dim_head]. The angles are taken in f64, so that they
    /// are good to 1e-7 for the first 10⁹ positions: a stream need not be renumbered. Allocates only when `len` is the longest yet.
    pub(super) fn rows_from(&self, first: u64, len: usize, rows: &mut Vec<f32>) {
        let stride = 2 * self.dim_head;
        rows.clear();
        rows.resize(len * stride, 0.0);
        for (position, row) in (first..).zip(rows.chunks_exact_mut(stride.max(1))) {
            self.fill(row, |freq| position as f64 * f64::from(freq));
        }
    }

    /// One row of zeros ← cosines and sines of the angles that `angle` gives for the frequencies.
    fn fill(&self, row: &mut [f32], angle: impl Fn(f32) -> f64) {
        let (cos, sin) = row.split_at_mut(self.dim_head);
        cos.fill(1.0);
        for (i, &freq) in self.freqs.iter().enumerate() {
            let (s, c) = angle(freq).sin_cos();
            cos[2 * i] = c as f32;
            cos[2 * i + 1] = c as f32;
            sin[2 * i] = -s as f32;
            sin[2 * i + 1] = s as f32;
        }
    }
}
