//! Factory presets in the host's preset browser: their list, and loading one.

use std::ffi::{CStr, CString, c_char, c_void};

use clap_sys::ext::params::{CLAP_EXT_PARAMS, CLAP_PARAM_RESCAN_VALUES, clap_host_params};
use clap_sys::ext::preset_load::{
    CLAP_EXT_PRESET_LOAD, CLAP_EXT_PRESET_LOAD_COMPAT, clap_host_preset_load, clap_plugin_preset_load,
};
use clap_sys::factory::preset_discovery::{
    CLAP_PRESET_DISCOVERY_IS_FACTORY_CONTENT, CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN,
    clap_preset_discovery_factory, clap_preset_discovery_indexer, clap_preset_discovery_location,
    clap_preset_discovery_location_kind, clap_preset_discovery_metadata_receiver,
    clap_preset_discovery_provider, clap_preset_discovery_provider_descriptor,
};
use clap_sys::universal_plugin_id::clap_universal_plugin_id;
use clap_sys::version::CLAP_VERSION;
use nice_plug::wrapper::clap::clap_plugin;

use super::PluginShim;
use crate::plugin::presets::{DEFAULTS, FACTORY as PRESETS, Preset};

const PROVIDER_ID: &CStr = c"org.nullsum.presets";
/// The classes that the presets are for.
const PLUGIN_IDS: [&CStr; 2] = [c"org.nullsum.nullsum", c"org.nullsum.nullsum-multi"];

static DESCRIPTOR: clap_preset_discovery_provider_descriptor = clap_preset_discovery_provider_descriptor {
    clap_version: CLAP_VERSION,
    id: PROVIDER_ID.as_ptr(),
    name: c"Nullsum factory presets".as_ptr(),
    vendor: c"Nullsum".as_ptr(),
};

pub(super) static FACTORY: clap_preset_discovery_factory = clap_preset_discovery_factory {
    count: Some(provider_count),
    get_descriptor: Some(provider_descriptor),
    create: Some(create_provider),
};

pub(super) static PRESET_LOAD: clap_plugin_preset_load =
    clap_plugin_preset_load { from_location: Some(load_from_location) };

unsafe extern "C" fn provider_count(_factory: *const clap_preset_discovery_factory) -> u32 {
    1
}

unsafe extern "C" fn provider_descriptor(
    _factory: *const clap_preset_discovery_factory,
    index: u32,
) -> *const clap_preset_discovery_provider_descriptor {
    if index == 0 { &raw const DESCRIPTOR } else { std::ptr::null() }
}

unsafe extern "C" fn create_provider(
    _factory: *const clap_preset_discovery_factory,
    indexer: *const clap_preset_discovery_indexer,
    id: *const c_char,
) -> *const clap_preset_discovery_provider {
    // SAFETY: not null, and a string by the format.
    if indexer.is_null() || id.is_null() || unsafe { CStr::from_ptr(id) } != PROVIDER_ID {
        return std::ptr::null();
    }
    Box::into_raw(Box::new(clap_preset_discovery_provider {
        desc: &raw const DESCRIPTOR,
        provider_data: indexer.cast_mut().cast::<c_void>(),
        init: Some(init_provider),
        destroy: Some(destroy_provider),
        get_metadata: Some(describe_presets),
        get_extension: Some(no_extension),
    }))
}

unsafe extern "C" fn init_provider(provider: *const clap_preset_discovery_provider) -> bool {
    // SAFETY: the host passes a provider that `create_provider` returned; its indexer outlives it.
    unsafe {
        let Some(provider) = provider.as_ref() else { return false };
        let indexer = provider.provider_data.cast_const().cast::<clap_preset_discovery_indexer>();
        let location = clap_preset_discovery_location {
            flags: CLAP_PRESET_DISCOVERY_IS_FACTORY_CONTENT,
            name: c"Factory presets".as_ptr(),
            kind: CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN,
            location: std::ptr::null(),
        };
        let declare = indexer.as_ref().and_then(|indexer| indexer.declare_location);
        declare.is_some_and(|declare| declare(indexer, &raw const location))
    }
}

