//! The CLAP classes: the framework's wrapper with its latency mended, and the entry point.
//!
//! The wrapper learns of a latency after the activation that brings it, and so asks for a restart after every activation that changes it,
//! the first one included; when that restart comes, it announces a change before the plugin has its new latency. A host would start every
//! instance twice. Here the latency is compared around an activation, and a change announced at its end: within the one call in which the
//! format allows it.
//!
//! A host is told when the editor has changed what is saved and is no parameter: on its main thread, which it is asked for. It is asked to start
//! an instance anew from the control thread, so that it may do so while nothing plays.
//!
//! A window has gone when a host has closed it ([`threads`](super::editor::threads)). The tail is the latency from the first activation on, and a parameter past the end is refused.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, LazyLock, OnceLock};

use clap_sys::ext::gui::{CLAP_EXT_GUI, clap_plugin_gui};
use clap_sys::ext::latency::{CLAP_EXT_LATENCY, clap_host_latency};
use clap_sys::ext::params::{CLAP_EXT_PARAMS, clap_param_info, clap_plugin_params};
use clap_sys::ext::state::{CLAP_EXT_STATE, clap_host_state};
use clap_sys::ext::tail::{CLAP_EXT_TAIL, clap_plugin_tail};
use nice_plug::prelude::ClapPlugin;
use nice_plug::wrapper::clap::{
    CLAP_PLUGIN_FACTORY_ID, CLAP_VERSION, PluginDescriptor, Wrapper, clap_host, clap_plugin,
    clap_plugin_descriptor, clap_plugin_entry, clap_plugin_factory,
};
use nice_plug::wrapper::setup_logger;

use super::session::Session;
use super::{Multi, Stereo};

thread_local! {
    /// Latency that the activation under way on this thread has brought.
    static LATENCY: Cell<Option<u32>> = const { Cell::new(None) };
}

/// To be called while the plugin is activated, instead of telling the wrapper.
pub(super) fn set_latency(samples: u32) {
    LATENCY.set(Some(samples));
}

/// What a host gets: the wrapper's functions, with its data, and some of ours.
#[repr(C)]
struct Shell {
    /// First: a pointer to it is a pointer to the whole.
    plugin: clap_plugin,
    wrapped: clap_plugin,
    host: *const clap_host,
    /// The wrapper's parameters, and with our function; none before a host asks.
    params: OnceLock<[clap_plugin_params; 2]>,
    /// As `params`.
    gui: OnceLock<[clap_plugin_gui; 2]>,
    session: Option<Arc<Session>>,
    /// There is something to save, of which the host is to be told.
    unsaved: Arc<AtomicBool>,
}

/// The host, to be asked for its main thread or a new start, which it allows from any.
struct Caller(*const clap_host);

// SAFETY: used for functions that the format calls thread-safe, and no longer than the instance lives.
unsafe impl Send for Caller {}
// SAFETY: as above.
unsafe impl Sync for Caller {}

impl Caller {
    fn request_restart(&self) {
        // SAFETY: the host outlives the instance.
        unsafe {
            if let Some(request) = self.0.as_ref().and_then(|host| host.request_restart) {
                request(self.0);
            }
        }
    }

    fn request_callback(&self) {
        // SAFETY: the host outlives the instance.
        unsafe {
            if let Some(request) = self.0.as_ref().and_then(|host| host.request_callback) {
                request(self.0);
            }
        }
    }
}

static TAIL: clap_plugin_tail = clap_plugin_tail { get: Some(tail) };

impl Shell {
    /// A new instance, which lives until `destroy`.
    ///
    /// # Safety
    /// The host is valid and outlives the instance.
    unsafe fn create<P: ClapPlugin>(host: *const clap_host) -> *const clap_plugin {
        // SAFETY: the host is valid; the instance is alive until `destroy`, and nobody changes its functions.
        let wrapped = unsafe { *(*Arc::into_raw(Wrapper::<P>::new(host))).clap_plugin.as_ptr() };
        let plugin = clap_plugin {
            activate: Some(activate::<P>),
            destroy: Some(destroy),
            get_extension: Some(get_extension),
            on_main_thread: Some(on_main_thread),
            ..wrapped
        };
        let (params, gui) = (OnceLock::new(), OnceLock::new());
        let (session, unsaved) = (super::newest(), Arc::<AtomicBool>::default());
        if let Some(session) = &session {
            let (unsaved, caller) = (unsaved.clone(), Caller(host));
            session.set_unsaved(Some(Arc::new(move || {
                unsaved.store(true, Relaxed);
                caller.request_callback();
            })));
            let caller = Caller(host);
            session.set_restarter(Some(Arc::new(move || caller.request_restart())));
        }
        let shell = Self { plugin, wrapped, host, params, gui, session, unsaved };
        Box::into_raw(Box::new(shell)).cast_const().cast()
    }

