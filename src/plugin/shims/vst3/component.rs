//! The VST3 component and controller: nice-plug's wrapper with the corrections listed in the parent module.
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

use super::block_buses::BlockBuses;
use super::block_events::BlockEvents;
use super::component_handler::{DeferredRestart, HandlerProxy};
use super::controller_values::ControllerValues;
use super::param_table::ParamTable;
use super::{notifies_latency_itself, plug_view};
use crate::plugin::instance_shared::InstanceShared;
use crate::plugin::shims::bus_buffers::{BusBuffers, MissingBuses};
use crate::plugin::{construct_with, new_shared};

/// A component and controller whose wrapper always sees every bus.
pub(super) struct Component<P: Vst3Plugin> {
    inner: Wrapper<P>,
    /// Changed while the plugin is inactive (`setupProcessing`, `setActive`), used by `process`. The format never calls them at the same time.
    buses: UnsafeCell<BlockBuses>,
    /// Used by `process` only.
    events: UnsafeCell<BlockEvents>,
    controller_values: ControllerValues,
    handler: ComWrapper<HandlerProxy>,
    shared: Arc<InstanceShared>,
    /// Token of the thread that created the component.
    thread: usize,
    /// Last: if a host closes no window, dropping the wrapper does.
    _editors: EditorsGuard,
}

/// Waits on drop until all editor windows are gone.
struct EditorsGuard(Arc<InstanceShared>);

impl Drop for EditorsGuard {
    fn drop(&mut self) {
        self.0.wait_for_editors();
    }
}

thread_local! {
    static THREAD_TOKEN: u8 = const { 0 };
}

/// Realtime-safe: a number that is unique to this thread while it lives.
fn thread_token() -> usize {
    THREAD_TOKEN.with(|thread_token| std::ptr::from_ref(thread_token) as usize)
}

impl<P: Vst3Plugin> Drop for Component<P> {
    fn drop(&mut self) {
        self.shared.set_latency_callback(None);
        self.shared.set_dirty_callback(None);
    }
}

impl<P: Vst3Plugin> Component<P> {
    pub fn new() -> Self {
        let shared = new_shared();
        let inner = construct_with(shared.clone(), Wrapper::new);
        // SAFETY: a live object, and memory for the result.
        let ids: Vec<u32> = unsafe {
            (0..inner.getParameterCount())
                .filter_map(|index| {
                    let mut info: ParameterInfo = std::mem::zeroed();
                    (inner.getParameterInfo(index, &mut info) == kResultOk).then_some(info.id)
                })
                .collect()
        };
        let param_table = ParamTable::new(shared.clone(), &ids);
        let handler = ComWrapper::new(HandlerProxy::new(Some(param_table)));
        if let Some(handler) = handler.as_com_ref::<IComponentHandler>() {
            // Set only once, because the wrapper must not read it while it changes.
            // SAFETY: a live object; the wrapper keeps a reference.
            unsafe { inner.setComponentHandler(handler.as_ptr()) };
        }
        let (restart, dirty) = (handler.clone(), handler.clone());
        // SAFETY: the arguments are valid by the format.
        let notify_latency = move || unsafe { _ = restart.restartComponent(RestartFlags_::kLatencyChanged) };
        shared.set_latency_callback(Some(Arc::new(notify_latency)));
        shared.set_dirty_callback(Some(Arc::new(move || dirty.set_dirty())));
        // The wrapper then believes that it always processes, and leaves parameters alone.
        // SAFETY: inactive; nothing is reset.
        unsafe { inner.setProcessing(1) };
        Self {
            inner,
            buses: UnsafeCell::new(BlockBuses::new()),
            events: UnsafeCell::new(BlockEvents::new()),
            controller_values: ControllerValues::new(ids),
            handler,
            _editors: EditorsGuard(shared.clone()),
            shared,
            thread: thread_token(),
        }
    }

    /// Realtime-safe: latency in samples.
    fn latency(&self) -> u32 {
        self.shared.latency()
    }

    fn set_param(&self, id: u32, value: f64) -> bool {
        self.handler.param_table.as_ref().is_some_and(|param_table| param_table.set(id, value))
    }

    /// Realtime-safe: passes values set on the controller to the processor, when no block will bring them.
    fn flush_controller_values(&self) {
        self.controller_values.flush(|id, value| _ = self.set_param(id, value));
    }

    /// Realtime-safe: sets a parameter that changes in a block.
    fn set_from_block(&self, id: u32, value: f64) {
        self.set_param(id, value);
        self.controller_values.forget(id);
    }

