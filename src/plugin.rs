//! The plugin: VST3 and CLAP, stereo and with an output a stem, and the standalone app of the same.
//!
//! ```text
//! host ─ activate ──→ control::activate ─→ Stream::open ──→ client ─┐
//! host ─ process ───→ Processor ←───────── handoff ←────────────────┤   (audio thread)
//! host ─ state ─────→ params (Selected, tier) ←─ polled ─ control thread: loads, measures, plans, swaps
//! editor ─ commands → Session ──────────────────────────────────────┘
//! ```
//!
//! The audio thread sees [`stream::Client`](crate::stream::Client), parameters and a few atomics. A scan makes parameters and nothing else: no
//! thread, no model, no file.

mod calibration;
mod clap;
mod clock;
mod control;
mod cues;
pub mod editor;
pub mod library;
mod pace;
pub mod params;
mod path;
pub mod player;
mod processor;
pub mod selection;
pub mod session;
pub mod slot;
mod store;
#[cfg(test)]
mod tests;
mod vst3;

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use nice_plug::prelude::*;
use nice_plug_egui::EguiEditor;

use editor::EditorApp;
use params::NullsumParams;
use processor::Processor;
use session::{Guard, Host, Session};

const STEREO_LAYOUTS: &[AudioIOLayout] = &[layout(2, &[], "Stereo"), layout(1, &[], "Mono")];
const MULTI_LAYOUTS: &[AudioIOLayout] = &[layout(2, &[new_nonzero_u32(2); slot::SLOTS], "Stereo and stems")];

const fn layout(channels: u32, aux_output_ports: &'static [NonZeroU32], name: &'static str) -> AudioIOLayout {
    AudioIOLayout {
        main_input_channels: NonZeroU32::new(channels),
        main_output_channels: NonZeroU32::new(channels),
        aux_input_ports: &[],
        aux_output_ports,
        names: PortNames {
            layout: Some(name),
            // The wrapper shows the input's name for the output too, so it must fit both.
            main_input: Some("Main"),
            main_output: Some("Main"),
            aux_inputs: &[],
            aux_outputs: &slot::NAMES,
        },
    }
}

thread_local! {
    /// Session of the instance that this thread has made last: the wrappers make instances, and hand nothing out.
    static NEWEST: RefCell<Weak<Session>> = const { RefCell::new(Weak::new()) };
}

/// Session of the instance that this thread has made last.
fn newest() -> Option<Arc<Session>> {
    NEWEST.with_borrow(Weak::upgrade)
}

/// What both classes are.
struct Instance {
    session: Guard,
    processor: Option<Processor>,
    /// What plays instead of the input, in the app.
    feed: Option<player::Feed>,
}

impl Default for Instance {
    fn default() -> Self {
        let session = Guard(Session::new(Arc::new(NullsumParams::new()), player::of_app()));
        NEWEST.set(Arc::downgrade(&session.0));
        Self { session, processor: None, feed: None }
    }
}

impl Instance {
    fn session(&self) -> &Arc<Session> {
        &self.session.0
    }

    fn activate(&mut self, layout: &AudioIOLayout, config: &BufferConfig, api: PluginApi) -> u32 {
        let host = Host {
            rate: config.sample_rate.round().clamp(0.0, 1e9) as u32,
            max_block: config.max_buffer_size,
            channels: layout.main_output_channels.map_or(2, NonZeroU32::get) as usize,
            api,
            offline: config.process_mode == ProcessMode::Offline,
        };
        let session = self.session().clone();
        let live = match control::activate(&session, host) {
            Ok(live) => live,
            Err(error) => {
                nice_error!("{error}; the input goes through unchanged");
                None
            }
        };
        let processor = Processor::new(session.clone(), live, config.sample_rate, host.offline);
        let latency = processor.latency();
        self.feed = session.player().map(|player| player.start(host.rate));
        self.processor = Some(processor);
        session.send(session::Command::Look);
        latency
    }

    fn process<P: Plugin>(
        &mut self,
        buffer: &mut Buffer,
        aux: &mut AuxiliaryBuffers,
        context: &mut impl ProcessContext<P>,
    ) -> ProcessStatus {
        let Some(processor) = &mut self.processor else { return ProcessStatus::Normal };
        let session = &self.session.0;
        let renders = processor.renders(&session.params, buffer.samples());
        if renders {
            processor.settle();
        }
        if processor.adopt(renders) {
            session.set_latency(processor.latency());
            if !vst3::tells_latency(context.plugin_api()) {
                context.set_latency_samples(processor.latency());
            }
        }
        if let Some(feed) = &self.feed {
            feed.fill(buffer.as_slice());
        }
        let transport = context.transport();
        processor.process(&session.params, buffer.as_slice(), aux.outputs, transport, renders);
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
            type Editor = EguiEditor<EditorApp>;
            type SysExMessage = ();
            type BackgroundTask = ();

            fn params(&self) -> Arc<dyn Params> {
                self.0.session().params.clone()
            }

            fn editor(&mut self, _async_executor: AsyncExecutor<Self>) -> Option<Self::Editor> {
                editor::create(self.0.session().clone())
            }

            fn activate(
                &mut self,
                layout: &AudioIOLayout,
                config: &BufferConfig,
                context: &mut impl ActivateContext<Self>,
            ) -> bool {
                let api = context.plugin_api();
                let latency = self.0.activate(layout, config, api);
                self.0.session().set_latency(latency);
                if api == PluginApi::Clap {
                    clap::set_latency(latency);
                } else if !vst3::tells_latency(api) {
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
        }

        impl Vst3Plugin for $class {
            const VST3_CLASS_ID: [u8; 16] = *$vst3_id;
            const VST3_SUBCATEGORIES: &'static [Vst3SubCategory] = $vst3;
        }
    };
}

class!(
    /// Stereo or mono in and out: the mix of stems.
    Stereo,
    "Nullsum",
    STEREO_LAYOUTS,
    "org.nullsum.nullsum",
    b"NullsumStereo001",
    &[Vst3SubCategory::Fx, Vst3SubCategory::Restoration],
    &[ClapFeature::AudioEffect, ClapFeature::Stereo, ClapFeature::Mono, ClapFeature::Restoration]
);
class!(
    /// Stereo in, the mix and each stem out. A class of its own: VST3 hosts that leave the stem buses inactive would not process it.
    Multi,
    "Nullsum Multi",
    MULTI_LAYOUTS,
    "org.nullsum.nullsum-multi",
    b"NullsumMulti0001",
    &[Vst3SubCategory::Fx, Vst3SubCategory::Restoration],
    &[ClapFeature::AudioEffect, ClapFeature::Stereo, ClapFeature::Restoration]
);
