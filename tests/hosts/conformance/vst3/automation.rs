//! Values that a host sets on the controller and with its blocks.

use std::cell::RefCell;

use vst3::{Class, ComPtr, ComWrapper};

use super::*;
#[cfg(target_os = "linux")]
use crate::host::on_new_thread;

#[test]
fn the_controller_reports_a_value_set_during_playback() {
    let instance = Instance::active(STEREO);
    for value in [1.0, 0.0, 1.0] {
        instance.set("Bypass", value);
        assert_eq!(instance.get("Bypass"), value);
    }
    let nobody = unsafe { instance.controller.setParamNormalized(0x7fff_fff0, 0.5) };
    assert_ne!(nobody, kResultOk);
}

#[test]
fn a_value_set_on_the_controller_alone_is_inaudible() {
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
    assert!(heard[latency..].iter().all(|sample| *sample == 0.5), "only blocks carry automation");
    assert_eq!(instance.get("Output"), 0.0);
    assert_eq!(saved(&instance, "output"), 0.0, "nor the state, as blocks have come without it");
}

/// A stream that accepts all writes.
#[derive(Default)]
struct Sink(RefCell<Vec<u8>>);

impl Class for Sink {
    type Interfaces = (IBStream,);
}

impl IBStreamTrait for Sink {
    unsafe fn read(&self, _buffer: *mut c_void, _count: i32, _read: *mut i32) -> tresult {
        kNotImplemented
    }
    unsafe fn write(&self, buffer: *mut c_void, count: i32, written: *mut i32) -> tresult {
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), count as usize) };
        self.0.borrow_mut().extend_from_slice(bytes);
        if let Some(written) = unsafe { written.as_mut() } {
            *written = count;
        }
        kResultOk
    }
    unsafe fn seek(&self, _position: i64, _mode: i32, _result: *mut i64) -> tresult {
        kNotImplemented
    }
    unsafe fn tell(&self, _position: *mut i64) -> tresult {
        kNotImplemented
    }
}

/// A parameter's value in dB, from the component's saved state.
fn saved(instance: &Instance, name: &str) -> f64 {
    let sink = ComWrapper::new(Sink::default());
    let stream = sink.to_com_ptr::<IBStream>().unwrap();
    assert_eq!(unsafe { instance.component.getState(stream.as_ptr()) }, kResultOk);
    let state: serde_json::Value = serde_json::from_slice(&sink.0.borrow()).unwrap();
    state["params"][name]["f32"].as_f64().unwrap_or_else(|| panic!("{state}"))
}

#[test]
fn a_value_set_on_the_controller_is_saved_without_a_block() {
    let instance = Instance::active(STEREO);
    for value in [0.25, 0.75] {
        instance.set("Output", value);
        let plain = unsafe { instance.controller.normalizedParamToPlain(instance.id("Output"), value) };
        let found = saved(&instance, "output");
        assert!((found - plain).abs() < 0.02, "{found} dB instead of {plain}");
    }
}

#[test]
fn a_value_set_on_the_controller_stays_when_processing_ends() {
    let instance = Instance::active(STEREO);
    instance.set("Output", 0.25);
    for state in [0, 1] {
        assert_eq!(unsafe { instance.processor.setProcessing(state) }, kResultOk);
        let got = instance.get("Output");
        assert!((got - 0.25).abs() < 1e-3, "{got}");
    }
}

/// Changes of one parameter in a block.
struct Change {
    id: u32,
    /// Sample of the first value; the others follow it.
    offset: i32,
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
        unsafe { (*offset, *value) = (self.offset + index, *found) };
        kResultOk
    }
    unsafe fn addPoint(&self, _offset: i32, _value: f64, _index: *mut i32) -> tresult {
        kNotImplemented
    }
}

/// The changes of a block, for one parameter.
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

