//! VST3, interface by interface.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libloading::Library;
use vst3::Steinberg::Linux::IEventHandlerTrait;
use vst3::Steinberg::Vst::*;
use vst3::Steinberg::*;
use vst3::{Class, ComPtr, ComRef, ComWrapper, Interface};

use crate::library::PLUGIN;

const BLOCK: usize = 256;
const STEREO: usize = 0;
const MULTI: usize = 1;

/// An instance of a class.
struct Instance {
    component: ComPtr<IComponent>,
    processor: ComPtr<IAudioProcessor>,
    controller: ComPtr<IEditController>,
    factory: ComPtr<IPluginFactory>,
    // Last: the others are in it.
    _library: Library,
}

impl Instance {
    fn new(class: usize) -> Self {
        let library = unsafe { Library::new(&PLUGIN.library) }.unwrap();
        unsafe {
            let entry: libloading::Symbol<extern "system" fn() -> *mut c_void> =
                library.get(b"GetPluginFactory").unwrap();
            let factory = ComPtr::<IPluginFactory>::from_raw(entry().cast()).unwrap();
            let mut info: PClassInfo = std::mem::zeroed();
            assert_eq!(factory.getClassInfo(class as i32, &mut info), kResultOk);
            let mut object = null_mut();
            let iid = IComponent::IID;
            assert_eq!(
                factory.createInstance(info.cid.as_ptr(), iid.as_ptr().cast(), &mut object),
                kResultOk
            );
            let component = ComPtr::<IComponent>::from_raw(object.cast()).unwrap();
            assert_eq!(component.initialize(null_mut()), kResultOk);
            Self {
                processor: component.cast().unwrap(),
                controller: component.cast().unwrap(),
                component,
                factory,
                _library: library,
            }
        }
    }

    fn set_up(&self) -> tresult {
        let mut setup = ProcessSetup {
            processMode: ProcessModes_::kRealtime as i32,
            symbolicSampleSize: SymbolicSampleSizes_::kSample32 as i32,
            maxSamplesPerBlock: BLOCK as i32,
            sampleRate: 48_000.0,
        };
        unsafe { self.processor.setupProcessing(&mut setup) }
    }

    /// An instance that processes, and never waits for the model.
    fn active(class: usize) -> Self {
        let instance = Self::new(class);
        instance.set("Render Mode", 0.5);
        instance.set("Latency Tier", 1.0 / 3.0);
        assert_eq!(instance.set_up(), kResultOk);
        unsafe {
            assert_eq!(instance.component.setActive(1), kResultOk);
            assert_eq!(instance.processor.setProcessing(1), kResultOk);
        }
        instance
    }

    fn parameter(&self, index: i32) -> (String, String, u32) {
        unsafe {
            let mut info: ParameterInfo = std::mem::zeroed();
            assert_eq!(self.controller.getParameterInfo(index, &mut info), kResultOk);
            (text(&info.title), text(&info.units), info.id)
        }
    }

    fn id(&self, name: &str) -> u32 {
        let count = unsafe { self.controller.getParameterCount() };
        let found = (0..count).map(|index| self.parameter(index)).find(|(title, ..)| title == name);
        found.unwrap_or_else(|| panic!("no parameter {name}")).2
    }

    fn set(&self, name: &str, value: f64) {
        assert_eq!(unsafe { self.controller.setParamNormalized(self.id(name), value) }, kResultOk);
    }

    fn get(&self, name: &str) -> f64 {
        unsafe { self.controller.getParamNormalized(self.id(name)) }
    }

    fn latency(&self) -> usize {
        unsafe { self.processor.getLatencySamples() as usize }
    }

