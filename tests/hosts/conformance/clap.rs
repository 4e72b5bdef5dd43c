//! CLAP, function by function.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use clap_sys::audio_buffer::clap_audio_buffer;
use clap_sys::color::clap_color;
use clap_sys::entry::clap_plugin_entry;
use clap_sys::events::{
    CLAP_CORE_EVENT_SPACE_ID, CLAP_EVENT_IS_LIVE, CLAP_EVENT_PARAM_VALUE, CLAP_EVENT_TRANSPORT,
    CLAP_TRANSPORT_IS_PLAYING, clap_event_header, clap_event_param_value, clap_event_transport,
    clap_input_events,
};
use clap_sys::ext::latency::{CLAP_EXT_LATENCY, clap_host_latency, clap_plugin_latency};
use clap_sys::ext::param_indication::{
    CLAP_EXT_PARAM_INDICATION, CLAP_EXT_PARAM_INDICATION_COMPAT, clap_plugin_param_indication,
};
use clap_sys::ext::params::{CLAP_EXT_PARAMS, clap_param_info, clap_plugin_params};
use clap_sys::ext::preset_load::{CLAP_EXT_PRESET_LOAD, clap_plugin_preset_load};
use clap_sys::ext::remote_controls::{
    CLAP_EXT_REMOTE_CONTROLS, clap_plugin_remote_controls, clap_remote_controls_page,
};
use clap_sys::ext::tail::{CLAP_EXT_TAIL, clap_plugin_tail};
use clap_sys::factory::plugin_factory::{CLAP_PLUGIN_FACTORY_ID, clap_plugin_factory};
use clap_sys::factory::preset_discovery::{
    CLAP_PRESET_DISCOVERY_FACTORY_ID, CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN, clap_preset_discovery_factory,
    clap_preset_discovery_indexer, clap_preset_discovery_location, clap_preset_discovery_metadata_receiver,
};
use clap_sys::host::clap_host;
use clap_sys::plugin::clap_plugin;
use clap_sys::process::{CLAP_PROCESS_ERROR, clap_process};
use clap_sys::universal_plugin_id::clap_universal_plugin_id;
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

/// As [`process_at`], with an event and a transport that stands still.
fn process(instance: &Instance, ports: usize, event: Option<&clap_event_param_value>) -> Vec<f32> {
    process_at(instance, ports, event, false)
}

/// Processes a block of a constant with so many of the output ports. Returns the left main output.
fn process_at(
    instance: &Instance,
    ports: usize,
    event: Option<&clap_event_param_value>,
    is_playing: bool,
) -> Vec<f32> {
    const BLOCK: usize = 256;
    unsafe extern "C" fn size(events: *const clap_input_events) -> u32 {
        u32::from(!unsafe { (*events).ctx }.is_null())
    }
    unsafe extern "C" fn get(events: *const clap_input_events, _index: u32) -> *const clap_event_header {
        unsafe { (*events).ctx.cast_const().cast() }
    }
    let ctx = event.map_or(std::ptr::null_mut(), |event| std::ptr::from_ref(event).cast_mut().cast());
    let events = clap_input_events { ctx, size: Some(size), get: Some(get) };
    let mut samples = vec![[vec![0.5f32; BLOCK], vec![0.5f32; BLOCK]]; ports];
    let mut pointers: Vec<[*mut f32; 2]> =
        samples.iter_mut().map(|port| port.each_mut().map(|channel| channel.as_mut_ptr())).collect();
    let port = |pointers: &mut [*mut f32; 2]| clap_audio_buffer {
        data32: pointers.as_mut_ptr(),
        data64: std::ptr::null_mut(),
        channel_count: 2,
        latency: 0,
        constant_mask: 0,
    };
    // Exactly as many as there are: a read past the end is a read of other memory.
    let mut outputs: Box<[clap_audio_buffer]> = pointers.iter_mut().map(port).collect();
    let inputs = [outputs[0]];
    // Without a position, so that no block is a jump.
    let mut transport: clap_event_transport = unsafe { std::mem::zeroed() };
    transport.header.size = size_of::<clap_event_transport>() as u32;
    transport.header.type_ = CLAP_EVENT_TRANSPORT;
    transport.flags = if is_playing { CLAP_TRANSPORT_IS_PLAYING } else { 0 };
    let block = clap_process {
        steady_time: -1,
        frames_count: BLOCK as u32,
        transport: &raw const transport,
        audio_inputs: inputs.as_ptr(),
        audio_outputs: outputs.as_mut_ptr(),
        audio_inputs_count: 1,
        audio_outputs_count: ports as u32,
        in_events: &raw const events,
        out_events: std::ptr::null(),
    };
    let status = unsafe { (*instance.plugin).process.unwrap()(instance.plugin, &raw const block) };
    assert_ne!(status, CLAP_PROCESS_ERROR, "{ports} ports");
    samples.swap_remove(0)[0].clone()
}

