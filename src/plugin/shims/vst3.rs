//! The VST3 classes: nice-plug's wrapper behind a shim that corrects its behaviour.
//!
//! - Buses that a host leaves out get buffers of our own ([`bus_buffers`](super::bus_buffers)).
//! - A block is processed in parts where parameters change, so that automation is exact to the sample ([`block_events`]).
//! - A value set on the controller while audio runs is what the controller reports from then on ([`controller_values`]).
//! - Parameters and states are set without the wrapper, which would notify the editor from another thread ([`param_table`]).
//! - The wrapper applies the process mode of the previous setup. We call it twice, so that it applies the right one.
//! - If a host processes on its main thread, it is told of a new latency after the block instead of during it ([`component_handler`]).
//! - On Linux, the instance's control thread tells the host of a new latency ([`notifies_latency_itself`]).
//! - The editor's view releases what the wrapper's view keeps, and remembers a scale set before the window exists ([`plug_view`]).
//! - The tail equals the latency from the first activation instead of from the first block.
//! - Calls that the format forbids return an error instead of crashing: an index out of range, a block before setup, 64-bit samples.
//!
//! All other calls pass through unchanged. The entry points are here too, because nice-plug's own export only its wrapper.

mod block_buses;
mod block_events;
mod component;
mod component_handler;
mod controller_values;
mod param_table;
mod plug_frame;
mod plug_view;

use std::ffi::c_void;

use Steinberg::*;
use nice_plug::prelude::{PluginApi, Vst3Plugin};
use nice_plug::wrapper::vst3::PluginInfo;
use nice_plug::wrapper::vst3::vst3::{Class, ComWrapper, Steinberg};

use component::Component;

/// SDK version whose interfaces we implement.
const SDK_VERSION: &str = "VST 3.8.0";

/// Whether we tell hosts of a new latency ourselves, instead of the wrapper. On Linux the wrapper would use a thread shared by all instances. That
/// thread ends when an instance with pending work is destroyed, and the last instance then crashes the host.
pub(in crate::plugin) fn notifies_latency_itself(api: PluginApi) -> bool {
    api == PluginApi::Vst3 && cfg!(all(target_family = "unix", not(target_os = "macos")))
}

/// Loads a state as a host does.
#[cfg(test)]
pub(in crate::plugin) fn load_state_for_tests(
    shared: &std::sync::Arc<crate::plugin::instance_shared::InstanceShared>,
    state: &nice_plug::plugin::PluginState,
) {
    param_table::ParamTable::new(shared.clone(), &[]).apply(state);
}

/// Creates an instance of a class.
type Constructor = unsafe fn(iid: FIDString, object: *mut *mut c_void) -> tresult;

/// The plugin factory, with its classes in order.
pub struct Factory(pub Vec<(PluginInfo, Constructor)>);

impl Factory {
    /// The entry of one class.
    pub fn class<P: Vst3Plugin>() -> (PluginInfo, Constructor) {
        (PluginInfo::for_plugin::<P>(), make::<P>)
    }

    fn info(&self, index: i32) -> Option<&PluginInfo> {
        self.0.get(usize::try_from(index).ok()?).map(|(info, _)| info)
    }
}

unsafe fn make<P: Vst3Plugin>(iid: FIDString, object: *mut *mut c_void) -> tresult {
    let instance = ComWrapper::new(Component::<P>::new());
    let Some(unknown) = instance.as_com_ref::<FUnknown>() else { return kNoInterface };
    let pointer = unknown.as_ptr();
    // SAFETY: a live object; the query adds the reference that keeps it alive.
    unsafe { ((*(*pointer).vtbl).queryInterface)(pointer, iid.cast(), object) }
}

impl Class for Factory {
    type Interfaces = (IPluginFactory, IPluginFactory2, IPluginFactory3);
}

/// Writes a class description to the host's memory.
///
/// # Safety
/// `to` is null or valid for writes.
unsafe fn write_info<T>(info: Option<&PluginInfo>, to: *mut T, make: impl Fn(&PluginInfo) -> T) -> tresult {
    match info {
        Some(info) if !to.is_null() => {
            // SAFETY: not null, and valid for writes by this function's contract.
            unsafe { to.write(make(info)) };
            kResultOk
        }
        _ => kInvalidArgument,
    }
}

