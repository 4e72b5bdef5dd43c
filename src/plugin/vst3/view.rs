//! The editor's view, with what the wrapper's leaves undone done.
//!
//! - On Linux the wrapper's view registers a handler with the host's run loop, with a queue of 4096 tasks and two files, and keeps it for ever:
//!   every window would leave them behind, and the host would go on to look after them. Here the handler is the host's only as long as the
//!   view has that host's frame, and is let go of then.
//! - A window has gone when a host is told so ([`threads`](crate::plugin::editor::threads)).
//! - A scale factor that comes before the window, as the format recommends, is remembered and set when there is one.
#![allow(non_snake_case, reason = "the format's names")]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::Arc;

use nice_plug::wrapper::vst3::vst3::{Class, ComPtr, ComRef, ComWrapper, Steinberg};

use IPlugViewContentScaleSupport_::ScaleFactor;
use Steinberg::*;

use super::frame::Frame;
use crate::plugin::session::Session;

/// A view over the wrapper's.
///
/// # Safety
/// `inner` is null, or a view that is handed over.
pub(super) unsafe fn over(inner: *mut IPlugView, session: Option<Arc<Session>>) -> *mut IPlugView {
    // SAFETY: by the contract above.
    let Some(inner) = (unsafe { ComPtr::from_raw(inner) }) else { return std::ptr::null_mut() };
    let scaled = inner.cast();
    let view = ComWrapper::new(View {
        inner,
        scaled,
        session,
        scale: Cell::default(),
        attached: Cell::default(),
        frame: Framed::default(),
    });
    view.to_com_ptr::<IPlugView>().map_or(std::ptr::null_mut(), ComPtr::into_raw)
}

/// Used by the host's main thread alone, by the format.
struct View {
    inner: ComPtr<IPlugView>,
    scaled: Option<ComPtr<IPlugViewContentScaleSupport>>,
    session: Option<Arc<Session>>,
    /// What the host has set.
    scale: Cell<Option<ScaleFactor>>,
    attached: Cell<bool>,
    /// Last: after the wrapper's view.
    frame: Framed,
}

/// Where a frame is, and ends.
#[derive(Default)]
struct Framed(RefCell<Option<ComWrapper<Frame>>>);

impl Framed {
    fn serve(&self) {
        // Not under the borrow: what is put off may set another.
        let frame = self.0.borrow().clone();
        if let Some(frame) = frame {
            frame.serve();
        }
    }

    fn put(&self, frame: Option<ComWrapper<Frame>>) {
        if let Some(before) = self.0.replace(frame) {
            before.end();
        }
    }
}

impl Drop for Framed {
    fn drop(&mut self) {
        self.put(None);
    }
}

impl View {
    /// The host's pointer to this view.
    ///
    /// # Safety
    /// As long as `self` lives.
    unsafe fn as_ptr(&self) -> *mut IPlugView {
        use nice_plug::wrapper::vst3::vst3::com_scrape_types::Wrapper;
        // SAFETY: views are made in `over` only, in a wrapper of this kind; the interface is the header's first.
        unsafe { ComWrapper::<Self>::header_from_data(std::ptr::from_ref(self).cast_mut()).cast() }
    }

    /// Gives the wrapper another frame, with the host's behind it; the one before is done with.
    fn put_frame(&self, host: Option<ComPtr<IPlugFrame>>) -> tresult {
        // SAFETY: this view ends its frame before it goes.
        let frame = Frame::new(host, unsafe { self.as_ptr() });
        let pointer = frame.as_com_ref::<IPlugFrame>().map_or(std::ptr::null_mut(), |frame| frame.as_ptr());
        // SAFETY: a live object.
        let result = unsafe { self.inner.setFrame(pointer) };
        self.frame.put(Some(frame));
        result
    }

    /// Takes the wrapper's frame away.
    fn take_frame(&self) -> tresult {
        // SAFETY: a live object.
        let result = unsafe { self.inner.setFrame(std::ptr::null_mut()) };
        self.frame.put(None);
        result
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: a live object. It refuses where the plugin has gone before its view: then its own end is what lets go of the frame.
        unsafe { self.inner.setFrame(std::ptr::null_mut()) };
    }
}