    /// # Safety
    /// The pointer is null or one that [`Shell::create`] has made.
    unsafe fn of<'a>(plugin: *const clap_plugin) -> Option<&'a Self> {
        // SAFETY: by the contract above; the plugin is a shell's first field.
        unsafe { plugin.cast::<Self>().as_ref() }
    }

    fn wait_for_windows(&self) {
        if let Some(session) = &self.session {
            session.wait_for_windows();
        }
    }

    /// An extension of the host.
    ///
    /// # Safety
    /// `T` is what the format says that `id` is.
    unsafe fn host_extension<T>(&self, id: &CStr) -> Option<&T> {
        // SAFETY: the host lives as long as the plugin, its extensions as long as itself; and by the contract above.
        unsafe {
            let get_extension = self.host.as_ref()?.get_extension?;
            get_extension(self.host, id.as_ptr()).cast::<T>().as_ref()
        }
    }

    /// Tells the host that the latency is another. On the main thread, in an activation.
    fn announce(&self) {
        // SAFETY: the format's type and thread.
        unsafe {
            let extension = self.host_extension::<clap_host_latency>(CLAP_EXT_LATENCY);
            if let Some(changed) = extension.and_then(|extension| extension.changed) {
                changed(self.host);
            }
        }
    }

    /// Tells the host that there is something to save. On the main thread.
    fn mark_dirty(&self) {
        // SAFETY: the format's type and thread.
        unsafe {
            let extension = self.host_extension::<clap_host_state>(CLAP_EXT_STATE);
            if let Some(mark_dirty) = extension.and_then(|extension| extension.mark_dirty) {
                mark_dirty(self.host);
            }
        }
    }
}

unsafe extern "C" fn activate<P: ClapPlugin>(
    plugin: *const clap_plugin,
    rate: f64,
    least: u32,
    most: u32,
) -> bool {
    // SAFETY: the host's pointer is one that `create` has made; the arguments are passed on unchanged.
    unsafe {
        let Some(shell) = Shell::of(plugin) else { return false };
        LATENCY.set(None);
        let done = shell.wrapped.activate.is_some_and(|activate| activate(plugin, rate, least, most));
        let wrapper = &*shell.plugin.plugin_data.cast::<Wrapper<P>>();
        if let Some(latency) = LATENCY.take()
            && wrapper.current_latency.swap(latency, SeqCst) != latency
        {
            shell.announce();
        }
        done
    }
}

unsafe extern "C" fn on_main_thread(plugin: *const clap_plugin) {
    // SAFETY: as above.
    unsafe {
        let Some(shell) = Shell::of(plugin) else { return };
        if let Some(on_main_thread) = shell.wrapped.on_main_thread {
            on_main_thread(plugin);
        }
        if shell.unsaved.swap(false, Relaxed) {
            shell.mark_dirty();
        }
    }
}

unsafe extern "C" fn destroy(plugin: *const clap_plugin) {
    // SAFETY: as above; the host does not use it again.
    unsafe {
        let Some(shell) = Shell::of(plugin) else { return };
        if let Some(session) = &shell.session {
            session.set_unsaved(None);
            session.set_restarter(None);
        }
        if let Some(destroy) = shell.wrapped.destroy {
            destroy(plugin);
        }
        shell.wait_for_windows();
        drop(Box::from_raw(plugin.cast_mut().cast::<Shell>()));
    }
}

unsafe extern "C" fn get_extension(plugin: *const clap_plugin, id: *const c_char) -> *const c_void {
    // SAFETY: as above; `id` is null or a string.
    unsafe {
        let (Some(shell), false) = (Shell::of(plugin), id.is_null()) else { return std::ptr::null() };
        let Some(get_extension) = shell.wrapped.get_extension else { return std::ptr::null() };
        let extension = get_extension(plugin, id);
        let id = CStr::from_ptr(id);
        if id == CLAP_EXT_TAIL {
            return (&raw const TAIL).cast();
        }
        if id == CLAP_EXT_PARAMS
            && let Some(params) = extension.cast::<clap_plugin_params>().as_ref()
        {
            let [_, ours] = shell
                .params
                .get_or_init(|| [*params, clap_plugin_params { get_info: Some(get_info), ..*params }]);
            return (&raw const *ours).cast();
        }
        if id == CLAP_EXT_GUI
            && let Some(gui) = extension.cast::<clap_plugin_gui>().as_ref()
        {
            let [_, ours] =
                shell.gui.get_or_init(|| [*gui, clap_plugin_gui { destroy: Some(close), ..*gui }]);
            return (&raw const *ours).cast();
        }
        extension
    }
}

