//! The host's handler, out of the way of blocks.
//!
//! What the editor sets reaches the processor with the next block. Where none will come, it is set here: the wrapper would do that too, and
//! then tell the editor from another thread (see [`values`](super::values)).
//!
//! Where a host processes on its main thread, as renderers do, the wrapper tells it of a new latency in the middle of a block. What hosts do
//! then, stopping and starting the plugin, must not meet a block under way: it is told when the block is done.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nice_plug::wrapper::vst3::vst3::{Class, ComPtr, Steinberg};

use Steinberg::Vst::{
    IComponentHandler, IComponentHandler2, IComponentHandler2Trait, IComponentHandlerTrait, ParamID,
    ParamValue,
};
use Steinberg::{int32, kResultFalse, kResultOk, tresult};
use parking_lot::RwLock;

use super::values::Values;

thread_local! {
    /// While this thread is in a block: what the host is to be told.
    static HELD: Cell<Option<int32>> = const { Cell::new(None) };
}

/// Holds back what is said on this thread until it is [`done`](Self::done). Realtime-safe.
pub(super) struct Hold(());

impl Hold {
    pub fn new() -> Self {
        HELD.set(Some(0));
        Self(())
    }

    /// What was held back, as flags. Realtime-safe.
    pub fn done(self) -> int32 {
        HELD.take().unwrap_or(0)
    }
}

/// What the wrapper takes for the host's handler, whether there is one or not.
pub(super) struct Handler {
    host: RwLock<Option<ComPtr<IComponentHandler>>>,
    /// None where there are no parameters.
    pub values: Option<Values>,
    /// Between `setProcessing(true)` and `setProcessing(false)`.
    pub processing: AtomicBool,
}

impl Handler {
    pub fn new(values: Option<Values>) -> Self {
        Self { host: RwLock::default(), values, processing: AtomicBool::new(false) }
    }

    /// Sets the host's.
    pub fn set(&self, host: Option<ComPtr<IComponentHandler>>) {
        *self.host.write() = host;
    }

    /// Tells the host, where it wants to know, that there is something to save that is no parameter.
    pub fn set_dirty(&self) {
        self.tell(|host| {
            let host = host.cast::<IComponentHandler2>();
            // SAFETY: the argument is the format's.
            host.map_or(kResultFalse, |host| unsafe { host.setDirty(1) })
        });
    }

    /// Not under the lock, so that a host may set another while it is told.
    fn tell(&self, tell: impl FnOnce(&ComPtr<IComponentHandler>) -> tresult) -> tresult {
        let host = self.host.read().clone();
        host.as_ref().map_or(kResultFalse, tell)
    }
}

impl Class for Handler {
    type Interfaces = (IComponentHandler,);
}

#[allow(non_snake_case, reason = "the format's names")]
impl IComponentHandlerTrait for Handler {
    unsafe fn beginEdit(&self, id: ParamID) -> tresult {
        // SAFETY: the caller's arguments, unchanged; here and below.
        self.tell(|host| unsafe { host.beginEdit(id) })
    }

    unsafe fn performEdit(&self, id: ParamID, value: ParamValue) -> tresult {
        if let (false, Some(values)) = (self.processing.load(Relaxed), &self.values) {
            values.set(id, value);
        }
        self.tell(|host| unsafe { host.performEdit(id, value) })
    }

    unsafe fn endEdit(&self, id: ParamID) -> tresult {
        self.tell(|host| unsafe { host.endEdit(id) })
    }

    unsafe fn restartComponent(&self, flags: int32) -> tresult {
        match HELD.get() {
            Some(held) => {
                HELD.set(Some(held | flags));
                kResultOk
            }
            None => self.tell(|host| unsafe { host.restartComponent(flags) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use nice_plug::wrapper::vst3::vst3::ComWrapper;
    use parking_lot::Mutex;

    use super::*;

    /// A host that notes what it is told of unsaved changes.
    #[derive(Default)]
    struct Host(Mutex<Vec<u8>>);

    impl Class for Host {
        type Interfaces = (IComponentHandler, IComponentHandler2);
    }

    #[allow(non_snake_case, reason = "the format's names")]
    impl IComponentHandlerTrait for Host {
        unsafe fn beginEdit(&self, _id: ParamID) -> tresult {
            kResultOk
        }

        unsafe fn performEdit(&self, _id: ParamID, _value: ParamValue) -> tresult {
            kResultOk
        }

        unsafe fn endEdit(&self, _id: ParamID) -> tresult {
            kResultOk
        }

        unsafe fn restartComponent(&self, _flags: int32) -> tresult {
            kResultOk
        }
    }

    #[allow(non_snake_case, reason = "the format's names")]
    impl IComponentHandler2Trait for Host {
        unsafe fn setDirty(&self, state: Steinberg::TBool) -> tresult {
            self.0.lock().push(state);
            kResultOk
        }

        unsafe fn requestOpenEditor(&self, _name: Steinberg::FIDString) -> tresult {
            kResultOk
        }

        unsafe fn startGroupEdit(&self) -> tresult {
            kResultOk
        }

        unsafe fn finishGroupEdit(&self) -> tresult {
            kResultOk
        }
    }

    #[test]
    fn a_host_is_told_of_unsaved_changes_where_it_listens() {
        let handler = Handler::new(None);
        handler.set_dirty();
        let host = ComWrapper::new(Host::default());
        handler.set(host.to_com_ptr::<IComponentHandler>());
        handler.set_dirty();
        assert_eq!(*host.0.lock(), [1]);
        handler.set(None);
        handler.set_dirty();
        assert_eq!(host.0.lock().len(), 1);
    }
}
