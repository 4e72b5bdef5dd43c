//! CUDA devices, and detection of missing libraries.
//!
//! candle links NVIDIA's libraries. A program built by `scripts/cuda` links a shim instead, so that it starts without them;
//! this module makes the shim load them. A program linked against an installed toolkit has no shim and starts only where
//! the libraries are installed.

use candle_core::Device;

/// Opens device `n`.
pub(super) fn open(n: usize) -> Result<Device, String> {
    load()?;
    // A separate stream, not that of the calling thread: any thread of the pool may submit chunks.
    let device = Device::new_cuda_with_stream(n).map_err(|error| error.to_string())?;
    if let Ok(cuda) = device.as_cuda_device() {
        // SAFETY: all tensors of a device are used on its one stream, in the order of the calls, so no events are needed.
        unsafe { cuda.disable_event_tracking() };
        if let Err(error) = keep_freed_memory(cuda) {
            log::debug!("the device's memory pool gives memory back at every wait: {error}");
        }
    }
    Ok(device)
}

/// Lets the memory pool keep what is freed. By default it gives all of it back to the system whenever the host waits for the device, and
/// allocates it again for the next chunk.
fn keep_freed_memory(cuda: &candle_core::CudaDevice) -> Result<(), String> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};

    let context = cuda.cuda_stream().context().clone();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the context's device is valid as long as the context, the pool is the one that the device's allocations use, and the attribute
    // is a u64, which the call reads.
    unsafe {
        let pool = result::device::get_mem_pool(context.cu_device()).map_err(|error| error.to_string())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast())
            .map_err(|error| error.to_string())
    }
}

/// Name and memory of a device.
pub(super) fn describe(device: &Device) -> Option<String> {
    let name = device.as_cuda_device().ok()?.cuda_stream().context().name().ok()?;
    Some(format!("{name}, {:.1} GiB", memory(device)? as f64 / f64::from(1 << 30)))
}

/// Bytes of memory of a CUDA device.
pub fn memory(device: &Device) -> Option<usize> {
    device.as_cuda_device().ok()?.cuda_stream().context().total_mem().ok()
}

#[cfg(cuda_shim)]
fn load() -> Result<(), String> {
    use std::ffi::{CStr, c_char, c_int};
    use std::sync::OnceLock;

    unsafe extern "C" {
        /// Returns 0, or 1 with the reason in `message`: NUL-terminated, at most `length` bytes with the NUL.
        fn nullsum_cuda_load(message: *mut c_char, length: usize) -> c_int;
    }

    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let mut message = [0u8; 512];
            // SAFETY: the buffer has the given length and outlives the call. It is called once, before any other CUDA call, so no
            // entry of the shim's table changes while another thread uses it.
            match unsafe { nullsum_cuda_load(message.as_mut_ptr().cast(), message.len()) } {
                0 => Ok(()),
                _ => {
                    let reason = CStr::from_bytes_until_nul(&message).unwrap_or_default().to_string_lossy();
                    let hint = if reason.contains("libcuda.so") {
                        "NVIDIA's driver is not installed"
                    } else {
                        "the CUDA 13 libraries belong in the folder lib beside the program"
                    };
                    Err(format!("{reason} ({hint})"))
                }
            }
        })
        .clone()
}

#[cfg(not(cuda_shim))]
fn load() -> Result<(), String> {
    Ok(())
}
