//! Sets parameters and state without the wrapper.
//!
//! On Linux the wrapper notifies the editor of every change from its own thread, unless the host makes the change on the main thread. That thread
//! accesses the window, which may be opening or closing, or belong to another thread: it panics, and destroying the instance then crashes the host.
//! The wrapper also wakes that thread from the audio thread, with a system call. Here, a change is atomic stores and a repaint flag that the editor
//! polls.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use nice_plug::params::{InternalParamMut, Params};
use nice_plug::plugin::{ParamValue, PluginState};
use nice_plug::prelude::{ParamPtr, Plugin};
use nice_plug::wrapper::vst3::vst3::{ComRef, Steinberg};

use Steinberg::{IBStream, IBStreamTrait};

use crate::plugin::instance_shared::InstanceShared;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 16;
/// Largest state that is read.
const MAX_STATE_BYTES: usize = 1 << 26;

/// The parameters of an instance.
pub(super) struct ParamTable {
    shared: Arc<InstanceShared>,
    /// Sorted by VST3 parameter id.
    by_id: Box<[(u32, ParamPtr)]>,
    by_name: HashMap<String, ParamPtr>,
}

impl ParamTable {
    /// `ids`: the VST3 parameter ids, in the order of the parameters.
    pub fn new(shared: Arc<InstanceShared>, ids: &[u32]) -> Self {
        let map = shared.params.param_map();
        let mut by_id: Box<[_]> = ids.iter().zip(&map).map(|(id, (_, param, _))| (*id, *param)).collect();
        by_id.sort_unstable_by_key(|(id, _)| *id);
        let by_name = map.into_iter().map(|(name, param, _)| (name, param)).collect();
        Self { shared, by_id, by_name }
    }

    /// Realtime-safe: sets a parameter. False if it does not exist or the value is not finite.
    pub fn set(&self, id: u32, value: f64) -> bool {
        let found =
            self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|at| self.by_id.get(at));
        let (Some((_, param)), true) = (found, value.is_finite()) else { return false };
        // SAFETY: `shared` keeps the parameters alive, and they are atomics.
        if unsafe { param._internal_set_normalized_value(value.clamp(0.0, 1.0) as f32) } {
            self.shared.repaint.request_repaint();
        }
        true
    }

    /// Loads a state from the host.
    ///
    /// # Safety
    /// `stream` is null or valid.
    pub unsafe fn load<P: Plugin>(&self, stream: *mut IBStream) -> bool {
        // SAFETY: null or valid by this function's contract.
        let Some(bytes) = (unsafe { read(stream) }) else { return false };
        let Ok(mut state) = serde_json::from_slice::<PluginState>(&bytes) else { return false };
        P::filter_state(&mut state);
        self.apply(&state);
        true
    }

    /// Sets everything that a state holds.
    pub fn apply(&self, state: &PluginState) {
        for (name, value) in &state.params {
            if let Some(param) = self.by_name.get(name) {
                // SAFETY: `shared` keeps the parameters alive, and they are atomics.
                unsafe { set_from_state(*param, value) };
            }
        }
        self.shared.params.deserialize_fields(&state.fields);
        self.shared.repaint.request_repaint();
    }
}

/// Sets a parameter to a value from a state. A value of another type is ignored.
///
/// # Safety
/// The parameter is alive.
unsafe fn set_from_state(param: ParamPtr, value: &ParamValue) {
    // SAFETY: alive by this function's contract.
    unsafe {
        match (param, value) {
            (ParamPtr::FloatParam(param), ParamValue::F32(value)) => {
                (*param)._internal_set_plain_value(*value);
            }
            (ParamPtr::BoolParam(param), ParamValue::Bool(value)) => {
                (*param)._internal_set_plain_value(*value);
            }
            (ParamPtr::IntParam(param), ParamValue::I32(value)) => {
                (*param)._internal_set_plain_value(*value);
            }
            (ParamPtr::EnumParam(param), ParamValue::String(id)) => {
                (*param).set_from_id(id);
            }
            (ParamPtr::EnumParam(param), ParamValue::I32(index)) => {
                (*param)._internal_set_plain_value(*index);
            }
            _ => {}
        }
    }
}

/// Reads a stream from its position to its end. `None` if it is null or longer than the limit.
///
/// # Safety
/// `stream` is null or valid.
unsafe fn read(stream: *mut IBStream) -> Option<Vec<u8>> {
    // SAFETY: null or valid by this function's contract.
    let stream = unsafe { ComRef::from_raw(stream) }?;
    let mut bytes = Vec::new();
    let mut piece = vec![0u8; READ_BYTES];
    loop {
        let mut count = 0;
        // SAFETY: `piece` has that many bytes. The result is ignored, because some hosts report failure at the end; the byte count is right.
        unsafe { stream.read(piece.as_mut_ptr().cast::<c_void>(), READ_BYTES as i32, &mut count) };
        if count <= 0 {
            return Some(bytes);
        }
        let count = usize::try_from(count).ok()?;
        bytes.extend_from_slice(piece.get(..count)?);
        if bytes.len() > MAX_STATE_BYTES {
            return None;
        }
    }
}
