//! Views, and the windows that they open.

use std::sync::Mutex;
use std::time::Duration;

use vst3::Steinberg::Linux::IEventHandlerTrait;
use vst3::{Class, ComPtr, ComRef, ComWrapper};

use super::*;

/// A host's window with a run loop.
#[derive(Default)]
struct Window {
    handlers: Mutex<Vec<ComPtr<Linux::IEventHandler>>>,
    /// All handlers that were ever registered.
    seen: Mutex<Vec<ComPtr<Linux::IEventHandler>>>,
}

impl Class for Window {
    type Interfaces = (IPlugFrame, Linux::IRunLoop);
}

impl IPlugFrameTrait for Window {
    unsafe fn resizeView(&self, view: *mut IPlugView, size: *mut ViewRect) -> tresult {
        unsafe { ComRef::from_raw(view).unwrap().onSize(size) }
    }
}

impl Linux::IRunLoopTrait for Window {
    unsafe fn registerEventHandler(&self, handler: *mut Linux::IEventHandler, _file: i32) -> tresult {
        let handler = unsafe { ComRef::from_raw(handler).unwrap().to_com_ptr() };
        self.handlers.lock().unwrap().push(handler.clone());
        self.seen.lock().unwrap().push(handler);
        kResultOk
    }
    unsafe fn unregisterEventHandler(&self, handler: *mut Linux::IEventHandler) -> tresult {
        self.handlers.lock().unwrap().retain(|known| known.as_ptr() != handler);
        kResultOk
    }
    unsafe fn registerTimer(&self, _handler: *mut Linux::ITimerHandler, _interval: u64) -> tresult {
        kResultOk
    }
    unsafe fn unregisterTimer(&self, _handler: *mut Linux::ITimerHandler) -> tresult {
        kResultOk
    }
}

/// Open file descriptors of this process.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

impl Instance {
    fn view(&self) -> ComPtr<IPlugView> {
        unsafe { ComPtr::from_raw(self.controller.createView(c"editor".as_ptr())).unwrap() }
    }
}

#[test]
fn the_editor_is_the_only_view() {
    let instance = Instance::new(STEREO);
    unsafe {
        assert!(instance.controller.createView(c"generic".as_ptr()).is_null());
        let view = instance.view();
        let mut size: ViewRect = std::mem::zeroed();
        assert_eq!(view.getSize(&mut size), kResultOk);
        assert!(size.right - size.left >= 600 && size.bottom - size.top >= 400);
        assert_eq!(view.canResize(), kResultOk);
    }
}

#[test]
fn a_view_unregisters_from_the_hosts_run_loop() {
    crate::stress::in_own_process(|| {
        let instance = Instance::new(STEREO);
        let window = ComWrapper::new(Window::default());
        let frame = window.to_com_ptr::<IPlugFrame>().unwrap();
        let before = files();
        for round in 0..20 {
            let view = instance.view();
            unsafe {
                assert_eq!(view.setFrame(frame.as_ptr()), kResultOk);
                assert_eq!(window.handlers.lock().unwrap().len(), 1, "round {round}");
                // Some hosts call a handler late.
                let handler = window.seen.lock().unwrap().last().unwrap().clone();
                handler.onFDIsSet(0);
                // Some hosts remove the frame first; others only release the view.
                match round % 3 {
                    0 => assert_eq!(view.setFrame(null_mut()), kResultOk),
                    1 => assert_eq!(view.setFrame(frame.as_ptr()), kResultOk),
                    _ => {}
                }
                drop(view);
                handler.onFDIsSet(0);
            }
            assert!(window.handlers.lock().unwrap().is_empty(), "round {round}: a handler stays");
            assert_eq!(files(), before, "round {round}: files stay open");
        }
    });
}

#[test]
fn a_scale_set_before_the_window_is_kept() {
    let instance = Instance::new(STEREO);
    let view = instance.view();
    let scaled = view.cast::<IPlugViewContentScaleSupport>().unwrap();
    let size = || unsafe {
        let mut size: ViewRect = std::mem::zeroed();
        assert_eq!(view.getSize(&mut size), kResultOk);
        (size.right - size.left, size.bottom - size.top)
    };
    let (width, height) = size();
    for scale in [1.5, 2.0, 1.0] {
        assert_eq!(unsafe { scaled.setContentScaleFactor(scale) }, kResultOk);
        let wanted = [width, height].map(|points| (points as f32 * scale).round() as i32);
        assert_eq!(size(), (wanted[0], wanted[1]), "{scale}");
    }
    for nonsense in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e9] {
        assert_ne!(unsafe { scaled.setContentScaleFactor(nonsense) }, kResultOk, "{nonsense}");
    }
    assert_eq!(size(), (width, height));
}

/// Waits until a window has done something.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs Xvfb; scripts/test-hosts runs it"]
fn a_window_opens_with_the_scale_set_before() {
    crate::stress::in_own_process(|| {
        let screen = crate::virtual_screen::Screen::start();
        let frame = screen.frame(1390, 990);
        let instance = Instance::active(STEREO);
        let view = instance.view();
        let scaled = view.cast::<IPlugViewContentScaleSupport>().unwrap();
        for scale in [1.25, 1.0] {
            unsafe {
                let mut size: ViewRect = std::mem::zeroed();
                assert_eq!(scaled.setContentScaleFactor(scale), kResultOk);
                assert_eq!(view.getSize(&mut size), kResultOk);
                let wanted = (size.right as u16, size.bottom as u16);
                let parent = frame.id() as usize as *mut c_void;
                assert_eq!(view.attached(parent, c"X11EmbedWindowID".as_ptr()), kResultOk);
                // After its first frame the window is complete.
                until("not as large as it said", || {
                    view.getSize(&mut size);
                    (size.right as u16, size.bottom as u16) == wanted
                        && frame.children() == [wanted]
                        && frame.colors() > 8
                });
                assert_eq!(view.removed(), kResultOk);
            }
        }
    });
}

#[test]
#[ignore = "needs Xvfb; scripts/test-hosts runs it"]
fn edits_apply_at_once_in_a_host_that_does_not_process() {
    crate::stress::in_own_process(|| {
        let screen = crate::virtual_screen::Screen::start();
        let frame = screen.frame(1390, 990);
        let instance = Instance::new(STEREO);
        let values = || -> Vec<f64> {
            let count = unsafe { instance.controller.getParameterCount() };
            let id = |index| instance.parameter(index).2;
            (0..count).map(|index| unsafe { instance.controller.getParamNormalized(id(index)) }).collect()
        };
        let before = values();
        // No frame: the wrapper would otherwise notify the editor from a thread that must not.
        let view = instance.view();
        let parent = frame.id() as usize as *mut c_void;
        unsafe { assert_eq!(view.attached(parent, c"X11EmbedWindowID".as_ptr()), kResultOk) };
        until("no picture", || frame.colors() > 8);
        let (width, height) = frame.children()[0];
        let places =
            (0..height).step_by(24).rev().flat_map(|y| (0..width).step_by(24).rev().map(move |x| (x, y)));
        let set = places.into_iter().any(|(x, y)| {
            frame.click(x as i16, y as i16);
            std::thread::sleep(Duration::from_millis(30));
            values() != before
        });
        assert!(set, "clicks everywhere set nothing");
        assert!(
            crate::leaks::threads().iter().any(|name| name == "bg-worker"),
            "the wrapper's thread has died"
        );
        assert_eq!(unsafe { view.removed() }, kResultOk);
    });
}