fn param_id(instance: &Instance, name: &str) -> u32 {
    unsafe {
        let params: &clap_plugin_params = extension(instance.plugin, CLAP_EXT_PARAMS);
        let mut info: clap_param_info = std::mem::zeroed();
        let count = params.count.unwrap()(instance.plugin);
        (0..count)
            .find_map(|index| {
                assert!(params.get_info.unwrap()(instance.plugin, index, &mut info));
                (CStr::from_ptr(info.name.as_ptr()).to_str() == Ok(name)).then_some(info.id)
            })
            .unwrap_or_else(|| panic!("no parameter {name}"))
    }
}

fn param_value(instance: &Instance, name: &str) -> f64 {
    let mut value = f64::NAN;
    unsafe {
        let params: &clap_plugin_params = extension(instance.plugin, CLAP_EXT_PARAMS);
        assert!(params.get_value.unwrap()(instance.plugin, param_id(instance, name), &mut value));
    }
    value
}

#[test]
fn too_few_output_ports_leave_the_main_output_exact() {
    let instance = Instance::new(c"org.nullsum.nullsum-multi");
    instance.activate(48_000.0, 256);
    assert!(unsafe { (*instance.plugin).start_processing.unwrap()(instance.plugin) });
    let latency = instance.latency() as usize;
    for ports in [1, 2, 3, 6, 7] {
        unsafe { (*instance.plugin).reset.unwrap()(instance.plugin) };
        let mut output = Vec::new();
        while output.len() < latency + 1_024 {
            output.extend(process(&instance, ports, None));
        }
        assert!(output[..latency].iter().all(|x| *x == 0.0), "{ports} ports");
        assert!(output[latency..].iter().all(|x| *x == 0.5), "{ports} ports");
    }
    unsafe { (*instance.plugin).stop_processing.unwrap()(instance.plugin) };
    instance.deactivate();
}

/// A parameter event at a sample of the next block.
fn event(instance: &Instance, name: &str, time: u32, value: f64) -> clap_event_param_value {
    clap_event_param_value {
        header: clap_event_header {
            size: size_of::<clap_event_param_value>() as u32,
            time,
            space_id: CLAP_CORE_EVENT_SPACE_ID,
            type_: CLAP_EVENT_PARAM_VALUE,
            flags: 0,
        },
        param_id: param_id(instance, name),
        cookie: std::ptr::null_mut(),
        note_id: -1,
        port_index: -1,
        channel: -1,
        key: -1,
        value,
    }
}

