//! What a host may automate and a session remembers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use nice_plug::prelude::*;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::selection::Selected;
use super::slot::{NAMES, SLOTS};
use crate::stream::Tier;
use crate::stream::plan::Shape;

/// Lowest fader position in dB: silence.
pub const SILENCE_DB: f32 = -80.0;
/// Highest fader position in dB.
pub const LOUDEST_DB: f32 = 12.0;

/// How latency is traded for load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum TierChoice {
    /// The lowest latency that the device sustains.
    #[id = "auto"]
    Auto,
    /// Least latency.
    #[id = "low"]
    Low,
    /// In between.
    #[id = "balanced"]
    Balanced,
    /// Least load.
    #[id = "high"]
    High,
}

impl TierChoice {
    /// The tier, where one is named.
    pub fn named(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::Low => Some(Tier::Low),
            Self::Balanced => Some(Tier::Balanced),
            Self::High => Some(Tier::High),
        }
    }
}

/// Whether the plugin may wait for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum RenderMode {
    /// As the host says and its pace shows.
    #[id = "auto"]
    Auto,
    /// Never.
    #[id = "realtime"]
    Realtime,
    /// Always.
    #[id = "offline"]
    Offline,
}

/// What becomes of the part of the input that no stem takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum Lossless {
    /// It is given to the stems where the model heard them, so that they sum to the input.
    #[id = "spectral"]
    Spectral,
    /// It is left out: stems are what the model says.
    #[id = "off"]
    Off,
}

/// What the editor remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EditorMemory {
    /// Logical width of the window.
    pub width: f32,
    /// Logical height of the window.
    pub height: f32,
    /// Zoom on top of the system's.
    pub zoom: f32,
    /// Light instead of dark colours; none follows the system.
    pub light: Option<bool>,
}

impl Default for EditorMemory {
    fn default() -> Self {
        Self { width: 920.0, height: 600.0, zoom: 1.0, light: None }
    }
}

/// One slot's controls.
#[derive(Params)]
pub struct StripParams {
    /// Fader in dB.
    #[id = "gain"]
    pub gain: FloatParam,
    /// Solo.
    #[id = "solo"]
    pub solo: BoolParam,
    /// Mute.
    #[id = "mute"]
    pub mute: BoolParam,
    /// Balance from −1 (left) to 1 (right).
    #[id = "pan"]
    pub pan: FloatParam,
    /// Inverts the polarity.
    #[id = "phase"]
    pub phase: BoolParam,
}

impl StripParams {
    fn new(name: &str) -> Self {
        Self {
            gain: decibels(format!("{name} Gain")),
            solo: BoolParam::new(format!("{name} Solo"), false),
            mute: BoolParam::new(format!("{name} Mute"), false),
            pan: FloatParam::new(format!("{name} Pan"), 0.0, FloatRange::Linear { min: -1.0, max: 1.0 })
                .with_value_to_string(Arc::new(pan_text))
                .with_string_to_value(Arc::new(pan_of)),
            phase: BoolParam::new(format!("{name} Phase"), false),
        }
    }

    /// Gains of the left and right channel, without solo and mute.
    ///
    /// Realtime-safe.
    pub fn gains(&self) -> [f32; 2] {
        let sign = if self.phase.value() { -1.0 } else { 1.0 };
        let gain = sign * decibels_to_gain(self.gain.value());
        crate::stream::smooth::balance(self.pan.value()).map(|side| side * gain)
    }
}

/// A pan in hundredths of a side; what rounds to the centre is called so, since a text that is read must come back as it was.
fn pan_text(pan: f32) -> String {
    match (100.0 * pan).round() {
        0.0 => "C".into(),
        left if left < 0.0 => format!("{:.0}L", -left),
        right => format!("{right:.0}R"),
    }
}

