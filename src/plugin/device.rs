//! The device that an instance asks for, and loading its model there.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nice_plug::params::persist::PersistentField;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::wake_flag::WakeFlag;
use crate::live::{SharedModel, WindowSeparator, load_shared};
use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;
use crate::model::device::DeviceChoice;
use crate::separator::{LoadError, Runtime, Separator};
use crate::worker::{self, Supervisor, WorkerError};

/// A device as chosen in the editor and saved in a project.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DeviceSetting {
    /// A GPU that a worker can use, else the best that this process can use.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, in a worker process.
    Cuda(u32),
    /// Apple's GPU, in this process.
    Metal,
    /// The processor, in a worker process. For tests; the editor offers it only where a project names it.
    WorkerCpu,
    /// A device that this version cannot read, as it was saved.
    Unknown(Value),
}

/// The process that a device's models run in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// In this process.
    Local(DeviceChoice),
    /// In the worker of this name.
    Worker(String),
}

impl DeviceSetting {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "metal" => Self::Metal,
            "worker:cpu" => Self::WorkerCpu,
            other => Self::Cuda(other.strip_prefix("cuda:")?.parse().ok()?),
        })
    }

    /// How the names of kernels and devices of a model on this device begin ([`SharedModel::runs_on`]); none if it may be any.
    pub fn runs_on_prefix(&self) -> Option<String> {
        Some(match self {
            Self::Auto | Self::Unknown(_) => return None,
            Self::Cpu => "cpu,".into(),
            Self::Cuda(number) => format!("worker: cuda:{number},"),
            Self::Metal => "metal,".into(),
            Self::WorkerCpu => "worker: cpu,".into(),
        })
    }

    fn target(&self) -> Target {
        match self {
            Self::Auto => worker::devices(false)
                .into_iter()
                .find(|device| device.works && device.name != "cpu")
                .map_or(Target::Local(DeviceChoice::Auto), |device| Target::Worker(device.name)),
            Self::Cpu | Self::Unknown(_) => Target::Local(DeviceChoice::Cpu),
            Self::Cuda(number) => Target::Worker(format!("cuda:{number}")),
            Self::Metal => Target::Local(DeviceChoice::Metal),
            Self::WorkerCpu => Target::Worker("cpu".into()),
        }
    }

    /// The devices to choose from: those that are known without asking a program, and `current`.
    pub fn choices(current: &Self) -> Vec<(Self, String)> {
        let mut choices = vec![
            (Self::Auto, "A GPU if one is found, else the processor".to_owned()),
            (Self::Cpu, "The processor, inside this plugin".to_owned()),
        ];
        if cfg!(feature = "metal") {
            choices.push((Self::Metal, "Apple's GPU, inside this plugin".to_owned()));
        }
        let known = worker::known_devices().unwrap_or_default();
        for device in known.into_iter().filter(|device| device.works) {
            if let Some(choice @ Self::Cuda(_)) = Self::parse(&device.name) {
                choices.push((choice, format!("{}, in a process of its own", device.description)));
            }
        }
        if !choices.iter().any(|(choice, _)| choice == current) {
            choices
                .push((current.clone(), "Saved in this project; not found on this computer yet".to_owned()));
        }
        choices
    }
}

impl fmt::Display for DeviceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("Auto"),
            Self::Cpu => f.write_str("CPU"),
            Self::Cuda(number) => write!(f, "CUDA {number}"),
            Self::Metal => f.write_str("Metal"),
            Self::WorkerCpu => f.write_str("CPU, in a worker"),
            Self::Unknown(Value::String(name)) => write!(f, "{}", name.chars().take(40).collect::<String>()),
            Self::Unknown(_) => f.write_str("Unknown device"),
        }
    }
}

impl Serialize for DeviceSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Cpu => serializer.serialize_str("cpu"),
            Self::Cuda(number) => serializer.collect_str(&format_args!("cuda:{number}")),
            Self::Metal => serializer.serialize_str("metal"),
            Self::WorkerCpu => serializer.serialize_str("worker:cpu"),
            Self::Unknown(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let known = value.as_str().and_then(Self::parse);
        Ok(known.unwrap_or(Self::Unknown(value)))
    }
}

/// The device of one instance, shared by the host's state, the editor and the control thread.
#[derive(Debug, Default)]
pub struct SharedDevice {
    device: Mutex<DeviceSetting>,
    /// Incremented whenever another device is chosen.
    generation: AtomicU64,
    /// Set when a host restores a state.
    wake: WakeFlag,
}

impl SharedDevice {
    pub fn new(wake: WakeFlag) -> Self {
        Self { wake, ..Self::default() }
    }

    pub fn get(&self) -> DeviceSetting {
        self.device.lock().clone()
    }

    /// Locks the device, for tests.
    #[cfg(test)]
    pub(super) fn lock(&self) -> impl Sized {
        self.device.lock()
    }

