//! Parameters by their place, so that one code moves and remembers them all.

use nice_plug::prelude::{BoolParam, EnumParam, FloatParam, Param, ParamSetter};

use crate::plugin::cues::{MAIN, SOLO};
use crate::plugin::params::{Lossless, NullsumParams, RenderMode, TierChoice};
use crate::plugin::slot::SLOTS;

/// Which control of a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Fader.
    Gain,
    /// Solo.
    Solo,
    /// Mute.
    Mute,
    /// Balance.
    Pan,
    /// Polarity.
    Phase,
}

/// Which parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Of the strip of a slot.
    Strip(usize, Field),
    /// Dry to wet.
    Mix,
    /// Gain of the main output.
    Output,
    /// Bypass.
    Bypass,
    /// Lossless mode.
    Lossless,
    /// Latency tier.
    Tier,
    /// Render mode.
    Render,
}

impl Key {
    /// What A and B differ in: all that is heard. Tier and render mode would restart the stream.
    pub fn heard() -> impl Iterator<Item = Self> {
        let fields = [Field::Gain, Field::Solo, Field::Mute, Field::Pan, Field::Phase];
        let strips = (0..SLOTS).flat_map(move |slot| fields.map(|field| Self::Strip(slot, field)));
        strips.chain([Self::Mix, Self::Output, Self::Bypass, Self::Lossless])
    }

    /// The groups of gains that it moves, a bit each.
    pub fn groups(self) -> u32 {
        match self {
            Self::Strip(_, Field::Solo) => 1 << SOLO,
            Self::Strip(slot, _) => 1 << slot,
            Self::Mix | Self::Output | Self::Bypass => 1 << MAIN,
            Self::Lossless | Self::Tier | Self::Render => 0,
        }
    }
}

/// A parameter of any type.
#[derive(Clone, Copy)]
pub enum AnyParam<'a> {
    /// A number.
    Float(&'a FloatParam),
    /// A switch.
    Bool(&'a BoolParam),
    /// The lossless mode.
    Lossless(&'a EnumParam<Lossless>),
    /// The tier.
    Tier(&'a EnumParam<TierChoice>),
    /// The render mode.
    Render(&'a EnumParam<RenderMode>),
}

macro_rules! each {
    ($any:expr, $param:ident => $body:expr) => {
        match $any {
            AnyParam::Float($param) => $body,
            AnyParam::Bool($param) => $body,
            AnyParam::Lossless($param) => $body,
            AnyParam::Tier($param) => $body,
            AnyParam::Render($param) => $body,
        }
    };
}

impl<'a> AnyParam<'a> {
    /// The parameter of a key; none where there is no such slot.
    pub fn of(params: &'a NullsumParams, key: Key) -> Option<Self> {
        Some(match key {
            Key::Strip(slot, field) => {
                let strip = *params.strips().get(slot)?;
                match field {
                    Field::Gain => Self::Float(&strip.gain),
                    Field::Solo => Self::Bool(&strip.solo),
                    Field::Mute => Self::Bool(&strip.mute),
                    Field::Pan => Self::Float(&strip.pan),
                    Field::Phase => Self::Bool(&strip.phase),
                }
            }
            Key::Mix => Self::Float(&params.mix),
            Key::Output => Self::Float(&params.output),
            Key::Bypass => Self::Bool(&params.bypass),
            Key::Lossless => Self::Lossless(&params.lossless),
            Key::Tier => Self::Tier(&params.tier),
            Key::Render => Self::Render(&params.render),
        })
    }

    /// Its name.
    pub fn name(self) -> String {
        each!(self, param => param.name().to_string())
    }

    /// Its value, from 0 to 1.
    pub fn normalized(self) -> f32 {
        each!(self, param => param.unmodulated_normalized_value())
    }

    /// A number in its own unit, from one from 0 to 1.
    pub fn plain(self, normalized: f32) -> f32 {
        match self {
            Self::Float(param) => param.preview_plain(normalized),
            _ => normalized,
        }
    }

    /// Where it is reset to.
    pub fn default_normalized(self) -> f32 {
        each!(self, param => param.default_normalized_value())
    }

    /// The value that a text means.
    pub fn parse(self, text: &str) -> Option<f32> {
        each!(self, param => param.string_to_normalized_value(text)).filter(|value| value.is_finite())
    }

    /// The nearest value that it can have.
    pub fn snapped(self, normalized: f32) -> f32 {
        let normalized =
            if normalized.is_finite() { normalized.clamp(0.0, 1.0) } else { return self.normalized() };
        each!(self, param => param.preview_normalized(param.preview_plain(normalized)))
    }

    /// Tells the host that it is going to be moved.
    pub fn begin(self, setter: &ParamSetter) {
        each!(self, param => setter.begin_set_parameter(param));
    }

    /// Moves it.
    pub fn set(self, setter: &ParamSetter, normalized: f32) {
        each!(self, param => setter.set_parameter_normalized(param, normalized));
    }

    /// Tells the host that it was let go.
    pub fn end(self, setter: &ParamSetter) {
        each!(self, param => setter.end_set_parameter(param));
    }
}
