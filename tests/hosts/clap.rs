//! CLAP: `clack-host` in this process. It loads the shared library, and unloads it with the last instance.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use clack_extensions::audio_ports::{AudioPortInfoBuffer, PluginAudioPorts};
use clack_extensions::audio_ports_config::{AudioPortsConfigBuffer, PluginAudioPortsConfig};
use clack_extensions::gui::{GuiSize, HostGui, HostGuiImpl};
use clack_extensions::latency::{HostLatency, HostLatencyImpl, PluginLatency};
use clack_extensions::params::{
    HostParams, HostParamsImplMainThread, HostParamsImplShared, ParamClearFlags, ParamInfoBuffer,
    ParamRescanFlags, PluginParams,
};
use clack_extensions::render::{PluginRender, RenderMode};
use clack_extensions::state::{HostState, HostStateImpl, PluginState};
use clack_host::events::event_types::ParamValueEvent;
use clack_host::prelude::*;

use crate::host::{Buses, Host, Layout, Run};
use crate::library::PLUGIN;

/// Requests of the plugin, from any thread.
#[derive(Default)]
pub struct Shared {
    restart: AtomicBool,
    callback: AtomicBool,
}

impl<'a> SharedHandler<'a> for Shared {
    fn request_restart(&self) {
        self.restart.store(true, Ordering::SeqCst);
    }

    fn request_process(&self) {}

    fn request_callback(&self) {
        self.callback.store(true, Ordering::SeqCst);
    }
}

impl HostParamsImplShared for Shared {
    fn request_flush(&self) {}
}

impl HostGuiImpl for Shared {
    fn resize_hints_changed(&self) {}

    fn request_resize(&self, _size: GuiSize) -> Result<(), HostError> {
        Ok(())
    }

