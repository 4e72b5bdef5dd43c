//! The plug frame that the wrapper's view sees, in place of the host's.
#![allow(non_snake_case, reason = "the format's names")]

use nice_plug::wrapper::vst3::vst3::{Class, ComPtr, ComWrapper, Steinberg};

use Steinberg::*;

#[cfg(all(target_family = "unix", not(target_os = "macos")))]
use run_loop::Handlers;

/// Forwards calls to the host's frame, with the view that the host knows.
pub(super) struct PlugFrameShim {
    /// `None` if the host set no frame.
    host: Option<ComPtr<IPlugFrame>>,
    /// The view that the host knows. It ends this frame before it is destroyed.
    view: *mut IPlugView,
    #[cfg(all(target_family = "unix", not(target_os = "macos")))]
    handlers: Handlers,
}

impl PlugFrameShim {
    /// Wraps the host's frame.
    pub fn new(host: Option<ComPtr<IPlugFrame>>, view: *mut IPlugView) -> ComWrapper<Self> {
        ComWrapper::new(Self {
            #[cfg(all(target_family = "unix", not(target_os = "macos")))]
            handlers: Handlers::new(host.as_ref().and_then(|host| host.cast())),
            host,
            view,
        })
    }

    /// Runs the wrapper's pending tasks if the host has no run loop. Main thread.
    pub fn run_pending(&self) {
        #[cfg(all(target_family = "unix", not(target_os = "macos")))]
        self.handlers.run_pending();
    }

    /// Unregisters everything. The wrapper's view must have another frame, or none.
    pub fn end(&self) {
        #[cfg(all(target_family = "unix", not(target_os = "macos")))]
        self.handlers.end();
    }
}

#[cfg(not(all(target_family = "unix", not(target_os = "macos"))))]
impl Class for PlugFrameShim {
    type Interfaces = (IPlugFrame,);
}

impl IPlugFrameTrait for PlugFrameShim {
    unsafe fn resizeView(&self, _view: *mut IPlugView, size: *mut ViewRect) -> tresult {
        // SAFETY: the caller's `size`, and a view that is alive.
        self.host.as_ref().map_or(kResultFalse, |host| unsafe { host.resizeView(self.view, size) })
    }
}

#[cfg(all(target_family = "unix", not(target_os = "macos")))]
mod run_loop {
    use nice_plug::wrapper::vst3::vst3::{ComRef, com_scrape_types::Unknown};
    use parking_lot::Mutex;

    use super::*;
    use Linux::*;

    /// Reference count of a wrapper's handler that nobody else uses: our reference, the one it holds to itself, and the one taken for counting.
    const UNUSED_HANDLER_REFS: usize = 3;

    impl Class for PlugFrameShim {
        type Interfaces = (IPlugFrame, IRunLoop);
    }

    /// Registered event handlers. Without a run loop the wrapper accesses the window from its own thread, which crashes the process; if a run loop
    /// refuses a handler, it panics. So we always provide a run loop. If the host has none, the handlers run whenever the host calls the view.
    pub struct Handlers {
        host: Option<ComPtr<IRunLoop>>,
        known: Mutex<Vec<(*mut IEventHandler, ComWrapper<Handler>, FileDescriptor)>>,
    }

    impl Handlers {
        pub fn new(host: Option<ComPtr<IRunLoop>>) -> Self {
            Self { host, known: Mutex::default() }
        }

        fn unregister(&self, mut which: impl FnMut(*mut IEventHandler) -> bool) {
            let gone: Vec<_> = {
                let mut known = self.known.lock();
                let (gone, left) = known.drain(..).partition(|(theirs, ..)| which(*theirs));
                *known = left;
                gone
            };
            for (_, handler, _) in gone {
                let ours = handler.as_com_ref::<IEventHandler>();
                if let (Some(host), Some(ours)) = (&self.host, ours) {
                    // SAFETY: this handler was registered with this run loop.
                    unsafe { host.unregisterEventHandler(ours.as_ptr()) };
                }
                if let Some(theirs) = handler.0.lock().take() {
                    release(theirs);
                }
            }
        }

        pub fn end(&self) {
            self.unregister(|_| true);
        }

        pub fn run_pending(&self) {
            if self.host.is_none() {
                let handlers: Vec<_> =
                    self.known.lock().iter().map(|(_, ours, file)| (ours.clone(), *file)).collect();
                for (handler, file) in handlers {
                    // SAFETY: the wrapper's own file descriptor; a handler whose target is gone does nothing.
                    unsafe { handler.onFDIsSet(file) };
                }
            }
        }
    }

    /// Releases a handler, and the reference that it holds to itself, which would keep it alive for ever.
    fn release(handler: ComPtr<IEventHandler>) {
        let raw = handler.into_raw();
        // SAFETY: one reference is ours and one is taken here. If there is exactly one more, it is the handler's own, which it would only release on
        // destruction; the handler is destroyed with the last release.
        unsafe {
            let count = IEventHandler::add_ref(raw);
            let ours = if count == UNUSED_HANDLER_REFS { UNUSED_HANDLER_REFS } else { 2 };
            for _ in 0..ours {
                IEventHandler::release(raw);
            }
        }
    }

    /// Registered with the host instead of the wrapper's handler, because a host may keep it too long.
    pub struct Handler(Mutex<Option<ComPtr<IEventHandler>>>);

    impl Class for Handler {
        type Interfaces = (IEventHandler,);
    }

    impl IEventHandlerTrait for Handler {
        unsafe fn onFDIsSet(&self, file: FileDescriptor) {
            let theirs = self.0.lock().clone();
            if let Some(theirs) = theirs {
                // SAFETY: a live object; the caller's argument passes through unchanged.
                unsafe { theirs.onFDIsSet(file) };
            }
        }
    }

    impl IRunLoopTrait for PlugFrameShim {
        unsafe fn registerEventHandler(&self, handler: *mut IEventHandler, file: FileDescriptor) -> tresult {
            // SAFETY: null or a live object by the format.
            let Some(theirs) = (unsafe { ComRef::from_raw(handler) }) else { return kInvalidArgument };
            let ours = ComWrapper::new(Handler(Mutex::new(Some(theirs.to_com_ptr()))));
            if let (Some(host), Some(ours)) = (&self.handlers.host, ours.as_com_ref::<IEventHandler>()) {
                // SAFETY: a live object, and the wrapper's own file descriptor.
                unsafe { host.registerEventHandler(ours.as_ptr(), file) };
            }
            self.handlers.known.lock().push((handler, ours, file));
            kResultOk
        }

        unsafe fn unregisterEventHandler(&self, handler: *mut IEventHandler) -> tresult {
            self.handlers.unregister(|theirs| theirs == handler);
            kResultOk
        }

        unsafe fn registerTimer(&self, handler: *mut ITimerHandler, interval: TimerInterval) -> tresult {
            // SAFETY: the caller's arguments pass through unchanged, here and in the next function.
            self.handlers
                .host
                .as_ref()
                .map_or(kResultFalse, |host| unsafe { host.registerTimer(handler, interval) })
        }

        unsafe fn unregisterTimer(&self, handler: *mut ITimerHandler) -> tresult {
            self.handlers.host.as_ref().map_or(kResultFalse, |host| unsafe { host.unregisterTimer(handler) })
        }
    }
}
