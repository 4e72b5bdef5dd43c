//! The format's parameter ids.

use clap_sys::ext::params::{clap_param_info, clap_plugin_params};
use nice_plug::prelude::{ParamPtr, Params};
use nice_plug::wrapper::clap::clap_plugin;

use crate::plugin::params::{NullsumParams, edit_group};

/// Parameters by the format's id, sorted.
#[derive(Default)]
pub(super) struct ParamIds(Box<[ParamEntry]>);

struct ParamEntry {
    clap_id: u32,
    param: ParamPtr,
    /// The bit of its group of gains; 0 if it has none.
    edit_group: u32,
}

impl ParamIds {
    /// # Safety
    /// `plugin` is initialised, and `wrapped` are its parameter functions.
    pub unsafe fn read(
        plugin: *const clap_plugin,
        wrapped: &clap_plugin_params,
        params: &NullsumParams,
    ) -> Self {
        let Some(get_info) = wrapped.get_info else { return Self::default() };
        let entry = |(index, (id, param, _)): (usize, (String, ParamPtr, String))| {
            // SAFETY: zero bytes are a valid description.
            let mut info: clap_param_info = unsafe { std::mem::zeroed() };
            // SAFETY: the plugin by this function's contract, and memory for the description.
            let known = unsafe { get_info(plugin, index as u32, &raw mut info) };
            known.then(|| ParamEntry { clap_id: info.id, param, edit_group: edit_group(&id) })
        };
        // The wrapper lists parameters in the order of our own list.
        let mut entries: Box<[_]> = params.param_map().into_iter().enumerate().filter_map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.clap_id);
        Self(entries)
    }

    fn find(&self, clap_id: u32) -> Option<&ParamEntry> {
        self.0.get(self.0.binary_search_by_key(&clap_id, |entry| entry.clap_id).ok()?)
    }

    /// The parameter of an id.
    pub fn param(&self, clap_id: u32) -> Option<ParamPtr> {
        self.find(clap_id).map(|entry| entry.param)
    }

    /// Realtime-safe: the bit of a parameter's group of gains.
    pub fn edit_group(&self, clap_id: u32) -> u32 {
        self.find(clap_id).map_or(0, |entry| entry.edit_group)
    }
}