    pub fn choose(&self, device: DeviceSetting) {
        let mut current = self.device.lock();
        if *current != device {
            *current = device;
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// How often a device was chosen.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl<'a> PersistentField<'a, DeviceSetting> for SharedDevice {
    fn set(&self, device: DeviceSetting) {
        self.choose(device);
        self.wake.set();
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&DeviceSetting) -> R,
    {
        f(&self.device.lock())
    }
}

/// A model on its device.
pub(super) struct PlacedModel {
    pub model: SharedModel,
    /// Watches over the worker that runs it; none in this process.
    pub supervisor: Option<Arc<Supervisor>>,
    /// Why it runs on another device than the one that was asked for.
    pub note: Option<String>,
}

/// Why a model could not be loaded on any device.
pub(super) enum PlaceError {
    Cancelled,
    Load(LoadError),
    /// The worker cannot use the checkpoint; its reason, and what the checkpoint contains.
    Invalid(String, Option<String>),
}

/// A checkpoint to load.
pub(super) struct ModelFiles<'a> {
    pub checkpoint: &'a Checkpoint,
    pub config: &'a Config,
    /// None for the built-in model.
    pub path: Option<&'a Path>,
    /// The configuration that was named.
    pub named_config: Option<&'a Path>,
    pub sha256: &'a str,
    pub threads: usize,
}

/// Loads a model on `device`, or on the processor if the device is not there. Blocks; not for the host's main thread.
pub(super) fn place(
    device: &DeviceSetting,
    files: &ModelFiles<'_>,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<PlacedModel, PlaceError> {
    let mut note = match device {
        DeviceSetting::Unknown(_) => {
            Some(format!("{device} is not a device that this version knows; the model runs on the processor"))
        }
        _ => None,
    };
    let mut choice = DeviceChoice::Cpu;
    match device.target() {
        Target::Local(local) => choice = local,
        Target::Worker(name) => {
            let remote = (files.path, files.named_config);
            match worker::load_shared_remote(&name, remote, files.sha256, files.threads, go_on) {
                Ok(loaded) => {
                    let supervisor = Some(loaded.supervisor);
                    return Ok(PlacedModel { model: loaded.model, supervisor, note });
                }
                Err(WorkerError::Cancelled) => return Err(PlaceError::Cancelled),
                Err(WorkerError::InvalidModel { reason, report }) => {
                    return Err(PlaceError::Invalid(reason, report));
                }
                Err(error) => note = Some(fallback_note(device, &error)),
            }
        }
    }
    match load_here(choice, files) {
        Ok(model) => Ok(PlacedModel { model, supervisor: None, note }),
        Err(LoadError::Device(error)) if choice != DeviceChoice::Cpu => {
            let note = Some(fallback_note(device, &error));
            load_here(DeviceChoice::Cpu, files)
                .map(|model| PlacedModel { model, supervisor: None, note })
                .map_err(PlaceError::Load)
        }
        Err(error) => Err(PlaceError::Load(error)),
    }
}

fn fallback_note(device: &DeviceSetting, error: &dyn fmt::Display) -> String {
    let note = format!("{device} cannot be used, so the model runs on the processor: {error}");
    log::warn!("{note}");
    note
}

fn load_here(device: DeviceChoice, files: &ModelFiles<'_>) -> Result<SharedModel, LoadError> {
    let ModelFiles { checkpoint, config, sha256, threads, .. } = files;
    let key = format!("{sha256} {device} {threads} threads {}", config.text());
    let runtime = Runtime { device, threads: *threads, auto_may_use_int8: true, ..Runtime::default() };
    load_shared(&key, || {
        Separator::load(checkpoint, config, None, runtime)
            .map(|separator| Box::new(separator) as Box<dyn WindowSeparator>)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_saved_by_name_and_unknown_ones_stay_as_they_were() {
        for (text, expected) in [
            (r#""auto""#, DeviceSetting::Auto),
            (r#""cpu""#, DeviceSetting::Cpu),
            (r#""cuda:3""#, DeviceSetting::Cuda(3)),
            (r#""metal""#, DeviceSetting::Metal),
            (r#""worker:cpu""#, DeviceSetting::WorkerCpu),
        ] {
            let device: DeviceSetting = serde_json::from_str(text).unwrap();
            assert_eq!(device, expected);
            assert_eq!(serde_json::to_string(&device).unwrap(), text);
        }
        for text in
            [r#""npu:0""#, r#""cuda:x""#, r#""cuda""#, r#"{"number":[1,2],"vendor":"x"}"#, "7", "null"]
        {
            let device: DeviceSetting = serde_json::from_str(text).unwrap();
            assert!(matches!(device, DeviceSetting::Unknown(_)), "{text}");
            assert_eq!(serde_json::to_string(&device).unwrap(), text);
        }
    }

    #[test]
    fn a_saved_device_that_is_missing_is_offered_and_kept() {
        let saved = DeviceSetting::Cuda(7);
        let choices = DeviceSetting::choices(&saved);
        assert!(choices.iter().any(|(choice, hint)| *choice == saved && hint.contains("not found")));
        assert_eq!(
            DeviceSetting::choices(&DeviceSetting::Auto)
                .iter()
                .filter(|(c, _)| *c == DeviceSetting::Auto)
                .count(),
            1
        );
        assert_eq!(saved.to_string(), "CUDA 7");
    }

    #[test]
    fn a_missing_device_falls_back_to_the_processor_and_says_so() {
        let checkpoint = crate::embedded::checkpoint().unwrap();
        let config = crate::registry::load_config(&checkpoint, None, None, &mut |_| None).unwrap();
        let files = ModelFiles {
            checkpoint: &checkpoint,
            config: &config,
            path: None,
            named_config: None,
            sha256: "device-test",
            threads: 1,
        };
        for device in [DeviceSetting::Cuda(7), DeviceSetting::Unknown("npu:0".into())] {
            let placed = place(&device, &files, &mut || ControlFlow::Continue(()));
            let Ok(placed) = placed else { panic!("not loaded on {device}") };
            assert!(placed.note.unwrap().contains(&device.to_string()));
            assert!(placed.model.runs_on().starts_with("cpu,") && placed.supervisor.is_none());
        }
        assert_eq!(DeviceSetting::Cuda(1).runs_on_prefix().unwrap(), "worker: cuda:1,");
    }
}
