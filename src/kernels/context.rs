//! Keys and values that a stream keeps of past frames, in the layout that the products of attention read.
//!
//! A cache is a ring: frame n since the last [`clear`](KeyValueCache::clear) lies in slot n modulo the capacity. Attention does not
//! care for the order of keys, so the slots in use are always the first `len`, and nothing is ever moved. Keys are kept with their
//! rotary positions, which are absolute: only differences of positions enter a score.

use core::cell::UnsafeCell;

use half::bf16;

use super::attention::Segment;
use super::compiled::Kernels;
use super::error::KernelError;
use super::layout::{Element, Gemm, Panels};
use super::target::widening_product;

/// How kept keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// 4 bytes a value. Kernels that multiply bf16 keep bf16 all the same: they would round at each use.
    F32,
    /// 2 bytes a value. Kernels in f32 without a product for it keep f32.
    Bf16,
}

/// A cache line of floats that tasks write, each its own.
#[repr(C, align(64))]
struct Line(UnsafeCell<[f32; 16]>);

/// The kept keys and values of one time transformer block and one stream.
pub struct KeyValueCache {
    /// What it was made for.
    kernels: &'static Kernels,
    element: Element,
    gemm: unsafe fn(&Gemm),
    /// Sequences (bands), heads, features of a head.
    shape: [usize; 3],
    /// Most frames that are kept.
    capacity: usize,
    /// Frames that were ever kept since the last `clear`.
    kept: u64,
    /// Floats of the keys, and of the values, of one head of one sequence.
    key_floats: usize,
    value_floats: usize,
    memory: Vec<Line>,
    /// Rotary table of the hop under way.
    pub(super) angles: Vec<f32>,
}

// SAFETY: all bits 0 are sixteen floats of 0.
unsafe impl bytemuck::Zeroable for Line {}

// SAFETY: `memory` is written only by `keep`, whose caller owns the sequence and head that it names.
unsafe impl Sync for KeyValueCache {}

impl KeyValueCache {
    /// Zeros, for kernels of `kernels`. `shape`: sequences, heads, features of a head.
    pub(super) fn new(
        kernels: &'static Kernels,
        shape: [usize; 3],
        capacity: usize,
        format: CacheFormat,
    ) -> Self {
        let (element, gemm) = storage(kernels, format);
        let [sequences, heads, dim_head] = shape;
        let key_floats = capacity.div_ceil(kernels.nr) * element.words(dim_head) * kernels.nr;
        let value_floats = dim_head.div_ceil(kernels.nr) * element.words(capacity) * kernels.nr;
        let floats = sequences * heads * (key_floats + value_floats);
        Self {
            kernels,
            element,
            gemm,
            shape,
            capacity,
            kept: 0,
            key_floats,
            value_floats,
            // From pages that the system has zeroed: a large context must not hold up the hop that opens it.
            memory: bytemuck::allocation::zeroed_vec(floats.div_ceil(16)),
            angles: Vec::new(),
        }
    }

    /// Frames that are kept now.
    pub fn len(&self) -> usize {
        usize::try_from(self.kept).map_or(self.capacity, |kept| kept.min(self.capacity))
    }

    /// Whether no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all frames. What lies in the slots stays, and is as good as zeros: it is finite and counts for nothing.
    pub fn clear(&mut self) {
        self.kept = 0;
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.memory.len() * size_of::<Line>()
    }

    /// Fails unless the cache was made for these kernels and this shape.
    pub(super) fn check(&self, kernels: &'static Kernels, shape: [usize; 3]) -> Result<(), KernelError> {
        for (what, expected, found) in [
            ("the cache's bands", shape[0], self.shape[0]),
            ("the cache's heads", shape[1], self.shape[1]),
            ("the cache's features of a head", shape[2], self.shape[2]),
            ("a panel of the cache", kernels.nr, self.kernels.nr),
        ] {
            KernelError::check(what, expected, found)?;
        }
        if std::ptr::eq(kernels, self.kernels) {
            return Ok(());
        }
        let what = "the cache, which was made for other kernels".to_owned();
        Err(KernelError::Value { what, expected: "a cache of the same block".to_owned(), found: self.len() })
    }

    /// Counts `frames` more, which [`keep`](Self::keep) has written for all sequences and heads.
    pub(super) fn advance(&mut self, frames: usize) {
        self.kept += frames as u64;
    }

    /// Where keys and values of a head of a sequence begin.
    fn pointers(&self, sequence: usize, head: usize) -> (*mut f32, *mut f32) {
        debug_assert!(sequence < self.shape[0] && head < self.shape[1]);
        let index = sequence * self.shape[1] + head;
        // The pointer of the whole slice, so that it may reach beyond its first line.
        let base = UnsafeCell::raw_get(self.memory.as_ptr().cast::<UnsafeCell<f32>>());
        let keys = base.wrapping_add(index * (self.key_floats + self.value_floats));
        (keys, keys.wrapping_add(self.key_floats))
    }