unsafe extern "C" fn destroy_provider(provider: *const clap_preset_discovery_provider) {
    if !provider.is_null() {
        // SAFETY: a provider that `create_provider` returned; the host does not use it again.
        drop(unsafe { Box::from_raw(provider.cast_mut()) });
    }
}

unsafe extern "C" fn no_extension(
    _provider: *const clap_preset_discovery_provider,
    _id: *const c_char,
) -> *const c_void {
    std::ptr::null()
}

unsafe extern "C" fn describe_presets(
    _provider: *const clap_preset_discovery_provider,
    kind: clap_preset_discovery_location_kind,
    _location: *const c_char,
    receiver: *const clap_preset_discovery_metadata_receiver,
) -> bool {
    // SAFETY: null or valid by the format.
    let Some(functions) = (unsafe { receiver.as_ref() }) else { return false };
    if kind != CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN {
        return false;
    }
    for preset in PRESETS.iter().chain([&DEFAULTS]) {
        // SAFETY: the host's functions, with strings that live during the calls.
        if !unsafe { describe_preset(preset, receiver, functions) } {
            return false;
        }
    }
    true
}

/// # Safety
/// `receiver` is valid, and `functions` are its own.
unsafe fn describe_preset(
    preset: &Preset,
    receiver: *const clap_preset_discovery_metadata_receiver,
    functions: &clap_preset_discovery_metadata_receiver,
) -> bool {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    let (name, key, description) = (text(preset.name), text(preset.key), text(preset.description));
    // SAFETY: valid by this function's contract; the strings live until the end.
    unsafe {
        let Some(begin) = functions.begin_preset else { return false };
        if !begin(receiver, name.as_ptr(), key.as_ptr()) {
            return false;
        }
        for id in PLUGIN_IDS {
            let id = clap_universal_plugin_id { abi: c"clap".as_ptr(), id: id.as_ptr() };
            if let Some(add) = functions.add_plugin_id {
                add(receiver, &raw const id);
            }
        }
        if let Some(set_flags) = functions.set_flags {
            set_flags(receiver, CLAP_PRESET_DISCOVERY_IS_FACTORY_CONTENT);
        }
        if let Some(add_creator) = functions.add_creator {
            add_creator(receiver, c"Nullsum".as_ptr());
        }
        if let Some(set_description) = functions.set_description {
            set_description(receiver, description.as_ptr());
        }
        true
    }
}

unsafe extern "C" fn load_from_location(
    plugin: *const clap_plugin,
    kind: clap_preset_discovery_location_kind,
    location: *const c_char,
    key: *const c_char,
) -> bool {
    // SAFETY: the host passes a pointer that `create` returned, strings that are null or valid, and calls from the main thread.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return false };
        let host_load = shim
            .host_extension::<clap_host_preset_load>(CLAP_EXT_PRESET_LOAD)
            .or_else(|| shim.host_extension::<clap_host_preset_load>(CLAP_EXT_PRESET_LOAD_COMPAT));
        let wanted = if kind == CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN && !key.is_null() {
            CStr::from_ptr(key).to_str().ok().and_then(Preset::find)
        } else {
            None
        };
        let Some(preset) = wanted else {
            if let Some(on_error) = host_load.and_then(|host| host.on_error) {
                let message = c"Nullsum has no factory preset of this name";
                on_error(shim.host, kind, location, key, 0, message.as_ptr());
            }
            return false;
        };
        shim.shared.apply_preset(preset);
        let rescan = shim.host_extension::<clap_host_params>(CLAP_EXT_PARAMS).and_then(|host| host.rescan);
        if let Some(rescan) = rescan {
            rescan(shim.host, CLAP_PARAM_RESCAN_VALUES);
        }
        shim.mark_dirty();
        if let Some(loaded) = host_load.and_then(|host| host.loaded) {
            loaded(shim.host, kind, location, key);
        }
        true
    }
}
