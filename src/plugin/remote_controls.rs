//! Pages of parameters for hardware controllers, in hosts that support them (CLAP).

use nice_plug::prelude::{RemoteControlsContext, RemoteControlsPage, RemoteControlsSection};

use super::params::NullsumParams;

/// Defines all pages. Each has at most eight parameters.
pub(super) fn define(params: &NullsumParams, context: &mut impl RemoteControlsContext) {
    let strips = params.strips();
    context.add_section("Mixer", |section| {
        section.add_page("Faders", |page| {
            strips.iter().for_each(|strip| page.add_param(&strip.gain));
            page.add_param(&params.mix);
            page.add_param(&params.output);
        });
        section.add_page("Mute", |page| {
            strips.iter().for_each(|strip| page.add_param(&strip.mute));
            page.add_spacer();
            page.add_param(&params.bypass);
        });
        section.add_page("Solo", |page| {
            strips.iter().for_each(|strip| page.add_param(&strip.solo));
            page.add_spacer();
            page.add_param(&params.bypass);
        });
        section.add_page("Pan", |page| strips.iter().for_each(|strip| page.add_param(&strip.pan)));
    });
    context.add_section("Stems", |section| {
        for (strip, name) in strips.iter().zip(super::routing::STRIP_NAMES) {
            section.add_page(name, |page| {
                page.add_param(&strip.gain);
                page.add_param(&strip.pan);
                page.add_param(&strip.mute);
                page.add_param(&strip.solo);
                page.add_param(&strip.phase);
            });
        }
    });
    context.add_section("Settings", |section| {
        section.add_page("Settings", |page| {
            page.add_param(&params.tier);
            page.add_param(&params.lossless);
            page.add_param(&params.render);
            page.add_param(&params.bypass);
        });
    });
}
