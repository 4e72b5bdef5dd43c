//! The device that a network runs on.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Device;

#[cfg(feature = "cuda")]
pub(super) use cuda::memory;

/// Memory of a device in bytes, where it is known.
#[cfg(not(feature = "cuda"))]
pub(super) fn memory(_: &Device) -> Option<usize> {
    None
}

/// A device as named by the user: `auto`, `cpu`, `cuda`, `cuda:1`, `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first that works of CUDA, Metal and the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, by index.
    Cuda(usize),
    /// The Metal device.
    Metal,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is unknown.
    #[error("unknown device `{0}`: expected auto, cpu, cuda, cuda:N or metal")]
    Unknown(String),
    /// This build does not support it.
    #[error("this build has no {0} support (feature `{0}`); use a build that has it, or the CPU")]
    NotBuilt(&'static str),
    /// The device fails to start.
    #[error("{name} does not start: {reason}; check its driver, or use the CPU")]
    Start {
        /// The device, as named by the user.
        name: String,
        /// The message of the driver or the loader.
        reason: String,
    },
}

impl std::str::FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" | "mps" => Ok(Self::Metal),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(n) => Ok(Self::Cuda(n)),
                None => Err(DeviceError::Unknown(name.into())),
            },
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl DeviceChoice {
    /// Starts the device.
    ///
    /// # Errors
    /// [`DeviceError`] where the build does not support it or it does not start. `auto` falls back to the CPU.
    pub fn open(self) -> Result<Device, DeviceError> {
        let start = |open: &dyn Fn() -> Result<Device, String>| {
            start_catching_panics(open)
                .map_err(|reason| DeviceError::Start { name: self.to_string(), reason })
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(n) => start(&|| cuda::open(n)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(DeviceError::NotBuilt("cuda")),
            Self::Metal if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt("metal")),
            Self::Metal => start(&|| Device::new_metal(0).map_err(|error| error.to_string())),
            Self::Auto => Ok(Self::Cuda(0).open().or_else(|_| Self::Metal.open()).unwrap_or_else(|error| {
                log::debug!("no GPU is used: {error}");
                Device::Cpu
            })),
        }
    }

    /// Starts the device and describes it for users.
    ///
    /// # Errors
    /// As [`DeviceChoice::open`].
    pub fn describe(self) -> Result<String, DeviceError> {
        let device = self.open()?;
        #[cfg(feature = "cuda")]
        if let Some(what) = cuda::describe(&device) {
            return Ok(what);
        }
        Ok(if device.is_cpu() { "the processor" } else { "ready" }.into())
    }

    /// Why `auto` falls back to the CPU in a GPU build; `None` where it finds a GPU, or the build supports none.
    pub fn fallback(self) -> Option<DeviceError> {
        let gpu = match self {
            Self::Auto if cfg!(feature = "cuda") => Self::Cuda(0),
            Self::Auto if cfg!(feature = "metal") => Self::Metal,
            _ => return None,
        };
        gpu.open().err()
    }
}

/// Starts a device. Panics of driver bindings become errors.
fn start_catching_panics(open: &dyn Fn() -> Result<Device, String>) -> Result<Device, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(text.unwrap_or("the driver's bindings panicked").to_owned())
    })
}

/// Name of a running device: `cpu`, `cuda:0`, `metal`.
pub fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { .. } => "metal".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_error_lists_known_names() {
        assert_eq!("cuda:2".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(2));
        assert_eq!("CPU".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        let error = "tpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("tpu") && error.contains("cuda:N"), "{error}");
    }

    #[test]
    fn auto_always_finds_device() {
        assert!(DeviceChoice::Auto.open().is_ok());
    }

    #[test]
    fn panic_of_driver_is_start_error() {
        let reason =
            start_catching_panics(&|| panic!("Unable to dynamically load {}", "libcuda")).unwrap_err();
        assert_eq!(reason, "Unable to dynamically load libcuda");
        assert!(start_catching_panics(&|| Ok(Device::Cpu)).is_ok());
    }
}
