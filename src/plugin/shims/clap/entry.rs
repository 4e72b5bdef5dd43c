//! The entry point of the library for CLAP hosts, and its factories.

use std::ffi::{CStr, c_char, c_void};
use std::sync::LazyLock;

use clap_sys::factory::preset_discovery::{
    CLAP_PRESET_DISCOVERY_FACTORY_ID, CLAP_PRESET_DISCOVERY_FACTORY_ID_COMPAT,
};
use nice_plug::wrapper::clap::{
    CLAP_PLUGIN_FACTORY_ID, CLAP_VERSION, PluginDescriptor, clap_host, clap_plugin, clap_plugin_descriptor,
    clap_plugin_entry, clap_plugin_factory,
};
use nice_plug::wrapper::setup_logger;

use super::{PluginShim, preset_discovery};
use crate::plugin::{Multi, Stereo};

/// Creates an instance of a class.
type Constructor = unsafe fn(*const clap_host) -> *const clap_plugin;

/// The classes, in order.
static CLASSES: LazyLock<[(PluginDescriptor, Constructor); 2]> = LazyLock::new(|| {
    [
        (PluginDescriptor::for_plugin::<Stereo>(), PluginShim::create::<Stereo>),
        (PluginDescriptor::for_plugin::<Multi>(), PluginShim::create::<Multi>),
    ]
});

static FACTORY: clap_plugin_factory = clap_plugin_factory {
    get_plugin_count: Some(plugin_count),
    get_plugin_descriptor: Some(descriptor),
    create_plugin: Some(create),
};

unsafe extern "C" fn plugin_count(_factory: *const clap_plugin_factory) -> u32 {
    CLASSES.len() as u32
}

unsafe extern "C" fn descriptor(
    _factory: *const clap_plugin_factory,
    index: u32,
) -> *const clap_plugin_descriptor {
    CLASSES.get(index as usize).map_or(std::ptr::null(), |(class, _)| class.clap_plugin_descriptor())
}

unsafe extern "C" fn create(
    _factory: *const clap_plugin_factory,
    host: *const clap_host,
    id: *const c_char,
) -> *const clap_plugin {
    if host.is_null() || id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not null, and a string by the format.
    let id = unsafe { CStr::from_ptr(id) };
    match CLASSES.iter().find(|(class, _)| class.clap_id() == id) {
        // SAFETY: not null, and the host outlives the instance by the format.
        Some((_, make)) => unsafe { make(host) },
        None => std::ptr::null(),
    }
}

unsafe extern "C" fn init(_path: *const c_char) -> bool {
    setup_logger::<Stereo>();
    true
}

unsafe extern "C" fn deinit() {}

unsafe extern "C" fn get_factory(id: *const c_char) -> *const c_void {
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not null, and a string by the format.
    let id = unsafe { CStr::from_ptr(id) };
    if id == CLAP_PLUGIN_FACTORY_ID {
        (&raw const FACTORY).cast()
    } else if id == CLAP_PRESET_DISCOVERY_FACTORY_ID || id == CLAP_PRESET_DISCOVERY_FACTORY_ID_COMPAT {
        (&raw const preset_discovery::FACTORY).cast()
    } else {
        std::ptr::null()
    }
}

/// The symbol that a host looks up first.
#[unsafe(no_mangle)]
#[used]
#[allow(non_upper_case_globals, reason = "the format's name")]
pub static clap_entry: clap_plugin_entry = clap_plugin_entry {
    clap_version: CLAP_VERSION,
    init: Some(init),
    deinit: Some(deinit),
    get_factory: Some(get_factory),
};
