//! The VST3 classes: the framework's wrapper with two things mended.
//!
//! - A host may leave buses of stems inactive, and then gives null pointers for them, or fewer buses than there are. The wrapper reads
//!   through those pointers, or leaves out the block. [`Whole`] stands before it and gives it room of its own for what is missing.
//! - The wrapper hands on the process mode of the setup before. Told twice, it hands on the right one.
//!
//! Everything else is passed on as it is. The entry points are here too, since the framework's exports know its own wrapper only.

use std::cell::UnsafeCell;
use std::ffi::c_void;

use Steinberg::Vst::{self, ChannelContext::*, *};
use Steinberg::*;
use nice_plug::prelude::Vst3Plugin;
use nice_plug::wrapper::vst3::vst3::{Class, ComWrapper, Steinberg};
use nice_plug::wrapper::vst3::{PluginInfo, Wrapper};

/// Output buses of the class with the most.
const BUSES: usize = 7;
/// Channels of a bus at most.
const CHANNELS: usize = 2;

/// Room for the buses that the host leaves out; written by the plugin, read by nobody.
struct Room {
    samples: Vec<Vec<f32>>,
    pointers: [[*mut f32; CHANNELS]; BUSES],
    buses: [AudioBusBuffers; BUSES],
}

/// A wrapper of the framework that always sees every output bus.
pub struct Whole<P: Vst3Plugin> {
    inner: Wrapper<P>,
    /// Set while the plugin is inactive (`setupProcessing`), used by `process`: the format keeps these apart.
    room: UnsafeCell<Room>,
}

impl<P: Vst3Plugin> Whole<P> {
    fn new() -> Self {
        // SAFETY: all-zero is a bus without channels.
        let buses = unsafe { std::mem::zeroed() };
        let room = Room { samples: Vec::new(), pointers: [[std::ptr::null_mut(); CHANNELS]; BUSES], buses };
        Self { inner: Wrapper::new(), room: UnsafeCell::new(room) }
    }

    /// The outputs with nothing missing; none when nothing is missing or nothing can be done.
    ///
    /// # Safety
    /// `data` is valid, and no other call is under way.
    unsafe fn filled(&self, data: &ProcessData) -> Option<*mut AudioBusBuffers> {
        // SAFETY: `getBusCount` only reads.
        let count =
            unsafe { self.inner.getBusCount(MediaTypes_::kAudio as i32, BusDirections_::kOutput as i32) };
        let (count, given) = (usize::try_from(count).ok()?, usize::try_from(data.numOutputs).ok()?);
        let samples = usize::try_from(data.numSamples).ok()?;
        if samples == 0 || given == 0 || data.outputs.is_null() || count > BUSES {
            return None;
        }
        // SAFETY: exclusive by the contract above.
        let room = unsafe { &mut *self.room.get() };
        let mut missing = false;
        for (bus, slot) in room.buses.iter_mut().enumerate().take(count) {
            if bus < given {
                // SAFETY: the host gives `numOutputs` buses.
                *slot = unsafe { *data.outputs.add(bus) };
                let channels = usize::try_from(slot.numChannels).unwrap_or(0);
                // SAFETY: a union of pointers; the class takes 32-bit floats alone.
                let pointers = unsafe { slot.__field0.channelBuffers32 };
                // SAFETY: an array of `numChannels` pointers.
                let whole = channels > 0
                    && !pointers.is_null()
                    && (0..channels).all(|channel| unsafe { !(*pointers.add(channel)).is_null() });
                if whole || bus == 0 {
                    continue;
                }
            }
            if room.samples.get(bus * CHANNELS).is_none_or(|own| own.len() < samples) {
                return None;
            }
            missing = true;
            slot.numChannels = CHANNELS as i32;
            slot.silenceFlags = 0;
            slot.__field0.channelBuffers32 = room.pointers[bus].as_mut_ptr();
        }
        missing.then_some(room.buses.as_mut_ptr())
    }
}

impl<P: Vst3Plugin> Class for Whole<P> {
    type Interfaces =
        (IComponent, IEditController, IAudioProcessor, IProcessContextRequirements, IUnitInfo, IInfoListener);
}

/// Passes calls on to the framework's wrapper.
macro_rules! pass_on {
    ($($interface:ident { $(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)* })*) => {
        $(#[allow(non_snake_case)] impl<P: Vst3Plugin> $interface for Whole<P> {
            $(unsafe fn $name(&self, $($argument: $type),*) -> $result {
                // SAFETY: the caller's arguments, unchanged.
                unsafe { $interface::$name(&self.inner, $($argument),*) }
            })*
        })*
    };
}

