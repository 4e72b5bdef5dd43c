//! Where a network runs.

use candle_core::Device;

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
    #[error("this build has no {0} support; build with `--features {0}`, or choose `--device cpu`")]
    NotBuilt(&'static str),
    /// The device does not start.
    #[error("{name} does not start: {source}; choose `--device cpu` to do without")]
    Start {
        /// The device as the user named it.
        name: String,
        /// What the driver said.
        source: candle_core::Error,
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
        let start = |device: candle_core::Result<Device>| {
            device.map_err(|source| DeviceError::Start { name: self.to_string(), source })
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt("cuda")),
            Self::Cuda(n) => start(Device::new_cuda(n)),
            Self::Metal if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt("metal")),
            Self::Metal => start(Device::new_metal(0)),
            Self::Auto => Ok(Self::Cuda(0).open().or_else(|_| Self::Metal.open()).unwrap_or(Device::Cpu)),
        }
    }
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
}
