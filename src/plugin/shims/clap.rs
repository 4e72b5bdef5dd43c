//! The CLAP classes: nice-plug's wrapper behind a shim that corrects its behaviour, and the entry point.
//!
//! **Latency.** The wrapper learns a latency only after the activation that sets it. So it requests a restart after every activation that changes the
//! latency, including the first, and announces the change before the plugin has its new latency. A host would start every instance twice. We compare
//! the latency before and after an activation, and announce a change inside that call, where the format allows it.
//!
//! **Dirty state.** When the editor changes saved state that is not a parameter, the host is told on its main thread, after a callback request.
//!
//! **Restarts.** The control thread requests them, so that a host can restart an instance while nothing plays.
//!
//! **Ports.** A host may pass fewer output ports than the class has. The missing ones get buffers of our own ([`block`]).
//!
//! **Live edits.** Values that the user moves in the host right now (`CLAP_EVENT_IS_LIVE`) apply at once; automation applies in time with the music.
//!
//! **Indications.** Hosts tell which parameters are mapped to a controller or automated ([`param_indication`]).
//!
//! **Presets.** Hosts list and load factory presets ([`preset_discovery`]).
//!
//! **Editor.** Destroying the editor waits until its threads have ended ([`window_threads`](crate::plugin::platform::window_threads)).
//!
//! The tail equals the latency from the first activation, and parameter indices out of range are refused.

mod block;
mod entry;
mod param_indication;
mod params;
mod preset_discovery;

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, OnceLock};

use clap_sys::ext::audio_ports::{CLAP_EXT_AUDIO_PORTS, clap_audio_port_info, clap_plugin_audio_ports};
use clap_sys::ext::gui::{CLAP_EXT_GUI, clap_plugin_gui};
use clap_sys::ext::latency::{CLAP_EXT_LATENCY, clap_host_latency};
use clap_sys::ext::param_indication::{CLAP_EXT_PARAM_INDICATION, CLAP_EXT_PARAM_INDICATION_COMPAT};
use clap_sys::ext::params::{CLAP_EXT_PARAMS, clap_param_info, clap_plugin_params};
use clap_sys::ext::preset_load::{CLAP_EXT_PRESET_LOAD, CLAP_EXT_PRESET_LOAD_COMPAT};
use clap_sys::ext::render::{
    CLAP_EXT_RENDER, CLAP_RENDER_OFFLINE, clap_plugin_render, clap_plugin_render_mode,
};
use clap_sys::ext::state::{CLAP_EXT_STATE, clap_host_state};
use clap_sys::ext::tail::{CLAP_EXT_TAIL, clap_plugin_tail};
use clap_sys::process::{CLAP_PROCESS_ERROR, clap_process, clap_process_status};
use nice_plug::prelude::ClapPlugin;
use nice_plug::wrapper::clap::{Wrapper, clap_host, clap_plugin};

use self::block::{BlockPorts, for_each_live_param};
use self::params::ParamIds;
use crate::plugin::instance_shared::InstanceShared;
use crate::plugin::{construct_with, new_shared};