/// The pan that a text means: `C`, `30L`, `30 R`, or hundredths of a side, which are below 0 on the left.
fn pan_of(text: &str) -> Option<f32> {
    let text = plain(text).to_ascii_lowercase();
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

/// Numbers as people write them, with a comma or another minus, as they are read.
fn plain(text: &str) -> String {
    text.trim().replace('−', "-").replace(',', ".").replace('∞', "inf")
}

/// The factor for a fader position: exactly 1 at 0 dB, exactly 0 at the lower end.
///
/// Realtime-safe.
pub fn decibels_to_gain(decibels: f32) -> f32 {
    if decibels == 0.0 {
        1.0
    } else if decibels <= SILENCE_DB {
        0.0
    } else {
        util::db_to_gain(decibels)
    }
}

/// A fader whose upper half is the range that is mixed in.
fn decibels(name: String) -> FloatParam {
    let range = FloatRange::SymmetricalSkewed {
        min: SILENCE_DB,
        max: LOUDEST_DB,
        factor: FloatRange::skew_factor(0.0),
        center: -12.0,
    };
    FloatParam::new(name, 0.0, range)
        .with_unit(" dB")
        // Whatever a fader is set to, its way through a normalised value must not lose the 0.
        .with_step_size(0.01)
        .with_value_to_string(Arc::new(|db| {
            if db <= SILENCE_DB { "-inf".into() } else { format!("{:.2}", if db == 0.0 { 0.0 } else { db }) }
        }))
        .with_string_to_value(Arc::new(|text| {
            let text = plain(text);
            let text = text.trim_end_matches(|c: char| c.is_alphabetic() && c != 'f').trim();
            if text.to_ascii_lowercase().starts_with("-inf") {
                return Some(SILENCE_DB);
            }
            text.parse::<f32>().ok().filter(|db| db.is_finite())
        }))
}

/// All of it.
#[derive(Params)]
pub struct NullsumParams {
    /// Slot Vocals.
    #[nested(id_prefix = "vocals", group = "Vocals")]
    pub vocals: StripParams,
    /// Slot Drums.
    #[nested(id_prefix = "drums", group = "Drums")]
    pub drums: StripParams,
    /// Slot Bass.
    #[nested(id_prefix = "bass", group = "Bass")]
    pub bass: StripParams,
    /// Slot Other.
    #[nested(id_prefix = "other", group = "Other")]
    pub other: StripParams,
    /// Slot Guitar.
    #[nested(id_prefix = "guitar", group = "Guitar")]
    pub guitar: StripParams,
    /// Slot Piano.
    #[nested(id_prefix = "piano", group = "Piano")]
    pub piano: StripParams,
    /// The delayed input instead of the mix of stems.
    #[id = "bypass"]
    pub bypass: BoolParam,
    /// From the delayed input (0) to the mix of stems (1).
    #[id = "mix"]
    pub mix: FloatParam,
    /// Gain of the main output in dB.
    #[id = "output"]
    pub output: FloatParam,
    /// Lossless stems.
    #[id = "lossless"]
    pub lossless: EnumParam<Lossless>,
    /// Latency against load.
    #[id = "tier"]
    pub tier: EnumParam<TierChoice>,
    /// Whether to wait for the model.
    #[id = "render"]
    pub render: EnumParam<RenderMode>,
    /// The model.
    #[persist = "model"]
    pub model: Selected,
    /// A window that was set by hand, in place of the tier's.
    #[persist = "window"]
    pub window: Arc<Mutex<Option<Shape>>>,
    /// The editor's window.
    #[persist = "editor"]
    pub editor: Arc<Mutex<EditorMemory>>,
    /// Groups of gains that were moved in the editor and not heard yet, a bit each.
    hands: AtomicU32,
}

impl NullsumParams {
    /// The defaults: everything at unity, the embedded model.
    pub fn new() -> Self {
        let [vocals, drums, bass, other, guitar, piano] = NAMES.map(StripParams::new);
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
                    let percent: f32 = plain(text).trim_end_matches([' ', '%']).parse().ok()?;
                    percent.is_finite().then_some(percent / 100.0)
                })),
            output: decibels("Output".into()),
            // The worker goes by it from its next window on, which no automation could be in time with.
            lossless: EnumParam::new("Lossless", Lossless::Spectral).non_automatable(),
            tier: EnumParam::new("Latency Tier", TierChoice::Auto).non_automatable(),
            render: EnumParam::new("Render Mode", RenderMode::Auto).non_automatable(),
            model: Selected::default(),
            window: Arc::default(),
            editor: Arc::default(),
            hands: AtomicU32::new(0),
        }
    }

    /// Says that the editor moves these groups of gains (`cues`), a bit each.
    pub(super) fn lay_hands_on(&self, groups: u32) {
        self.hands.fetch_or(groups, Relaxed);
    }

    /// The groups that were moved since the last call. Realtime-safe.
    pub(super) fn take_hands(&self) -> u32 {
        self.hands.swap(0, Relaxed)
    }

    /// The slots' controls.
    pub fn strips(&self) -> [&StripParams; SLOTS] {
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
    fn a_strip_s_gains_are_its_fader_pan_and_polarity() {
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
    fn zero_decibels_survive_the_way_through_a_host() {
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
    fn what_a_fader_shows_it_also_reads() {
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
    fn a_pan_is_read_with_its_side_or_with_a_sign() {
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
            let shown = pan_text(pan);
            assert_eq!(pan_of(&shown).map(pan_text), Some(shown));
        }
        assert_eq!(params.mix.string_to_normalized_value("12,5 %"), Some(0.125));
        assert_eq!(params.mix.string_to_normalized_value("much"), None);
    }

    #[test]
    fn identifiers_stay_what_sessions_have_stored() {
        let ids: Vec<String> = NullsumParams::new().param_map().into_iter().map(|(id, _, _)| id).collect();
        let mut expected: Vec<String> = ["vocals", "drums", "bass", "other", "guitar", "piano"]
            .iter()
            .flat_map(|slot| ["gain", "solo", "mute", "pan", "phase"].map(|id| format!("{slot}_{id}")))
            .collect();
        expected.extend(["bypass", "mix", "output", "lossless", "tier", "render"].map(String::from));
        assert_eq!(ids, expected);
    }
}
