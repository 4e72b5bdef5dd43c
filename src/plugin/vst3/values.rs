//! Parameters and state, without the wrapper.
//!
//! On Linux the wrapper tells the editor of every change from a thread of its own, unless the host sets it on the main thread. There it
//! looks at the window, which may be opening or closing just then, or belong to another thread: it panics, and the instance's end takes the
//! host with it. It also wakes that thread from the audio thread, with a system call. Set here, a change is stores, and a mark that the
//! editor finds when it looks.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use nice_plug::params::{InternalParamMut, Params};
use nice_plug::plugin::{ParamValue, PluginState};
use nice_plug::prelude::{ParamPtr, Plugin};
use nice_plug::wrapper::vst3::vst3::{ComRef, Steinberg};

use Steinberg::{IBStream, IBStreamTrait};

use crate::plugin::session::Session;

/// Bytes that are read at a time, and at most.
const PIECE: usize = 1 << 16;
const MOST: usize = 1 << 26;

/// The parameters of an instance.
pub(super) struct Values {
    session: Arc<Session>,
    /// By the format's ids, in order.
    by_id: Box<[(u32, ParamPtr)]>,
    by_name: HashMap<String, ParamPtr>,
}

impl Values {
    /// `ids`: the format's, in the order of the parameters.
    pub fn new(session: Arc<Session>, ids: &[u32]) -> Self {
        let map = session.params.param_map();
        let mut by_id: Box<[_]> = ids.iter().zip(&map).map(|(id, (_, param, _))| (*id, *param)).collect();
        by_id.sort_unstable_by_key(|(id, _)| *id);
        let by_name = map.into_iter().map(|(name, param, _)| (name, param)).collect();
        Self { session, by_id, by_name }
    }

    /// Sets a parameter; false where there is none, or it is no value. Realtime-safe.
    pub fn set(&self, id: u32, value: f64) -> bool {
        let found =
            self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|at| self.by_id.get(at));
        let (Some((_, param)), true) = (found, value.is_finite()) else { return false };
        // SAFETY: the session keeps its parameters alive, and they are made of atomics.
        if unsafe { param._internal_set_normalized_value(value.clamp(0.0, 1.0) as f32) } {
            self.session.repaint.request_repaint();
        }
        true
    }

    /// Takes a state from a host.
    ///
    /// # Safety
    /// `stream` is null or valid.
    pub unsafe fn load<P: Plugin>(&self, stream: *mut IBStream) -> bool {
        // SAFETY: by the contract above.
        let Some(bytes) = (unsafe { read(stream) }) else { return false };
        let Ok(mut state) = serde_json::from_slice::<PluginState>(&bytes) else { return false };
        P::filter_state(&mut state);
        for (name, value) in &state.params {
            if let Some(param) = self.by_name.get(name) {
                // SAFETY: the session keeps its parameters alive, and they are made of atomics.
                unsafe { put(*param, value) };
            }
        }
        self.session.params.deserialize_fields(&state.fields);
        self.session.repaint.request_repaint();
        true
    }
}

/// Gives a parameter a value of a state; one of another kind is left out.
///
/// # Safety
/// The parameter is alive.
unsafe fn put(param: ParamPtr, value: &ParamValue) {
    // SAFETY: by the contract above.
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

/// All of a stream from where it is.
///
/// # Safety
/// `stream` is null or valid.
unsafe fn read(stream: *mut IBStream) -> Option<Vec<u8>> {
    // SAFETY: by the contract above.
    let stream = unsafe { ComRef::from_raw(stream) }?;
    let mut bytes = Vec::new();
    let mut piece = vec![0u8; PIECE];
    loop {
        let mut count = 0;
        // SAFETY: memory of that length.
        // Some say at the end that it failed: what counts is what was read.
        unsafe { stream.read(piece.as_mut_ptr().cast::<c_void>(), PIECE as i32, &mut count) };
        if count <= 0 {
            return Some(bytes);
        }
        let count = usize::try_from(count).ok()?;
        bytes.extend_from_slice(piece.get(..count)?);
        if bytes.len() > MOST {
            return None;
        }
    }
}
