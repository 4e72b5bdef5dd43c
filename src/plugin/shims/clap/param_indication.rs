//! The extension `param-indication`, which nice-plug does not have: the editor shows which parameters are mapped or automated.

use std::ffi::{CStr, c_char};

use clap_sys::color::clap_color;
use clap_sys::ext::param_indication::{
    CLAP_PARAM_INDICATION_AUTOMATION_OVERRIDING, CLAP_PARAM_INDICATION_AUTOMATION_PLAYING,
    CLAP_PARAM_INDICATION_AUTOMATION_PRESENT, CLAP_PARAM_INDICATION_AUTOMATION_RECORDING,
    clap_plugin_param_indication,
};
use nice_plug::wrapper::clap::clap_plugin;

use super::PluginShim;
use crate::plugin::indications::{AutomationState, HostColor, ParamIndication};

pub(super) static PARAM_INDICATION: clap_plugin_param_indication =
    clap_plugin_param_indication { set_mapping: Some(set_mapping), set_automation: Some(set_automation) };

/// Longest name of a controller that is kept, in characters.
const MAX_NAME: usize = 60;

unsafe extern "C" fn set_mapping(
    plugin: *const clap_plugin,
    param_id: u32,
    has_mapping: bool,
    color: *const clap_color,
    label: *const c_char,
    description: *const c_char,
) {
    // SAFETY: the host passes pointers that are null or valid.
    let (name, color) =
        unsafe { (text(description).or_else(|| text(label)).unwrap_or_default(), rgb(color)) };
    // SAFETY: the host passes a pointer that `create` returned, on the main thread.
    unsafe {
        update(plugin, param_id, |indication| indication.mapping = has_mapping.then_some((name, color)));
    }
}

unsafe extern "C" fn set_automation(
    plugin: *const clap_plugin,
    param_id: u32,
    state: u32,
    color: *const clap_color,
) {
    let state = match state {
        CLAP_PARAM_INDICATION_AUTOMATION_PRESENT => Some(AutomationState::Present),
        CLAP_PARAM_INDICATION_AUTOMATION_PLAYING => Some(AutomationState::Playing),
        CLAP_PARAM_INDICATION_AUTOMATION_RECORDING => Some(AutomationState::Recording),
        CLAP_PARAM_INDICATION_AUTOMATION_OVERRIDING => Some(AutomationState::Overridden),
        _ => None,
    };
    // SAFETY: the host passes a pointer that `create` returned, on the main thread, and a colour that is null or valid.
    unsafe {
        let color = rgb(color);
        update(plugin, param_id, |indication| indication.automation = state.map(|state| (state, color)));
    }
}

/// # Safety
/// The host passes a pointer that `create` returned, on the main thread.
unsafe fn update(plugin: *const clap_plugin, param_id: u32, change: impl FnOnce(&mut ParamIndication)) {
    // SAFETY: by this function's contract.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return };
        if let Some(param) = shim.param_ids(plugin).param(param_id) {
            shim.shared.params.indications.update(param, change);
            shim.shared.repaint.request_repaint();
        }
    }
}

/// # Safety
/// `text` is null or a string.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: a string by this function's contract.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    Some(text.trim().chars().take(MAX_NAME).collect::<String>()).filter(|text| !text.is_empty())
}

/// # Safety
/// `color` is null or valid.
unsafe fn rgb(color: *const clap_color) -> Option<HostColor> {
    // SAFETY: null or valid by this function's contract.
    unsafe { color.as_ref() }.map(|color| [color.red, color.green, color.blue])
}