#[allow(non_snake_case)]
impl IPluginFactoryTrait for Factory {
    unsafe fn getFactoryInfo(&self, to: *mut PFactoryInfo) -> tresult {
        unsafe { write_info(self.info(0), to, PluginInfo::create_factory_info) }
    }

    unsafe fn countClasses(&self) -> int32 {
        self.0.len() as int32
    }

    unsafe fn getClassInfo(&self, index: int32, to: *mut PClassInfo) -> tresult {
        unsafe { write_info(self.info(index), to, PluginInfo::create_class_info) }
    }

    unsafe fn createInstance(&self, class: FIDString, iid: FIDString, object: *mut *mut c_void) -> tresult {
        if class.is_null() || object.is_null() {
            return kInvalidArgument;
        }
        // SAFETY: not null, and a class id has 16 bytes.
        let class = unsafe { &*class.cast::<[u8; 16]>() };
        match self.0.iter().find(|(info, _)| info.cid == class) {
            Some((_, make)) => unsafe { make(iid, object) },
            None => kInvalidArgument,
        }
    }
}

#[allow(non_snake_case)]
impl IPluginFactory2Trait for Factory {
    unsafe fn getClassInfo2(&self, index: int32, to: *mut PClassInfo2) -> tresult {
        let make = |info: &PluginInfo| {
            let mut told = info.create_class_info_2();
            let edition = SDK_VERSION.bytes().chain(std::iter::repeat(0));
            told.sdkVersion.iter_mut().zip(edition).for_each(|(to, byte)| *to = byte as _);
            told
        };
        unsafe { write_info(self.info(index), to, make) }
    }
}

#[allow(non_snake_case)]
impl IPluginFactory3Trait for Factory {
    unsafe fn getClassInfoUnicode(&self, index: int32, to: *mut PClassInfoW) -> tresult {
        let make = |info: &PluginInfo| {
            let mut told = info.create_class_info_unicode();
            let edition = SDK_VERSION.encode_utf16().chain(std::iter::repeat(0));
            told.sdkVersion.iter_mut().zip(edition).for_each(|(to, unit)| *to = unit);
            told
        };
        unsafe { write_info(self.info(index), to, make) }
    }

    unsafe fn setHostContext(&self, _context: *mut FUnknown) -> tresult {
        kResultOk
    }
}

/// The first function that a host calls.
#[unsafe(no_mangle)]
pub extern "system" fn GetPluginFactory() -> *mut c_void {
    let factory =
        Factory(vec![Factory::class::<crate::plugin::Stereo>(), Factory::class::<crate::plugin::Multi>()]);
    ComWrapper::new(factory)
        .to_com_ptr::<IPluginFactory>()
        .map_or(std::ptr::null_mut(), |p| p.into_raw().cast())
}

/// One-time initialisation of the process.
fn initialise_process() -> bool {
    nice_plug::wrapper::setup_logger::<crate::plugin::Stereo>();
    true
}

/// Linux: called after loading the library.
#[unsafe(no_mangle)]
#[cfg(all(target_family = "unix", not(target_os = "macos")))]
pub extern "C" fn ModuleEntry(_library: *mut c_void) -> bool {
    initialise_process()
}

/// Linux: called before unloading the library.
#[unsafe(no_mangle)]
#[cfg(all(target_family = "unix", not(target_os = "macos")))]
pub extern "C" fn ModuleExit() -> bool {
    true
}

/// macOS: called after loading the bundle.
#[unsafe(no_mangle)]
#[cfg(target_os = "macos")]
pub extern "C" fn bundleEntry(_bundle: *mut c_void) -> bool {
    initialise_process()
}

/// macOS: called before unloading the bundle.
#[unsafe(no_mangle)]
#[cfg(target_os = "macos")]
pub extern "C" fn bundleExit() -> bool {
    true
}

/// Windows: called after loading the library.
#[unsafe(no_mangle)]
#[cfg(target_os = "windows")]
pub extern "system" fn InitDll() -> bool {
    initialise_process()
}

/// Windows: called before unloading the library.
#[unsafe(no_mangle)]
#[cfg(target_os = "windows")]
pub extern "system" fn ExitDll() -> bool {
    true
}
