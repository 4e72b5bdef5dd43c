//! The VST3 classes: the framework's wrapper with a few things mended.
//!
//! - Buses that a host leaves out get memory of their own ([`room`]).
//! - A value that is set on the controller while audio runs is what the controller says from then on ([`shown`]).
//! - Parameters and states are set without the wrapper, which would tell the editor of them from another thread ([`values`]).
//! - The wrapper hands on the process mode of the setup before. Told twice, it hands on the right one.
//! - A host that processes on its main thread hears of a new latency after the block, not in it ([`handler`]).
//! - On Linux, hosts hear of a new latency from the instance's own thread, which ends with it ([`tells_latency`]).
//! - The editor's view gives back what the wrapper's keeps, and remembers a scale that comes before its window ([`view`]).
//! - The tail is the latency from the first activation on, not from the first block on.
//! - What a host must not do, and some do all the same, is refused and not a crash: an index past the end, a block before any setup, 64-bit
//!   samples.
//!
//! Everything else is passed on as it is. The entry points are here too, since the framework's exports know its own wrapper only.

mod frame;
mod handler;
mod room;
mod shown;
mod values;
mod view;
mod whole;

use std::ffi::c_void;

use Steinberg::*;
use nice_plug::prelude::{PluginApi, Vst3Plugin};
use nice_plug::wrapper::vst3::PluginInfo;
use nice_plug::wrapper::vst3::vst3::{Class, ComWrapper, Steinberg};

use whole::Whole;

/// The edition of the format whose interfaces these are.
const EDITION: &str = "VST 3.8.0";

/// Whether a new latency is told to hosts here, and not by the wrapper. On Linux that would hand it to a thread which all instances share: it
/// ends when an instance has gone that it has something to tell of, and the last one to go then takes the host with it.
pub(super) fn tells_latency(api: PluginApi) -> bool {
    api == PluginApi::Vst3 && cfg!(all(target_family = "unix", not(target_os = "macos")))
}

/// Makes instances of a class.
type Make = unsafe fn(iid: FIDString, object: *mut *mut c_void) -> tresult;

/// What the library exports: its classes in order.
pub struct Factory(pub Vec<(PluginInfo, Make)>);

impl Factory {
    /// The entry of one class.
    pub fn class<P: Vst3Plugin>() -> (PluginInfo, Make) {
        (PluginInfo::for_plugin::<P>(), make::<P>)
    }

    fn info(&self, index: i32) -> Option<&PluginInfo> {
        self.0.get(usize::try_from(index).ok()?).map(|(info, _)| info)
    }
}

unsafe fn make<P: Vst3Plugin>(iid: FIDString, object: *mut *mut c_void) -> tresult {
    let instance = ComWrapper::new(Whole::<P>::new());
    let Some(unknown) = instance.as_com_ref::<FUnknown>() else { return kNoInterface };
    let pointer = unknown.as_ptr();
    // SAFETY: a live object; the query adds the reference that keeps it.
    unsafe { ((*(*pointer).vtbl).queryInterface)(pointer, iid.cast(), object) }
}

impl Class for Factory {
    type Interfaces = (IPluginFactory, IPluginFactory2, IPluginFactory3);
}

/// Writes what `make` tells of a class where the host wants it.
///
/// # Safety
/// `to` is null or valid for writes.
unsafe fn tell<T>(info: Option<&PluginInfo>, to: *mut T, make: impl Fn(&PluginInfo) -> T) -> tresult {
    match info {
        Some(info) if !to.is_null() => {
            // SAFETY: by the contract above.
            unsafe { to.write(make(info)) };
            kResultOk
        }
        _ => kInvalidArgument,
    }
}

#[allow(non_snake_case)]
impl IPluginFactoryTrait for Factory {
    unsafe fn getFactoryInfo(&self, to: *mut PFactoryInfo) -> tresult {
        unsafe { tell(self.info(0), to, PluginInfo::create_factory_info) }
    }

    unsafe fn countClasses(&self) -> int32 {
        self.0.len() as int32
    }

    unsafe fn getClassInfo(&self, index: int32, to: *mut PClassInfo) -> tresult {
        unsafe { tell(self.info(index), to, PluginInfo::create_class_info) }
    }

    unsafe fn createInstance(&self, class: FIDString, iid: FIDString, object: *mut *mut c_void) -> tresult {
        if class.is_null() || object.is_null() {
            return kInvalidArgument;
        }
        // SAFETY: a class id is 16 bytes.
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
            let edition = EDITION.bytes().chain(std::iter::repeat(0));
            told.sdkVersion.iter_mut().zip(edition).for_each(|(to, byte)| *to = byte as _);
            told
        };
        unsafe { tell(self.info(index), to, make) }
    }
}

#[allow(non_snake_case)]
impl IPluginFactory3Trait for Factory {
    unsafe fn getClassInfoUnicode(&self, index: int32, to: *mut PClassInfoW) -> tresult {
        let make = |info: &PluginInfo| {
            let mut told = info.create_class_info_unicode();
            let edition = EDITION.encode_utf16().chain(std::iter::repeat(0));
            told.sdkVersion.iter_mut().zip(edition).for_each(|(to, unit)| *to = unit);
            told
        };
        unsafe { tell(self.info(index), to, make) }
    }

    unsafe fn setHostContext(&self, _context: *mut FUnknown) -> tresult {
        kResultOk
    }
}

/// What a host asks the library for first.
#[unsafe(no_mangle)]
pub extern "system" fn GetPluginFactory() -> *mut c_void {
    let factory = Factory(vec![Factory::class::<super::Stereo>(), Factory::class::<super::Multi>()]);
    ComWrapper::new(factory)
        .to_com_ptr::<IPluginFactory>()
        .map_or(std::ptr::null_mut(), |p| p.into_raw().cast())
}

/// Sets up what the process needs once.
fn enter() -> bool {
    nice_plug::wrapper::setup_logger::<super::Stereo>();
    true
}

/// Linux: the library is loaded.
#[unsafe(no_mangle)]
#[cfg(all(target_family = "unix", not(target_os = "macos")))]
pub extern "C" fn ModuleEntry(_library: *mut c_void) -> bool {
    enter()
}

/// Linux: the library will be unloaded.
#[unsafe(no_mangle)]
#[cfg(all(target_family = "unix", not(target_os = "macos")))]
pub extern "C" fn ModuleExit() -> bool {
    true
}

/// macOS: the bundle is loaded.
#[unsafe(no_mangle)]
#[cfg(target_os = "macos")]
pub extern "C" fn bundleEntry(_bundle: *mut c_void) -> bool {
    enter()
}

/// macOS: the bundle will be unloaded.
#[unsafe(no_mangle)]
#[cfg(target_os = "macos")]
pub extern "C" fn bundleExit() -> bool {
    true
}

/// Windows: the library is loaded.
#[unsafe(no_mangle)]
#[cfg(target_os = "windows")]
pub extern "system" fn InitDll() -> bool {
    enter()
}

/// Windows: the library will be unloaded.
#[unsafe(no_mangle)]
#[cfg(target_os = "windows")]
pub extern "system" fn ExitDll() -> bool {
    true
}
