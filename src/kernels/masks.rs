//! Masks onto the mixture's spectrum.

use num_complex::Complex32;

use super::ops::MaskBins;
use super::row_kernels::row_kernels;

/// Stems whose pointers fit on the stack: a call allocates only for more.
const STEMS: usize = 16;

/// Multiplies the masks of all stems with the mixture's bins `spec`, in place, on the calling thread. `complete`: first makes the
/// masks of each bin sum to 1, each stem taking of the rest by the power of its mask; masks that are not finite count as 0. Bins beyond
/// the shortest slice stay as they are.
pub fn apply_masks(complete: bool, spec: &[Complex32], stems: &mut [&mut [Complex32]]) {
    let len = 2 * stems.iter().map(|stem| stem.len()).fold(spec.len(), usize::min);
    let mut few = [std::ptr::null_mut(); STEMS];
    let mut many = Vec::new();
    let pointers = if let Some(few) = few.get_mut(..stems.len()) {
        few
    } else {
        many.resize(stems.len(), std::ptr::null_mut());
        &mut many[..]
    };
    for (pointer, stem) in pointers.iter_mut().zip(stems) {
        *pointer = stem.as_mut_ptr().cast();
    }
    let ops = row_kernels();
    let apply = if complete { ops.complete_masks } else { ops.apply_masks };
    // SAFETY: a complex number is two floats; all slices have at least `len` floats, and those of the stems are borrowed exclusively.
    unsafe { apply(&MaskBins { spec: spec.as_ptr().cast(), stems: pointers, len }) }
}
