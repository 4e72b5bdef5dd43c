//! VST3, interface by interface.

mod automation;
mod blocks;
mod latency;
#[cfg(target_os = "linux")]
mod window;

use std::ffi::c_void;
use std::ptr::null_mut;

use libloading::Library;
use vst3::Steinberg::Vst::*;
use vst3::Steinberg::*;
use vst3::{ComPtr, Interface};

use crate::host::LOW;
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
    // Last: the other fields are inside it.
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

    /// An active instance that never waits for the model.
    fn active(class: usize) -> Self {
        let instance = Self::new(class);
        instance.set("Render Mode", 0.5);
        instance.set("Latency Tier", LOW);
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

/// A bus with these channels. A null pointer is a missing channel.
fn bus(pointers: &mut [*mut f32]) -> AudioBusBuffers {
    let mut bus: AudioBusBuffers = unsafe { std::mem::zeroed() };
    bus.numChannels = pointers.len() as i32;
    bus.silenceFlags = u64::MAX;
    bus.__field0.channelBuffers32 = pointers.as_mut_ptr();
    bus
}

/// A bus that the host deactivated.
fn no_bus() -> AudioBusBuffers {
    unsafe { std::mem::zeroed() }
}

#[test]
fn an_index_out_of_range_is_refused() {
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
fn classes_report_the_sdk_version_and_its_requirements() {
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
    // The sign of constants depends on the system's C compiler.
    assert_eq!(i64::from(needed), i64::from(IProcessContextRequirements_::Flags_::kNeedTransportState));
}

#[test]
fn units_have_no_leading_spaces_and_texts_parse_back() {
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
