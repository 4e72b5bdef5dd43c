//! Aligned memory, and a scratch arena per thread that grows to the largest task and is kept.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A vector of floats aligned to a cache line.
#[derive(Default)]
pub(super) struct AlignedVec {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedVec {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `lines` holds at least `len` initialised floats, contiguous because of repr(C) and size = alignment.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

thread_local! {
    static ARENA: RefCell<AlignedVec> = RefCell::default();
}

/// Guard floats after each slice; debug builds check that nothing wrote to them.
const GUARD: usize = if cfg!(debug_assertions) { 16 } else { 0 };
/// Bits of a guard float: a NaN that no arithmetic produces.
const GUARD_BITS: u32 = 0x7fb1_ade5;

/// Calls `f` with slices of this thread's arena of the given `sizes`, each aligned to a cache line. Their contents are
/// unspecified. `f` must not call `with_scratch` again.
pub(super) fn with_scratch<const N: usize, R>(sizes: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    let total = sizes.iter().map(|n| n.next_multiple_of(16) + GUARD).sum();
    ARENA.with(|arena| {
        let mut arena = arena.borrow_mut();
        if arena.len() < total {
            // Freed first: two arenas at once would double the peak.
            *arena = AlignedVec::default();
            *arena = AlignedVec::zeroed(total);
        }
        let mut rest: &mut [f32] = &mut arena;
        let result = f(sizes.map(|n| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n.next_multiple_of(16) + GUARD);
            rest = tail;
            let (slice, guard) = head.split_at_mut(n);
            guard.fill(f32::from_bits(GUARD_BITS));
            slice
        }));
        if GUARD > 0 {
            let mut rest: &[f32] = &arena;
            for n in sizes {
                let (head, tail) = rest.split_at(n.next_multiple_of(16) + GUARD);
                rest = tail;
                let untouched = head[n..].iter().all(|v| v.to_bits() == GUARD_BITS);
                debug_assert!(untouched, "a kernel wrote past a scratch slice of {n}");
            }
        }
        result
    })
}

/// Fills this thread's arena with NaN.
pub(super) fn poison() {
    ARENA.with(|arena| arena.borrow_mut().fill(f32::NAN));
}
