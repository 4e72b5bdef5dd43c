//! Parameters, and the other state that a host saves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use nice_plug::params::persist::PersistentField;
use nice_plug::prelude::*;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::automation_delay::{MAIN, SOLO};
use super::device::SharedDevice;
use super::indications::ParamIndications;
use super::prepared::SharedPreparedMemory;
use super::routing::{STRIP_COUNT, STRIP_NAMES};
use super::selection::SharedSelection;
use super::wake_flag::WakeFlag;
use crate::live::Tier;
use crate::live::plan::WindowSpec;

/// Lowest fader position in dB. Means silence.
pub const SILENCE_DB: f32 = -80.0;
/// Highest fader position in dB.
pub const MAX_GAIN_DB: f32 = 12.0;

/// Latency tier: trades latency for load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum TierChoice {
    /// The lowest latency that this computer sustains.
    #[id = "auto"]
    Auto,
    /// Low latency.
    #[id = "low"]
    Low,
    /// Between Low and High.
    #[id = "balanced"]
    Balanced,
    /// Highest latency, lowest load.
    #[id = "high"]
    High,
    /// Lowest latency of all, for models that keep context. Last, so that older automation and states keep their meaning.
    #[id = "live"]
    Live,
}

impl TierChoice {
    /// The tier, unless it is Auto.
    pub fn named(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::Low => Some(Tier::Low),
            Self::Balanced => Some(Tier::Balanced),
            Self::High => Some(Tier::High),
            Self::Live => Some(Tier::Live),
        }
    }
}

/// When the audio thread may wait for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum RenderMode {
    /// When the host renders offline.
    #[id = "auto"]
    Auto,
    /// Never.
    #[id = "realtime"]
    Realtime,
    /// Always.
    #[id = "offline"]
    Offline,
}

/// Treatment of the part of the input that no stem takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum LosslessChoice {
    /// Distributed over the stems, so that they sum to the input.
    #[id = "spectral"]
    Spectral,
    /// Left out: stems are what the model says.
    #[id = "off"]
    Off,
}

/// The bit of the group of gains that a parameter belongs to (see `automation_delay`), by its id; 0 if it has none.
pub(super) fn edit_group(id: &str) -> u32 {
    let group = match id {
        "bypass" | "mix" | "output" => Some(MAIN),
        id if id.ends_with("_solo") => Some(SOLO),
        id => STRIP_NAMES.iter().position(|name| {
            let strip = id.rsplit_once('_').map_or("", |(strip, _)| strip);
            name.eq_ignore_ascii_case(strip)
        }),
    };
    group.map_or(0, |group| 1 << group)
}

/// When automated values apply while the transport runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutomationTiming {
    /// With the input that they arrived with, so that they stay where they were drawn. A fader moved in the host acts one latency late.
    #[default]
    InTime,
    /// At once: for faders that are moved live, by a controller or in the host.
    AtOnce,
}

/// The setting of an instance, shared with the audio thread.
#[derive(Debug, Default)]
pub struct SharedAutomationTiming(AtomicBool);

impl SharedAutomationTiming {
    /// Realtime-safe.
    pub fn get(&self) -> AutomationTiming {
        if self.0.load(Relaxed) { AutomationTiming::AtOnce } else { AutomationTiming::InTime }
    }

    pub fn set(&self, timing: AutomationTiming) {
        self.0.store(timing == AutomationTiming::AtOnce, Relaxed);
    }
}

impl<'a> PersistentField<'a, AutomationTiming> for SharedAutomationTiming {
    fn set(&self, timing: AutomationTiming) {
        Self::set(self, timing);
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&AutomationTiming) -> R,
    {
        f(&self.get())
    }
}

/// A custom window that replaces the tier's, shared by the host's state, the editor and the control thread.
#[derive(Debug, Default)]
pub struct SharedWindow {
    window: Mutex<Option<WindowSpec>>,
    /// Set when a host restores a state.
    wake: WakeFlag,
}

impl SharedWindow {
    pub fn lock(&self) -> MutexGuard<'_, Option<WindowSpec>> {
        self.window.lock()
    }
}

impl<'a> PersistentField<'a, Option<WindowSpec>> for SharedWindow {
    fn set(&self, window: Option<WindowSpec>) {
        *self.lock() = window;
        self.wake.set();
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&Option<WindowSpec>) -> R,
    {
        f(&self.lock())
    }
}

/// Editor settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EditorMemory {
    /// Logical width of the editor.
    pub width: f32,
    /// Logical height of the editor.
    pub height: f32,
    /// Zoom in addition to the system's scale.
    pub zoom: f32,
    /// Light colours instead of dark ones. `None` follows the system.
    pub light: Option<bool>,
    /// Settings of later versions, kept as they are.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Default for EditorMemory {
    fn default() -> Self {
        Self { width: 920.0, height: 600.0, zoom: 1.0, light: None, other: serde_json::Map::new() }
    }
}

