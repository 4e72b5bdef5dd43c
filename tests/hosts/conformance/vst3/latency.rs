//! A changing latency, and what a host may do when it is notified.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vst3::{Class, ComWrapper};

use super::*;
#[cfg(target_os = "linux")]
use crate::host::{HIGH, on_new_thread};

/// Time limit for loading and measuring a model on a busy computer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A host that calls this function whenever it is notified of a new latency.
struct Told<F>(F);

impl<F: Fn() + 'static> Class for Told<F> {
    type Interfaces = (IComponentHandler,);
}

impl<F: Fn() + 'static> IComponentHandlerTrait for Told<F> {
    unsafe fn beginEdit(&self, _id: u32) -> tresult {
        kResultOk
    }
    unsafe fn performEdit(&self, _id: u32, _value: f64) -> tresult {
        kResultOk
    }
    unsafe fn endEdit(&self, _id: u32) -> tresult {
        kResultOk
    }
    unsafe fn restartComponent(&self, flags: i32) -> tresult {
        assert_eq!(i64::from(flags), i64::from(RestartFlags_::kLatencyChanged));
        (self.0)();
        kResultOk
    }
}

#[test]
fn a_host_may_restart_the_plugin_when_notified_of_a_latency() {
    let instance = Instance::active(STEREO);
    let results = Arc::<Mutex<Vec<tresult>>>::default();
    let (component, heard) = (instance.component.clone(), results.clone());
    let handler = ComWrapper::new(Told(move || {
        let results = unsafe { [component.setActive(0), component.setActive(1)] };
        heard.lock().unwrap().extend(results);
    }));
    let handler = handler.to_com_ptr::<IComponentHandler>().unwrap();
    unsafe { assert_eq!(instance.controller.setComponentHandler(handler.as_ptr()), kResultOk) };
    let before = instance.latency();
    instance.choose(HIGH);
    instance.play_on_from(before);
    assert!(instance.latency() > before, "the higher tier has the same latency");
    assert_eq!(*results.lock().unwrap(), [kResultOk, kResultOk]);
    unsafe { instance.controller.setComponentHandler(null_mut()) };
}

impl Instance {
    /// Requests another tier.
    fn choose(&self, tier: f64) {
        unsafe { self.processor.setProcessing(0) };
        self.set("Latency Tier", tier);
        unsafe { self.processor.setProcessing(1) };
    }

    /// Plays until the latency differs from `before`.
    fn play_on_from(&self, before: usize) {
        let start = Instant::now();
        while start.elapsed() < LOAD_TIMEOUT {
            let (mut left, mut right) = ([0f32; BLOCK], [0f32; BLOCK]);
            let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
            let mut outputs = [bus(&mut pointers)];
            assert_eq!(self.process(&mut [bus(&mut pointers.clone())], &mut outputs, BLOCK), kResultOk);
            if self.latency() != before {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the latency does not change");
    }

    /// Requests another tier and plays on an audio thread until its latency is in effect.
    #[cfg(target_os = "linux")]
    fn change_latency(&self) {
        let before = self.latency();
        self.choose(if self.get("Latency Tier") < 0.5 { HIGH } else { LOW });
        on_new_thread(&mut &*self, |instance| instance.play_on_from(before));
    }
}

// On other systems, hosts are notified on their main thread, when they serve its messages.
#[cfg(target_os = "linux")]
#[test]
fn an_instance_may_be_destroyed_during_a_latency_notification() {
    // A failure here crashes the process.
    crate::stress::in_own_process(|| {
        let (entered, enters) = std::sync::mpsc::channel();
        let told = Arc::<Mutex<usize>>::default();
        let count = told.clone();
        // This host is slow.
        let handler = ComWrapper::new(Told(move || {
            let _ = entered.send(());
            std::thread::sleep(Duration::from_millis(400));
            *count.lock().unwrap() += 1;
        }));
        let pointer = handler.to_com_ptr::<IComponentHandler>().unwrap();
        let slow = Instance::active(STEREO);
        let quick = Instance::active(STEREO);
        unsafe { slow.controller.setComponentHandler(pointer.as_ptr()) };
        slow.change_latency();
        enters.recv_timeout(LOAD_TIMEOUT).expect("the host is notified of a latency");
        // The other host is still in its notification.
        quick.change_latency();
        drop(quick);
        // It has not returned yet.
        slow.change_latency();
        drop(slow);
        assert!(*told.lock().unwrap() >= 1);
        // Other instances are not affected.
        let after = Instance::active(STEREO);
        unsafe { after.controller.setComponentHandler(pointer.as_ptr()) };
        let before = *told.lock().unwrap();
        after.change_latency();
        let start = Instant::now();
        while *told.lock().unwrap() == before && start.elapsed() < LOAD_TIMEOUT {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Once, not twice.
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(*told.lock().unwrap(), before + 1);
    });
}
