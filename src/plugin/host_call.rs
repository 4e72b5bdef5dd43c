//! The host's process call, as the format shims see it. They and nice-plug's wrappers may split it into parts, so that automation is exact.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

/// Marks the host's calls for the processor, which sees their parts only. Realtime-safe.
#[derive(Debug, Default)]
pub(super) struct HostCall {
    /// Samples of the call plus 1, until its first part is processed.
    new_call: AtomicU64,
    is_inside: AtomicBool,
    /// What the host says of the current call, and of all calls to come. See [`encode`].
    call_mode: AtomicU8,
    render_mode: AtomicU8,
}

/// Whether the host announces offline rendering; 0 if it says nothing.
fn encode(offline: Option<bool>) -> u8 {
    offline.map_or(0, |offline| 1 + u8::from(offline))
}

fn decode(mode: u8) -> Option<bool> {
    (mode > 0).then_some(mode == 2)
}

/// A part of a host's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Samples of the whole call, in its first part.
    pub new_call_samples: Option<usize>,
    /// Whether the host says that it renders offline. `None`: it says nothing, and what it said at the activation holds.
    pub announced_offline: Option<bool>,
}

/// Ends the call on drop.
pub(super) struct HostCallGuard<'a>(&'a HostCall);

impl HostCall {
    /// The host calls, with `samples` in all. `offline`: whether it says in this call that it renders offline.
    pub fn begin(&self, samples: usize, offline: Option<bool>) -> HostCallGuard<'_> {
        self.new_call.store(samples as u64 + 1, Relaxed);
        self.call_mode.store(encode(offline), Relaxed);
        self.is_inside.store(true, Relaxed);
        HostCallGuard(self)
    }

    /// Sets the mode of the calls to come, for a format that does not say it in each call.
    pub fn set_render_mode(&self, offline: bool) {
        self.render_mode.store(encode(Some(offline)), Relaxed);
    }

    /// A part of `samples` begins. Without a shim, every part is a call of its own.
    pub fn begin_part(&self, samples: usize) -> Part {
        if !self.is_inside.load(Relaxed) {
            return Part { new_call_samples: Some(samples), announced_offline: None };
        }
        let new_call = self.new_call.swap(0, Relaxed).checked_sub(1);
        Part {
            new_call_samples: new_call.and_then(|samples| usize::try_from(samples).ok()),
            announced_offline: decode(self.call_mode.load(Relaxed))
                .or_else(|| decode(self.render_mode.load(Relaxed))),
        }
    }
}

impl Drop for HostCallGuard<'_> {
    fn drop(&mut self) {
        self.0.is_inside.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_once_however_many_parts_it_has() {
        let call = HostCall::default();
        let part = |new_call_samples, announced_offline| Part { new_call_samples, announced_offline };
        assert_eq!(call.begin_part(64), part(Some(64), None), "no shim");
        {
            let _inside = call.begin(512, Some(true));
            assert_eq!(call.begin_part(100), part(Some(512), Some(true)));
            assert_eq!(call.begin_part(412), part(None, Some(true)));
        }
        {
            let _inside = call.begin(0, None);
            assert_eq!(call.begin_part(0), part(Some(0), None));
        }
        assert_eq!(call.begin_part(64), part(Some(64), None));
    }

    #[test]
    fn the_render_mode_holds_until_the_next_and_a_call_overrides_it() {
        let call = HostCall::default();
        let announced = |offline| {
            let _inside = call.begin(64, offline);
            call.begin_part(64).announced_offline
        };
        assert_eq!(announced(None), None);
        call.set_render_mode(true);
        assert_eq!((announced(None), announced(Some(false))), (Some(true), Some(false)));
        call.set_render_mode(false);
        assert_eq!((announced(None), announced(Some(true))), (Some(false), Some(true)));
    }
}
