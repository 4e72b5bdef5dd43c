//! The host's frame, as the wrapper's view sees it.
#![allow(non_snake_case, reason = "the format's names")]

use nice_plug::wrapper::vst3::vst3::{Class, ComPtr, ComWrapper, Steinberg};

use Steinberg::*;

#[cfg(all(target_family = "unix", not(target_os = "macos")))]
use run_loop::Handlers;

/// Passes calls on to the host, and says which view they are of.
pub(super) struct Frame {
    /// None where the host has not set any.
    host: Option<ComPtr<IPlugFrame>>,
    /// The view that the host knows; it ends this frame before it goes.
    view: *mut IPlugView,
    #[cfg(all(target_family = "unix", not(target_os = "macos")))]
    handlers: Handlers,
}

impl Frame {
    /// In the place of a host's.
    pub fn new(host: Option<ComPtr<IPlugFrame>>, view: *mut IPlugView) -> ComWrapper<Self> {
        ComWrapper::new(Self {
            #[cfg(all(target_family = "unix", not(target_os = "macos")))]
            handlers: Handlers::new(host.as_ref().and_then(|host| host.cast())),
            host,
            view,
        })
    }

    /// Has the wrapper do what it has put off, where there is no host's run loop to do it. On the host's main thread.
    pub fn serve(&self) {
        #[cfg(all(target_family = "unix", not(target_os = "macos")))]
        self.handlers.serve();
    }

    /// Lets go of all that was registered through it. The wrapper's view must have another frame, or none.
    pub fn end(&self) {
        #[cfg(all(target_family = "unix", not(target_os = "macos")))]
        self.handlers.end();
    }
}

#[cfg(not(all(target_family = "unix", not(target_os = "macos"))))]
impl Class for Frame {
    type Interfaces = (IPlugFrame,);
}

impl IPlugFrameTrait for Frame {
    unsafe fn resizeView(&self, _view: *mut IPlugView, size: *mut ViewRect) -> tresult {
        // SAFETY: the caller's size, and a view that is alive.
        self.host.as_ref().map_or(kResultFalse, |host| unsafe { host.resizeView(self.view, size) })
    }
}

#[cfg(all(target_family = "unix", not(target_os = "macos")))]
mod run_loop {
    use nice_plug::wrapper::vst3::vst3::{ComRef, com_scrape_types::Unknown};
    use parking_lot::Mutex;

    use super::*;
    use Linux::*;

    /// References to the wrapper's handler where nobody has it any more: ours, the one that it has to itself, and the one that is counted by.
    const FORGOTTEN: usize = 3;

    impl Class for Frame {
        type Interfaces = (IPlugFrame, IRunLoop);
    }

    /// What is registered. Without a run loop the wrapper looks at the window from a thread of its own, which ends the process; where one
    /// refuses, it panics. So there always is one; where the host has none, the handler is called whenever the host calls the view.
    pub struct Handlers {
        host: Option<ComPtr<IRunLoop>>,
        known: Mutex<Vec<(*mut IEventHandler, ComWrapper<Handler>, FileDescriptor)>>,
    }

    impl Handlers {
        pub fn new(host: Option<ComPtr<IRunLoop>>) -> Self {
            Self { host, known: Mutex::default() }
        }

        fn forget(&self, mut which: impl FnMut(*mut IEventHandler) -> bool) {
            let gone: Vec<_> = {
                let mut known = self.known.lock();
                let (gone, left) = known.drain(..).partition(|(theirs, ..)| which(*theirs));
                *known = left;
                gone
            };
            for (_, handler, _) in gone {
                let ours = handler.as_com_ref::<IEventHandler>();
                if let (Some(host), Some(ours)) = (&self.host, ours) {
                    // SAFETY: what was registered there.
                    unsafe { host.unregisterEventHandler(ours.as_ptr()) };
                }
                if let Some(theirs) = handler.0.lock().take() {
                    release(theirs);
                }
            }
        }

        pub fn end(&self) {
            self.forget(|_| true);
        }

        pub fn serve(&self) {
            if self.host.is_none() {
                let handlers: Vec<_> =
                    self.known.lock().iter().map(|(_, ours, file)| (ours.clone(), *file)).collect();
                for (handler, file) in handlers {
                    // SAFETY: a file of the wrapper's; the handler is there or does nothing.
                    unsafe { handler.onFDIsSet(file) };
                }
            }
        }
    }

    /// Lets go of a handler, and of the reference that it holds to itself, which would keep it alive.
    fn release(handler: ComPtr<IEventHandler>) {
        let raw = handler.into_raw();
        // SAFETY: one reference is ours, one is taken here. The third, where there are no others, is the handler's own, which it would give
        // back only when it is dropped; it is dropped with the last of these.
        unsafe {
            let count = IEventHandler::add_ref(raw);
            let ours = if count == FORGOTTEN { FORGOTTEN } else { 2 };
            for _ in 0..ours {
                IEventHandler::release(raw);
            }
        }
    }

    /// What the host has instead of the wrapper's handler: it may keep it for longer than it should.
    pub struct Handler(Mutex<Option<ComPtr<IEventHandler>>>);

    impl Class for Handler {
        type Interfaces = (IEventHandler,);
    }

    impl IEventHandlerTrait for Handler {
        unsafe fn onFDIsSet(&self, file: FileDescriptor) {
            let theirs = self.0.lock().clone();
            if let Some(theirs) = theirs {
                // SAFETY: a live object.
                unsafe { theirs.onFDIsSet(file) };
            }
        }
    }

    impl IRunLoopTrait for Frame {
        unsafe fn registerEventHandler(&self, handler: *mut IEventHandler, file: FileDescriptor) -> tresult {
            // SAFETY: a live object.
            let Some(theirs) = (unsafe { ComRef::from_raw(handler) }) else { return kInvalidArgument };
            let ours = ComWrapper::new(Handler(Mutex::new(Some(theirs.to_com_ptr()))));
            if let (Some(host), Some(ours)) = (&self.handlers.host, ours.as_com_ref::<IEventHandler>()) {
                // SAFETY: a live object, and a file of the wrapper's.
                unsafe { host.registerEventHandler(ours.as_ptr(), file) };
            }
            self.handlers.known.lock().push((handler, ours, file));
            kResultOk
        }

        unsafe fn unregisterEventHandler(&self, handler: *mut IEventHandler) -> tresult {
            self.handlers.forget(|theirs| theirs == handler);
            kResultOk
        }

        unsafe fn registerTimer(&self, handler: *mut ITimerHandler, interval: TimerInterval) -> tresult {
            // SAFETY: the caller's arguments, unchanged; here and below.
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