    /// The kept frames of a head of a sequence.
    pub(super) fn segment(&self, sequence: usize, head: usize) -> Segment {
        let (keys, values) = self.pointers(sequence, head);
        let (nr, [.., dim_head]) = (self.kernels.nr, self.shape);
        Segment {
            len: self.len(),
            keys: Panels::plain(keys, self.element.words(dim_head) * nr),
            values: Panels::plain(values, self.element.words(self.capacity) * nr),
            element: self.element,
            gemm: self.gemm,
        }
    }

    /// Keeps `frames` frames of (sequence, head): keys as rows `keys.1` apart, values as panels `values.1` apart.
    ///
    /// # Safety
    /// The rows must be readable, and no one else may use this head of this sequence.
    pub(super) unsafe fn keep(
        &self,
        (sequence, head): (usize, usize),
        frames: usize,
        keys: (*const f32, usize),
        values: (*const f32, usize),
    ) {
        let segment = self.segment(sequence, head);
        let (to_keys, to_values) = self.pointers(sequence, head);
        let (nr, dim_head) = (self.kernels.nr, self.shape[2]);
        // Of more frames than there is room for, the last.
        for frame in frames.saturating_sub(self.capacity)..frames {
            let slot = ((self.kept + frame as u64) % self.capacity as u64) as usize;
            let column = to_keys.wrapping_add(slot / nr * segment.keys.stride + slot % nr);
            // SAFETY: the slot is below the capacity, for which keys and values have room; rows are the caller's.
            unsafe {
                let key = keys.0.add(frame * keys.1);
                for i in 0..dim_head {
                    match self.element {
                        Element::F32 => *column.add(i * nr) = *key.add(i),
                        _ => write_half(column.add(i / 2 * nr), i % 2, *key.add(i)),
                    }
                }
                for panel in 0..dim_head.div_ceil(nr) {
                    let from = values.0.add(panel * values.1 + frame * nr);
                    let row = to_values.add(panel * segment.values.stride);
                    match self.element {
                        Element::F32 => core::ptr::copy_nonoverlapping(from, row.add(slot * nr), nr),
                        _ => {
                            let row = row.add(slot / 2 * nr);
                            for j in 0..nr {
                                write_half(row.add(j), slot % 2, *from.add(j));
                            }
                        }
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for KeyValueCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyValueCache")
            .field("shape", &self.shape)
            .field("element", &self.element)
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// The number type in which such kernels can keep tokens, `wanted` if possible, and the product that reads it.
fn storage(kernels: &Kernels, wanted: CacheFormat) -> (Element, unsafe fn(&Gemm)) {
    let own = (kernels.attention.element, kernels.attention.gemm);
    if own.0 != Element::F32 || wanted == CacheFormat::F32 {
        return own;
    }
    // Products of f32 with weights in bf16 read activations in bf16 as well.
    widening_product(kernels).map_or(own, |product| (Element::Bf16, product.gemm))
}

/// Half `half` (0 the lower) of a word of two bf16 ← `value`.
///
/// # Safety
/// `word` must be valid.
unsafe fn write_half(word: *mut f32, half: usize, value: f32) {
    let shift = 16 * half as u32;
    let bits = u32::from(bf16::from_f32(value).to_bits()) << shift;
    // SAFETY: the caller's.
    unsafe {
        let other = (*word).to_bits() & !(0xffff << shift);
        // As an integer: a float register might quieten what looks like a signalling NaN.
        word.cast::<u32>().write(other | bits);
    }
}

/// One stream's part of [`TransformerBlock::forward_hops`](super::TransformerBlock::forward_hops).
pub struct ContextHop<'a> {
    /// Number of its first frame in the stream.
    pub first: u64,
    /// Frames that it runs.
    pub frames: usize,
    /// How many of them, the first, are kept afterwards.
    pub leaving: usize,
    /// The first of them whose output is wanted.
    pub wanted_from: usize,
    /// A cache for each time block of the network.
    pub caches: &'a mut [KeyValueCache],
}

impl ContextHop<'_> {
    /// Frames whose output is wanted.
    pub fn wanted(&self) -> usize {
        self.frames.saturating_sub(self.wanted_from)
    }

    /// The cache of a block.
    pub(super) fn cache(&mut self, block: usize) -> Result<&mut KeyValueCache, KernelError> {
        let found = self.caches.len();
        self.caches.get_mut(block).ok_or_else(|| KernelError::Value {
            what: "the number of a stream's caches".to_owned(),
            expected: format!("more than {block}, one a time block"),
            found,
        })
    }
}