impl Class for View {
    type Interfaces = (IPlugView, IPlugViewContentScaleSupport);
}

impl IPlugViewTrait for View {
    unsafe fn isPlatformTypeSupported(&self, kind: FIDString) -> tresult {
        // SAFETY: the caller's arguments, unchanged; here and below.
        if kind.is_null() { kInvalidArgument } else { unsafe { self.inner.isPlatformTypeSupported(kind) } }
    }

    unsafe fn attached(&self, parent: *mut c_void, kind: FIDString) -> tresult {
        if parent.is_null() || kind.is_null() {
            return kInvalidArgument;
        }
        if self.frame.0.borrow().is_none() {
            self.put_frame(None);
        }
        let result = unsafe { self.inner.attached(parent, kind) };
        if result == kResultOk {
            self.attached.set(true);
            if let (Some(scale), Some(scaled)) = (self.scale.get(), &self.scaled) {
                unsafe { scaled.setContentScaleFactor(scale) };
            }
        }
        result
    }

    unsafe fn removed(&self) -> tresult {
        self.attached.set(false);
        let result = unsafe { self.inner.removed() };
        if let Some(session) = &self.session {
            session.wait_for_windows();
        }
        result
    }

    unsafe fn onWheel(&self, distance: f32) -> tresult {
        unsafe { self.inner.onWheel(distance) }
    }

    unsafe fn onKeyDown(&self, key: char16, code: int16, modifiers: int16) -> tresult {
        unsafe { self.inner.onKeyDown(key, code, modifiers) }
    }

    unsafe fn onKeyUp(&self, key: char16, code: int16, modifiers: int16) -> tresult {
        unsafe { self.inner.onKeyUp(key, code, modifiers) }
    }

    /// Before there is a window: as large as it is going to be.
    unsafe fn getSize(&self, size: *mut ViewRect) -> tresult {
        let window = self.session.as_ref().and_then(|session| session.window().get());
        // SAFETY: null or memory for what is told.
        match (unsafe { size.as_mut() }, self.scale.get(), window) {
            (None, ..) => kInvalidArgument,
            (Some(size), Some(scale), Some(window)) if !self.attached.get() => {
                let points = window.logical_size();
                let pixels = |points: f32| (points * scale).round() as int32;
                *size =
                    ViewRect { left: 0, top: 0, right: pixels(points.width), bottom: pixels(points.height) };
                kResultOk
            }
            (Some(size), ..) => {
                self.frame.serve();
                unsafe { self.inner.getSize(size) }
            }
        }
    }

    unsafe fn onSize(&self, size: *mut ViewRect) -> tresult {
        let result = unsafe { self.inner.onSize(size) };
        self.frame.serve();
        result
    }

    unsafe fn onFocus(&self, state: TBool) -> tresult {
        unsafe { self.inner.onFocus(state) }
    }

    unsafe fn setFrame(&self, frame: *mut IPlugFrame) -> tresult {
        // SAFETY: null or a live object by the format.
        match unsafe { ComRef::from_raw(frame) } {
            None if !self.attached.get() => self.take_frame(),
            host => self.put_frame(host.map(|host| host.to_com_ptr())),
        }
    }

    unsafe fn canResize(&self) -> tresult {
        unsafe { self.inner.canResize() }
    }

    unsafe fn checkSizeConstraint(&self, rect: *mut ViewRect) -> tresult {
        unsafe { self.inner.checkSizeConstraint(rect) }
    }
}

impl IPlugViewContentScaleSupportTrait for View {
    unsafe fn setContentScaleFactor(&self, factor: ScaleFactor) -> tresult {
        if !factor.is_finite() || !(0.1..=16.0).contains(&factor) {
            return kInvalidArgument;
        }
        self.scale.set(Some(factor));
        match &self.scaled {
            Some(scaled) if self.attached.get() => unsafe { scaled.setContentScaleFactor(factor) },
            _ => kResultOk,
        }
    }
}