    fn process(
        &self,
        inputs: &mut [AudioBusBuffers],
        outputs: &mut [AudioBusBuffers],
        samples: usize,
    ) -> tresult {
        unsafe {
            let mut data: ProcessData = std::mem::zeroed();
            data.numSamples = samples as i32;
            (data.numInputs, data.inputs) = (inputs.len() as i32, inputs.as_mut_ptr());
            (data.numOutputs, data.outputs) = (outputs.len() as i32, outputs.as_mut_ptr());
            let before = (data.inputs, data.outputs, data.numInputs, data.numOutputs);
            let result = self.processor.process(&mut data);
            assert_eq!((data.inputs, data.outputs, data.numInputs, data.numOutputs), before);
            result
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        unsafe {
            self.processor.setProcessing(0);
            self.component.setActive(0);
            self.component.terminate();
        }
    }
}

fn text(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16(&units[..end]).unwrap()
}

fn bytes(text: &[std::ffi::c_char]) -> String {
    text.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect()
}

/// A bus of these channels; a missing one has a null pointer.
fn bus(pointers: &mut [*mut f32]) -> AudioBusBuffers {
    let mut bus: AudioBusBuffers = unsafe { std::mem::zeroed() };
    bus.numChannels = pointers.len() as i32;
    bus.silenceFlags = u64::MAX;
    bus.__field0.channelBuffers32 = pointers.as_mut_ptr();
    bus
}

/// A bus that a host has deactivated.
fn no_bus() -> AudioBusBuffers {
    unsafe { std::mem::zeroed() }
}

#[test]
fn a_value_set_while_it_plays_is_what_the_controller_says() {
    let instance = Instance::active(STEREO);
    for value in [1.0, 0.0, 1.0] {
        instance.set("Bypass", value);
        assert_eq!(instance.get("Bypass"), value);
    }
    let nobody = unsafe { instance.controller.setParamNormalized(0x7fff_fff0, 0.5) };
    assert_ne!(nobody, kResultOk);
}

#[test]
fn what_is_set_on_the_controller_alone_does_not_reach_the_sound() {
    let instance = Instance::active(STEREO);
    instance.set("Output", 0.0);
    let latency = instance.latency();
    let mut heard = Vec::new();
    while heard.len() < latency + 8 * BLOCK {
        let (mut left, mut right) = ([0.5f32; BLOCK], [0.5f32; BLOCK]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut again = pointers;
        assert_eq!(instance.process(&mut [bus(&mut pointers)], &mut [bus(&mut again)], BLOCK), kResultOk);
        heard.extend_from_slice(&left);
    }
    assert!(heard[latency..].iter().all(|sample| *sample == 0.5), "automation is the blocks' alone");
    assert_eq!(instance.get("Output"), 0.0);
}

/// One parameter's change in a block, or several, of which the last counts.
struct Change {
    id: u32,
    values: Vec<f64>,
}

impl Class for Change {
    type Interfaces = (IParamValueQueue,);
}

impl IParamValueQueueTrait for Change {
    unsafe fn getParameterId(&self) -> u32 {
        self.id
    }
    unsafe fn getPointCount(&self) -> i32 {
        self.values.len() as i32
    }
    unsafe fn getPoint(&self, index: i32, offset: *mut i32, value: *mut f64) -> tresult {
        let Some(found) = usize::try_from(index).ok().and_then(|index| self.values.get(index)) else {
            return kInvalidArgument;
        };
        unsafe { (*offset, *value) = (index, *found) };
        kResultOk
    }
    unsafe fn addPoint(&self, _offset: i32, _value: f64, _index: *mut i32) -> tresult {
        kNotImplemented
    }
}

/// The changes of a block: of one parameter.
struct Changes(ComPtr<IParamValueQueue>);

impl Class for Changes {
    type Interfaces = (IParameterChanges,);
}

impl IParameterChangesTrait for Changes {
    unsafe fn getParameterCount(&self) -> i32 {
        1
    }
    unsafe fn getParameterData(&self, index: i32) -> *mut IParamValueQueue {
        if index == 0 { self.0.as_ptr() } else { null_mut() }
    }
    unsafe fn addParameterData(&self, _id: *const u32, _index: *mut i32) -> *mut IParamValueQueue {
        null_mut()
    }
}

/// Times that threads of this name have given up the processor by themselves: woken and asleep again.
fn naps(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = tasks.filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    let count = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
    };
    named.filter_map(count).sum()
}

#[test]
fn automation_wakes_no_thread_and_arrives_with_its_block() {
    let instance = Instance::active(STEREO);
    let id = instance.id("Output");
    // Not on the thread that has made the instance: there the wrapper would have nobody to wake. Other tests of this process may wake it.
    let calm = std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            (0..20).any(|round| {
                let before = naps("bg-worker");
                for step in 0..20 {
                    let value = f64::from(round * 20 + step) / 400.0;
                    automate(&instance, id, vec![0.9, value]);
                    let got = instance.get("Output");
                    assert!((got - value).abs() < 1e-3, "{got} instead of {value}");
                }
                std::thread::sleep(Duration::from_millis(20));
                naps("bg-worker") == before
            })
        });
        calls.join().unwrap()
    });
    assert!(calm, "the wrapper's thread is woken by automation");
}

