//! CLAP, function by function.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use clap_sys::entry::clap_plugin_entry;
use clap_sys::ext::latency::{CLAP_EXT_LATENCY, clap_host_latency, clap_plugin_latency};
use clap_sys::ext::params::{CLAP_EXT_PARAMS, clap_param_info, clap_plugin_params};
use clap_sys::ext::tail::{CLAP_EXT_TAIL, clap_plugin_tail};
use clap_sys::factory::plugin_factory::{CLAP_PLUGIN_FACTORY_ID, clap_plugin_factory};
use clap_sys::host::clap_host;
use clap_sys::plugin::clap_plugin;
use clap_sys::version::CLAP_VERSION;
use libloading::Library;

use crate::library::PLUGIN;

/// Calls of the plugin, in order, with whether they came during an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Restart,
    /// With the latency that the plugin reported then.
    LatencyChanged {
        activating: bool,
        latency: u32,
    },
}

/// State of the test host.
#[derive(Default)]
struct Desk {
    plugin: RefCell<Option<*const clap_plugin>>,
    activating: RefCell<bool>,
    calls: RefCell<Vec<Call>>,
}

struct Instance {
    plugin: *const clap_plugin,
    desk: Box<Desk>,
    _host: Box<clap_host>,
    _library: Library,
}

static LATENCY: clap_host_latency = clap_host_latency { changed: Some(latency_changed) };

unsafe fn desk<'a>(host: *const clap_host) -> &'a Desk {
    unsafe { &*(*host).host_data.cast::<Desk>() }
}

unsafe extern "C" fn latency_changed(host: *const clap_host) {
    let desk = unsafe { desk(host) };
    let latency = desk.plugin.borrow().map_or(0, |plugin| unsafe { latency(plugin) });
    let activating = *desk.activating.borrow();
    desk.calls.borrow_mut().push(Call::LatencyChanged { activating, latency });
}

unsafe extern "C" fn request_restart(host: *const clap_host) {
    unsafe { desk(host) }.calls.borrow_mut().push(Call::Restart);
}

unsafe extern "C" fn request(_host: *const clap_host) {}

unsafe extern "C" fn host_extension(_host: *const clap_host, id: *const c_char) -> *const c_void {
    if unsafe { CStr::from_ptr(id) } == CLAP_EXT_LATENCY {
        (&raw const LATENCY).cast()
    } else {
        std::ptr::null()
    }
}

unsafe fn extension<'a, T>(plugin: *const clap_plugin, id: &CStr) -> &'a T {
    unsafe { &*(*plugin).get_extension.unwrap()(plugin, id.as_ptr()).cast::<T>() }
}

unsafe fn latency(plugin: *const clap_plugin) -> u32 {
    unsafe { extension::<clap_plugin_latency>(plugin, CLAP_EXT_LATENCY).get.unwrap()(plugin) }
}

impl Instance {
    fn new(id: &CStr) -> Self {
        let desk = Box::<Desk>::default();
        let host = Box::new(clap_host {
            clap_version: CLAP_VERSION,
            host_data: (&raw const *desk).cast_mut().cast(),
            name: c"Nullsum tests".as_ptr(),
            vendor: c"Nullsum".as_ptr(),
            url: c"".as_ptr(),
            version: c"1".as_ptr(),
            get_extension: Some(host_extension),
            request_restart: Some(request_restart),
            request_process: Some(request),
            request_callback: Some(request),
        });
        unsafe {
            let library = Library::new(&PLUGIN.library).unwrap();
            let entry: libloading::Symbol<*const clap_plugin_entry> = library.get(b"clap_entry").unwrap();
            let entry = &**entry;
            assert!(entry.init.unwrap()(c"".as_ptr()));
            let factory =
                entry.get_factory.unwrap()(CLAP_PLUGIN_FACTORY_ID.as_ptr()).cast::<clap_plugin_factory>();
            let plugin = (*factory).create_plugin.unwrap()(factory, &raw const *host, id.as_ptr());
            assert!((*plugin).init.unwrap()(plugin));
            *desk.plugin.borrow_mut() = Some(plugin);
            Self { plugin, desk, _host: host, _library: library }
        }
    }

