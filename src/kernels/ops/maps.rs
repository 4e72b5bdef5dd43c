//! Functions of single values.
//!
//! # Safety
//! Each function needs the instruction set of `S` and pointers valid for the lengths it names.

use super::{load_up_to, store_up_to};
use crate::kernels::math;
use crate::kernels::simd::{Pair, Simd};

/// Four vectors at a time, which hides the latency of a polynomial.
pub(super) type Interleaved<S> = Pair<Pair<S>>;

/// A function of one vector, as a type because closures do not inherit `target_feature`.
pub(in crate::kernels) trait Map<S: Simd> {
    /// # Safety
    /// See the module.
    unsafe fn map(v: S::V) -> S::V;
}

/// Exact GELU.
pub(in crate::kernels) struct Gelu;
/// GELU with bf16 accuracy.
pub(in crate::kernels) struct GeluCoarse;
/// tanh.
pub(in crate::kernels) struct Tanh;
/// Logistic sigmoid.
pub(in crate::kernels) struct Sigmoid;
/// eˣ, for tests.
pub(in crate::kernels) struct Exp;
/// 2ˣ, for tests.
pub(in crate::kernels) struct Exp2;

macro_rules! map_with {
    ($($op:ident => $f:ident),*) => {$(
        impl<S: Simd> Map<S> for $op {
            #[inline(always)]
            unsafe fn map(v: S::V) -> S::V {
                // SAFETY: as the caller's.
                unsafe { math::$f::<S>(v) }
            }
        }
    )*};
}
map_with!(Gelu => gelu, GeluCoarse => gelu_coarse, Tanh => tanh, Sigmoid => sigmoid, Exp => exp, Exp2 => exp2);

/// x ← f(x), n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn map<S: Simd, F: Map<S> + Map<Interleaved<S>>>(x: *mut f32, n: usize) {
    let mut i = 0;
    // SAFETY: four whole vectors in the first loop, at most n − i values in the second.
    unsafe {
        while i + Interleaved::<S>::LANES <= n {
            let v = <F as Map<Interleaved<S>>>::map(Interleaved::<S>::load(x.add(i)));
            Interleaved::<S>::store(x.add(i), v);
            i += Interleaved::<S>::LANES;
        }
        while i < n {
            store_up_to::<S>(x.add(i), <F as Map<S>>::map(load_up_to::<S>(x.add(i), n - i)), n - i);
            i += S::LANES;
        }
    }
}

/// out ← a · sigmoid(b), n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn glu<S: Simd>(a: *const f32, b: *const f32, out: *mut f32, n: usize) {
    let mut i = 0;
    // SAFETY: four whole vectors in the first loop, at most n − i values in the second.
    unsafe {
        while i + Interleaved::<S>::LANES <= n {
            let gate = math::sigmoid::<Interleaved<S>>(Interleaved::<S>::load(b.add(i)));
            Interleaved::<S>::store(
                out.add(i),
                Interleaved::<S>::mul(Interleaved::<S>::load(a.add(i)), gate),
            );
            i += Interleaved::<S>::LANES;
        }
        while i < n {
            let gate = math::sigmoid::<S>(load_up_to::<S>(b.add(i), n - i));
            store_up_to::<S>(out.add(i), S::mul(load_up_to::<S>(a.add(i), n - i), gate), n - i);
            i += S::LANES;
        }
    }
}