unsafe extern "C" fn close(plugin: *const clap_plugin) {
    // SAFETY: as above.
    unsafe {
        let Some(shell) = Shell::of(plugin) else { return };
        if let Some([gui, _]) = shell.gui.get()
            && let Some(destroy) = gui.destroy
        {
            destroy(plugin);
        }
        shell.wait_for_windows();
    }
}

unsafe extern "C" fn get_info(plugin: *const clap_plugin, index: u32, info: *mut clap_param_info) -> bool {
    // SAFETY: as above.
    unsafe {
        let Some([params, _]) = Shell::of(plugin).and_then(|shell| shell.params.get()) else { return false };
        params.count.is_some_and(|count| index < count(plugin))
            && params.get_info.is_some_and(|get_info| get_info(plugin, index, info))
    }
}

unsafe extern "C" fn tail(plugin: *const clap_plugin) -> u32 {
    // SAFETY: as above.
    unsafe {
        let Some(shell) = Shell::of(plugin) else { return 0 };
        let get_extension = shell.wrapped.get_extension;
        let latency = get_extension.map_or(std::ptr::null(), |get| get(plugin, CLAP_EXT_LATENCY.as_ptr()));
        let latency = latency.cast::<clap_sys::ext::latency::clap_plugin_latency>().as_ref();
        latency.and_then(|latency| latency.get).map_or(0, |get| get(plugin))
    }
}

/// Makes an instance of a class.
type Make = unsafe fn(*const clap_host) -> *const clap_plugin;

/// The classes in order.
static CLASSES: LazyLock<[(PluginDescriptor, Make); 2]> = LazyLock::new(|| {
    [
        (PluginDescriptor::for_plugin::<Stereo>(), Shell::create::<Stereo>),
        (PluginDescriptor::for_plugin::<Multi>(), Shell::create::<Multi>),
    ]
});

static FACTORY: clap_plugin_factory = clap_plugin_factory {
    get_plugin_count: Some(count),
    get_plugin_descriptor: Some(descriptor),
    create_plugin: Some(create),
};

unsafe extern "C" fn count(_factory: *const clap_plugin_factory) -> u32 {
    CLASSES.len() as u32
}

unsafe extern "C" fn descriptor(
    _factory: *const clap_plugin_factory,
    index: u32,
) -> *const clap_plugin_descriptor {
    CLASSES.get(index as usize).map_or(std::ptr::null(), |(class, _)| class.clap_plugin_descriptor())
}

unsafe extern "C" fn create(
    _factory: *const clap_plugin_factory,
    host: *const clap_host,
    id: *const c_char,
) -> *const clap_plugin {
    if host.is_null() || id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: a string by the format.
    let id = unsafe { CStr::from_ptr(id) };
    match CLASSES.iter().find(|(class, _)| class.clap_id() == id) {
        // SAFETY: by the format.
        Some((_, make)) => unsafe { make(host) },
        None => std::ptr::null(),
    }
}

unsafe extern "C" fn init(_path: *const c_char) -> bool {
    setup_logger::<Stereo>();
    true
}

unsafe extern "C" fn deinit() {}

unsafe extern "C" fn get_factory(id: *const c_char) -> *const c_void {
    // SAFETY: null or a string by the format.
    if !id.is_null() && unsafe { CStr::from_ptr(id) } == CLAP_PLUGIN_FACTORY_ID {
        (&raw const FACTORY).cast()
    } else {
        std::ptr::null()
    }
}

/// What a host looks for first.
#[unsafe(no_mangle)]
#[used]
#[allow(non_upper_case_globals, reason = "the format's name")]
pub static clap_entry: clap_plugin_entry = clap_plugin_entry {
    clap_version: CLAP_VERSION,
    init: Some(init),
    deinit: Some(deinit),
    get_factory: Some(get_factory),
};
