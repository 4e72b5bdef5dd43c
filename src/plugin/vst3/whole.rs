//! A wrapper of the framework, with what it leaves undone done.
#![allow(non_snake_case, reason = "the format's names")]

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use Steinberg::Vst::{self, ChannelContext::*, IProcessContextRequirements_::Flags_ as Needs, *};
use Steinberg::*;
use nice_plug::prelude::Vst3Plugin;
use nice_plug::wrapper::vst3::Wrapper;
use nice_plug::wrapper::vst3::vst3::{Class, ComPtr, ComRef, ComWrapper, Steinberg};
use parking_lot::RwLock;

use super::handler::{Handler, Hold};
use super::room::{Gap, Room};
use super::shown::Shown;

/// A component and controller that always sees every bus.
pub(super) struct Whole<P: Vst3Plugin> {
    inner: Wrapper<P>,
    /// Changed while the plugin is inactive (`setupProcessing`, `setActive`), used by `process`: the format keeps these apart.
    room: UnsafeCell<Room>,
    shown: Shown,
    /// The host's.
    handler: RwLock<Option<ComPtr<IComponentHandler>>>,
    /// Between `setProcessing(true)` and `setProcessing(false)`.
    processing: AtomicBool,
}

impl<P: Vst3Plugin> Whole<P> {
    pub fn new() -> Self {
        let inner = Wrapper::new();
        // SAFETY: a live object, and memory for what it tells.
        let ids = unsafe {
            (0..inner.getParameterCount())
                .filter_map(|index| {
                    let mut info: ParameterInfo = std::mem::zeroed();
                    (inner.getParameterInfo(index, &mut info) == kResultOk).then_some(info.id)
                })
                .collect()
        };
        Self {
            inner,
            room: UnsafeCell::new(Room::new()),
            shown: Shown::new(ids),
            handler: RwLock::default(),
            processing: AtomicBool::new(false),
        }
    }

    fn processes(&self) -> bool {
        self.processing.load(Relaxed)
    }

    /// The processor gets values for these: what the controller shows in their stead is over. Realtime-safe.
    ///
    /// # Safety
    /// `changes` is null or valid.
    unsafe fn forget(&self, changes: *mut IParameterChanges) {
        // SAFETY: by the contract above; queues are valid as long as the block is.
        unsafe {
            let Some(changes) = ComRef::from_raw(changes) else { return };
            for index in 0..changes.getParameterCount() {
                if let Some(queue) = ComRef::from_raw(changes.getParameterData(index)) {
                    self.shown.forget(queue.getParameterId());
                }
            }
        }
    }
}

impl<P: Vst3Plugin> Class for Whole<P> {
    type Interfaces =
        (IComponent, IEditController, IAudioProcessor, IProcessContextRequirements, IUnitInfo, IInfoListener);
}