/// Controls of one strip.
#[derive(Params)]
pub struct StripParams {
    #[id = "gain"]
    pub gain: FloatParam,
    #[id = "solo"]
    pub solo: BoolParam,
    #[id = "mute"]
    pub mute: BoolParam,
    /// Balance, from −1 (left) to 1 (right).
    #[id = "pan"]
    pub pan: FloatParam,
    /// Inverts the polarity.
    #[id = "phase"]
    pub phase: BoolParam,
}

impl StripParams {
    fn new(name: &str) -> Self {
        Self {
            gain: gain_param(format!("{name} Gain")),
            solo: BoolParam::new(format!("{name} Solo"), false),
            mute: BoolParam::new(format!("{name} Mute"), false),
            pan: FloatParam::new(format!("{name} Pan"), 0.0, FloatRange::Linear { min: -1.0, max: 1.0 })
                .with_value_to_string(Arc::new(format_pan))
                .with_string_to_value(Arc::new(parse_pan)),
            phase: BoolParam::new(format!("{name} Phase"), false),
        }
    }

    /// Realtime-safe: gains of the left and right channel, without solo and mute.
    pub fn gains(&self) -> [f32; 2] {
        let sign = if self.phase.value() { -1.0 } else { 1.0 };
        let gain = sign * decibels_to_gain(self.gain.value());
        crate::live::smooth::balance(self.pan.value()).map(|side| side * gain)
    }
}

/// Formats a pan as a percentage and side. A value that rounds to the centre is written as `C`, so that formatting and parsing agree.
fn format_pan(pan: f32) -> String {
    match (100.0 * pan).round() {
        0.0 => "C".into(),
        left if left < 0.0 => format!("{:.0}L", -left),
        right => format!("{right:.0}R"),
    }
}

/// Parses a pan: `C`, `30L`, `30 R`, or a number from −100 (left) to 100 (right).
fn parse_pan(text: &str) -> Option<f32> {
    let text = normalise_number(text).to_ascii_lowercase();
    if text == "c" {
        return Some(0.0);
    }
    let share = |number: &str, least: f32| {
        let hundredths: f32 = number.trim().parse().ok()?;
        (least..=100.0).contains(&hundredths).then_some(hundredths / 100.0)
    };
    match (text.strip_suffix('l'), text.strip_suffix('r')) {
        (Some(left), _) => share(left, 0.0).map(|left| -left),
        (None, Some(right)) => share(right, 0.0),
        (None, None) => share(&text, -100.0),
    }
}

/// Normalises a number as people write it: decimal comma, other minus signs.
fn normalise_number(text: &str) -> String {
    text.trim().replace('−', "-").replace(',', ".").replace('∞', "inf")
}

/// Realtime-safe: the factor for a fader position. Exactly 1 at 0 dB, exactly 0 at the lower end.
pub fn decibels_to_gain(decibels: f32) -> f32 {
    if decibels == 0.0 {
        1.0
    } else if decibels <= SILENCE_DB {
        0.0
    } else {
        util::db_to_gain(decibels)
    }
}

/// A fader. The upper half of its travel covers the range used for mixing.
fn gain_param(name: String) -> FloatParam {
    let range = FloatRange::SymmetricalSkewed {
        min: SILENCE_DB,
        max: MAX_GAIN_DB,
        factor: FloatRange::skew_factor(0.0),
        center: -12.0,
    };
    FloatParam::new(name, 0.0, range)
        .with_unit(" dB")
        // Rounds a position that went through its normalised value, so that 0 dB stays 0 dB.
        .with_step_size(0.01)
        .with_value_to_string(Arc::new(|db| {
            if db <= SILENCE_DB { "-inf".into() } else { format!("{:.2}", if db == 0.0 { 0.0 } else { db }) }
        }))
        .with_string_to_value(Arc::new(|text| {
            let text = normalise_number(text);
            let text = text.trim_end_matches(|c: char| c.is_alphabetic() && c != 'f').trim();
            if text.to_ascii_lowercase().starts_with("-inf") {
                return Some(SILENCE_DB);
            }
            text.parse::<f32>().ok().filter(|db| db.is_finite())
        }))
}

