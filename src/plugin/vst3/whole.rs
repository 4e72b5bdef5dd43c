//! A wrapper of the framework, with what it leaves undone done.
#![allow(non_snake_case, reason = "the format's names")]

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use Steinberg::Vst::{self, ChannelContext::*, IProcessContextRequirements_::Flags_ as Needs, *};
use Steinberg::*;
use nice_plug::prelude::{PluginApi, Vst3Plugin};
use nice_plug::wrapper::vst3::Wrapper;
use nice_plug::wrapper::vst3::vst3::{Class, ComRef, ComWrapper, Steinberg};

use super::handler::{Handler, Hold};
use super::room::{Gap, Room};
use super::shown::Shown;
use super::values::Values;
use super::{tells_latency, view};
use crate::plugin::session::Session;

/// A component and controller that always sees every bus.
pub(super) struct Whole<P: Vst3Plugin> {
    inner: Wrapper<P>,
    /// Changed while the plugin is inactive (`setupProcessing`, `setActive`), used by `process`: the format keeps these apart.
    room: UnsafeCell<Room>,
    shown: Shown,
    handler: ComWrapper<Handler>,
    session: Option<Arc<Session>>,
    /// The thread that has made it.
    thread: usize,
    /// Last: where a host closes no window, the wrapper's end does.
    _windows: Windows,
}

/// Ends when all windows have gone.
struct Windows(Option<Arc<Session>>);

impl Drop for Windows {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.wait_for_windows();
        }
    }
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// A number for this thread, as long as it lives. Realtime-safe.
fn here() -> usize {
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}

impl<P: Vst3Plugin> Drop for Whole<P> {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.set_announce(None);
            session.set_unsaved(None);
        }
    }
}

impl<P: Vst3Plugin> Whole<P> {
    pub fn new() -> Self {
        let inner = Wrapper::new();
        // SAFETY: a live object, and memory for what it tells.
        let ids: Vec<u32> = unsafe {
            (0..inner.getParameterCount())
                .filter_map(|index| {
                    let mut info: ParameterInfo = std::mem::zeroed();
                    (inner.getParameterInfo(index, &mut info) == kResultOk).then_some(info.id)
                })
                .collect()
        };
        let session = crate::plugin::newest();
        let values = session.clone().map(|session| Values::new(session, &ids));
        let handler = ComWrapper::new(Handler::new(values));
        if let Some(handler) = handler.as_com_ref::<IComponentHandler>() {
            // Once and for all: the wrapper must not be looking at it when it changes.
            // SAFETY: a live object; the wrapper keeps it.
            unsafe { inner.setComponentHandler(handler.as_ptr()) };
        }
        if let Some(session) = &session {
            let (handler, dirty) = (handler.clone(), handler.clone());
            // SAFETY: the arguments are the format's.
            let announce = move || unsafe { _ = handler.restartComponent(RestartFlags_::kLatencyChanged) };
            session.set_announce(Some(Arc::new(announce)));
            session.set_unsaved(Some(Arc::new(move || dirty.set_dirty())));
        }
        // For ever, as far as the wrapper knows: then it leaves parameters alone.
        // SAFETY: inactive; nothing is reset.
        unsafe { inner.setProcessing(1) };
        Self {
            inner,
            room: UnsafeCell::new(Room::new()),
            shown: Shown::new(ids),
            handler,
            _windows: Windows(session.clone()),
            session,
            thread: here(),
        }
    }

    /// Latency in samples. Realtime-safe.
    fn latency(&self) -> u32 {
        self.session.as_ref().map_or(0, |session| session.latency())
    }

    fn set(&self, id: u32, value: f64) -> bool {
        self.handler.values.as_ref().is_some_and(|values| values.set(id, value))
    }

    /// The processor has what the controller shows, where no block will bring it. Realtime-safe.
    fn settle(&self) {
        self.shown.settle(|id, value| _ = self.set(id, value));
    }

