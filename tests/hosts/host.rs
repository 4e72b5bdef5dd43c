//! What the tests need of a host, for either format.

/// Name of the tier parameter.
pub const TIER: &str = "Latency Tier";

/// Name of the parameter that says whether the plugin may wait for the model.
pub const RENDER: &str = "Render Mode";

/// Bus layout, which decides the class to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `Nullsum`, stereo in and out.
    Stereo,
    /// `Nullsum`, mono in and out.
    Mono,
    /// `Nullsum Multi`: stereo in, a stereo main output and six stereo stem buses.
    Multi,
}

impl Layout {
    /// Channels of the main input and of every output bus.
    pub fn channels(self) -> usize {
        if self == Layout::Mono { 1 } else { 2 }
    }

    /// Number of output buses, including the main one.
    pub fn outputs(self) -> usize {
        if self == Layout::Multi { 7 } else { 1 }
    }

    /// Whether the class is `Nullsum Multi`.
    pub fn multi(self) -> bool {
        self == Layout::Multi
    }
}

/// What the host tells the plugin before processing.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Largest block in samples.
    pub block: usize,
    /// Whether the host announces offline rendering, as its format does.
    pub offline: bool,
}

impl Run {
    /// Announces real-time processing.
    pub fn live(rate: u32, block: usize) -> Self {
        Self { rate, block, offline: false }
    }

    /// Announces offline rendering.
    pub fn offline(rate: u32, block: usize) -> Self {
        Self { rate, block, offline: true }
    }
}

/// `[bus][channel][sample]`
pub type Buses = Vec<Vec<Vec<f32>>>;

/// An instance of the plugin in a host. Parameters have names and normalised values, `0..=1`.
pub trait Host: Sized {
    /// Name of the format, for messages.
    const FORMAT: &'static str;

    /// Whether the host restarts the plugin around a restored state.
    const RESTORES_ANEW: bool;

    /// Names of the classes, in the order of the library.
    fn classes() -> Vec<String>;

    /// Creates an inactive instance.
    fn create(layout: Layout) -> Self;

    /// Activates the instance and starts processing. An active instance is stopped first.
    fn activate(&mut self, run: Run);

    /// Stops processing and deactivates.
    fn deactivate(&mut self);

    /// Runs pending callbacks, as a host does between blocks. Returns whether the plugin requested a restart since the last call. The test then calls
    /// [`Host::activate`] or ignores the request.
    fn service(&mut self) -> bool;

    /// Reported latency of this activation, in samples.
    fn latency(&mut self) -> usize;

    /// Names, if the host provides them, and channels of the output buses.
    fn output_buses(&mut self) -> Vec<(Option<String>, usize)>;

    /// Names of the parameters.
    fn parameters(&mut self) -> Vec<String>;

    /// Sets a parameter at the start of the next block.
    fn set(&mut self, name: &str, normalised: f64);

    /// The value that the plugin reports.
    fn get(&mut self, name: &str) -> f64;

    /// Processes one block, `input: [channel][sample]`.
    fn process(&mut self, input: &[&[f32]]) -> Result<Buses, String>;

    /// The state as the plugin wrote it, without the format's envelope.
    fn save(&mut self) -> Vec<u8>;

    /// Loads a state. Returns false if the plugin refuses it.
    fn load(&mut self, state: &[u8]) -> bool;
}

/// Render mode `Realtime`: a host that runs faster than real time is not taken for an offline render.
pub const REALTIME: f64 = 0.5;

/// Render mode `Offline`: complete output even in hosts that announce rendering late or never.
pub const OFFLINE: f64 = 1.0;

/// Tier `Low`. In `Auto`, the plugin may change the tier and its latency after measuring the computer.
pub const LOW: f64 = 0.25;
/// Tier `High`: the lowest load.
pub const HIGH: f64 = 0.75;

/// An instance that never waits and keeps its latency: `Realtime`, tier `Low`.
pub fn steady<H: Host>(layout: Layout) -> H {
    let mut host = H::create(layout);
    host.set(RENDER, REALTIME);
    host.set(TIER, LOW);
    host
}

/// Moves an instance to another thread. Hosts have an audio thread and a main thread; nothing else happens meanwhile.
struct Carried<T>(T);

// SAFETY: the owner waits until the value is back.
unsafe impl<T> Send for Carried<T> {}

/// Runs `body` on a new thread.
pub fn on_new_thread<V, T: Send>(value: &mut V, body: impl FnOnce(&mut V) -> T + Send) -> T {
    let carried = Carried(value);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let carried = carried;
            body(carried.0)
        });
        thread.join().unwrap()
    })
}

/// Defines each test once for both formats, as `mod vst3` and `mod clap`.
macro_rules! both {
    ($($tests:tt)+) => { crate::host::tests_of! { crate::host::Host, $($tests)+ } };
}
pub(crate) use both;

macro_rules! tests_of {
    ($kind:path, $($(#[$attribute:meta])* fn $name:ident<$host:ident>() $body:block)+) => {
        mod claims {
            use super::*;
            $(pub fn $name<$host: $kind>() $body)+
        }
        mod vst3 {
            $(#[test] $(#[$attribute])* fn $name() { super::claims::$name::<crate::vst3::Vst3>() })+
        }
        mod clap {
            $(#[test] $(#[$attribute])* fn $name() { super::claims::$name::<crate::clap::Clap>() })+
        }
    };
}
pub(crate) use tests_of;
