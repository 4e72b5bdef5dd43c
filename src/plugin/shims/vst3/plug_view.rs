//! The editor's view: the wrapper's view behind a shim that corrects its behaviour.
//!
//! - On Linux the wrapper's view registers a handler with the host's run loop, with a queue of 4096 tasks and two file descriptors, and never removes
//!   it. Every window would leak them, and the host would keep polling them. Here the handler stays registered only while the view has that host's
//!   frame.
//! - `removed` waits until the window's threads have ended ([`window_threads`](crate::plugin::platform::window_threads)).
//! - A scale factor set before the window exists, as the format recommends, is remembered and applied later.
#![allow(non_snake_case, reason = "the format's names")]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::Arc;

use nice_plug::wrapper::vst3::vst3::{Class, ComPtr, ComRef, ComWrapper, Steinberg};

use IPlugViewContentScaleSupport_::ScaleFactor;
use Steinberg::*;

use super::plug_frame::PlugFrameShim;
use crate::plugin::instance_shared::InstanceShared;

/// Wraps a view of the wrapper.
///
/// # Safety
/// `inner` is null or a view whose ownership is passed in.
pub(super) unsafe fn wrap(inner: *mut IPlugView, shared: Arc<InstanceShared>) -> *mut IPlugView {
    // SAFETY: null or an owned view by this function's contract.
    let Some(inner) = (unsafe { ComPtr::from_raw(inner) }) else { return std::ptr::null_mut() };
    let scaled = inner.cast();
    let view = ComWrapper::new(PlugViewShim {
        inner,
        scaled,
        shared,
        scale: Cell::default(),
        attached: Cell::default(),
        frame: FrameSlot::default(),
    });
    view.to_com_ptr::<IPlugView>().map_or(std::ptr::null_mut(), ComPtr::into_raw)
}

/// Used by the host's main thread only, by the format.
struct PlugViewShim {
    inner: ComPtr<IPlugView>,
    scaled: Option<ComPtr<IPlugViewContentScaleSupport>>,
    shared: Arc<InstanceShared>,
    /// Scale factor set by the host.
    scale: Cell<Option<ScaleFactor>>,
    attached: Cell<bool>,
    /// Last, so that it is dropped after the wrapper's view.
    frame: FrameSlot,
}

/// Holds the current frame, and ends it.
#[derive(Default)]
struct FrameSlot(RefCell<Option<ComWrapper<PlugFrameShim>>>);

impl FrameSlot {
    fn run_pending(&self) {
        // Not during the borrow: a pending task may set another frame.
        let frame = self.0.borrow().clone();
        if let Some(frame) = frame {
            frame.run_pending();
        }
    }

    fn replace(&self, frame: Option<ComWrapper<PlugFrameShim>>) {
        if let Some(before) = self.0.replace(frame) {
            before.end();
        }
    }
}

impl Drop for FrameSlot {
    fn drop(&mut self) {
        self.replace(None);
    }
}

impl PlugViewShim {
    /// The host's pointer to this view.
    ///
    /// # Safety
    /// Valid while `self` lives.
    unsafe fn as_ptr(&self) -> *mut IPlugView {
        use nice_plug::wrapper::vst3::vst3::com_scrape_types::Wrapper;
        // SAFETY: views are only created in `wrap`, inside a `ComWrapper`; this interface is the first of its header.
        unsafe { ComWrapper::<Self>::header_from_data(std::ptr::from_ref(self).cast_mut()).cast() }
    }

    /// Gives the wrapper a new frame around the host's, and ends the one before.
    fn set_host_frame(&self, host: Option<ComPtr<IPlugFrame>>) -> tresult {
        // SAFETY: this view ends its frame before it is destroyed.
        let frame = PlugFrameShim::new(host, unsafe { self.as_ptr() });
        let pointer = frame.as_com_ref::<IPlugFrame>().map_or(std::ptr::null_mut(), |frame| frame.as_ptr());
        // SAFETY: a live object.
        let result = unsafe { self.inner.setFrame(pointer) };
        self.frame.replace(Some(frame));
        result
    }

    /// Removes the wrapper's frame.
    fn clear_host_frame(&self) -> tresult {
        // SAFETY: a live object.
        let result = unsafe { self.inner.setFrame(std::ptr::null_mut()) };
        self.frame.replace(None);
        result
    }
}

impl Drop for PlugViewShim {
    fn drop(&mut self) {
        // SAFETY: a live object. It refuses if the plugin was destroyed before its view; then its own destruction releases the frame.
        unsafe { self.inner.setFrame(std::ptr::null_mut()) };
    }
}

impl Class for PlugViewShim {
    type Interfaces = (IPlugView, IPlugViewContentScaleSupport);
}

impl IPlugViewTrait for PlugViewShim {
    unsafe fn isPlatformTypeSupported(&self, kind: FIDString) -> tresult {
        // SAFETY: the caller's arguments pass through unchanged, here and in the functions below.
        if kind.is_null() { kInvalidArgument } else { unsafe { self.inner.isPlatformTypeSupported(kind) } }
    }

    unsafe fn attached(&self, parent: *mut c_void, kind: FIDString) -> tresult {
        if parent.is_null() || kind.is_null() {
            return kInvalidArgument;
        }
        if self.frame.0.borrow().is_none() {
            self.set_host_frame(None);
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
        self.shared.wait_for_editors();
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

    /// Before the window exists, this is the size it will have.
    unsafe fn getSize(&self, size: *mut ViewRect) -> tresult {
        let window = self.shared.window().get();
        // SAFETY: null or valid for writes by the format.
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
                self.frame.run_pending();
                unsafe { self.inner.getSize(size) }
            }
        }
    }

    unsafe fn onSize(&self, size: *mut ViewRect) -> tresult {
        let result = unsafe { self.inner.onSize(size) };
        self.frame.run_pending();
        result
    }

    unsafe fn onFocus(&self, state: TBool) -> tresult {
        unsafe { self.inner.onFocus(state) }
    }

    unsafe fn setFrame(&self, frame: *mut IPlugFrame) -> tresult {
        // SAFETY: null or a live object by the format.
        match unsafe { ComRef::from_raw(frame) } {
            None if !self.attached.get() => self.clear_host_frame(),
            host => self.set_host_frame(host.map(|host| host.to_com_ptr())),
        }
    }

    unsafe fn canResize(&self) -> tresult {
        unsafe { self.inner.canResize() }
    }

    unsafe fn checkSizeConstraint(&self, rect: *mut ViewRect) -> tresult {
        unsafe { self.inner.checkSizeConstraint(rect) }
    }
}

impl IPlugViewContentScaleSupportTrait for PlugViewShim {
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