#[test]
fn automation_is_exact_to_the_sample() {
    const BLOCK: usize = 256;
    for (is_playing, is_live) in [(false, false), (true, false), (true, true)] {
        for offset in [0u32, 1, 100, 255] {
            let instance = Instance::new(c"org.nullsum.nullsum");
            instance.activate(48_000.0, BLOCK as u32);
            assert!(unsafe { (*instance.plugin).start_processing.unwrap()(instance.plugin) });
            // As fast as possible looks like a render, in which automation waits for its input although the transport stands still.
            let realtime = event(&instance, "Render Mode", 0, 1.0);
            process_at(&instance, 1, Some(&realtime), is_playing);
            assert_eq!(param_value(&instance, "Render Mode"), 1.0);
            let latency = instance.latency() as usize;
            for _ in 0..latency / BLOCK + 2 {
                process_at(&instance, 1, None, is_playing);
            }
            let mut silence = event(&instance, "Output", offset, 0.0);
            silence.header.flags = if is_live { CLAP_EVENT_IS_LIVE } else { 0 };
            let mut output = process_at(&instance, 1, Some(&silence), is_playing);
            while output.len() < latency + 2 * BLOCK {
                output.extend(process_at(&instance, 1, None, is_playing));
            }
            // While the transport runs, automation applies to the input that it came with, and a fader that the user moves at once.
            let due = offset as usize + if is_playing && !is_live { latency } else { 0 };
            let case = format!("playing {is_playing}, live {is_live}, offset {offset}");
            assert!(output[..due].iter().all(|x| *x == 0.5), "{case}: too early");
            assert!(output[due..].iter().all(|x| *x < 0.5), "{case}: too late");
            unsafe { (*instance.plugin).stop_processing.unwrap()(instance.plugin) };
            instance.deactivate();
        }
    }
}

#[test]
fn factory_presets_load() {
    let instance = Instance::new(c"org.nullsum.nullsum");
    let load: &clap_plugin_preset_load = unsafe { extension(instance.plugin, CLAP_EXT_PRESET_LOAD) };
    let load = |key: &CStr| unsafe {
        let kind = CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN;
        load.from_location.unwrap()(instance.plugin, kind, std::ptr::null(), key.as_ptr())
    };
    assert!(load(c"acapella"));
    let default = param_value(&instance, "Vocals Gain");
    assert_eq!(param_value(&instance, "Drums Gain"), 0.0);
    assert!(load(c"instrumental"));
    assert_eq!(param_value(&instance, "Vocals Gain"), 0.0);
    assert_eq!(param_value(&instance, "Drums Gain"), default);
    assert!(!load(c"no such preset"));
    assert!(load(c"defaults"));
    assert_eq!(param_value(&instance, "Vocals Gain"), default);
}

