//! What the tests ask of a host, whatever the format.

/// The parameter that chooses between latency and quality.
pub const TIER: &str = "Latency Tier";

/// The parameter that says whether the plugin may wait for the model.
pub const RENDER: &str = "Render Mode";

/// How the plugin's buses are laid out, which decides the class that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `Nullsum`, stereo in and out.
    Stereo,
    /// `Nullsum`, mono in and out.
    Mono,
    /// `Nullsum Multi`: stereo in, a stereo main output and six stereo buses of stems.
    Multi,
}

impl Layout {
    /// Channels of the main input and of every output bus.
    pub fn channels(self) -> usize {
        if self == Layout::Mono { 1 } else { 2 }
    }

    /// Output buses, the main one among them.
    pub fn outputs(self) -> usize {
        if self == Layout::Multi { 7 } else { 1 }
    }

    /// Whether the class is `Nullsum Multi`.
    pub fn multi(self) -> bool {
        self == Layout::Multi
    }
}

/// What the host tells the plugin before it processes.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Sample rate in Hz.
    pub rate: u32,
    /// The largest block in samples.
    pub block: usize,
    /// Whether the host announces offline rendering, in the way of its format.
    pub offline: bool,
}

impl Run {
    /// Realtime processing, as far as the host says.
    pub fn live(rate: u32, block: usize) -> Self {
        Self { rate, block, offline: false }
    }

    /// Rendering announced as offline.
    pub fn offline(rate: u32, block: usize) -> Self {
        Self { rate, block, offline: true }
    }
}

/// `[bus][channel][sample]`
pub type Buses = Vec<Vec<Vec<f32>>>;

/// One instance of the plugin in a host. Parameters are found by their names and set normalised, `0..=1`.
pub trait Host: Sized {
    /// The format, for messages.
    const FORMAT: &'static str;

    /// Whether it stops the plugin and starts it anew around a restored state.
    const RESTORES_ANEW: bool;

    /// Names of the classes, in the order of the library.
    fn classes() -> Vec<String>;

    /// An inactive instance with the given layout.
    fn create(layout: Layout) -> Self;

    /// Activates and starts processing; an active instance is stopped first.
    fn activate(&mut self, run: Run);

    /// Stops and deactivates.
    fn deactivate(&mut self);

    /// What a host does between blocks: runs the callbacks asked for. True when the plugin has asked for a restart
    /// since the last call; the host of the tests then restarts it with [`Host::activate`], or lets it run on.
    fn service(&mut self) -> bool;

    /// Samples of latency reported for the running activation.
    fn latency(&mut self) -> usize;

    /// Names, where the host tells them, and channels of the output buses.
    fn output_buses(&mut self) -> Vec<(Option<String>, usize)>;

    /// Names of the parameters.
    fn parameters(&mut self) -> Vec<String>;

    /// Sets a parameter from the next block on, at its first sample.
    fn set(&mut self, name: &str, normalised: f64);

    /// The value as the plugin states it.
    fn get(&mut self, name: &str) -> f64;

    /// Processes one block, `input: [channel][sample]`.
    fn process(&mut self, input: &[&[f32]]) -> Result<Buses, String>;

    /// The state as the plugin wrote it, without what the format wraps around.
    fn save(&mut self) -> Vec<u8>;

    /// Gives the plugin a state; false when it refuses.
    fn load(&mut self, state: &[u8]) -> bool;
}

/// The render mode `Realtime`: a host that runs ahead of the clock isn't taken for a bounce, so nothing is waited for.
pub const REALTIME: f64 = 0.5;

/// The render mode `Offline`: complete also in hosts that announce nothing, or announce it late.
pub const OFFLINE: f64 = 1.0;

/// The tier `Low`. In `Auto` the plugin may find another tier once it has measured the device, and change its latency.
pub const LOW: f64 = 1.0 / 3.0;
/// The tier `High`: the least work.
pub const HIGH: f64 = 1.0;

/// An instance that neither waits nor changes its mind: realtime, tier `Low`.
pub fn steady<H: Host>(layout: Layout) -> H {
    let mut host = H::create(layout);
    host.set(RENDER, REALTIME);
    host.set(TIER, LOW);
    host
}

/// Moves an instance to another thread. Hosts have a thread for audio and one for the rest; nothing else is done while it is away.
struct Carried<T>(T);

// SAFETY: the owner waits until it is back.
unsafe impl<T> Send for Carried<T> {}

/// Runs `body` on a thread of its own.
pub fn elsewhere<V, T: Send>(value: &mut V, body: impl FnOnce(&mut V) -> T + Send) -> T {
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