thread_local! {
    /// Latency set by the activation in progress on this thread.
    static LATENCY: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Called during activation, instead of telling the wrapper.
pub(in crate::plugin) fn set_latency(samples: u32) {
    LATENCY.set(Some(samples));
}

/// What a host gets: the wrapper's functions and data, with some functions replaced by ours.
#[repr(C)]
struct PluginShim {
    /// First, so that a pointer to it is also a pointer to the shim.
    plugin: clap_plugin,
    wrapped: clap_plugin,
    host: *const clap_host,
    /// The wrapper's parameter functions, and ours. Empty until a host asks.
    params: OnceLock<[clap_plugin_params; 2]>,
    /// The wrapper's render functions, and ours.
    render: OnceLock<[clap_plugin_render; 2]>,
    /// Filled at the first activation.
    param_ids: OnceLock<ParamIds>,
    /// Changed while the plugin is inactive, used by `process`. The format never calls them at the same time.
    ports: UnsafeCell<BlockPorts>,
    /// The wrapper's editor functions, and ours.
    gui: OnceLock<[clap_plugin_gui; 2]>,
    shared: Arc<InstanceShared>,
    /// The host must be told that there is something to save.
    dirty: Arc<AtomicBool>,
}

/// The host's functions that any thread may call: request a callback or a restart.
struct HostHandle(*const clap_host);

// SAFETY: only used for functions that the format calls thread-safe, while the instance lives.
unsafe impl Send for HostHandle {}
// SAFETY: only used for functions that the format calls thread-safe, while the instance lives.
unsafe impl Sync for HostHandle {}

impl HostHandle {
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

static TAIL: clap_plugin_tail = clap_plugin_tail { get: Some(tail_samples) };

impl PluginShim {
    /// Creates an instance, which lives until `destroy`.
    ///
    /// # Safety
    /// The host is valid and outlives the instance.
    unsafe fn create<P: ClapPlugin>(host: *const clap_host) -> *const clap_plugin {
        let shared = new_shared();
        // SAFETY: the host is valid, the instance lives until `destroy`, and its function table never changes.
        let wrapped = unsafe {
            let wrapper = construct_with(shared.clone(), || Wrapper::<P>::new(host));
            *(*Arc::into_raw(wrapper)).clap_plugin.as_ptr()
        };
        let plugin = clap_plugin {
            activate: Some(activate::<P>),
            destroy: Some(destroy),
            get_extension: Some(get_extension),
            process: Some(process),
            on_main_thread: Some(on_main_thread),
            ..wrapped
        };
        let (params, gui, render, param_ids) = Default::default();
        let ports = UnsafeCell::new(BlockPorts::new());
        let dirty = Arc::<AtomicBool>::default();
        let (flag, handle) = (dirty.clone(), HostHandle(host));
        shared.set_dirty_callback(Some(Arc::new(move || {
            flag.store(true, Relaxed);
            handle.request_callback();
        })));
        let handle = HostHandle(host);
        shared.set_restart_callback(Some(Arc::new(move || handle.request_restart())));
        let shim = Self { plugin, wrapped, host, params, render, param_ids, ports, gui, shared, dirty };
        Box::into_raw(Box::new(shim)).cast_const().cast()
    }

    /// # Safety
    /// The pointer is null or one that [`PluginShim::create`] has made.
    unsafe fn of<'a>(plugin: *const clap_plugin) -> Option<&'a Self> {
        // SAFETY: null or valid by this function's contract; the plugin is the shim's first field.
        unsafe { plugin.cast::<Self>().as_ref() }
    }

    /// An extension of the host.
    ///
    /// # Safety
    /// `T` is the type that the format gives for `id`.
    unsafe fn host_extension<T>(&self, id: &CStr) -> Option<&T> {
        // SAFETY: the host and its extensions outlive the plugin, and `T` is right by this function's contract.
        unsafe {
            let get_extension = self.host.as_ref()?.get_extension?;
            get_extension(self.host, id.as_ptr()).cast::<T>().as_ref()
        }
    }

    /// Tells the host that the latency changed. Main thread, during activation.
    fn notify_latency_changed(&self) {
        // SAFETY: the type that the format gives for this extension, on the thread it asks for.
        unsafe {
            let extension = self.host_extension::<clap_host_latency>(CLAP_EXT_LATENCY);
            if let Some(changed) = extension.and_then(|extension| extension.changed) {
                changed(self.host);
            }
        }
    }

    /// Tells the host that there is something to save. Main thread.
    fn mark_dirty(&self) {
        // SAFETY: the type that the format gives for this extension, on the thread it asks for.
        unsafe {
            let extension = self.host_extension::<clap_host_state>(CLAP_EXT_STATE);
            if let Some(mark_dirty) = extension.and_then(|extension| extension.mark_dirty) {
                mark_dirty(self.host);
            }
        }
    }
}

impl PluginShim {
    /// An extension of the wrapper.
    ///
    /// # Safety
    /// `plugin` is this shim's; `T` is the type that the format gives for `id`.
    unsafe fn wrapped_extension<T>(&self, plugin: *const clap_plugin, id: &CStr) -> Option<&T> {
        // SAFETY: the wrapper and its extensions live as long as the shim, and `T` is right by this function's contract.
        unsafe { self.wrapped.get_extension?(plugin, id.as_ptr()).cast::<T>().as_ref() }
    }

    /// Makes room for the ports that a host may leave out.
    ///
    /// # Safety
    /// `plugin` is this shim's, inactive, and the thread is the main thread.
    unsafe fn prepare_ports(&self, plugin: *const clap_plugin, most: usize) {
        // SAFETY: inactive, so `process` is not running; the extension's type and memory for its answer.
        unsafe {
            let ports = &mut (*self.ports.get()).buffers;
            ports.resize(most.max(1));
            let Some(extension) =
                self.wrapped_extension::<clap_plugin_audio_ports>(plugin, CLAP_EXT_AUDIO_PORTS)
            else {
                return;
            };
            let (Some(count), Some(get)) = (extension.count, extension.get) else { return };
            let mut main: clap_audio_port_info = std::mem::zeroed();
            if get(plugin, 0, false, &raw mut main) {
                ports.set_layout(count(plugin, false) as usize, main.channel_count as usize);
            }
        }
    }

    /// The format's parameter ids.
    ///
    /// # Safety
    /// `plugin` is this shim's, initialised, and the thread is the main thread, unless the ids were asked for before.
    unsafe fn param_ids(&self, plugin: *const clap_plugin) -> &ParamIds {
        self.param_ids.get_or_init(|| {
            // SAFETY: the extension's type, by this function's contract.
            let params = unsafe { self.wrapped_extension::<clap_plugin_params>(plugin, CLAP_EXT_PARAMS) };
            // SAFETY: the wrapper's functions, by this function's contract.
            params.map_or_else(ParamIds::default, |params| unsafe {
                ParamIds::read(plugin, params, &self.shared.params)
            })
        })
    }
}

unsafe extern "C" fn process(
    plugin: *const clap_plugin,
    process: *const clap_process,
) -> clap_process_status {
    // SAFETY: the host passes a pointer that `create` returned, a block that is null or valid, and calls from one thread at a time.
    unsafe {
        let (Some(shim), Some(block)) = (PluginShim::of(plugin), process.as_ref()) else {
            return CLAP_PROCESS_ERROR;
        };
        let Some(wrapped) = shim.wrapped.process else { return CLAP_PROCESS_ERROR };
        if let Some(ids) = shim.param_ids.get() {
            let mut edited = 0;
            for_each_live_param(block, |id| edited |= ids.edit_group(id));
            if edited != 0 {
                shim.shared.params.mark_user_edits(edited);
            }
        }
        let _call = shim.shared.host_call.begin(block.frames_count as usize, None);
        let ports = &mut *shim.ports.get();
        if !ports.buffers.is_ready() {
            return CLAP_PROCESS_ERROR;
        }
        match ports.complete(block) {
            Some(completed) => wrapped(plugin, &raw const completed),
            None => CLAP_PROCESS_ERROR,
        }
    }
}

/// The render mode may change while the plugin is active; the wrapper heeds it at the next activation only.
unsafe extern "C" fn set_render_mode(plugin: *const clap_plugin, mode: clap_plugin_render_mode) -> bool {
    // SAFETY: the host passes a pointer that `create` returned.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return false };
        let Some([render, _]) = shim.render.get() else { return false };
        let done = render.set.is_some_and(|set| set(plugin, mode));
        if done {
            shim.shared.host_call.set_render_mode(mode == CLAP_RENDER_OFFLINE);
        }
        done
    }
}

unsafe extern "C" fn activate<P: ClapPlugin>(
    plugin: *const clap_plugin,
    rate: f64,
    least: u32,
    most: u32,
) -> bool {
    // SAFETY: the host passes a pointer that `create` returned; the arguments pass through unchanged.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return false };
        shim.prepare_ports(plugin, most as usize);
        shim.param_ids(plugin);
        LATENCY.set(None);
        let done = shim.wrapped.activate.is_some_and(|activate| activate(plugin, rate, least, most));
        let wrapper = &*shim.plugin.plugin_data.cast::<Wrapper<P>>();
        if let Some(latency) = LATENCY.take()
            && wrapper.current_latency.swap(latency, SeqCst) != latency
        {
            shim.notify_latency_changed();
        }
        done
    }
}