    /// Processes a block in parts, one for each sample at which parameters change.
    ///
    /// # Safety
    /// `data` points to a block whose buses are those of `buffers`.
    unsafe fn process_parts(
        &self,
        data: *mut ProcessData,
        buffers: &mut BusBuffers,
        events: &mut BlockEvents,
    ) -> tresult {
        // SAFETY: valid by this function's contract. The context is copied, because the host may use it again.
        unsafe {
            let (total, host_context) = ((*data).numSamples, (*data).processContext);
            let samples = usize::try_from(total).unwrap_or(0);
            let mut context = host_context.as_ref().copied();
            let (mut start, mut result) = (0, kResultOk);
            while start < samples {
                let end = events.apply_until_next(start, |id, value| self.set_from_block(id, value));
                (*data).numSamples = (end - start) as int32;
                (*data).processContext = context.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
                result = self.inner.process(data);
                buffers.advance(end - start);
                if let Some(context) = &mut context {
                    context.projectTimeSamples += (end - start) as i64;
                    context.continousTimeSamples += (end - start) as i64;
                }
                start = end;
            }
            ((*data).numSamples, (*data).processContext) = (total, host_context);
            result
        }
    }
}

impl<P: Vst3Plugin> Class for Component<P> {
    type Interfaces =
        (IComponent, IEditController, IAudioProcessor, IProcessContextRequirements, IUnitInfo, IInfoListener);
}

/// Forwards calls to the wrapper.
macro_rules! pass_on {
    ($interface:ident: $(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(unsafe fn $name(&self, $($argument: $type),*) -> $result {
            // SAFETY: the caller's arguments pass through unchanged.
            unsafe { $interface::$name(&self.inner, $($argument),*) }
        })*
    };
}

impl<P: Vst3Plugin> IPluginBaseTrait for Component<P> {
    pass_on! { IPluginBaseTrait:
        fn initialize(context: *mut FUnknown) -> tresult;
        fn terminate() -> tresult;
    }
}

impl<P: Vst3Plugin> IInfoListenerTrait for Component<P> {
    pass_on! { IInfoListenerTrait:
        fn setChannelContextInfos(list: *mut IAttributeList) -> tresult;
    }
}

impl<P: Vst3Plugin> IUnitInfoTrait for Component<P> {
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

impl<P: Vst3Plugin> IProcessContextRequirementsTrait for Component<P> {
    /// We only need to know whether the transport runs, which every host provides.
    unsafe fn getProcessContextRequirements(&self) -> uint32 {
        Needs::kNeedTransportState as uint32
    }
}

impl<P: Vst3Plugin> IComponentTrait for Component<P> {
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
        // The wrapper takes a negative index for the first stem's bus.
        if index < 0 {
            return kInvalidArgument;
        }
        // SAFETY: the caller's arguments pass through unchanged.
        unsafe { self.inner.getBusInfo(media, direction, index, bus) }
    }

    unsafe fn setActive(&self, state: TBool) -> tresult {
        let (audio, output) = (MediaTypes_::kAudio as i32, BusDirections_::kOutput as i32);
        // SAFETY: memory for the result; the plugin is inactive, so `process` is not running.
        unsafe {
            let mut arrangement = 0;
            self.inner.getBusArrangement(output, 0, &mut arrangement);
            let buses = usize::try_from(self.inner.getBusCount(audio, output)).unwrap_or(1);
            (*self.buses.get()).buffers.set_layout(buses, arrangement.count_ones() as usize);
            let before = self.latency();
            let result = self.inner.setActive(state);
            if notifies_latency_itself(PluginApi::Vst3) && self.latency() != before {
                self.handler.restartComponent(RestartFlags_::kLatencyChanged);
            }
            result
        }
    }

    /// Saves values set on the controller even if no block followed them.
    unsafe fn getState(&self, state: *mut IBStream) -> tresult {
        self.flush_controller_values();
        // SAFETY: the caller's argument passes through unchanged.
        unsafe { IComponentTrait::getState(&self.inner, state) }
    }

    unsafe fn setState(&self, state: *mut IBStream) -> tresult {
        // SAFETY: null or a live object by the format.
        let loaded = self
            .handler
            .param_table
            .as_ref()
            .is_some_and(|param_table| unsafe { param_table.load::<P>(state) });
        self.controller_values.forget_all();
        if loaded { kResultOk } else { kResultFalse }
    }
}

impl<P: Vst3Plugin> IEditControllerTrait for Component<P> {
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
        // SAFETY: the caller's arguments pass through unchanged; `info` is null or valid.
        unsafe {
            if index >= self.inner.getParameterCount() {
                return kInvalidArgument;
            }
            let result = self.inner.getParameterInfo(index, info);
            if let Some(info) = info.as_mut() {
                trim_leading_spaces(&mut info.units);
            }
            result
        }
    }

    unsafe fn getParamNormalized(&self, id: ParamID) -> ParamValue {
        // SAFETY: only reads.
        self.controller_values.get(id).unwrap_or_else(|| unsafe { self.inner.getParamNormalized(id) })
    }

    unsafe fn setParamNormalized(&self, id: ParamID, value: ParamValue) -> tresult {
        if self.handler.processing.load(Relaxed) {
            return if self.controller_values.set(id, value) { kResultOk } else { kInvalidArgument };
        }
        self.controller_values.forget(id);
        if self.set_param(id, value) { kResultOk } else { kInvalidArgument }
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
            plug_view::wrap(self.inner.createView(name), self.shared.clone())
        }
    }
}

