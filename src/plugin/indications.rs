//! What a host tells about parameters, for the editor to show: hardware controllers that are mapped to them, and automation.

use std::collections::HashMap;

use nice_plug::prelude::ParamPtr;
use parking_lot::Mutex;

/// Automation of a parameter in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutomationState {
    /// Automation exists, and does not play now.
    Present,
    Playing,
    Recording,
    /// Automation exists, and the user holds the parameter.
    Overridden,
}

/// Red, green and blue of a colour that the host chose.
pub type HostColor = [u8; 3];

/// What the host tells about one parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamIndication {
    /// The controller that is mapped to it: its name, which may be empty, and a colour.
    pub mapping: Option<(String, Option<HostColor>)>,
    pub automation: Option<(AutomationState, Option<HostColor>)>,
}

impl ParamIndication {
    /// Describes it, as in `Mapped to Knob 1. Automation is playing.`
    pub fn text(&self) -> String {
        let mapping = self.mapping.as_ref().map(|(name, _)| match name.as_str() {
            "" => "Mapped to a controller.".to_owned(),
            name => format!("Mapped to {name}."),
        });
        let automation = self.automation.map(|(state, _)| match state {
            AutomationState::Present => "Automated.",
            AutomationState::Playing => "Automation is playing.",
            AutomationState::Recording => "Automation is recording.",
            AutomationState::Overridden => "Automation is overridden.",
        });
        [mapping, automation.map(str::to_owned)].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// The indications of an instance. Written on the host's main thread, read by the editor.
#[derive(Debug, Default)]
pub struct ParamIndications(Mutex<HashMap<ParamPtr, ParamIndication>>);

impl ParamIndications {
    pub fn get(&self, param: ParamPtr) -> Option<ParamIndication> {
        self.0.lock().get(&param).cloned()
    }

    pub fn update(&self, param: ParamPtr, change: impl FnOnce(&mut ParamIndication)) {
        let mut indications = self.0.lock();
        let indication = indications.entry(param).or_default();
        change(indication);
        if *indication == ParamIndication::default() {
            indications.remove(&param);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::params::NullsumParams;
    use nice_plug::prelude::Param;

    #[test]
    fn an_indication_is_described_until_the_host_takes_it_back() {
        let params = NullsumParams::new();
        let (indications, output) = (ParamIndications::default(), params.output.as_ptr());
        indications.update(output, |indication| indication.mapping = Some(("Knob 1".into(), None)));
        indications.update(output, |indication| {
            indication.automation = Some((AutomationState::Playing, Some([1, 2, 3])));
        });
        assert_eq!(indications.get(output).unwrap().text(), "Mapped to Knob 1. Automation is playing.");
        assert_eq!(indications.get(params.mix.as_ptr()), None);
        indications.update(output, |indication| *indication = ParamIndication::default());
        assert_eq!(indications.get(output), None);
    }
}
