//! Factory presets: settings of the mixer for common tasks, and the defaults.

use nice_plug::prelude::{Param, ParamPtr};

use super::params::{NullsumParams, SILENCE_DB};
use super::routing::STRIP_COUNT;

/// A setting of the mixer. Model, latency tier and render mode stay as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Stable identifier, for hosts that store it.
    pub key: &'static str,
    pub name: &'static str,
    pub description: &'static str,
    /// Fader of each strip in dB.
    gains_db: [f32; STRIP_COUNT],
}

const OFF: f32 = SILENCE_DB;

/// All faders at unity: the output is the delayed input.
pub static DEFAULTS: Preset = Preset {
    key: "defaults",
    name: "Defaults",
    description: "All faders at unity, no solo, no mute: the output is the input.",
    gains_db: [0.0; STRIP_COUNT],
};

/// The factory presets, in the order of menus. Strips: vocals, drums, bass, other, guitar, piano.
pub static FACTORY: [Preset; 4] = [
    Preset {
        key: "acapella",
        name: "Acapella",
        description: "Vocals only.",
        gains_db: [0.0, OFF, OFF, OFF, OFF, OFF],
    },
    Preset {
        key: "instrumental",
        name: "Instrumental",
        description: "Everything but the vocals.",
        gains_db: [OFF, 0.0, 0.0, 0.0, 0.0, 0.0],
    },
    Preset {
        key: "drums-only",
        name: "Drums only",
        description: "Drums without the other stems.",
        gains_db: [OFF, 0.0, OFF, OFF, OFF, OFF],
    },
    Preset {
        key: "karaoke",
        name: "Karaoke",
        description: "The vocals 15 dB lower, as a guide to sing along.",
        gains_db: [-15.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    },
];

impl Preset {
    /// The preset with this key.
    pub fn find(key: &str) -> Option<&'static Self> {
        FACTORY.iter().chain([&DEFAULTS]).find(|preset| preset.key == key)
    }

    /// The parameters that the preset sets, with normalised values. The others keep theirs.
    pub fn values(&self, params: &NullsumParams) -> Vec<(ParamPtr, f32)> {
        let mut values = Vec::with_capacity(5 * STRIP_COUNT + 3);
        for (strip, gain_db) in params.strips().into_iter().zip(self.gains_db) {
            values.push((strip.gain.as_ptr(), strip.gain.preview_normalized(gain_db)));
            values.push((strip.pan.as_ptr(), strip.pan.default_normalized_value()));
            for switch in [&strip.solo, &strip.mute, &strip.phase] {
                values.push((switch.as_ptr(), switch.default_normalized_value()));
            }
        }
        values.push((params.bypass.as_ptr(), params.bypass.default_normalized_value()));
        values.push((params.mix.as_ptr(), params.mix.default_normalized_value()));
        values.push((params.output.as_ptr(), params.output.default_normalized_value()));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::params::decibels_to_gain;

    fn apply(preset: &Preset, params: &NullsumParams) {
        for (param, value) in preset.values(params) {
            // SAFETY: the parameters are alive.
            unsafe { param._internal_set_normalized_value(value) };
        }
    }

    fn strip_gains(params: &NullsumParams) -> Vec<f32> {
        params.strips().iter().map(|strip| decibels_to_gain(strip.gain.value())).collect()
    }

    #[test]
    fn presets_set_exact_silence_and_exact_unity() {
        let params = NullsumParams::new();
        apply(Preset::find("acapella").unwrap(), &params);
        assert_eq!(strip_gains(&params), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        apply(Preset::find("instrumental").unwrap(), &params);
        assert_eq!(strip_gains(&params), [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        apply(Preset::find("karaoke").unwrap(), &params);
        assert!((params.vocals.gain.value() + 15.0).abs() < 0.01);
    }

    #[test]
    fn the_defaults_undo_everything_that_a_preset_or_user_sets() {
        let params = NullsumParams::new();
        for (_, param, _) in nice_plug::prelude::Params::param_map(&params) {
            // SAFETY: the parameters are alive.
            unsafe { param._internal_set_normalized_value(0.9) };
        }
        let tier = params.tier.value();
        apply(&DEFAULTS, &params);
        assert_eq!(strip_gains(&params), [1.0; STRIP_COUNT]);
        for strip in params.strips() {
            assert_eq!((strip.pan.value(), strip.solo.value(), strip.mute.value()), (0.0, false, false));
            assert!(!strip.phase.value());
        }
        assert_eq!((params.mix.value(), params.output.value(), params.bypass.value()), (1.0, 0.0, false));
        assert_eq!(params.tier.value(), tier, "presets leave the tier alone");
    }

    #[test]
    fn keys_are_unique() {
        for preset in FACTORY.iter().chain([&DEFAULTS]) {
            assert_eq!(Preset::find(preset.key), Some(preset));
        }
        assert_eq!(Preset::find("none"), None);
    }
}