/// All parameters of an instance.
#[derive(Params)]
pub struct NullsumParams {
    #[nested(id_prefix = "vocals", group = "Vocals")]
    pub vocals: StripParams,
    #[nested(id_prefix = "drums", group = "Drums")]
    pub drums: StripParams,
    #[nested(id_prefix = "bass", group = "Bass")]
    pub bass: StripParams,
    #[nested(id_prefix = "other", group = "Other")]
    pub other: StripParams,
    #[nested(id_prefix = "guitar", group = "Guitar")]
    pub guitar: StripParams,
    #[nested(id_prefix = "piano", group = "Piano")]
    pub piano: StripParams,
    /// Outputs the delayed input instead of the mix of stems.
    #[id = "bypass"]
    pub bypass: BoolParam,
    /// From the delayed input (0) to the mix of stems (1).
    #[id = "mix"]
    pub mix: FloatParam,
    /// Gain of the main output in dB.
    #[id = "output"]
    pub output: FloatParam,
    #[id = "lossless"]
    pub lossless: EnumParam<LosslessChoice>,
    #[id = "tier"]
    pub tier: EnumParam<TierChoice>,
    #[id = "render"]
    pub render: EnumParam<RenderMode>,
    #[persist = "model"]
    pub model: SharedSelection,
    /// A custom window that replaces the tier's.
    #[persist = "window"]
    pub window: SharedWindow,
    #[persist = "automation"]
    pub automation: SharedAutomationTiming,
    #[persist = "device"]
    pub device: SharedDevice,
    /// Prepared songs of the project.
    #[persist = "prepared"]
    pub prepared: SharedPreparedMemory,
    #[persist = "editor"]
    pub editor: Arc<Mutex<EditorMemory>>,
    /// Groups of gains that the user changed in the editor since the last block, one bit each.
    user_edits: AtomicU32,
    /// What the host tells about parameters, for the editor.
    pub indications: ParamIndications,
    /// Set by any thread that changes what the control thread looks at.
    pub(super) wake: WakeFlag,
}

impl NullsumParams {
    /// Defaults: all gains at unity, the built-in model.
    pub fn new() -> Self {
        let [vocals, drums, bass, other, guitar, piano] = STRIP_NAMES.map(StripParams::new);
        let wake = WakeFlag::default();
        let (tier_wake, lossless_wake) = (wake.clone(), wake.clone());
        Self {
            vocals,
            drums,
            bass,
            other,
            guitar,
            piano,
            bypass: BoolParam::new("Bypass", false).make_bypass(),
            mix: FloatParam::new("Mix", 1.0, FloatRange::Linear { min: 0.0, max: 1.0 })
                .with_unit(" %")
                .with_value_to_string(formatters::v2s_f32_percentage(1))
                .with_string_to_value(Arc::new(|text| {
                    let percent: f32 = normalise_number(text).trim_end_matches([' ', '%']).parse().ok()?;
                    percent.is_finite().then_some(percent / 100.0)
                })),
            output: gain_param("Output".into()),
            // It takes effect at the next window, so it could not be automated in time.
            // Hosts set values on any thread, also the audio thread.
            lossless: EnumParam::new("Lossless", LosslessChoice::Spectral)
                .with_callback(Arc::new(move |_| lossless_wake.set()))
                .non_automatable(),
            tier: EnumParam::new("Latency Tier", TierChoice::Auto)
                .with_callback(Arc::new(move |_| tier_wake.set()))
                .non_automatable(),
            render: EnumParam::new("Render Mode", RenderMode::Auto).non_automatable(),
            model: SharedSelection::new(wake.clone()),
            window: SharedWindow { window: Mutex::default(), wake: wake.clone() },
            prepared: SharedPreparedMemory::new(wake.clone()),
            automation: SharedAutomationTiming::default(),
            device: SharedDevice::new(wake.clone()),
            editor: Arc::default(),
            user_edits: AtomicU32::new(0),
            indications: ParamIndications::default(),
            wake,
        }
    }

    /// Marks groups of gains as changed by the user in the editor, one bit each (see `automation_delay`).
    pub(super) fn mark_user_edits(&self, groups: u32) {
        self.user_edits.fetch_or(groups, Relaxed);
    }

    /// Realtime-safe: the groups that the user changed since the last call.
    pub(super) fn take_user_edits(&self) -> u32 {
        self.user_edits.swap(0, Relaxed)
    }

    /// Controls of all strips, in order.
    pub fn strips(&self) -> [&StripParams; STRIP_COUNT] {
        [&self.vocals, &self.drums, &self.bass, &self.other, &self.guitar, &self.piano]
    }
}

