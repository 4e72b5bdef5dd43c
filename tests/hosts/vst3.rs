//! VST3: `vst3-host` in this process. It loads the bundle, and unloads it with the last instance.

use std::collections::HashMap;

use vst3_host::Vst3Host;
use vst3_host::audio::{BusAudioBuffers, BusDirection, MediaType, SpeakerArrangement};
use vst3_host::plugin::{Plugin, ProcessMode};

use crate::host::{Buses, Host, Layout, Run};
use crate::library::PLUGIN;

/// Class ids, which projects refer to for ever.
const STEREO: &[u8; 16] = b"NullsumStereo001";
const MULTI: &[u8; 16] = b"NullsumMulti0001";

/// The envelope that `vst3-host` puts around a component's state.
const ENVELOPE: &[u8; 16] = b"VST3HOST_STATE\0\0";

/// An instance in `vst3-host`.
pub struct Vst3 {
    pub plugin: Plugin,
    /// Parameter ids by name.
    ids: HashMap<String, u32>,
    names: Vec<String>,
    buffers: Option<BusAudioBuffers>,
}

impl Vst3 {
    /// Switches all stem buses on or off, as a host does whose user only routes the main output.
    pub fn set_stem_buses_active(&mut self, active: bool) {
        for bus in 1..7 {
            self.plugin.set_bus_active(MediaType::Audio, BusDirection::Output, bus, active).unwrap();
        }
    }

    /// Reads the latency again until the plugin reports no more change. `vst3-host` reads it only before activation and on
    /// `restartComponent(kLatencyChanged)`.
    fn settle(&mut self) {
        for _ in 0..4 {
            if !self.plugin.service_host_requests().unwrap().latency_changed() {
                return;
            }
        }
    }
}

impl Host for Vst3 {
    const FORMAT: &'static str = "VST3";
    const RESTORES_ANEW: bool = true;

    fn classes() -> Vec<String> {
        let info = vst3_host::discovery::get_detailed_plugin_info(&PLUGIN.bundle).unwrap();
        info.classes.into_iter().map(|class| class.name).collect()
    }

    fn create(layout: Layout) -> Self {
        let mut plugin = load(if layout.multi() { MULTI } else { STEREO });
        if layout == Layout::Mono {
            plugin.set_bus_arrangements(&[SpeakerArrangement::MONO], &[SpeakerArrangement::MONO]).unwrap();
        }
        let parameters = plugin.get_parameters().unwrap();
        let names = parameters.iter().map(|parameter| parameter.name.clone()).collect();
        let ids = parameters.into_iter().map(|parameter| (parameter.name, parameter.id)).collect();
        Self { plugin, ids, names, buffers: None }
    }

    fn activate(&mut self, run: Run) {
        self.deactivate();
        let mode = if run.offline { ProcessMode::Offline } else { ProcessMode::Realtime };
        self.plugin.set_process_mode(mode).unwrap();
        self.plugin.reconfigure(f64::from(run.rate), run.block).unwrap();
        self.plugin.start_processing().unwrap();
        self.settle();
    }

    fn deactivate(&mut self) {
        if self.plugin.is_processing() {
            self.plugin.stop_processing().unwrap();
        }
        self.buffers = None;
    }

    fn service(&mut self) -> bool {
        self.plugin.take_restart_flags().latency_changed()
    }

    fn latency(&mut self) -> usize {
        self.plugin.latency_samples() as usize
    }

    fn output_buses(&mut self) -> Vec<(Option<String>, usize)> {
        // `vst3-host` knows the bus names of a library's first class only.
        let layout = self.plugin.audio_bus_layout().unwrap();
        layout.outputs.iter().map(|bus| (None, bus.channel_count)).collect()
    }

    fn parameters(&mut self) -> Vec<String> {
        self.names.clone()
    }

    fn set(&mut self, name: &str, normalised: f64) {
        let id = self.ids.get(name).unwrap_or_else(|| panic!("no parameter {name:?} among {:?}", self.names));
        self.plugin.set_parameter(*id, normalised).unwrap();
    }

    fn get(&mut self, name: &str) -> f64 {
        let id = self.ids.get(name).unwrap_or_else(|| panic!("no parameter {name:?} among {:?}", self.names));
        self.plugin.get_parameter(*id).unwrap()
    }

    fn process(&mut self, input: &[&[f32]]) -> Result<Buses, String> {
        let samples = input[0].len();
        let mut buffers = match self.buffers.take() {
            Some(buffers) => buffers,
            None => self.plugin.create_bus_audio_buffers(samples).map_err(|error| error.to_string())?,
        };
        buffers.block_size = samples;
        for (channel, input) in buffers.inputs[0].channels.iter_mut().zip(input) {
            channel.clear();
            channel.extend_from_slice(input);
        }
        for channel in buffers.outputs.iter_mut().flat_map(|bus| &mut bus.channels) {
            channel.clear();
            channel.resize(samples, f32::NAN);
        }
        crate::syscall_watch::during(|| self.plugin.process_bus_audio(&mut buffers))
            .map_err(|error| error.to_string())?;
        let output = buffers.outputs.iter().map(|bus| bus.channels.clone()).collect();
        self.buffers = Some(buffers);
        Ok(output)
    }

    fn save(&mut self) -> Vec<u8> {
        let state = self.plugin.save_state().unwrap();
        let payload = state.strip_prefix(ENVELOPE).expect("an envelope of vst3-host");
        let length = u32::from_le_bytes(payload[4..8].try_into().unwrap()) as usize;
        payload[12..12 + length].to_vec()
    }

    fn load(&mut self, state: &[u8]) -> bool {
        let loaded = self.plugin.load_state(state).is_ok();
        self.buffers = None;
        loaded
    }
}

/// Loads an instance of the class with this id.
fn load(id: &[u8; 16]) -> Plugin {
    let mut host = Vst3Host::builder().sample_rate(48000.0).block_size(512).build().unwrap();
    let hex: String = id.iter().map(|byte| format!("{byte:02X}")).collect();
    host.load_plugin_class(&PLUGIN.bundle, &hex)
        .unwrap_or_else(|error| panic!("{} as {hex}: {error}", PLUGIN.bundle.display()))
}