    fn activate(&self, rate: f64, block: u32) {
        *self.desk.activating.borrow_mut() = true;
        assert!(unsafe { (*self.plugin).activate.unwrap()(self.plugin, rate, 1, block) });
        *self.desk.activating.borrow_mut() = false;
    }

    fn deactivate(&self) {
        unsafe { (*self.plugin).deactivate.unwrap()(self.plugin) };
    }

    fn latency(&self) -> u32 {
        unsafe { latency(self.plugin) }
    }

    fn calls(&self) -> Vec<Call> {
        self.desk.calls.take()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        unsafe { (*self.plugin).destroy.unwrap()(self.plugin) };
    }
}

#[test]
fn an_activation_announces_its_latency_without_a_restart() {
    let instance = Instance::new(c"org.nullsum.nullsum");
    for (rate, block) in [(48_000.0, 256), (48_000.0, 256), (96_000.0, 256), (96_000.0, 2048)] {
        let before = instance.latency();
        instance.activate(rate, block);
        let latency = instance.latency();
        let announced: &[Call] =
            if latency == before { &[] } else { &[Call::LatencyChanged { activating: true, latency }] };
        assert_eq!(instance.calls(), announced, "{rate} Hz, {block}");
        assert!(latency > 0);
        instance.deactivate();
    }
}

#[test]
fn the_tail_is_the_latency_from_activation_on() {
    let instance = Instance::new(c"org.nullsum.nullsum-multi");
    let tail = unsafe { extension::<clap_plugin_tail>(instance.plugin, CLAP_EXT_TAIL) }.get.unwrap();
    instance.activate(44_100.0, 512);
    assert!(instance.latency() > 0);
    assert_eq!(unsafe { tail(instance.plugin) }, instance.latency());
    instance.deactivate();
}

#[test]
fn parameters_out_of_range_are_refused_and_texts_parse_back() {
    let instance = Instance::new(c"org.nullsum.nullsum");
    unsafe {
        let params: &clap_plugin_params = extension(instance.plugin, CLAP_EXT_PARAMS);
        let count = params.count.unwrap()(instance.plugin);
        let mut info: clap_param_info = std::mem::zeroed();
        for index in [count, count + 1, u32::MAX] {
            assert!(!params.get_info.unwrap()(instance.plugin, index, &mut info), "{index}");
        }
        for index in 0..count {
            assert!(params.get_info.unwrap()(instance.plugin, index, &mut info));
            let text = |value: f64| {
                let mut text = [0 as c_char; 64];
                assert!(params.value_to_text.unwrap()(
                    instance.plugin,
                    info.id,
                    value,
                    text.as_mut_ptr(),
                    64
                ));
                CStr::from_ptr(text.as_ptr()).to_owned()
            };
            for step in 0..=1000 {
                let first =
                    text(info.min_value + f64::from(step) / 1000.0 * (info.max_value - info.min_value));
                let mut value = f64::NAN;
                assert!(
                    params.text_to_value.unwrap()(instance.plugin, info.id, first.as_ptr(), &mut value),
                    "{first:?}"
                );
                assert_eq!(first, text(value), "parameter {index}, step {step}");
            }
        }
    }
}

#[test]
fn an_unknown_class_is_not_created() {
    unsafe {
        let library = Library::new(&PLUGIN.library).unwrap();
        let entry: libloading::Symbol<*const clap_plugin_entry> = library.get(b"clap_entry").unwrap();
        let get_factory = (**entry).get_factory.unwrap();
        assert!(get_factory(c"clap.nothing".as_ptr()).is_null());
        let factory = get_factory(CLAP_PLUGIN_FACTORY_ID.as_ptr()).cast::<clap_plugin_factory>();
        let count = (*factory).get_plugin_count.unwrap()(factory);
        assert_eq!(count, 2);
        assert!((*factory).get_plugin_descriptor.unwrap()(factory, count).is_null());
        let desk = Instance::new(c"org.nullsum.nullsum");
        for id in [c"org.nullsum.nullsum-mult", c"org.nullsum.nullsum2", c""] {
            assert!(
                (*factory).create_plugin.unwrap()(factory, &raw const *desk._host, id.as_ptr()).is_null()
            );
        }
    }
}