pass_on! {
    IPluginBaseTrait {
        fn initialize(context: *mut FUnknown) -> tresult;
        fn terminate() -> tresult;
    }
    IComponentTrait {
        fn getControllerClassId(id: *mut TUID) -> tresult;
        fn setIoMode(mode: IoMode) -> tresult;
        fn getBusCount(media: MediaType, direction: BusDirection) -> int32;
        fn getBusInfo(media: MediaType, direction: BusDirection, index: int32, bus: *mut BusInfo) -> tresult;
        fn getRoutingInfo(input: *mut RoutingInfo, output: *mut RoutingInfo) -> tresult;
        fn activateBus(media: MediaType, direction: BusDirection, index: int32, state: TBool) -> tresult;
        fn setActive(state: TBool) -> tresult;
        fn setState(state: *mut IBStream) -> tresult;
        fn getState(state: *mut IBStream) -> tresult;
    }
    IEditControllerTrait {
        fn setComponentState(state: *mut IBStream) -> tresult;
        fn setState(state: *mut IBStream) -> tresult;
        fn getState(state: *mut IBStream) -> tresult;
        fn getParameterCount() -> int32;
        fn getParameterInfo(index: int32, info: *mut ParameterInfo) -> tresult;
        fn getParamStringByValue(id: ParamID, value: ParamValue, string: *mut String128) -> tresult;
        fn getParamValueByString(id: ParamID, string: *mut TChar, value: *mut ParamValue) -> tresult;
        fn normalizedParamToPlain(id: ParamID, value: ParamValue) -> ParamValue;
        fn plainParamToNormalized(id: ParamID, value: ParamValue) -> ParamValue;
        fn getParamNormalized(id: ParamID) -> ParamValue;
        fn setParamNormalized(id: ParamID, value: ParamValue) -> tresult;
        fn setComponentHandler(handler: *mut IComponentHandler) -> tresult;
        fn createView(name: FIDString) -> *mut IPlugView;
    }
    IProcessContextRequirementsTrait {
        fn getProcessContextRequirements() -> uint32;
    }
    IInfoListenerTrait {
        fn setChannelContextInfos(list: *mut IAttributeList) -> tresult;
    }
    IUnitInfoTrait {
        fn getUnitCount() -> int32;
        fn getUnitInfo(index: int32, info: *mut UnitInfo) -> tresult;
        fn getProgramListCount() -> int32;
        fn getProgramListInfo(index: int32, info: *mut ProgramListInfo) -> tresult;
        fn getProgramName(list: ProgramListID, index: int32, name: *mut String128) -> tresult;
        fn getProgramInfo(list: ProgramListID, index: int32, id: Vst::CString, value: *mut String128) -> tresult;
        fn hasProgramPitchNames(list: ProgramListID, index: int32) -> tresult;
        fn getProgramPitchName(list: ProgramListID, index: int32, pitch: int16, name: *mut String128) -> tresult;
        fn getSelectedUnit() -> UnitID;
        fn selectUnit(unit: UnitID) -> tresult;
        fn getUnitByBus(media: MediaType, direction: BusDirection, bus: int32, channel: int32, unit: *mut UnitID) -> tresult;
        fn setUnitProgramData(list: int32, index: int32, data: *mut IBStream) -> tresult;
    }
}

#[allow(non_snake_case)]
impl<P: Vst3Plugin> IAudioProcessorTrait for Whole<P> {
    unsafe fn setBusArrangements(
        &self,
        inputs: *mut SpeakerArrangement,
        input_count: int32,
        outputs: *mut SpeakerArrangement,
        output_count: int32,
    ) -> tresult {
        // SAFETY: the caller's arguments, unchanged; here and below.
        unsafe { self.inner.setBusArrangements(inputs, input_count, outputs, output_count) }
    }

    unsafe fn getBusArrangement(
        &self,
        direction: BusDirection,
        index: i32,
        arrangement: *mut SpeakerArrangement,
    ) -> tresult {
        unsafe { self.inner.getBusArrangement(direction, index, arrangement) }
    }

    unsafe fn canProcessSampleSize(&self, size: int32) -> tresult {
        unsafe { self.inner.canProcessSampleSize(size) }
    }

    unsafe fn getLatencySamples(&self) -> uint32 {
        unsafe { self.inner.getLatencySamples() }
    }

    unsafe fn setupProcessing(&self, setup: *mut ProcessSetup) -> tresult {
        // SAFETY: valid or null by the format; inactive, so `process` is not under way.
        if let Some(setup) = unsafe { setup.as_ref() } {
            let room = unsafe { &mut *self.room.get() };
            let samples = usize::try_from(setup.maxSamplesPerBlock).unwrap_or(0).min(1 << 20);
            room.samples = vec![vec![0.0; samples]; BUSES * CHANNELS];
            for (pointer, samples) in room.pointers.as_flattened_mut().iter_mut().zip(&mut room.samples) {
                *pointer = samples.as_mut_ptr();
            }
        }
        unsafe {
            self.inner.setupProcessing(setup);
            self.inner.setupProcessing(setup)
        }
    }

    unsafe fn setProcessing(&self, state: TBool) -> tresult {
        unsafe { self.inner.setProcessing(state) }
    }

    unsafe fn process(&self, data: *mut ProcessData) -> tresult {
        // SAFETY: valid or null by the format, and the host calls from one thread at a time.
        let outputs = unsafe { data.as_ref().and_then(|data| self.filled(data)) };
        let Some(outputs) = outputs else { return unsafe { self.inner.process(data) } };
        // SAFETY: as above; what the host handed over is put back before it looks.
        unsafe {
            let count = self.inner.getBusCount(MediaTypes_::kAudio as i32, BusDirections_::kOutput as i32);
            let given = ((*data).outputs, (*data).numOutputs);
            ((*data).outputs, (*data).numOutputs) = (outputs, count);
            let result = self.inner.process(data);
            ((*data).outputs, (*data).numOutputs) = given;
            (*given.0).silenceFlags = (*outputs).silenceFlags;
            result
        }
    }

    unsafe fn getTailSamples(&self) -> uint32 {
        unsafe { self.inner.getTailSamples() }
    }
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
        unsafe { tell(self.info(index), to, PluginInfo::create_class_info_2) }
    }
}

#[allow(non_snake_case)]
impl IPluginFactory3Trait for Factory {
    unsafe fn getClassInfoUnicode(&self, index: int32, to: *mut PClassInfoW) -> tresult {
        unsafe { tell(self.info(index), to, PluginInfo::create_class_info_unicode) }
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