/// A block of silence with changes of a parameter.
fn automate(instance: &Instance, id: u32, values: Vec<f64>) {
    let queue = ComWrapper::new(Change { id, values }).to_com_ptr::<IParamValueQueue>().unwrap();
    let changes = ComWrapper::new(Changes(queue)).to_com_ptr::<IParameterChanges>().unwrap();
    let (mut left, mut right) = ([0f32; BLOCK], [0f32; BLOCK]);
    let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
    let mut again = pointers;
    let (mut inputs, mut outputs) = ([bus(&mut pointers)], [bus(&mut again)]);
    unsafe {
        let mut data: ProcessData = std::mem::zeroed();
        data.numSamples = BLOCK as i32;
        (data.numInputs, data.inputs) = (1, inputs.as_mut_ptr());
        (data.numOutputs, data.outputs) = (1, outputs.as_mut_ptr());
        data.inputParameterChanges = changes.as_ptr();
        assert_eq!(instance.processor.process(&mut data), kResultOk);
        assert_eq!(data.inputParameterChanges, changes.as_ptr(), "the host's own pointer is back");
    }
}

/// A host that does this wherever it is told of a new latency.
struct Told<F>(F);

impl<F: Fn() + 'static> Class for Told<F> {
    type Interfaces = (IComponentHandler,);
}

impl<F: Fn() + 'static> IComponentHandlerTrait for Told<F> {
    unsafe fn beginEdit(&self, _id: u32) -> tresult {
        kResultOk
    }
    unsafe fn performEdit(&self, _id: u32, _value: f64) -> tresult {
        kResultOk
    }
    unsafe fn endEdit(&self, _id: u32) -> tresult {
        kResultOk
    }
    unsafe fn restartComponent(&self, flags: i32) -> tresult {
        assert_eq!(flags, RestartFlags_::kLatencyChanged);
        (self.0)();
        kResultOk
    }
}