unsafe extern "C" fn on_main_thread(plugin: *const clap_plugin) {
    // SAFETY: the host passes a pointer that `create` returned.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return };
        if let Some(on_main_thread) = shim.wrapped.on_main_thread {
            on_main_thread(plugin);
        }
        if shim.dirty.swap(false, Relaxed) {
            shim.mark_dirty();
        }
    }
}

unsafe extern "C" fn destroy(plugin: *const clap_plugin) {
    // SAFETY: the host passes a pointer that `create` returned, and does not use it again.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return };
        shim.shared.set_dirty_callback(None);
        shim.shared.set_restart_callback(None);
        if let Some(destroy) = shim.wrapped.destroy {
            destroy(plugin);
        }
        shim.shared.wait_for_editors();
        drop(Box::from_raw(plugin.cast_mut().cast::<PluginShim>()));
    }
}

unsafe extern "C" fn get_extension(plugin: *const clap_plugin, id: *const c_char) -> *const c_void {
    // SAFETY: the host passes a pointer that `create` returned; `id` is null or a string.
    unsafe {
        let (Some(shim), false) = (PluginShim::of(plugin), id.is_null()) else { return std::ptr::null() };
        let Some(get_extension) = shim.wrapped.get_extension else { return std::ptr::null() };
        let extension = get_extension(plugin, id);
        let id = CStr::from_ptr(id);
        if id == CLAP_EXT_TAIL {
            return (&raw const TAIL).cast();
        }
        if id == CLAP_EXT_PARAMS
            && let Some(params) = extension.cast::<clap_plugin_params>().as_ref()
        {
            let [_, ours] = shim
                .params
                .get_or_init(|| [*params, clap_plugin_params { get_info: Some(get_info), ..*params }]);
            return (&raw const *ours).cast();
        }
        if id == CLAP_EXT_RENDER
            && let Some(render) = extension.cast::<clap_plugin_render>().as_ref()
        {
            let [_, ours] = shim
                .render
                .get_or_init(|| [*render, clap_plugin_render { set: Some(set_render_mode), ..*render }]);
            return (&raw const *ours).cast();
        }
        if id == CLAP_EXT_PARAM_INDICATION || id == CLAP_EXT_PARAM_INDICATION_COMPAT {
            return (&raw const param_indication::PARAM_INDICATION).cast();
        }
        if id == CLAP_EXT_PRESET_LOAD || id == CLAP_EXT_PRESET_LOAD_COMPAT {
            return (&raw const preset_discovery::PRESET_LOAD).cast();
        }
        if id == CLAP_EXT_GUI
            && let Some(gui) = extension.cast::<clap_plugin_gui>().as_ref()
        {
            let [_, ours] =
                shim.gui.get_or_init(|| [*gui, clap_plugin_gui { destroy: Some(destroy_gui), ..*gui }]);
            return (&raw const *ours).cast();
        }
        extension
    }
}