    /// Gives the processor its new values: where a block has several, the last. Realtime-safe.
    ///
    /// # Safety
    /// `changes` is null or valid.
    unsafe fn take(&self, changes: *mut IParameterChanges) {
        // SAFETY: by the contract above; queues are valid as long as the block is.
        unsafe {
            let Some(changes) = ComRef::from_raw(changes) else { return };
            for index in 0..changes.getParameterCount() {
                let Some(queue) = ComRef::from_raw(changes.getParameterData(index)) else { continue };
                let (mut offset, mut value) = (0, f64::NAN);
                if queue.getPoint(queue.getPointCount() - 1, &mut offset, &mut value) == kResultOk {
                    let id = queue.getParameterId();
                    self.set(id, value);
                    self.shown.forget(id);
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
        fn getRoutingInfo(input: *mut RoutingInfo, output: *mut RoutingInfo) -> tresult;
        fn activateBus(media: MediaType, direction: BusDirection, index: int32, state: TBool) -> tresult;
    }

    unsafe fn getBusInfo(
        &self,
        media: MediaType,
        direction: BusDirection,
        index: int32,
        bus: *mut BusInfo,
    ) -> tresult {
        // The wrapper takes what is below the first for the first of the stems.
        if index < 0 {
            return kInvalidArgument;
        }
        // SAFETY: the caller's arguments, unchanged.
        unsafe { self.inner.getBusInfo(media, direction, index, bus) }
    }

    unsafe fn setActive(&self, state: TBool) -> tresult {
        let (audio, output) = (MediaTypes_::kAudio as i32, BusDirections_::kOutput as i32);
        // SAFETY: reads, and memory for what is told; inactive, so `process` is not under way.
        unsafe {
            let mut arrangement = 0;
            self.inner.getBusArrangement(output, 0, &mut arrangement);
            let buses = usize::try_from(self.inner.getBusCount(audio, output)).unwrap_or(1);
            (*self.room.get()).expect(buses, arrangement.count_ones() as usize);
            let before = self.latency();
            let result = self.inner.setActive(state);
            if tells_latency(PluginApi::Vst3) && self.latency() != before {
                self.handler.restartComponent(RestartFlags_::kLatencyChanged);
            }
            result
        }
    }

    /// A host that has set a value on the controller and saves before the next block, or sends none, has it saved.
    unsafe fn getState(&self, state: *mut IBStream) -> tresult {
        self.settle();
        // SAFETY: the caller's argument, unchanged.
        unsafe { IComponentTrait::getState(&self.inner, state) }
    }

    unsafe fn setState(&self, state: *mut IBStream) -> tresult {
        // SAFETY: null or a live object by the format.
        let loaded = self.handler.values.as_ref().is_some_and(|values| unsafe { values.load::<P>(state) });
        self.shown.forget_all();
        if loaded { kResultOk } else { kResultFalse }
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
        if self.handler.processing.load(Relaxed) {
            return if self.shown.set(id, value) { kResultOk } else { kInvalidArgument };
        }
        self.shown.forget(id);
        if self.set(id, value) { kResultOk } else { kInvalidArgument }
    }

    unsafe fn setComponentHandler(&self, handler: *mut IComponentHandler) -> tresult {
        // SAFETY: null or a live object by the format.
        self.handler.set(unsafe { ComRef::from_raw(handler) }.map(|handler| handler.to_com_ptr()));
        kResultOk
    }

    unsafe fn createView(&self, name: FIDString) -> *mut IPlugView {
        // SAFETY: null or a string by the format.
        unsafe {
            if name.is_null() || CStr::from_ptr(name) != CStr::from_ptr(ViewType::kEditor) {
                return std::ptr::null_mut();
            }
            view::over(self.inner.createView(name), self.session.clone())
        }
    }
}

impl<P: Vst3Plugin> IAudioProcessorTrait for Whole<P> {
    pass_on! { IAudioProcessorTrait:
        fn setBusArrangements(inputs: *mut SpeakerArrangement, input_count: int32, outputs: *mut SpeakerArrangement, output_count: int32) -> tresult;
        fn canProcessSampleSize(size: int32) -> tresult;
    }

    unsafe fn getLatencySamples(&self) -> uint32 {
        self.latency()
    }

    unsafe fn getBusArrangement(
        &self,
        direction: BusDirection,
        index: int32,
        arrangement: *mut SpeakerArrangement,
    ) -> tresult {
        if index < 0 {
            return kInvalidArgument;
        }
        // SAFETY: the caller's arguments, unchanged.
        unsafe { self.inner.getBusArrangement(direction, index, arrangement) }
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
        self.handler.processing.store(state != 0, Relaxed);
        self.settle();
        self.shown.forget_all();
        // SAFETY: the caller's argument, unchanged. The wrapper is not told of an end; it would only take note.
        if state != 0 { unsafe { self.inner.setProcessing(state) } } else { kResultOk }
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
            let changes = std::mem::replace(&mut block.inputParameterChanges, std::ptr::null_mut());
            self.shown.block();
            self.take(changes);
            let before = self.latency();
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
            (*data).inputParameterChanges = changes;
            let mut held = hold.done();
            if tells_latency(PluginApi::Vst3) && self.latency() != before {
                match &self.session {
                    // An audio thread: telling takes a lock, and the host's time.
                    Some(session) if self.thread != here() => session.want_latency_told(),
                    _ => held |= RestartFlags_::kLatencyChanged,
                }
            }
            if held != 0 {
                self.handler.restartComponent(held);
            }
            result
        }
    }

    /// As long as the sound takes to come out again. The wrapper knows that from the first block on only.
    unsafe fn getTailSamples(&self) -> uint32 {
        self.latency()
    }
}

/// Takes blanks from a text's beginning: hosts put one before a unit themselves.
fn trim(text: &mut String128) {
    let blanks = text.iter().take_while(|c| **c == u16::from(b' ')).count();
    text.copy_within(blanks.., 0);
    let end = text.len() - blanks;
    text[end..].fill(0);
}