#[test]
fn presets_are_listed_for_both_classes() {
    type Receiver = clap_preset_discovery_metadata_receiver;
    unsafe fn list<'a>(receiver: *const Receiver) -> &'a RefCell<Vec<String>> {
        unsafe { &*(*receiver).receiver_data.cast::<RefCell<Vec<String>>>() }
    }
    unsafe extern "C" fn begin(receiver: *const Receiver, name: *const c_char, key: *const c_char) -> bool {
        let text = |text| unsafe { CStr::from_ptr(text) }.to_str().unwrap();
        unsafe { list(receiver) }.borrow_mut().push(format!("{}={}", text(key), text(name)));
        true
    }
    unsafe extern "C" fn plugin_id(receiver: *const Receiver, id: *const clap_universal_plugin_id) {
        let id = unsafe { CStr::from_ptr((*id).id) }.to_str().unwrap();
        unsafe { list(receiver) }.borrow_mut().push(id.into());
    }
    unsafe extern "C" fn declare(
        _indexer: *const clap_preset_discovery_indexer,
        location: *const clap_preset_discovery_location,
    ) -> bool {
        unsafe { (*location).kind == CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN && (*location).location.is_null() }
    }
    let told = RefCell::new(Vec::<String>::new());
    unsafe {
        let library = Library::new(&PLUGIN.library).unwrap();
        let entry: libloading::Symbol<*const clap_plugin_entry> = library.get(b"clap_entry").unwrap();
        let factory = (**entry).get_factory.unwrap()(CLAP_PRESET_DISCOVERY_FACTORY_ID.as_ptr())
            .cast::<clap_preset_discovery_factory>();
        assert_eq!((*factory).count.unwrap()(factory), 1);
        let descriptor = (*factory).get_descriptor.unwrap()(factory, 0);
        assert!((*factory).get_descriptor.unwrap()(factory, 1).is_null());
        let indexer = clap_preset_discovery_indexer {
            clap_version: CLAP_VERSION,
            name: c"tests".as_ptr(),
            vendor: std::ptr::null(),
            url: std::ptr::null(),
            version: std::ptr::null(),
            indexer_data: std::ptr::null_mut(),
            declare_filetype: None,
            declare_location: Some(declare),
            declare_soundpack: None,
            get_extension: None,
        };
        let provider = (*factory).create.unwrap()(factory, &raw const indexer, (*descriptor).id);
        assert!((*provider).init.unwrap()(provider));
        let receiver = Receiver {
            receiver_data: (&raw const told).cast_mut().cast(),
            on_error: None,
            begin_preset: Some(begin),
            add_plugin_id: Some(plugin_id),
            set_soundpack_id: None,
            set_flags: None,
            add_creator: None,
            set_description: None,
            set_timestamps: None,
            add_feature: None,
            add_extra_info: None,
        };
        let kind = CLAP_PRESET_DISCOVERY_LOCATION_PLUGIN;
        assert!((*provider).get_metadata.unwrap()(provider, kind, std::ptr::null(), &raw const receiver));
        (*provider).destroy.unwrap()(provider);
        assert!((*factory).create.unwrap()(factory, &raw const indexer, c"other".as_ptr()).is_null());
    }
    let told = told.into_inner();
    for preset in
        ["acapella=Acapella", "instrumental=Instrumental", "drums-only=Drums only", "karaoke=Karaoke"]
    {
        assert!(told.iter().any(|line| line == preset), "{told:?}");
    }
    assert_eq!(told.iter().filter(|line| *line == "org.nullsum.nullsum-multi").count(), told.len() / 3);
}

#[test]
fn remote_control_pages_name_parameters() {
    let instance = Instance::new(c"org.nullsum.nullsum");
    unsafe {
        let pages: &clap_plugin_remote_controls = extension(instance.plugin, CLAP_EXT_REMOTE_CONTROLS);
        let count = pages.count.unwrap()(instance.plugin);
        assert!(count >= 10, "{count}");
        let mut page: clap_remote_controls_page = std::mem::zeroed();
        assert!(pages.get.unwrap()(instance.plugin, 0, &mut page));
        assert_eq!(CStr::from_ptr(page.page_name.as_ptr()), c"Faders");
        assert_eq!(page.param_ids[0], param_id(&instance, "Vocals Gain"));
        assert_eq!(page.param_ids[7], param_id(&instance, "Output"));
    }
}

#[test]
fn indications_of_any_parameter_are_accepted() {
    let instance = Instance::new(c"org.nullsum.nullsum");
    let color = clap_color { alpha: 255, red: 250, green: 10, blue: 20 };
    for id in [CLAP_EXT_PARAM_INDICATION, CLAP_EXT_PARAM_INDICATION_COMPAT] {
        let indication: &clap_plugin_param_indication = unsafe { extension(instance.plugin, id) };
        let (set_mapping, set_automation) =
            (indication.set_mapping.unwrap(), indication.set_automation.unwrap());
        for param in [param_id(&instance, "Output"), u32::MAX] {
            unsafe {
                let (label, none) = (c"Knob 1".as_ptr(), std::ptr::null());
                set_mapping(instance.plugin, param, true, &raw const color, label, none);
                set_mapping(instance.plugin, param, true, std::ptr::null(), none, none);
                set_mapping(instance.plugin, param, false, std::ptr::null(), none, none);
                for state in [0, 1, 2, 3, 4, 99] {
                    set_automation(instance.plugin, param, state, &raw const color);
                    set_automation(instance.plugin, param, state, std::ptr::null());
                }
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