impl Default for NullsumParams {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strip_gains_combine_fader_pan_and_polarity() {
        let params = NullsumParams::new();
        let strip = &params.drums;
        let set = |param: ParamPtr, normalized| {
            // SAFETY: the parameter is alive.
            unsafe { param._internal_set_normalized_value(normalized) };
        };
        assert_eq!(strip.gains(), [1.0; 2]);
        set(strip.pan.as_ptr(), 0.0);
        let [left, right] = strip.gains();
        assert!(left >= 1.0 && right == 0.0, "{left} {right}");
        set(strip.pan.as_ptr(), 1.0);
        let [left, right] = strip.gains();
        assert!(left == 0.0 && right >= 1.0, "{left} {right}");
        set(strip.pan.as_ptr(), 0.5);
        set(strip.phase.as_ptr(), 1.0);
        assert_eq!(strip.gains(), [-1.0; 2]);
        set(strip.gain.as_ptr(), strip.gain.preview_normalized(-6.0));
        let [left, right] = strip.gains();
        assert!((left + 0.501).abs() < 1e-3 && left == right, "{left} {right}");
        set(strip.gain.as_ptr(), 0.0);
        assert_eq!(strip.gains().map(f32::abs), [0.0; 2]);
    }

    #[test]
    fn zero_decibels_survive_normalisation() {
        let params = NullsumParams::new();
        for param in [&params.vocals.gain, &params.output] {
            let back = param.preview_plain(param.preview_normalized(0.0));
            assert_eq!(decibels_to_gain(back), 1.0, "{back}");
            assert_eq!(param.preview_plain(0.0), SILENCE_DB);
            assert_eq!(decibels_to_gain(SILENCE_DB), 0.0);
        }
        let pan = &params.vocals.pan;
        assert_eq!(pan.preview_plain(pan.preview_normalized(0.0)), 0.0);
        assert_eq!(params.mix.preview_plain(params.mix.preview_normalized(1.0)), 1.0);
    }

    #[test]
    fn fader_text_parses_back() {
        let gain = &NullsumParams::new().bass.gain;
        for (text, expected) in [
            ("-6.00 dB", -6.0),
            ("3", 3.0),
            ("-inf", SILENCE_DB),
            ("-inf dB", SILENCE_DB),
            ("0.00 dB", 0.0),
            ("−6,5", -6.5),
            ("−∞ dB", SILENCE_DB),
        ] {
            let value = gain.string_to_normalized_value(text).map(|n| gain.preview_plain(n)).unwrap();
            assert!((value - expected).abs() < 0.02, "{text}: {value}");
        }
        assert_eq!(gain.string_to_normalized_value("loud"), None);
        assert_eq!(gain.string_to_normalized_value("NaN"), None);
    }

    #[test]
    fn pans_parse_with_a_side_or_a_sign() {
        let params = NullsumParams::new();
        let pan = &params.bass.pan;
        for (text, expected) in [
            ("C", 0.0),
            ("c", 0.0),
            ("0", 0.0),
            ("30L", -0.3),
            ("30 l", -0.3),
            ("100R", 1.0),
            ("-30", -0.3),
            ("−30", -0.3),
            ("+12,5", 0.125),
            (" 12.5 ", 0.125),
            ("-100", -1.0),
        ] {
            let value = pan.string_to_normalized_value(text).map(|n| pan.preview_plain(n)).unwrap();
            assert!((value - expected).abs() < 1e-6, "{text}: {value}");
        }
        for text in ["", "left", "101", "-30L", "L", "NaN", "inf", "5C"] {
            assert_eq!(pan.string_to_normalized_value(text), None, "{text}");
        }
        for pan in [-1.0, -0.37, 0.0, 0.004, 0.5] {
            let shown = format_pan(pan);
            assert_eq!(parse_pan(&shown).map(format_pan), Some(shown));
        }
        assert_eq!(params.mix.string_to_normalized_value("12,5 %"), Some(0.125));
        assert_eq!(params.mix.string_to_normalized_value("much"), None);
    }

    #[test]
    fn every_gain_parameter_has_an_edit_group() {
        for (id, expected) in [
            ("vocals_gain", 1),
            ("drums_pan", 2),
            ("piano_mute", 32),
            ("bass_solo", 1 << SOLO),
            ("mix", 1 << MAIN),
            ("output", 1 << MAIN),
            ("bypass", 1 << MAIN),
            ("tier", 0),
            ("lossless", 0),
            ("render", 0),
        ] {
            assert_eq!(edit_group(id), expected, "{id}");
        }
    }

    #[test]
    fn parameter_ids_stay_as_saved_in_projects() {
        let ids: Vec<String> = NullsumParams::new().param_map().into_iter().map(|(id, _, _)| id).collect();
        let mut expected: Vec<String> = ["vocals", "drums", "bass", "other", "guitar", "piano"]
            .iter()
            .flat_map(|strip| ["gain", "solo", "mute", "pan", "phase"].map(|id| format!("{strip}_{id}")))
            .collect();
        expected.extend(["bypass", "mix", "output", "lossless", "tier", "render"].map(String::from));
        assert_eq!(ids, expected);
    }
}