impl<P: Vst3Plugin> IAudioProcessorTrait for Component<P> {
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
        // SAFETY: the caller's arguments pass through unchanged.
        unsafe { self.inner.getBusArrangement(direction, index, arrangement) }
    }

    unsafe fn setupProcessing(&self, setup: *mut ProcessSetup) -> tresult {
        // SAFETY: null or valid by the format; the plugin is inactive, so `process` is not running.
        unsafe {
            let Some(asked) = setup.as_ref() else { return kInvalidArgument };
            if asked.symbolicSampleSize != SymbolicSampleSizes_::kSample32 as int32 {
                return kResultFalse;
            }
            (*self.buses.get()).buffers.resize(usize::try_from(asked.maxSamplesPerBlock).unwrap_or(0).max(1));
            self.inner.setupProcessing(setup);
            self.inner.setupProcessing(setup)
        }
    }

    unsafe fn setProcessing(&self, state: TBool) -> tresult {
        self.handler.processing.store(state != 0, Relaxed);
        self.flush_controller_values();
        self.controller_values.forget_all();
        // SAFETY: the caller's argument passes through unchanged. The wrapper is not told when processing ends; it would only record it.
        if state != 0 { unsafe { self.inner.setProcessing(state) } } else { kResultOk }
    }

    unsafe fn process(&self, data: *mut ProcessData) -> tresult {
        // SAFETY: null or valid by the format; the host calls `process` from one thread at a time.
        unsafe {
            let Some(block) = data.as_mut() else { return kInvalidArgument };
            let buses = &mut *self.buses.get();
            if !buses.buffers.is_ready() {
                return kNotInitialized;
            }
            if block.symbolicSampleSize != SymbolicSampleSizes_::kSample32 as int32 {
                return kInvalidArgument;
            }
            let samples = usize::try_from(block.numSamples).unwrap_or(0);
            // Some hosts announce offline rendering only here, and some only in the setup.
            let offline = block.processMode == ProcessModes_::kOffline as int32;
            let _call = self.shared.host_call.begin(samples, offline.then_some(true));
            let changes = std::mem::replace(&mut block.inputParameterChanges, std::ptr::null_mut());
            self.controller_values.begin_block();
            let events = &mut *self.events.get();
            events.read(changes, samples);
            let before = self.latency();
            let deferred = DeferredRestart::new();
            if !block.outputs.is_null() {
                for bus in 0..usize::try_from(block.numOutputs).unwrap_or(0) {
                    (*block.outputs.add(bus)).silenceFlags = 0;
                }
            }
            let missing = buses.complete(block, events.splits_block());
            if !matches!(missing, MissingBuses::Completed) {
                events.apply_rest(|id, value| self.set_from_block(id, value));
            }
            let result = match missing {
                MissingBuses::None => self.inner.process(data),
                MissingBuses::TooLong => kInvalidArgument,
                MissingBuses::Completed => {
                    // The host's buses are put back before it reads them.
                    let given = buses.replace(block);
                    let result = self.process_parts(data, &mut buses.buffers, events);
                    BlockBuses::restore(given, &mut *data);
                    result
                }
            };
            (*data).inputParameterChanges = changes;
            let mut restart_flags = deferred.take_flags();
            if notifies_latency_itself(PluginApi::Vst3) && self.latency() != before {
                if self.thread == thread_token() {
                    restart_flags |= RestartFlags_::kLatencyChanged;
                } else {
                    // On an audio thread, calling the host would take a lock and the host's time.
                    self.shared.request_latency_notify();
                }
            }
            if restart_flags != 0 {
                self.handler.restartComponent(restart_flags);
            }
            result
        }
    }

    /// The time that the sound takes to come out. The wrapper knows it only from the first block.
    unsafe fn getTailSamples(&self) -> uint32 {
        self.latency()
    }
}

/// Removes spaces at the start of a text: hosts put one before a unit themselves.
fn trim_leading_spaces(text: &mut String128) {
    let blanks = text.iter().take_while(|c| **c == u16::from(b' ')).count();
    text.copy_within(blanks.., 0);
    let end = text.len() - blanks;
    text[end..].fill(0);
}