/// Passes calls on to the framework's wrapper.
macro_rules! pass_on {
    ($interface:ident: $(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(unsafe fn $name(&self, $($argument: $type),*) -> $result {
            // SAFETY: the caller's arguments, unchanged.
            unsafe { $interface::$name(&self.inner, $($argument),*) }
        })*
    };
}

impl<P: Vst3Plugin> IPluginBaseTrait for Whole<P> {
    pass_on! { IPluginBaseTrait:
        fn initialize(context: *mut FUnknown) -> tresult;
        fn terminate() -> tresult;
    }
}

impl<P: Vst3Plugin> IInfoListenerTrait for Whole<P> {
    pass_on! { IInfoListenerTrait:
        fn setChannelContextInfos(list: *mut IAttributeList) -> tresult;
    }
}

impl<P: Vst3Plugin> IUnitInfoTrait for Whole<P> {
    pass_on! { IUnitInfoTrait:
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

impl<P: Vst3Plugin> IProcessContextRequirementsTrait for Whole<P> {
    /// Whether the song plays; where it is, every host tells.
    unsafe fn getProcessContextRequirements(&self) -> uint32 {
        Needs::kNeedTransportState as uint32
    }
}

impl<P: Vst3Plugin> IComponentTrait for Whole<P> {
    pass_on! { IComponentTrait:
        fn getControllerClassId(id: *mut TUID) -> tresult;
        fn setIoMode(mode: IoMode) -> tresult;
        fn getBusCount(media: MediaType, direction: BusDirection) -> int32;
        fn getBusInfo(media: MediaType, direction: BusDirection, index: int32, bus: *mut BusInfo) -> tresult;
        fn getRoutingInfo(input: *mut RoutingInfo, output: *mut RoutingInfo) -> tresult;
        fn activateBus(media: MediaType, direction: BusDirection, index: int32, state: TBool) -> tresult;
        fn getState(state: *mut IBStream) -> tresult;
    }

    unsafe fn setActive(&self, state: TBool) -> tresult {
        let (audio, output) = (MediaTypes_::kAudio as i32, BusDirections_::kOutput as i32);
        // SAFETY: reads, and memory for what is told; inactive, so `process` is not under way.
        unsafe {
            let mut arrangement = 0;
            self.inner.getBusArrangement(output, 0, &mut arrangement);
            let buses = usize::try_from(self.inner.getBusCount(audio, output)).unwrap_or(1);
            (*self.room.get()).expect(buses, arrangement.count_ones() as usize);
            self.inner.setActive(state)
        }
    }

    unsafe fn setState(&self, state: *mut IBStream) -> tresult {
        // SAFETY: the caller's argument, unchanged.
        let result = unsafe { IComponentTrait::setState(&self.inner, state) };
        self.shown.forget_all();
        result
    }
}

impl<P: Vst3Plugin> IEditControllerTrait for Whole<P> {
    pass_on! { IEditControllerTrait:
        fn setComponentState(state: *mut IBStream) -> tresult;
        fn setState(state: *mut IBStream) -> tresult;
        fn getState(state: *mut IBStream) -> tresult;
        fn getParameterCount() -> int32;
        fn getParamStringByValue(id: ParamID, value: ParamValue, string: *mut String128) -> tresult;
        fn getParamValueByString(id: ParamID, string: *mut TChar, value: *mut ParamValue) -> tresult;
        fn normalizedParamToPlain(id: ParamID, value: ParamValue) -> ParamValue;
        fn plainParamToNormalized(id: ParamID, value: ParamValue) -> ParamValue;
    }

    unsafe fn getParameterInfo(&self, index: int32, info: *mut ParameterInfo) -> tresult {
        // SAFETY: the caller's arguments, unchanged.
        unsafe {
            if index >= self.inner.getParameterCount() {
                return kInvalidArgument;
            }
            let result = self.inner.getParameterInfo(index, info);
            if let Some(info) = info.as_mut() {
                trim(&mut info.units);
            }
            result
        }
    }

    unsafe fn getParamNormalized(&self, id: ParamID) -> ParamValue {
        // SAFETY: only reads.
        self.shown.get(id).unwrap_or_else(|| unsafe { self.inner.getParamNormalized(id) })
    }

    unsafe fn setParamNormalized(&self, id: ParamID, value: ParamValue) -> tresult {
        if !self.shown.set(id, value) {
            return kInvalidArgument;
        }
        // SAFETY: the caller's arguments, made sound.
        unsafe {
            let result = self.inner.setParamNormalized(id, value.clamp(0.0, 1.0));
            if !self.processes() {
                // Then it has it.
                self.shown.forget(id);
            }
            result
        }
    }

    unsafe fn setComponentHandler(&self, handler: *mut IComponentHandler) -> tresult {
        // SAFETY: null or a live object by the format.
        let host = unsafe { ComRef::from_raw(handler) }.map(|handler| handler.to_com_ptr());
        let ours =
            host.clone().and_then(|host| ComWrapper::new(Handler(host)).to_com_ptr::<IComponentHandler>());
        *self.handler.write() = host;
        // SAFETY: a live object, or null; the wrapper keeps it.
        unsafe { self.inner.setComponentHandler(ours.as_ref().map_or(std::ptr::null_mut(), ComPtr::as_ptr)) }
    }

    unsafe fn createView(&self, name: FIDString) -> *mut IPlugView {
        // SAFETY: null or a string by the format.
        unsafe {
            if name.is_null() || CStr::from_ptr(name) != CStr::from_ptr(ViewType::kEditor) {
                return std::ptr::null_mut();
            }
            self.inner.createView(name)
        }
    }
}

impl<P: Vst3Plugin> IAudioProcessorTrait for Whole<P> {
    pass_on! { IAudioProcessorTrait:
        fn setBusArrangements(inputs: *mut SpeakerArrangement, input_count: int32, outputs: *mut SpeakerArrangement, output_count: int32) -> tresult;
        fn getBusArrangement(direction: BusDirection, index: int32, arrangement: *mut SpeakerArrangement) -> tresult;
        fn canProcessSampleSize(size: int32) -> tresult;
        fn getLatencySamples() -> uint32;
    }

    unsafe fn setupProcessing(&self, setup: *mut ProcessSetup) -> tresult {
        // SAFETY: valid or null by the format; inactive, so `process` is not under way.
        unsafe {
            let Some(asked) = setup.as_ref() else { return kInvalidArgument };
            if asked.symbolicSampleSize != SymbolicSampleSizes_::kSample32 as int32 {
                return kResultFalse;
            }
            (*self.room.get()).resize(usize::try_from(asked.maxSamplesPerBlock).unwrap_or(0).max(1));
            self.inner.setupProcessing(setup);
            self.inner.setupProcessing(setup)
        }
    }

    unsafe fn setProcessing(&self, state: TBool) -> tresult {
        self.processing.store(state != 0, Relaxed);
        self.shown.forget_all();
        // SAFETY: the caller's argument, unchanged.
        unsafe { self.inner.setProcessing(state) }
    }

    unsafe fn process(&self, data: *mut ProcessData) -> tresult {
        // SAFETY: valid or null by the format, and the host calls from one thread at a time.
        unsafe {
            let Some(block) = data.as_mut() else { return kInvalidArgument };
            let room = &mut *self.room.get();
            if !room.is_ready() {
                return kNotInitialized;
            }
            if block.symbolicSampleSize != SymbolicSampleSizes_::kSample32 as int32 {
                return kInvalidArgument;
            }
            let changes = block.inputParameterChanges;
            let hold = Hold::new();
            if !block.outputs.is_null() {
                for bus in 0..usize::try_from(block.numOutputs).unwrap_or(0) {
                    (*block.outputs.add(bus)).silenceFlags = 0;
                }
            }
            let result = match room.fill(block) {
                Gap::None => self.inner.process(data),
                Gap::TooLong => kInvalidArgument,
                Gap::Filled { inputs, outputs } => {
                    // What the host has handed over is put back before it looks.
                    let given = (block.inputs, block.numInputs, block.outputs, block.numOutputs);
                    let buses = room.buses() as int32;
                    (block.inputs, block.numInputs, block.outputs, block.numOutputs) =
                        (inputs, 1, outputs, buses);
                    let result = self.inner.process(data);
                    let block = &mut *data;
                    (block.inputs, block.numInputs, block.outputs, block.numOutputs) = given;
                    result
                }
            };
            self.forget(changes);
            let held = hold.done();
            if held != 0
                && let Some(handler) = self.handler.try_read().and_then(|handler| handler.clone())
            {
                handler.restartComponent(held);
            }
            result
        }
    }

    /// As long as the sound takes to come out again. The wrapper knows that from the first block on only.
    unsafe fn getTailSamples(&self) -> uint32 {
        // SAFETY: only reads.
        unsafe { self.inner.getLatencySamples() }
    }
}

/// Takes blanks from a text's beginning: hosts put one before a unit themselves.
fn trim(text: &mut String128) {
    let blanks = text.iter().take_while(|c| **c == u16::from(b' ')).count();
    text.copy_within(blanks.., 0);
    let end = text.len() - blanks;
    text[end..].fill(0);
}