unsafe extern "C" fn destroy_gui(plugin: *const clap_plugin) {
    // SAFETY: the host passes a pointer that `create` returned.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return };
        if let Some([gui, _]) = shim.gui.get()
            && let Some(destroy) = gui.destroy
        {
            destroy(plugin);
        }
        shim.shared.wait_for_editors();
    }
}

unsafe extern "C" fn get_info(plugin: *const clap_plugin, index: u32, info: *mut clap_param_info) -> bool {
    // SAFETY: the host passes a pointer that `create` returned; `info` passes through unchanged.
    unsafe {
        let Some([params, _]) = PluginShim::of(plugin).and_then(|shim| shim.params.get()) else {
            return false;
        };
        params.count.is_some_and(|count| index < count(plugin))
            && params.get_info.is_some_and(|get_info| get_info(plugin, index, info))
    }
}

unsafe extern "C" fn tail_samples(plugin: *const clap_plugin) -> u32 {
    // SAFETY: the host passes a pointer that `create` returned.
    unsafe {
        let Some(shim) = PluginShim::of(plugin) else { return 0 };
        let get_extension = shim.wrapped.get_extension;
        let latency = get_extension.map_or(std::ptr::null(), |get| get(plugin, CLAP_EXT_LATENCY.as_ptr()));
        let latency = latency.cast::<clap_sys::ext::latency::clap_plugin_latency>().as_ref();
        latency.and_then(|latency| latency.get).map_or(0, |get| get(plugin))
    }
}
