//! The device of the model: another one that was chosen, and the processor when a worker is given up.

use std::sync::Once;

use super::super::device::DeviceSetting;
use super::super::instances;
use super::Control;
use super::decide::ModelState;
use crate::worker::{self, RemoteState};

/// What the control thread knows of the instance's device.
#[derive(Debug, Default)]
pub(super) struct DeviceWatch {
    /// The device that was last asked for.
    wanted: Option<DeviceSetting>,
    /// Why its worker was given up. The model then runs on the processor until another device is chosen, or the user tries again.
    given_up: Option<String>,
}

impl DeviceWatch {
    /// Has all control threads look when the state of a worker changes.
    pub fn observe_workers() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| worker::set_observer(instances::notify_all));
    }

    /// Tries the device again that was given up.
    pub fn retry(&mut self) {
        self.given_up = None;
    }

    /// Updates the device that is asked for, and returns the one to use.
    pub fn device(&mut self, wanted: DeviceSetting) -> DeviceSetting {
        if self.wanted.as_ref() != Some(&wanted) {
            self.given_up = None;
        }
        self.wanted = Some(wanted.clone());
        if self.given_up.is_some() { DeviceSetting::Cpu } else { wanted }
    }
}

impl Control {
    /// Loads the model again if another device was chosen, or if its worker was given up. The latency stays until the transport stops.
    pub(super) fn reload_for_device(&mut self) {
        let state = self.shared.stream_state.lock();
        let Some(active) = &state.model else { return };
        let loaded = &active.loaded;
        if let Some(RemoteState::GivenUp(reason)) =
            loaded.supervisor.as_ref().map(|supervisor| supervisor.state())
            && loaded.device == self.device.device(self.shared.params.device.get())
        {
            self.device.given_up = Some(reason);
        }
        let device = self.device.device(self.shared.params.device.get());
        // Even in a render, which waits for the device that was restored with the state.
        if loaded.device != device && matches!(self.model, ModelState::Loaded { .. }) {
            self.request.reload = true;
            self.shared.clear_ready();
        }
    }

    /// What the editor says of the device; none if all is as it was asked for.
    pub(super) fn device_note(&self) -> Option<String> {
        let wanted = self.device.wanted.as_ref()?;
        if let Some(reason) = &self.device.given_up {
            return Some(format!("{wanted} was given up, so the model runs on the processor: {reason}"));
        }
        let state = self.shared.stream_state.lock();
        let loaded = &state.model.as_ref()?.loaded;
        match loaded.supervisor.as_ref().map(|supervisor| supervisor.state()) {
            Some(RemoteState::Restarting(reason)) => {
                Some(format!("{wanted} is restarting; the input passes through meanwhile: {reason}"))
            }
            Some(RemoteState::GivenUp(reason)) => Some(format!("{wanted} was given up: {reason}")),
            Some(RemoteState::Running) | None => loaded.device_note.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_given_up_is_not_used_until_the_user_says_so() {
        let mut watch = DeviceWatch::default();
        assert_eq!(watch.device(DeviceSetting::Cuda(0)), DeviceSetting::Cuda(0));
        watch.given_up = Some("it ended".into());
        assert_eq!(watch.device(DeviceSetting::Cuda(0)), DeviceSetting::Cpu);
        assert_eq!(watch.device(DeviceSetting::Cuda(1)), DeviceSetting::Cuda(1), "another choice");
        watch.given_up = Some("it ended".into());
        watch.retry();
        assert_eq!(watch.device(DeviceSetting::Cuda(1)), DeviceSetting::Cuda(1), "tried again");
    }
}
