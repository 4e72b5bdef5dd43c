//! The models of a worker: real ones, on its device.

use std::sync::Arc;

use super::protocol::LoadRequest;
use super::server::{ModelFailure, ModelSource};
use crate::embedded;
use crate::live::{SharedModel, WindowSeparator, load_shared};
use crate::model::checkpoint::Checkpoint;
use crate::model::device::DeviceChoice;
use crate::model::inspect::Inspection;
use crate::registry;
use crate::separator::{LoadError, Runtime, Separator};

/// Most threads that a client may ask for.
const MAX_THREADS: usize = 256;

/// Loads models on one device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceModels {
    device: DeviceChoice,
}

impl DeviceModels {
    pub fn new(device: DeviceChoice) -> Self {
        Self { device }
    }

    /// Whether an error is the device's fault. On the processor it is always the checkpoint's.
    fn is_of_device(&self, error: &LoadError) -> bool {
        match error {
            LoadError::Device(_) => true,
            LoadError::Network(_) => self.device != DeviceChoice::Cpu,
            _ => false,
        }
    }
}

impl ModelSource for DeviceModels {
    fn load(&self, request: &LoadRequest) -> Result<SharedModel, ModelFailure> {
        let invalid = |reason: String| ModelFailure::Invalid { reason, report: None };
        let no_path = || invalid("the path is not one of this system".into());
        let path = request.checkpoint.as_ref().map(|path| path.to_path().ok_or_else(no_path)).transpose()?;
        let named = request.config.as_ref().map(|path| path.to_path().ok_or_else(no_path)).transpose()?;
        let checkpoint = match &path {
            Some(path) => Checkpoint::open(path).map_err(|error| invalid(error.to_string()))?,
            None => {
                embedded::checkpoint().ok_or_else(|| invalid("the worker has no built-in model".into()))?
            }
        };
        let config = registry::load_config(
            &checkpoint,
            path.as_deref(),
            named.as_deref(),
            &mut registry::cached_config,
        )
        .map_err(|error| invalid(error.to_string()))?;
        let threads = request.threads.clamp(1, MAX_THREADS);
        // The path belongs to the key: the client's word for what is in the file is not enough to give another client the same weights.
        let key = format!("{path:?} {} {threads} threads {}", request.sha256, config.text());
        let runtime = Runtime { device: self.device, threads, auto_may_use_int8: true, ..Runtime::default() };
        load_shared(&key, || {
            let separator = Separator::load(&checkpoint, &config, None, runtime)?;
            Ok(Box::new(separator) as Box<dyn WindowSeparator>)
        })
        .map_err(|error: LoadError| {
            if self.is_of_device(&error) {
                return ModelFailure::Device(error.to_string());
            }
            let report = Some(Inspection::new(&checkpoint, &config, None).to_string());
            ModelFailure::Invalid { reason: error.to_string(), report }
        })
    }
}

impl<M: ModelSource> ModelSource for Arc<M> {
    fn load(&self, request: &LoadRequest) -> Result<SharedModel, ModelFailure> {
        (**self).load(request)
    }
}
