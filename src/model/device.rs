//! Where a network runs.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Device;

#[cfg(feature = "cuda")]
pub(super) use cuda::memory;

/// Bytes of memory of a device that says; none for others.
#[cfg(not(feature = "cuda"))]
pub(super) fn memory(_: &Device) -> Option<usize> {
    None
}

/// A device as the user names it: `auto`, `cpu`, `cuda`, `cuda:1`, `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best one that works: CUDA, then Metal, then the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
    /// The Metal device.
    Metal,
}

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name means nothing.
    #[error("unknown device `{0}`: expected auto, cpu, cuda, cuda:N or metal")]
    Unknown(String),
    /// The program was built without it.
    #[error("this build has no {0} support (feature `{0}`); take one that has, or the CPU")]
    NotBuilt(&'static str),
    /// The device does not start.
    #[error("{name} does not start: {reason}; check its driver, or take the CPU")]
    Start {
        /// The device as the user named it.
        name: String,
        /// What the driver or the loader said.
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
    /// [`DeviceError`] where the build has no support for it or it does not start. `auto` always ends at the CPU.
    pub fn open(self) -> Result<Device, DeviceError> {
        let start = |open: &dyn Fn() -> Result<Device, String>| {
            started(open).map_err(|reason| DeviceError::Start { name: self.to_string(), reason })
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(n) => start(&|| cuda::open(n)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(DeviceError::NotBuilt("cuda")),
            Self::Metal if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt("metal")),
            Self::Metal => start(&|| Device::new_metal(0).map_err(|error| error.to_string())),
            Self::Auto => Ok(Self::Cuda(0).open().or_else(|_| Self::Metal.open()).unwrap_or(Device::Cpu)),
        }
    }

    /// Starts the device and says what it is, for people.
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

    /// Why `auto` ends at the CPU in a build for GPUs; none where it finds one, or where the build has none.
    pub fn fallback(self) -> Option<DeviceError> {
        let gpu = match self {
            Self::Auto if cfg!(feature = "cuda") => Self::Cuda(0),
            Self::Auto if cfg!(feature = "metal") => Self::Metal,
            _ => return None,
        };
        gpu.open().err()
    }
}

/// A device, or why there is none, panics of driver bindings included.
fn started(open: &dyn Fn() -> Result<Device, String>) -> Result<Device, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(text.unwrap_or("the driver's bindings panicked").to_owned())
    })
}

/// Name of a device that runs: `cpu`, `cuda:0`, `metal`.
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
    fn names_parse_and_unknown_ones_say_what_is_known() {
        assert_eq!("cuda:2".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(2));
        assert_eq!("CPU".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        let error = "tpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("tpu") && error.contains("cuda:N"), "{error}");
    }

    #[test]
    fn auto_always_finds_a_device() {
        assert!(DeviceChoice::Auto.open().is_ok());
    }

    #[test]
    fn a_driver_that_panics_is_a_device_that_does_not_start() {
        let reason = started(&|| panic!("Unable to dynamically load {}", "libcuda")).unwrap_err();
        assert_eq!(reason, "Unable to dynamically load libcuda");
        assert!(started(&|| Ok(Device::Cpu)).is_ok());
    }
}
