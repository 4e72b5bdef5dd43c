//! Stands between the wrapper and the host's component handler.
//!
//! Edits from the editor reach the processor with the next block. While the host does not process, we apply them here. The wrapper would do that too,
//! but would then notify the editor from another thread (see [`param_table`](super::param_table)).
//!
//! If a host processes on its main thread, as some do while rendering, the wrapper reports a new latency during the block. Hosts then stop and
//! restart the plugin, which must not happen inside a block. So the report is deferred until the block ends.

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

use super::param_table::ParamTable;

thread_local! {
    /// Restart flags deferred on this thread. `None` outside a block.
    static DEFERRED_FLAGS: Cell<Option<int32>> = const { Cell::new(None) };
}

/// Realtime-safe: defers restart requests made on this thread until [`take_flags`](Self::take_flags).
pub(super) struct DeferredRestart(());

impl DeferredRestart {
    pub fn new() -> Self {
        DEFERRED_FLAGS.set(Some(0));
        Self(())
    }

    /// Realtime-safe: ends the deferral and returns the deferred flags.
    pub fn take_flags(self) -> int32 {
        DEFERRED_FLAGS.take().unwrap_or(0)
    }
}

/// The component handler that the wrapper sees. The host's own may be absent.
pub(super) struct HandlerProxy {
    host: RwLock<Option<ComPtr<IComponentHandler>>>,
    /// `None` if the plugin has no parameters.
    pub param_table: Option<ParamTable>,
    /// True between `setProcessing(true)` and `setProcessing(false)`.
    pub processing: AtomicBool,
}

impl HandlerProxy {
    pub fn new(param_table: Option<ParamTable>) -> Self {
        Self { host: RwLock::default(), param_table, processing: AtomicBool::new(false) }
    }

    /// Sets the host's handler.
    pub fn set(&self, host: Option<ComPtr<IComponentHandler>>) {
        *self.host.write() = host;
    }

    /// Tells the host, if it supports this, that saved state other than parameters changed.
    pub fn set_dirty(&self) {
        self.call_host(|host| {
            let host = host.cast::<IComponentHandler2>();
            // SAFETY: a live object; the argument is valid by the format.
            host.map_or(kResultFalse, |host| unsafe { host.setDirty(1) })
        });
    }

    /// Calls the host's handler. Not under the lock, so that the host may set another handler during the call.
    fn call_host(&self, call: impl FnOnce(&ComPtr<IComponentHandler>) -> tresult) -> tresult {
        let host = self.host.read().clone();
        host.as_ref().map_or(kResultFalse, call)
    }
}

impl Class for HandlerProxy {
    type Interfaces = (IComponentHandler,);
}

#[allow(non_snake_case, reason = "the format's names")]
impl IComponentHandlerTrait for HandlerProxy {
    unsafe fn beginEdit(&self, id: ParamID) -> tresult {
        // SAFETY: a live object; the caller's arguments pass through unchanged. The same holds for the calls below.
        self.call_host(|host| unsafe { host.beginEdit(id) })
    }

    unsafe fn performEdit(&self, id: ParamID, value: ParamValue) -> tresult {
        if let (false, Some(param_table)) = (self.processing.load(Relaxed), &self.param_table) {
            param_table.set(id, value);
        }
        self.call_host(|host| unsafe { host.performEdit(id, value) })
    }

    unsafe fn endEdit(&self, id: ParamID) -> tresult {
        self.call_host(|host| unsafe { host.endEdit(id) })
    }

    unsafe fn restartComponent(&self, flags: int32) -> tresult {
        match DEFERRED_FLAGS.get() {
            Some(restart_flags) => {
                DEFERRED_FLAGS.set(Some(restart_flags | flags));
                kResultOk
            }
            None => self.call_host(|host| unsafe { host.restartComponent(flags) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use nice_plug::wrapper::vst3::vst3::ComWrapper;
    use parking_lot::Mutex;

    use super::*;

    /// A host that records `setDirty` calls.
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
    fn set_dirty_reaches_hosts_that_support_it() {
        let handler = HandlerProxy::new(None);
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