#[test]
fn a_host_may_start_the_plugin_anew_where_it_is_told_of_a_latency() {
    let instance = Instance::active(STEREO);
    let results = Arc::<Mutex<Vec<tresult>>>::default();
    let (component, heard) = (instance.component.clone(), results.clone());
    let handler = ComWrapper::new(Told(move || {
        let results = unsafe { [component.setActive(0), component.setActive(1)] };
        heard.lock().unwrap().extend(results);
    }));
    let handler = handler.to_com_ptr::<IComponentHandler>().unwrap();
    unsafe {
        assert_eq!(instance.controller.setComponentHandler(handler.as_ptr()), kResultOk);
        instance.processor.setProcessing(0);
        instance.set("Latency Tier", 1.0);
        instance.processor.setProcessing(1);
    }
    let before = instance.latency();
    for _ in 0..3000 {
        let (mut left, mut right) = ([0f32; BLOCK], [0f32; BLOCK]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        assert_eq!(
            instance.process(&mut [bus(&mut pointers.clone())], &mut [bus(&mut pointers)], BLOCK),
            kResultOk
        );
        if instance.latency() != before {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(instance.latency() > before, "the higher tier has the same latency");
    assert_eq!(*results.lock().unwrap(), [kResultOk, kResultOk]);
    unsafe { instance.controller.setComponentHandler(null_mut()) };
}

impl Instance {
    /// Plays on an audio thread, as another tier is wanted, until its latency is there.
    fn change_latency(&self) {
        let before = self.latency();
        unsafe { self.processor.setProcessing(0) };
        self.set("Latency Tier", if self.get("Latency Tier") < 0.5 { 1.0 } else { 1.0 / 3.0 });
        unsafe { self.processor.setProcessing(1) };
        let calls = || {
            for _ in 0..3000 {
                let (mut left, mut right) = ([0f32; BLOCK], [0f32; BLOCK]);
                let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
                let mut outputs = [bus(&mut pointers)];
                assert_eq!(self.process(&mut [bus(&mut pointers.clone())], &mut outputs, BLOCK), kResultOk);
                if self.latency() != before {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            panic!("the latency does not change");
        };
        let shared = Elsewhere(&calls);
        std::thread::scope(|scope| {
            let run = move || {
                let shared = shared;
                (shared.0)();
            };
            scope.spawn(run).join().unwrap();
        });
    }
}

/// What another thread may call while this one waits for it.
struct Elsewhere<'a>(&'a dyn Fn());

unsafe impl Send for Elsewhere<'_> {}

#[test]
fn an_instance_may_go_while_its_latency_is_told() {
    // What fails here takes the process with it.
    crate::torture::alone(|| {
        let (entered, enters) = std::sync::mpsc::channel();
        let told = Arc::<Mutex<usize>>::default();
        let count = told.clone();
        // It takes its time.
        let handler = ComWrapper::new(Told(move || {
            let _ = entered.send(());
            std::thread::sleep(Duration::from_millis(400));
            *count.lock().unwrap() += 1;
        }));
        let pointer = handler.to_com_ptr::<IComponentHandler>().unwrap();
        let slow = Instance::active(STEREO);
        let quick = Instance::active(STEREO);
        unsafe { slow.controller.setComponentHandler(pointer.as_ptr()) };
        slow.change_latency();
        enters.recv_timeout(Duration::from_secs(10)).expect("the host is told of a latency");
        // The host is still being told of the other's.
        quick.change_latency();
        drop(quick);
        // Nor has it answered yet.
        slow.change_latency();
        drop(slow);
        assert!(*told.lock().unwrap() >= 1);
        // Nobody else is harmed.
        let after = Instance::active(STEREO);
        unsafe { after.controller.setComponentHandler(pointer.as_ptr()) };
        let before = *told.lock().unwrap();
        after.change_latency();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(*told.lock().unwrap(), before + 1);
    });
}

/// A host's window with a run loop.
#[derive(Default)]
struct Window {
    handlers: Mutex<Vec<ComPtr<Linux::IEventHandler>>>,
    /// Handlers that were registered, ever.
    seen: Mutex<Vec<ComPtr<Linux::IEventHandler>>>,
}

impl Class for Window {
    type Interfaces = (IPlugFrame, Linux::IRunLoop);
}

impl IPlugFrameTrait for Window {
    unsafe fn resizeView(&self, view: *mut IPlugView, size: *mut ViewRect) -> tresult {
        unsafe { ComRef::from_raw(view).unwrap().onSize(size) }
    }
}

impl Linux::IRunLoopTrait for Window {
    unsafe fn registerEventHandler(&self, handler: *mut Linux::IEventHandler, _file: i32) -> tresult {
        let handler = unsafe { ComRef::from_raw(handler).unwrap().to_com_ptr() };
        self.handlers.lock().unwrap().push(handler.clone());
        self.seen.lock().unwrap().push(handler);
        kResultOk
    }
    unsafe fn unregisterEventHandler(&self, handler: *mut Linux::IEventHandler) -> tresult {
        self.handlers.lock().unwrap().retain(|known| known.as_ptr() != handler);
        kResultOk
    }
    unsafe fn registerTimer(&self, _handler: *mut Linux::ITimerHandler, _interval: u64) -> tresult {
        kResultOk
    }
    unsafe fn unregisterTimer(&self, _handler: *mut Linux::ITimerHandler) -> tresult {
        kResultOk
    }
}

/// Files that this process has open.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

impl Instance {
    fn view(&self) -> ComPtr<IPlugView> {
        unsafe { ComPtr::from_raw(self.controller.createView(c"editor".as_ptr())).unwrap() }
    }
}

#[test]
fn a_view_leaves_nothing_with_the_hosts_run_loop() {
    crate::torture::alone(|| {
        let instance = Instance::new(STEREO);
        let window = ComWrapper::new(Window::default());
        let frame = window.to_com_ptr::<IPlugFrame>().unwrap();
        let before = files();
        for round in 0..20 {
            let view = instance.view();
            unsafe {
                assert_eq!(view.setFrame(frame.as_ptr()), kResultOk);
                assert_eq!(window.handlers.lock().unwrap().len(), 1, "round {round}");
                // As a host may that looks late.
                let handler = window.seen.lock().unwrap().last().unwrap().clone();
                handler.onFDIsSet(0);
                // Some hosts take the frame away first, others only let the view go.
                match round % 3 {
                    0 => assert_eq!(view.setFrame(null_mut()), kResultOk),
                    1 => assert_eq!(view.setFrame(frame.as_ptr()), kResultOk),
                    _ => {}
                }
                drop(view);
                handler.onFDIsSet(0);
            }
            assert!(window.handlers.lock().unwrap().is_empty(), "round {round}: a handler stays");
            assert_eq!(files(), before, "round {round}: files stay open");
        }
    });
}

#[test]
fn a_scale_that_comes_before_the_window_is_kept() {
    let instance = Instance::new(STEREO);
    let view = instance.view();
    let scaled = view.cast::<IPlugViewContentScaleSupport>().unwrap();
    let size = || unsafe {
        let mut size: ViewRect = std::mem::zeroed();
        assert_eq!(view.getSize(&mut size), kResultOk);
        (size.right - size.left, size.bottom - size.top)
    };
    let (width, height) = size();
    for scale in [1.5, 2.0, 1.0] {
        assert_eq!(unsafe { scaled.setContentScaleFactor(scale) }, kResultOk);
        let wanted = [width, height].map(|points| (points as f32 * scale).round() as i32);
        assert_eq!(size(), (wanted[0], wanted[1]), "{scale}");
    }
    for nonsense in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e9] {
        assert_ne!(unsafe { scaled.setContentScaleFactor(nonsense) }, kResultOk, "{nonsense}");
    }
    assert_eq!(size(), (width, height));
}

/// Waits for something that a window does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs Xvfb; scripts/test-hosts runs it"]
fn a_window_opens_with_the_scale_that_came_before_it() {
    crate::torture::alone(|| {
        let screen = crate::screen::Screen::start();
        let frame = screen.frame(1390, 990);
        let instance = Instance::active(STEREO);
        let view = instance.view();
        let scaled = view.cast::<IPlugViewContentScaleSupport>().unwrap();
        for scale in [1.25, 1.0] {
            unsafe {
                let mut size: ViewRect = std::mem::zeroed();
                assert_eq!(scaled.setContentScaleFactor(scale), kResultOk);
                assert_eq!(view.getSize(&mut size), kResultOk);
                let wanted = (size.right as u16, size.bottom as u16);
                let parent = frame.id() as usize as *mut c_void;
                assert_eq!(view.attached(parent, c"X11EmbedWindowID".as_ptr()), kResultOk);
                // With its first picture it has arrived.
                until("not as large as it said", || {
                    view.getSize(&mut size);
                    (size.right as u16, size.bottom as u16) == wanted
                        && frame.children() == [wanted]
                        && frame.colors() > 8
                });
                assert_eq!(view.removed(), kResultOk);
            }
        }
    });
}

#[test]
#[ignore = "needs Xvfb; scripts/test-hosts runs it"]
fn what_the_editor_sets_counts_at_once_in_a_host_that_does_not_process() {
    crate::torture::alone(|| {
        let screen = crate::screen::Screen::start();
        let frame = screen.frame(1390, 990);
        let instance = Instance::new(STEREO);
        let values = || -> Vec<f64> {
            let count = unsafe { instance.controller.getParameterCount() };
            let id = |index| instance.parameter(index).2;
            (0..count).map(|index| unsafe { instance.controller.getParamNormalized(id(index)) }).collect()
        };
        let before = values();
        // No frame: the wrapper would have nowhere to tell the editor of its own doings but a thread that must not.
        let view = instance.view();
        let parent = frame.id() as usize as *mut c_void;
        unsafe { assert_eq!(view.attached(parent, c"X11EmbedWindowID".as_ptr()), kResultOk) };
        until("no picture", || frame.colors() > 8);
        let (width, height) = frame.children()[0];
        let places =
            (0..height).step_by(24).rev().flat_map(|y| (0..width).step_by(24).rev().map(move |x| (x, y)));
        let set = places.into_iter().any(|(x, y)| {
            frame.click(x as i16, y as i16);
            std::thread::sleep(Duration::from_millis(30));
            values() != before
        });
        assert!(set, "clicks everywhere set nothing");
        assert!(
            crate::torture::threads().iter().any(|name| name == "bg-worker"),
            "the wrapper's thread has died"
        );
        assert_eq!(unsafe { view.removed() }, kResultOk);
    });
}

#[test]
fn an_index_past_the_end_is_refused() {
    let instance = Instance::new(MULTI);
    unsafe {
        let mut info: ParameterInfo = std::mem::zeroed();
        for index in [-1, instance.controller.getParameterCount(), i32::MAX] {
            assert_ne!(instance.controller.getParameterInfo(index, &mut info), kResultOk, "{index}");
        }
        let mut bus: BusInfo = std::mem::zeroed();
        for index in [-1, 7] {
            let (audio, output) = (MediaTypes_::kAudio as i32, BusDirections_::kOutput as i32);
            assert_ne!(instance.component.getBusInfo(audio, output, index, &mut bus), kResultOk, "{index}");
            let mut arrangement = 0;
            assert_ne!(instance.processor.getBusArrangement(output, index, &mut arrangement), kResultOk);
        }
    }
}

#[test]
fn a_block_before_any_setup_or_of_other_samples_is_refused() {
    let instance = Instance::new(STEREO);
    let (mut left, mut right) = ([0f32; BLOCK], [0f32; BLOCK]);
    let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
    assert_ne!(instance.process(&mut [], &mut [bus(&mut pointers)], BLOCK), kResultOk);
    let instance = Instance::active(STEREO);
    unsafe {
        let mut data: ProcessData = std::mem::zeroed();
        data.symbolicSampleSize = SymbolicSampleSizes_::kSample64 as i32;
        assert_ne!(instance.processor.process(&mut data), kResultOk);
        assert_ne!(instance.processor.process(null_mut()), kResultOk);
        let mut setup = ProcessSetup {
            processMode: 0,
            symbolicSampleSize: SymbolicSampleSizes_::kSample64 as i32,
            maxSamplesPerBlock: 64,
            sampleRate: 48_000.0,
        };
        assert_ne!(Instance::new(STEREO).processor.setupProcessing(&mut setup), kResultOk);
    }
}

#[test]
fn an_input_that_is_left_out_is_silence() {
    let instance = Instance::active(STEREO);
    let latency = instance.latency();
    let mut done = 0;
    while done < latency + 2 * BLOCK {
        // What stands in the output is no input.
        let (mut left, mut right) = ([0.5f32; BLOCK], [0.5f32; BLOCK]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut nulls = [null_mut(); 2];
        let mut inputs = match done / BLOCK % 3 {
            0 => vec![],
            1 => vec![no_bus()],
            _ => vec![bus(&mut nulls)],
        };
        let mut outputs = [bus(&mut pointers)];
        assert_eq!(instance.process(&mut inputs, &mut outputs, BLOCK), kResultOk);
        assert_eq!(outputs[0].silenceFlags, 0);
        assert!(left.iter().chain(&right).all(|sample| *sample == 0.0), "at {done}");
        done += BLOCK;
    }
}

#[test]
fn every_set_of_missing_outputs_leaves_the_others_exact() {
    let instance = Instance::active(MULTI);
    let latency = instance.latency();
    let signal: Vec<f32> = crate::signal::floats(1, latency + 40 * BLOCK).remove(0);
    let mut heard = vec![f32::NAN; signal.len()];
    for (round, start) in (0..signal.len() - BLOCK).step_by(BLOCK).enumerate() {
        let mut input = [signal[start..start + BLOCK].to_vec(), signal[start..start + BLOCK].to_vec()];
        let mut planes = vec![[f32::NAN; BLOCK]; 14];
        let mut pointers: Vec<[*mut f32; 2]> = planes
            .chunks_exact_mut(2)
            .map(|bus| bus.iter_mut().map(|plane| plane.as_mut_ptr()).collect::<Vec<_>>().try_into().unwrap())
            .collect();
        // Main always, of the stems every set by turns, as null pointers, as no channels, and as fewer buses.
        let given = |stem: usize| round >> stem & 1 == 1;
        let mut outputs: Vec<AudioBusBuffers> = pointers.iter_mut().map(|pointers| bus(pointers)).collect();
        let mut nulls = [null_mut(); 2];
        for stem in 0..6 {
            if !given(stem) {
                outputs[stem + 1] = if round % 2 == 0 { no_bus() } else { bus(&mut nulls) };
            }
        }
        if round % 5 == 0 {
            outputs.truncate(1 + round % 6);
        }
        let mut inputs: Vec<*mut f32> = input.iter_mut().map(|plane| plane.as_mut_ptr()).collect();
        let buses = outputs.len();
        assert_eq!(instance.process(&mut [bus(&mut inputs)], &mut outputs, BLOCK), kResultOk);
        heard[start..start + BLOCK].copy_from_slice(&planes[0]);
        for stem in (0..6).filter(|stem| given(*stem) && stem + 1 < buses) {
            assert!(
                planes[2 * stem + 2].iter().all(|sample| sample.is_finite()),
                "stem {stem}, round {round}"
            );
        }
    }
    let end = signal.len() - BLOCK;
    for n in latency..end {
        assert_eq!(heard[n].to_bits(), signal[n - latency].to_bits(), "sample {n}");
    }
}

#[test]
fn a_main_output_that_is_left_out_does_not_stop_the_stems() {
    let instance = Instance::active(MULTI);
    let (mut left, mut right) = ([f32::NAN; BLOCK], [f32::NAN; BLOCK]);
    let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
    let mut nulls = [null_mut(); 2];
    for mut outputs in [[no_bus(), bus(&mut pointers)], [bus(&mut nulls), bus(&mut pointers.clone())]] {
        assert_eq!(instance.process(&mut [no_bus()], &mut outputs, BLOCK), kResultOk);
    }
    assert!(left.iter().chain(&right).all(|sample| *sample == 0.0), "nothing came in");
}

#[test]
fn parameters_alone_are_taken_with_no_channels_and_with_no_samples() {
    let instance = Instance::active(STEREO);
    assert_eq!(instance.process(&mut [no_bus()], &mut [no_bus()], BLOCK), kResultOk);
    assert_eq!(instance.process(&mut [], &mut [], 0), kResultOk);
    assert_eq!(instance.process(&mut [], &mut [], BLOCK), kResultOk);
}

#[test]
fn the_tail_is_the_latency_from_the_activation_on() {
    let instance = Instance::active(STEREO);
    assert!(instance.latency() > 0);
    assert_eq!(unsafe { instance.processor.getTailSamples() } as usize, instance.latency());
}

#[test]
fn the_editor_is_the_only_view() {
    let instance = Instance::new(STEREO);
    unsafe {
        assert!(instance.controller.createView(c"generic".as_ptr()).is_null());
        let view = ComPtr::<IPlugView>::from_raw(instance.controller.createView(c"editor".as_ptr())).unwrap();
        let mut size: ViewRect = std::mem::zeroed();
        assert_eq!(view.getSize(&mut size), kResultOk);
        assert!(size.right - size.left >= 600 && size.bottom - size.top >= 400);
        assert_eq!(view.canResize(), kResultOk);
    }
}

#[test]
fn classes_tell_the_edition_and_what_it_asks_of_them() {
    let instance = Instance::new(STEREO);
    let second = instance.factory.cast::<IPluginFactory2>().unwrap();
    let third = instance.factory.cast::<IPluginFactory3>().unwrap();
    for class in [STEREO, MULTI] {
        unsafe {
            let mut narrow: PClassInfo2 = std::mem::zeroed();
            let mut wide: PClassInfoW = std::mem::zeroed();
            assert_eq!(second.getClassInfo2(class as i32, &mut narrow), kResultOk);
            assert_eq!(third.getClassInfoUnicode(class as i32, &mut wide), kResultOk);
            assert_eq!(
                (bytes(&narrow.sdkVersion), text(&wide.sdkVersion)),
                ("VST 3.8.0".into(), "VST 3.8.0".into())
            );
        }
    }
    let needs = instance.component.cast::<IProcessContextRequirements>().unwrap();
    let needed = unsafe { needs.getProcessContextRequirements() };
    assert_eq!(needed, IProcessContextRequirements_::Flags_::kNeedTransportState);
}

#[test]
fn units_have_no_blanks_and_texts_come_back_as_they_were() {
    let instance = Instance::new(STEREO);
    let controller = &instance.controller;
    for index in 0..unsafe { controller.getParameterCount() } {
        let (name, unit, id) = instance.parameter(index);
        assert_eq!(unit, unit.trim(), "{name}");
        for step in 0..=1000 {
            unsafe {
                let mut first: String128 = [0; 128];
                let mut second: String128 = [0; 128];
                let mut value = f64::NAN;
                assert_eq!(
                    controller.getParamStringByValue(id, f64::from(step) / 1000.0, &mut first),
                    kResultOk
                );
                assert_eq!(
                    controller.getParamValueByString(id, first.as_mut_ptr(), &mut value),
                    kResultOk,
                    "{name}: {}",
                    text(&first)
                );
                assert_eq!(controller.getParamStringByValue(id, value, &mut second), kResultOk);
                assert_eq!(text(&first), text(&second), "{name} at {step} of 1000");
            }
        }
    }
}
