//! Launches one kernel over tensors.

use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Layout, Result, Shape, Storage, Tensor};
use half::f16;

/// Warps and threads of every block.
pub const WARPS: usize = 4;
#[cfg(feature = "cuda")]
const THREADS: u32 = 32 * WARPS as u32;
/// PTX of the kernels, for all generations from Ampere on. build.rs compiles it with nvcc; the driver compiles it for the card.
#[cfg(feature = "cuda")]
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// A kernel and the tensors that it reads.
pub struct Launch<'a> {
    pub kernel: String,
    pub inputs: Vec<&'a Tensor>,
}

impl Launch<'_> {
    /// Runs it in `blocks` blocks. It gets the inputs, made contiguous, its output of `shape` in `dtype`, and `numbers`.
    pub fn run(&self, numbers: &[usize], blocks: usize, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let inputs = self.inputs.iter().map(|x| x.contiguous()).collect::<Result<Vec<_>>>()?;
        let numbers = numbers.iter().map(|&n| i32::try_from(n).ok()).collect::<Option<Vec<_>>>();
        let (Some(numbers), Ok(blocks)) = (numbers, i32::try_from(blocks)) else {
            candle_core::bail!("{}: a tensor of {shape:?} is too large", self.kernel)
        };
        let guards: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
        let inputs: Vec<(&Storage, &Layout)> = guards.iter().map(|(s, layout)| (&**s, *layout)).collect();
        let size = shape.elem_count();
        #[cfg(test)]
        super::tests::record_kernel(&self.kernel);
        let storage = match (self.inputs[0].device(), dtype) {
            #[cfg(feature = "cuda")]
            (Device::Cuda(on), DType::F16) => self.on_cuda::<f16>(on, &inputs, &numbers, blocks, size),
            #[cfg(feature = "cuda")]
            (Device::Cuda(on), DType::F32) => self.on_cuda::<f32>(on, &inputs, &numbers, blocks, size),
            #[cfg(all(test, target_os = "linux"))]
            (Device::Cpu, DType::F16) => self.emulated::<f16>(&inputs, &numbers, blocks, size),
            #[cfg(all(test, target_os = "linux"))]
            (Device::Cpu, DType::F32) => self.emulated::<f32>(&inputs, &numbers, blocks, size),
            (device, _) => candle_core::bail!("{}: no kernel on {device:?} in {dtype:?}", self.kernel),
        }?;
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }

    #[cfg(feature = "cuda")]
    fn on_cuda<T>(
        &self,
        device: &candle_core::CudaDevice,
        inputs: &[(&Storage, &Layout)],
        numbers: &[i32],
        blocks: i32,
        size: usize,
    ) -> Result<Storage>
    where
        T: candle_core::cuda_backend::CudaDType + candle_core::cuda_backend::cudarc::driver::DeviceRepr,
    {
        use candle_core::CudaStorage;
        use candle_core::backend::BackendStorage;
        use candle_core::cuda_backend::WrapErr;
        use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};

        let stream = device.cuda_stream();
        let function = device.get_or_load_custom_func(&self.kernel, "nullsum", PTX)?;
        // Addresses, and what notes that they were read once it is dropped.
        let addresses = inputs
            .iter()
            .map(|(storage, layout)| {
                let Storage::Cuda(storage) = storage else { candle_core::bail!("tensors on two devices") };
                let (start, read) = match storage.dtype() {
                    DType::F16 => storage.as_cuda_slice::<f16>()?.device_ptr(&stream),
                    _ => storage.as_cuda_slice::<f32>()?.device_ptr(&stream),
                };
                Ok((start + (layout.start_offset() * storage.dtype().size_in_bytes()) as u64, read))
            })
            .collect::<Result<Vec<_>>>()?;
        // SAFETY: the kernel writes every element before anything reads one.
        let mut out = unsafe { device.alloc::<T>(size)? };
        let mut builder = function.builder();
        addresses.iter().for_each(|(address, _)| {
            builder.arg(address);
        });
        builder.arg(&mut out);
        numbers.iter().for_each(|number| {
            builder.arg(number);
        });
        let config = LaunchConfig {
            grid_dim: (blocks.unsigned_abs(), 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: each caller in `cuda` gives the arguments of its kernel, whose tensors are contiguous and have the sizes that `numbers` say;
        // the tests run the same calls in an emulation that knows the kernels' parameters.
        unsafe { builder.launch(config) }.w()?;
        Ok(Storage::Cuda(CudaStorage::wrap_cuda_slice(out, device.clone())))
    }

    #[cfg(all(test, target_os = "linux"))]
    fn emulated<T: candle_core::WithDType>(
        &self,
        inputs: &[(&Storage, &Layout)],
        numbers: &[i32],
        blocks: i32,
        size: usize,
    ) -> Result<Storage> {
        use candle_core::CpuStorage;

        let addresses = inputs
            .iter()
            .map(|(storage, layout)| match storage {
                Storage::Cpu(CpuStorage::F16(x)) => Ok(x[layout.start_offset()..].as_ptr().cast()),
                Storage::Cpu(CpuStorage::F32(x)) => Ok(x[layout.start_offset()..].as_ptr().cast()),
                _ => candle_core::bail!("{}: another type of tensor", self.kernel),
            })
            .collect::<Result<Vec<_>>>()?;
        // What a kernel forgets to write is no number, as are some places behind the end, where it must not write.
        let mut out = vec![T::from_f64(f64::NAN); size + 4096];
        super::emulator::run(&self.kernel, &addresses, out.as_mut_ptr().cast(), numbers, blocks);
        assert!(out.drain(size..).all(|x| x.to_f64().is_nan()), "{} writes past the end", self.kernel);
        Ok(Storage::Cpu(T::to_cpu_storage_owned(out)))
    }
}