/// Processes twenty blocks with automation and checks that each value arrives.
fn sweep(instance: &Instance, id: u32, round: u32) {
    for step in 0..20 {
        let value = f64::from(round * 20 + step) / 400.0;
        automate(instance, id, vec![0.9, value]);
        let got = instance.get("Output");
        assert!((got - value).abs() < 1e-3, "{got} instead of {value}");
    }
}

#[test]
fn automation_arrives_with_its_block() {
    let instance = Instance::active(STEREO);
    let id = instance.id("Output");
    (0..20).for_each(|round| sweep(&instance, id, round));
}

/// How often threads with this name gave up the processor by themselves, that is, woke and slept again.
#[cfg(target_os = "linux")]
fn voluntary_switches(name: &str) -> u64 {
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

#[cfg(target_os = "linux")]
#[test]
fn automation_wakes_no_thread() {
    let instance = Instance::active(STEREO);
    let id = instance.id("Output");
    // Not on the thread that created the instance, where the wrapper would have nobody to wake. Other tests of this process may wake it.
    let calm = on_new_thread(&mut &instance, |instance| {
        (0..20).any(|round| {
            let before = voluntary_switches("bg-worker");
            sweep(instance, id, round);
            std::thread::sleep(std::time::Duration::from_millis(20));
            voluntary_switches("bg-worker") == before
        })
    });
    assert!(calm, "the wrapper's thread is woken by automation");
}

/// Processes a block of silence with changes of a parameter.
fn automate(instance: &Instance, id: u32, values: Vec<f64>) {
    constant_block(instance, 0.0, Some(Change { id, offset: 0, values }));
}

/// Processes a block of a constant, with changes of a parameter. Returns the left output.
fn constant_block(instance: &Instance, level: f32, change: Option<Change>) -> [f32; BLOCK] {
    let changes = change.map(|change| {
        let queue = ComWrapper::new(change).to_com_ptr::<IParamValueQueue>().unwrap();
        ComWrapper::new(Changes(queue)).to_com_ptr::<IParameterChanges>().unwrap()
    });
    let changes = changes.as_ref().map_or(null_mut(), |changes| changes.as_ptr());
    let (mut left, mut right) = ([level; BLOCK], [level; BLOCK]);
    let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
    let mut again = pointers;
    let (mut inputs, mut outputs) = ([bus(&mut pointers)], [bus(&mut again)]);
    unsafe {
        let mut data: ProcessData = std::mem::zeroed();
        data.numSamples = BLOCK as i32;
        (data.numInputs, data.inputs) = (1, inputs.as_mut_ptr());
        (data.numOutputs, data.outputs) = (1, outputs.as_mut_ptr());
        data.inputParameterChanges = changes;
        assert_eq!(instance.processor.process(&mut data), kResultOk);
        assert_eq!(data.inputParameterChanges, changes, "the host's own pointer is back");
        assert_eq!((data.numSamples, data.numInputs, data.numOutputs), (BLOCK as i32, 1, 1));
        assert_eq!((data.inputs, data.outputs), (inputs.as_mut_ptr(), outputs.as_mut_ptr()));
    }
    left
}

#[test]
fn automation_is_exact_to_the_sample() {
    for offset in [0, 1, 100, BLOCK - 1] {
        let instance = Instance::active(STEREO);
        let id = instance.id("Output");
        for _ in 0..instance.latency() / BLOCK + 2 {
            constant_block(&instance, 0.5, None);
        }
        // The transport is stopped, so the value applies at once.
        let change = Change { id, offset: offset as i32, values: vec![0.0] };
        let output = constant_block(&instance, 0.5, Some(change));
        assert!(output[..offset].iter().all(|x| *x == 0.5), "offset {offset}: too early");
        assert!(output[offset..].iter().all(|x| *x < 0.5), "offset {offset}: too late");
        let next = constant_block(&instance, 0.5, None);
        assert!(next[0] < output[BLOCK - 1] || next[0] == 0.0, "the ramp goes on in the next block");
    }
}