    fn request_show(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn request_hide(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn closed(&self, _was_destroyed: bool) {}
}

/// Notifications on the main thread.
#[derive(Default)]
pub struct MainThread {
    /// How often the plugin called `mark_dirty`.
    dirty: Cell<usize>,
}

impl<'a> MainThreadHandler<'a> for MainThread {}

impl HostLatencyImpl for MainThread {
    fn changed(&self) {}
}

impl HostParamsImplMainThread for MainThread {
    fn rescan(&self, _flags: ParamRescanFlags) {}
    fn clear(&self, _id: ClapId, _flags: ParamClearFlags) {}
}

impl HostStateImpl for MainThread {
    fn mark_dirty(&self) {
        self.dirty.set(self.dirty.get() + 1);
    }
}

/// The handler types for `clack-host`.
pub struct Handlers;

impl HostHandlers for Handlers {
    type Shared<'a> = Shared;
    type MainThread<'a> = MainThread;
    type AudioProcessor<'a> = ();

    fn declare_extensions(builder: &mut HostExtensions<Self>, _shared: &Self::Shared<'_>) {
        builder
            .register::<HostGui>()
            .register::<HostLatency>()
            .register::<HostParams>()
            .register::<HostState>();
    }
}

/// A parameter as the plugin describes it.
struct Parameter {
    id: ClapId,
    minimum: f64,
    maximum: f64,
}

/// An instance in `clack-host`.
pub struct Clap {
    /// Before the instance, so that it is dropped first.
    processor: Option<PluginAudioProcessor<Handlers>>,
    pub instance: PluginInstance<Handlers>,
    layout: Layout,
    parameters: HashMap<String, Parameter>,
    names: Vec<String>,
    /// Changes for the next block.
    events: EventBuffer,
    steady: u64,
    inputs: AudioPorts,
    outputs: AudioPorts,
}

impl Clap {
    /// An extension that the plugin must have.
    pub fn extension<
        E: clack_host::extensions::Extension<ExtensionSide = clack_host::extensions::PluginExtensionSide>,
    >(
        &mut self,
    ) -> E {
        self.instance.plugin_handle().get_extension().expect("the extension")
    }

    /// How often the plugin called `mark_dirty`.
    pub fn dirty_count(&mut self) -> usize {
        if self.instance.access_shared_handler(|shared| shared.callback.swap(false, Ordering::SeqCst)) {
            self.instance.call_on_main_thread_callback();
        }
        self.instance.access_handler(|main| main.dirty.get())
    }

    fn parameter(&self, name: &str) -> &Parameter {
        self.parameters.get(name).unwrap_or_else(|| panic!("no parameter {name:?} among {:?}", self.names))
    }

    /// Selects the ports of the layout, if the class offers a choice.
    fn select(&mut self) {
        let Some(configs) = self.instance.plugin_handle().get_extension::<PluginAudioPortsConfig>() else {
            return;
        };
        let wanted = self.layout.channels() as u32;
        let handle = self.instance.plugin_handle();
        let mut buffer = AudioPortsConfigBuffer::new();
        let found = (0..configs.count(&handle)).find_map(|index| {
            let config = configs.get(&handle, index, &mut buffer)?;
            (config.main_output.as_ref()?.channel_count == wanted).then_some(config.id)
        });
        configs.select(&handle, found.expect("a configuration of the layout")).unwrap();
    }
}

impl Host for Clap {
    const FORMAT: &'static str = "CLAP";
    const RESTORES_ANEW: bool = false;

    fn classes() -> Vec<String> {
        let entry = entry();
        let factory = entry.get_plugin_factory().unwrap();
        factory
            .plugin_descriptors()
            .map(|descriptor| descriptor.name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    fn create(layout: Layout) -> Self {
        let id = if layout.multi() { c"org.nullsum.nullsum-multi" } else { c"org.nullsum.nullsum" };
        let host = HostInfo::new("Nullsum tests", "Nullsum", "https://example.org", "1.0").unwrap();
        let instance = PluginInstance::<Handlers>::new(
            |_| Shared::default(),
            |_| MainThread::default(),
            &entry(),
            id,
            &host,
        )
        .unwrap();
        let ports = layout.outputs();
        let mut clap = Self {
            processor: None,
            instance,
            layout,
            parameters: HashMap::new(),
            names: Vec::new(),
            events: EventBuffer::new(),
            steady: 0,
            inputs: AudioPorts::with_capacity(2, 1),
            outputs: AudioPorts::with_capacity(2 * ports, ports),
        };
        clap.select();
        let params: PluginParams = clap.extension();
        let handle = clap.instance.plugin_handle();
        let mut buffer = ParamInfoBuffer::new();
        for index in 0..params.count(&handle) {
            let info = params.get_info(&handle, index, &mut buffer).unwrap();
            let name = text(info.name);
            let parameter = Parameter { id: info.id, minimum: info.min_value, maximum: info.max_value };
            clap.names.push(name.clone());
            clap.parameters.insert(name, parameter);
        }
        clap
    }

    fn activate(&mut self, run: Run) {
        self.deactivate();
        let render: PluginRender = self.extension();
        let mode = if run.offline { RenderMode::Offline } else { RenderMode::Realtime };
        render.set(&self.instance.plugin_handle(), mode).unwrap();
        let configuration = PluginAudioConfiguration {
            sample_rate: f64::from(run.rate),
            min_frames_count: 1,
            max_frames_count: run.block as u32,
        };
        let mut processor: PluginAudioProcessor<Handlers> =
            self.instance.activate(|_, _| (), configuration).unwrap().into();
        processor.start_processing().unwrap();
        self.processor = Some(processor);
        self.service();
    }

    fn deactivate(&mut self) {
        if let Some(processor) = self.processor.take() {
            self.instance.deactivate(processor.into_stopped());
        }
    }

    fn service(&mut self) -> bool {
        let (restart, callback) = self.instance.access_shared_handler(|shared| {
            (shared.restart.swap(false, Ordering::SeqCst), shared.callback.swap(false, Ordering::SeqCst))
        });
        if callback {
            self.instance.call_on_main_thread_callback();
        }
        restart
    }

    fn latency(&mut self) -> usize {
        let latency: PluginLatency = self.extension();
        latency.get(&self.instance.plugin_handle()) as usize
    }

    fn output_buses(&mut self) -> Vec<(Option<String>, usize)> {
        let ports: PluginAudioPorts = self.extension();
        let handle = self.instance.plugin_handle();
        let mut buffer = AudioPortInfoBuffer::new();
        (0..ports.count(&handle, false))
            .map(|index| {
                let info = ports.get(&handle, index, false, &mut buffer).unwrap();
                (Some(text(info.name)), info.channel_count as usize)
            })
            .collect()
    }

    fn parameters(&mut self) -> Vec<String> {
        self.names.clone()
    }

    fn set(&mut self, name: &str, normalised: f64) {
        let parameter = self.parameter(name);
        let value = parameter.minimum + normalised * (parameter.maximum - parameter.minimum);
        self.events.push(&ParamValueEvent::new(0, parameter.id, Pckn::match_all(), value));
        if self.processor.is_none() {
            let params: PluginParams = self.extension();
            let mut handle = self.instance.inactive_plugin_handle().unwrap();
            params.flush(&mut handle, &self.events.as_input(), &mut OutputEvents::void());
            self.events.clear();
        }
    }

    fn get(&mut self, name: &str) -> f64 {
        let (id, minimum, maximum) = {
            let parameter = self.parameter(name);
            (parameter.id, parameter.minimum, parameter.maximum)
        };
        let params: PluginParams = self.extension();
        let value = params.get_value(&self.instance.plugin_handle(), id).unwrap();
        (value - minimum) / (maximum - minimum)
    }

    fn process(&mut self, input: &[&[f32]]) -> Result<Buses, String> {
        let samples = input[0].len();
        let mut input: Vec<Vec<f32>> = input.iter().map(|channel| channel.to_vec()).collect();
        let mut output = vec![vec![vec![f32::NAN; samples]; self.layout.channels()]; self.layout.outputs()];
        let inputs = self.inputs.with_input_buffers([AudioPortBuffer {
            latency: 0,
            channels: AudioPortBufferType::f32_input_only(input.iter_mut().map(InputChannel::variable)),
        }]);
        let mut outputs = self.outputs.with_output_buffers(output.iter_mut().map(|bus| AudioPortBuffer {
            latency: 0,
            channels: AudioPortBufferType::f32_output_only(bus.iter_mut().map(Vec::as_mut_slice)),
        }));
        let processor =
            self.processor.as_mut().ok_or("inactive")?.as_started_mut().map_err(|e| e.to_string())?;
        let status = crate::syscall_watch::during(|| {
            processor.process(
                &inputs,
                &mut outputs,
                &self.events.as_input(),
                &mut OutputEvents::void(),
                Some(self.steady),
                None,
            )
        });
        self.steady += samples as u64;
        self.events.clear();
        status.map_err(|error| error.to_string())?;
        Ok(output)
    }

    fn save(&mut self) -> Vec<u8> {
        let state: PluginState = self.extension();
        let mut bytes = Vec::new();
        state.save(&self.instance.plugin_handle(), &mut bytes).unwrap();
        let (length, json) = bytes.split_at(8);
        assert_eq!(u64::from_le_bytes(length.try_into().unwrap()), json.len() as u64);
        json.to_vec()
    }

    fn load(&mut self, state: &[u8]) -> bool {
        let mut bytes = (state.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(state);
        let extension: PluginState = self.extension();
        extension.load(&self.instance.plugin_handle(), &mut bytes.as_slice()).is_ok()
    }
}

impl Drop for Clap {
    fn drop(&mut self) {
        self.deactivate();
    }
}

/// The library's entry. It stays loaded while any instance exists.
fn entry() -> PluginEntry {
    // SAFETY: the library is the plugin built from this source.
    unsafe { PluginEntry::load(&PLUGIN.library) }
        .unwrap_or_else(|error| panic!("{}: {error}", PLUGIN.library.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
