//! States saved by version 0.1 before any later change of the format (`tests/fixtures/saved_states`, made by loading and saving with that build).

use nice_plug::plugin::PluginState;
use serde_json::Value;

use super::*;
use crate::live::plan::WindowSpec;
use crate::plugin::params::{AutomationTiming, LosslessChoice, decibels_to_gain};
use crate::plugin::selection::ModelSource;
use crate::plugin::shims::vst3::load_state_for_tests;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/saved_states/", $name, ".json"))
    };
}

/// Loads a state, and checks that saving it again loses nothing.
fn load(text: &str) -> Arc<InstanceShared> {
    let state: PluginState = serde_json::from_str(text).unwrap();
    let shared = InstanceShared::new(Arc::new(NullsumParams::new()), None, crate::plugin::control::run);
    load_state_for_tests(&shared, &state);
    let saved = shared.params.serialize_fields();
    for (name, field) in &state.fields {
        let (before, after): (Value, Value) =
            (serde_json::from_str(field).unwrap(), serde_json::from_str(&saved[name]).unwrap());
        assert_eq!(after, before, "{name}");
    }
    shared
}

#[test]
fn tiers_load() {
    for (text, tier) in [
        (fixture!("defaults"), TierChoice::Auto),
        (fixture!("tier-auto"), TierChoice::Auto),
        (fixture!("tier-low"), TierChoice::Low),
        (fixture!("tier-balanced"), TierChoice::Balanced),
        (fixture!("tier-high"), TierChoice::High),
    ] {
        let shared = load(text);
        assert_eq!(shared.params.tier.value(), tier);
        assert_eq!(shared.params.model.get().source, ModelSource::Embedded);
        assert_eq!(*shared.params.window.lock(), None);
        assert_eq!(shared.params.automation.get(), AutomationTiming::InTime, "as it always was");
    }
}

#[test]
fn a_custom_window_loads() {
    let shared = load(fixture!("custom-window"));
    let expected = WindowSpec { window: 2.5, hop: 0.25, lookahead: 0.125 };
    assert_eq!(*shared.params.window.lock(), Some(expected));
}

#[test]
fn models_load() {
    let file = load(fixture!("file-model")).params.model.get();
    let expected = ModelSource::File {
        checkpoint: "/music/models/Müller.ckpt".into(),
        config: Some("/music/models/Müller.yaml".into()),
    };
    assert_eq!((file.source, file.title.as_str()), (expected, "Müller"));
    assert_eq!(file.sha256, Some("ab".repeat(32)));
    let spec = file.spec.unwrap();
    assert_eq!((spec.rate, spec.chunk, spec.frame_hop, spec.frame), (44_100, 352_800, 441, 2_048));
    assert_eq!(spec.stems, ["drums", "bass", "other", "vocals"]);
    let registry = load(fixture!("registry-model")).params.model.get();
    assert_eq!(registry.source, ModelSource::Registry { name: "bs-roformer-viperx-1297".into() });
    assert_eq!(registry.sha256, None);
}

#[test]
fn mixer_settings_load() {
    let shared = load(fixture!("mixer"));
    let params = &shared.params;
    assert!((params.vocals.gain.value() + 6.5).abs() < 1e-3);
    assert!((params.bass.pan.value() + 0.3).abs() < 1e-6);
    assert!(params.vocals.solo.value() && params.drums.mute.value() && params.other.phase.value());
    assert!(params.bypass.value() && (params.mix.value() - 0.75).abs() < 1e-6);
    assert!((decibels_to_gain(params.output.value()) - 1.4125).abs() < 1e-3);
    assert_eq!(params.lossless.value(), LosslessChoice::Off);
    assert_eq!(params.render.value(), RenderMode::Offline);
    let editor = params.editor.lock();
    assert_eq!((editor.width, editor.height, editor.zoom, editor.light), (1000.0, 700.0, 1.25, Some(true)));
}
