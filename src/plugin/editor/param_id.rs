//! Identifies parameters by value, so that the same code can set, record and restore all of them.

use nice_plug::prelude::{BoolParam, EnumParam, FloatParam, Param, ParamPtr, ParamSetter};

use crate::plugin::automation_delay::{MAIN, SOLO};
use crate::plugin::params::{LosslessChoice, NullsumParams, RenderMode, TierChoice};
use crate::plugin::routing::STRIP_COUNT;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StripParam {
    Gain,
    Solo,
    Mute,
    Pan,
    Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamId {
    Strip(usize, StripParam),
    Mix,
    Output,
    Bypass,
    Lossless,
    Tier,
    Render,
}

impl ParamId {
    /// The parameters that A and B store. Tier and render mode are excluded, since changing them restarts the stream.
    pub fn audible() -> impl Iterator<Item = Self> {
        let fields =
            [StripParam::Gain, StripParam::Solo, StripParam::Mute, StripParam::Pan, StripParam::Phase];
        let strips =
            (0..STRIP_COUNT).flat_map(move |strip_index| fields.map(|field| Self::Strip(strip_index, field)));
        strips.chain([Self::Mix, Self::Output, Self::Bypass, Self::Lossless])
    }

    /// Bit mask of the automation groups whose gains this parameter changes.
    pub fn automation_groups(self) -> u32 {
        match self {
            Self::Strip(_, StripParam::Solo) => 1 << SOLO,
            Self::Strip(strip_index, _) => 1 << strip_index,
            Self::Mix | Self::Output | Self::Bypass => 1 << MAIN,
            Self::Lossless | Self::Tier | Self::Render => 0,
        }
    }
}

#[derive(Clone, Copy)]
pub enum ParamRef<'a> {
    Float(&'a FloatParam),
    Bool(&'a BoolParam),
    Lossless(&'a EnumParam<LosslessChoice>),
    Tier(&'a EnumParam<TierChoice>),
    Render(&'a EnumParam<RenderMode>),
}

macro_rules! for_any_param {
    ($any:expr, $param:ident => $body:expr) => {
        match $any {
            ParamRef::Float($param) => $body,
            ParamRef::Bool($param) => $body,
            ParamRef::Lossless($param) => $body,
            ParamRef::Tier($param) => $body,
            ParamRef::Render($param) => $body,
        }
    };
}

impl<'a> ParamRef<'a> {
    /// Looks up a parameter; `None` if there is no such strip.
    pub fn of(params: &'a NullsumParams, key: ParamId) -> Option<Self> {
        Some(match key {
            ParamId::Strip(strip_index, field) => {
                let strip = *params.strips().get(strip_index)?;
                match field {
                    StripParam::Gain => Self::Float(&strip.gain),
                    StripParam::Solo => Self::Bool(&strip.solo),
                    StripParam::Mute => Self::Bool(&strip.mute),
                    StripParam::Pan => Self::Float(&strip.pan),
                    StripParam::Phase => Self::Bool(&strip.phase),
                }
            }
            ParamId::Mix => Self::Float(&params.mix),
            ParamId::Output => Self::Float(&params.output),
            ParamId::Bypass => Self::Bool(&params.bypass),
            ParamId::Lossless => Self::Lossless(&params.lossless),
            ParamId::Tier => Self::Tier(&params.tier),
            ParamId::Render => Self::Render(&params.render),
        })
    }

    pub fn as_ptr(self) -> ParamPtr {
        for_any_param!(self, param => param.as_ptr())
    }

    pub fn name(self) -> String {
        for_any_param!(self, param => param.name().to_string())
    }

    pub fn normalized(self) -> f32 {
        for_any_param!(self, param => param.unmodulated_normalized_value())
    }

    /// Converts a normalised value to the parameter's unit. Only float parameters have one.
    pub fn plain(self, normalized: f32) -> f32 {
        match self {
            Self::Float(param) => param.preview_plain(normalized),
            _ => normalized,
        }
    }

    pub fn default_normalized(self) -> f32 {
        for_any_param!(self, param => param.default_normalized_value())
    }

    pub fn parse(self, text: &str) -> Option<f32> {
        for_any_param!(self, param => param.string_to_normalized_value(text))
            .filter(|value| value.is_finite())
    }

    /// A normalised value as text, without its unit.
    pub fn text(self, normalized: f32) -> String {
        for_any_param!(self, param => param.normalized_value_to_string(normalized, false))
    }

    /// The nearest value that the parameter can take, normalised.
    pub fn snap(self, normalized: f32) -> f32 {
        let normalized =
            if normalized.is_finite() { normalized.clamp(0.0, 1.0) } else { return self.normalized() };
        for_any_param!(self, param => param.preview_normalized(param.preview_plain(normalized)))
    }

    pub fn begin_gesture(self, setter: &ParamSetter) {
        for_any_param!(self, param => setter.begin_set_parameter(param));
    }

    pub fn set_normalized(self, setter: &ParamSetter, normalized: f32) {
        for_any_param!(self, param => setter.set_parameter_normalized(param, normalized));
    }

    pub fn end_gesture(self, setter: &ParamSetter) {
        for_any_param!(self, param => setter.end_set_parameter(param));
    }
}
