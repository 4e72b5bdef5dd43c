//! The plugin: VST3 and CLAP classes, stereo or with one output for each stem, and the standalone app.
//!
//! ```text
//! host ─ activate ──→ control::activate ─→ Stream::open ──→ client ─┐
//! host ─ process ───→ Processor ←───────── handoff ←────────────────┤   (audio thread)
//! host ─ state ─────→ params (model, tier) ←─ polled ─ control thread: loads, measures, plans, swaps
//! editor ─ commands → InstanceShared ───────────────────────────────┘
//! ```
//!
//! The audio thread uses [`live::Client`](crate::live::Client), parameters and atomics only. Plugin scanning only builds parameters: it starts no
//! thread, loads no model and opens no file.

mod automation_delay;
mod calibration;
mod control;
mod device;
mod editor;
mod hash_cache;
mod host_call;
mod indications;
mod instance_shared;
mod instances;
mod jump_detector;
mod load_job;
mod logger;
mod model_loader;
mod offline_detector;
mod owned_thread;
mod params;
mod platform;
pub mod player;
mod prepared;
mod presets;
mod processor;
mod remote_controls;
mod routing;
mod selection;
mod serde_path;
mod shims;
mod stream_log;
mod stream_state;
#[cfg(test)]
mod tests;
mod thread_setting;
mod transition;
mod view;
mod wake_flag;

use std::cell::RefCell;
use std::sync::Arc;

use nice_plug::prelude::*;
use nice_plug_egui::EguiEditor;

use editor::EditorApp;
use instance_shared::{HostConfig, InstanceGuard, InstanceShared};
use params::NullsumParams;
use processor::Processor;
use shims::{clap, vst3};

const STEREO_LAYOUTS: &[AudioIOLayout] = &[layout(2, &[], "Stereo"), layout(1, &[], "Mono")];
const MULTI_LAYOUTS: &[AudioIOLayout] =
    &[layout(2, &[new_nonzero_u32(2); routing::STRIP_COUNT], "Stereo and stems")];

const fn layout(channels: u32, aux_output_ports: &'static [NonZeroU32], name: &'static str) -> AudioIOLayout {
    AudioIOLayout {
        main_input_channels: NonZeroU32::new(channels),
        main_output_channels: NonZeroU32::new(channels),
        aux_input_ports: &[],
        aux_output_ports,
        names: PortNames {
            layout: Some(name),
            // The wrapper uses the input's name for the output too.
            main_input: Some("Main"),
            main_output: Some("Main"),
            aux_inputs: &[],
            aux_outputs: &routing::STRIP_NAMES,
        },
    }
}

thread_local! {
    /// Shared state for the next instance that this thread creates.
    static HANDED_IN: RefCell<Option<Arc<InstanceShared>>> = const { RefCell::new(None) };
}

/// Calls `construct`, which creates an instance that uses `shared`. nice-plug's wrappers create instances with `Default` and do not expose
/// them, so the format shims hand the shared state in this way.
fn construct_with<T>(shared: Arc<InstanceShared>, construct: impl FnOnce() -> T) -> T {
    HANDED_IN.set(Some(shared));
    let constructed = construct();
    HANDED_IN.set(None);
    constructed
}

fn new_shared() -> Arc<InstanceShared> {
    InstanceShared::new(Arc::new(NullsumParams::new()), player::take_app_player(), control::run)
}

/// The implementation of both classes.
struct Instance {
    shared: InstanceGuard,
    processor: Option<Processor>,
    /// In the app, the song that replaces the input.
    feed: Option<player::Feed>,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            shared: InstanceGuard(HANDED_IN.take().unwrap_or_else(new_shared)),
            processor: None,
            feed: None,
        }
    }
}

impl Instance {
    fn shared(&self) -> &Arc<InstanceShared> {
        &self.shared.0
    }

    fn activate(&mut self, layout: &AudioIOLayout, config: &BufferConfig, api: PluginApi) -> u32 {
        let host = HostConfig {
            rate: config.sample_rate.round().clamp(0.0, 1e9) as u32,
            max_block: config.max_buffer_size,
            channels: layout.main_output_channels.map_or(2, NonZeroU32::get) as usize,
            api,
            offline: config.process_mode == ProcessMode::Offline,
        };
        let shared = self.shared().clone();
        let stream_client = match control::activate(&shared, host) {
            Ok(stream_client) => stream_client,
            Err(error) => {
                log::error!("{error}; the input passes through unchanged");
                None
            }
        };
        let processor = Processor::new(shared.clone(), stream_client, config.sample_rate, host.offline);
        let latency = processor.latency();
        self.feed = shared.player().map(|player| player.start(host.rate));
        self.processor = Some(processor);
        shared.send(instance_shared::ControlCommand::Reconcile);
        latency
    }

