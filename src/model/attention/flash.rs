//! The attention kernel of `flash.cu`: on CUDA, in f16, where `NULLSUM_CUDA_ATTENTION=fused` asks for it.
//!
//! Off by default: it has run in an emulation of the tensor cores (`tests/flash.rs`) but on no GPU yet.

use std::sync::LazyLock;

use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
use half::f16;

/// Whether the kernel is asked for.
static WANTED: LazyLock<bool> =
    LazyLock::new(|| std::env::var("NULLSUM_CUDA_ATTENTION").is_ok_and(|value| value == "fused"));
/// The kernel as PTX; build.rs has nvcc make it.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/flash.ptx"));
/// Queries of a block, threads of a block.
const QUERIES: usize = 64;
const THREADS: u32 = 128;

/// Softmax attention of q (scaled), k and v, [sequences, heads, len, dim_head]; none where the kernel does not apply.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>> {
    let applies = *WANTED
        && q.device().is_cuda()
        && [q, k, v].iter().all(|x| x.dtype() == DType::F16 && x.shape() == q.shape())
        && kernel(q.dim(3)?).is_some();
    if !applies {
        return Ok(None);
    }
    q.contiguous()?.apply_op3_no_bwd(&k.contiguous()?, &v.contiguous()?, &Flash).map(Some)
}

/// Name of the kernel for a head of `dim` features.
fn kernel(dim: usize) -> Option<&'static str> {
    match dim {
        32 => Some("attend_32"),
        48 => Some("attend_48"),
        64 => Some("attend_64"),
        _ => None,
    }
}

struct Flash;

impl CustomOp3 for Flash {
    fn name(&self) -> &'static str {
        "flash-attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("the attention kernel runs on CUDA only")
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        use candle_core::cuda_backend::WrapErr;
        use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};

        let (sequences, heads, len, dim) = q_layout.shape().dims4()?;
        let Some(name) = kernel(dim) else {
            candle_core::bail!("the attention kernel knows no heads of {dim} features")
        };
        let blocks = sequences * heads * len.div_ceil(QUERIES);
        let (Ok(blocks), Ok(length)) = (u32::try_from(blocks), i32::try_from(len)) else {
            candle_core::bail!("{sequences} sequences of {len} tokens are too many for the attention kernel")
        };
        let device = q.device().clone();
        let q = q.as_cuda_slice::<f16>()?.slice(q_layout.start_offset()..);
        let k = k.as_cuda_slice::<f16>()?.slice(k_layout.start_offset()..);
        let v = v.as_cuda_slice::<f16>()?.slice(v_layout.start_offset()..);
        let function = device.get_or_load_custom_func(name, "nullsum-flash", PTX)?;
        // SAFETY: the kernel writes every element before anything reads one.
        let out = unsafe { device.alloc::<f16>(q_layout.shape().elem_count())? };
        let config =
            LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        let mut builder = function.builder();
        builder.arg(&q).arg(&k).arg(&v).arg(&out).arg(&length);
        // SAFETY: arguments are those of the kernel; q, k, v and out are contiguous and have sequences · heads · len · dim elements, as
        // `attend` makes sure.
        unsafe { builder.launch(config) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device), q_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::DeviceChoice;

    /// Runs only where there is a CUDA device.
    #[test]
    fn the_kernel_is_the_naive_attention() {
        let Ok(device) = DeviceChoice::Cuda(0).open() else {
            println!("no CUDA device: nothing was tested");
            return;
        };
        for (len, dim) in [(1, 64), (62, 64), (65, 32), (200, 48), (1101, 64)] {
            let draw = || Tensor::randn(0f32, 1f32, (3, 2, len, dim), &device)?.to_dtype(DType::F16);
            let (q, k, v) = (draw().unwrap(), draw().unwrap(), draw().unwrap());
            let found = q.apply_op3_no_bwd(&k, &v, &Flash).unwrap().to_dtype(DType::F32).unwrap();
            let [q, k, v] = [&q, &k, &v].map(|x| x.to_dtype(DType::F32).unwrap());
            let scores = q.matmul(&k.t().unwrap()).unwrap();
            let expected = candle_nn::ops::softmax_last_dim(&scores).unwrap().matmul(&v).unwrap();
            let power = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let snr = 10.0 * (power(&expected) / power(&(&expected - &found).unwrap())).log10();
            assert!(snr > 55.0, "{len} tokens, heads of {dim}: {snr:.1} dB");
        }
    }
}