    fn process<P: Plugin>(
        &mut self,
        buffer: &mut Buffer,
        aux: &mut AuxiliaryBuffers,
        context: &mut impl ProcessContext<P>,
    ) -> ProcessStatus {
        let Some(processor) = &mut self.processor else { return ProcessStatus::Normal };
        let params = &self.shared.0.params;
        let transport = context.transport();
        let latency_changed =
            processor.process_block(params, buffer.as_slice(), aux.outputs, transport, self.feed.as_ref());
        if latency_changed && !vst3::notifies_latency_itself(context.plugin_api()) {
            context.set_latency_samples(processor.latency());
        }
        ProcessStatus::Tail(processor.latency())
    }

    fn reset(&mut self) {
        if let Some(processor) = &mut self.processor {
            processor.reset();
        }
    }
}

/// Declares a plugin class over [`Instance`].
macro_rules! class {
    ($(#[$doc:meta])* $class:ident, $name:literal, $layouts:expr, $clap_id:literal, $vst3_id:literal, $vst3:expr, $clap:expr) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $class(Instance);

        impl Plugin for $class {
            const NAME: &'static str = $name;
            const VENDOR: &'static str = "Nullsum";
            const URL: &'static str = env!("CARGO_PKG_REPOSITORY");
            const EMAIL: &'static str = "";
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            const AUDIO_IO_LAYOUTS: &'static [AudioIOLayout] = $layouts;
            /// The wrappers split a block where a parameter changes; in VST3 our shim does.
            const SAMPLE_ACCURATE_AUTOMATION: bool = true;
            type Editor = EguiEditor<EditorApp>;
            type SysExMessage = ();
            type BackgroundTask = ();

            fn params(&self) -> Arc<dyn Params> {
                self.0.shared().params.clone()
            }

            fn editor(&mut self, _async_executor: AsyncExecutor<Self>) -> Option<Self::Editor> {
                editor::create(self.0.shared().clone())
            }

            fn activate(
                &mut self,
                layout: &AudioIOLayout,
                config: &BufferConfig,
                context: &mut impl ActivateContext<Self>,
            ) -> bool {
                let api = context.plugin_api();
                let latency = self.0.activate(layout, config, api);
                self.0.shared().set_latency(latency);
                if api == PluginApi::Clap {
                    clap::set_latency(latency);
                } else if !vst3::notifies_latency_itself(api) {
                    context.set_latency_samples(latency);
                }
                true
            }

            fn reset(&mut self) {
                self.0.reset();
            }

            fn process(
                &mut self,
                buffer: &mut Buffer,
                aux: &mut AuxiliaryBuffers,
                context: &mut impl ProcessContext<Self>,
            ) -> ProcessStatus {
                self.0.process(buffer, aux, context)
            }
        }

        impl ClapPlugin for $class {
            const CLAP_ID: &'static str = $clap_id;
            const CLAP_DESCRIPTION: Option<&'static str> = Some("Music source separation that loses nothing");
            const CLAP_MANUAL_URL: Option<&'static str> = None;
            const CLAP_SUPPORT_URL: Option<&'static str> = None;
            const CLAP_FEATURES: &'static [ClapFeature] = $clap;

            fn remote_controls(&self, context: &mut impl RemoteControlsContext) {
                remote_controls::define(&self.0.shared().params, context);
            }
        }

        impl Vst3Plugin for $class {
            const VST3_CLASS_ID: [u8; 16] = *$vst3_id;
            const VST3_SUBCATEGORIES: &'static [Vst3SubCategory] = $vst3;
        }
    };
}

class!(
    /// Stereo or mono. Outputs the mix of stems.
    Stereo,
    "Nullsum",
    STEREO_LAYOUTS,
    "org.nullsum.nullsum",
    b"NullsumStereo001",
    &[Vst3SubCategory::Fx, Vst3SubCategory::Restoration],
    &[ClapFeature::AudioEffect, ClapFeature::Stereo, ClapFeature::Mono, ClapFeature::Restoration]
);
class!(
    /// Stereo in; outputs the mix and each stem. A separate class, because VST3 hosts that leave the stem buses inactive would not process it.
    Multi,
    "Nullsum Multi",
    MULTI_LAYOUTS,
    "org.nullsum.nullsum-multi",
    b"NullsumMulti0001",
    &[Vst3SubCategory::Fx, Vst3SubCategory::Restoration],
    &[ClapFeature::AudioEffect, ClapFeature::Stereo, ClapFeature::Restoration]
);
