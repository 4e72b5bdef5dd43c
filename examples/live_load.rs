//! Three plugin instances in real time, one of them with a model that is far too slow for the machine: the other two must have no late hop.
//!
//!     cargo run --release --example live_load -- [SECONDS [INSTANCES]]
//!
//! Two streams of the embedded model in the tier *Live* and one of the default architecture with random weights, 48 kHz, blocks of 512,
//! driven by one thread as by a host. Prints what became of each.

use std::time::{Duration, Instant};

use nullsum::dsp::Random;
use nullsum::live::{
    Client, HostSamples, ModelSamples, NoStems, Plan, Scheduler, SharedModel, Stream, Tier, default_threads,
    measure,
};
use nullsum::model::architecture::Architecture;
use nullsum::model::config::Config;
use nullsum::model::precision::Precision;
use nullsum::separator::{ModelSpec, Runtime, Separator};

type Failure = Box<dyn std::error::Error>;

const RATE: u32 = 48_000;
const BLOCK: usize = 512;
/// Chunk of the slow model in samples.
const SLOW_CHUNK: usize = 352_800;

/// One instance.
struct Instance {
    name: &'static str,
    client: Client,
    stream: Stream,
}

fn main() -> Result<(), Failure> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(60), |text| text.parse())?;
    let runtime = Runtime { threads: default_threads(), precision: Precision::F32, ..Runtime::default() };
    let count: usize = std::env::args().nth(2).map_or(Ok(3), |text| text.parse())?;
    let scheduler = Scheduler::of_process()?;
    let small = embedded(runtime)?;
    let slow = ModelSpec::random("default architecture", Architecture::reference_default(), SLOW_CHUNK);
    let slow = SharedModel::new(Box::new(Separator::random(slow, 1, runtime)?));
    let mut instances = vec![
        open("first, embedded", Tier::Live, &small, true, &scheduler)?,
        open("second, embedded", Tier::Live, &small, true, &scheduler)?,
        open("third, default architecture", Tier::High, &slow, false, &scheduler)?,
    ];
    instances.truncate(count);
    play(&mut instances, seconds);
    println!("| instance | latency | hops | late | skipped | load of the worker | state |");
    println!("|---|---|---|---|---|---|---|");
    for Instance { name, stream, .. } in &instances {
        let status = stream.status();
        println!(
            "| {name} | {:.0} ms | {} | {} | {} | {:.1} % | {:?} |",
            stream.plan().latency_ms(),
            status.windows(),
            status.late_windows(),
            status.skipped_windows(),
            100.0 * status.load(),
            status.state()
        );
    }
    println!("{seconds} s on {} threads of {:?}", default_threads(), std::thread::available_parallelism()?);
    Ok(())
}

fn embedded(runtime: Runtime) -> Result<SharedModel, Failure> {
    let checkpoint = nullsum::embedded::checkpoint().ok_or("this build has no embedded model")?;
    let config = Config::from_yaml(checkpoint.config_yaml().unwrap_or_default(), "embedded")?;
    Ok(SharedModel::new(Box::new(Separator::load(&checkpoint, &config, None, runtime)?)))
}

/// Opens a stream as the plugin does: with a deadline from the measured cost, where the model is `measured`.
fn open(
    name: &'static str,
    tier: Tier,
    model: &SharedModel,
    measured: bool,
    scheduler: &Scheduler,
) -> Result<Instance, Failure> {
    let timing = model.timing();
    let mut request = tier.request(&timing, RATE, HostSamples(BLOCK as u64));
    if measured {
        let window = ModelSamples(timing.chunk.0.min(2 * u64::from(timing.rate)));
        request = request.with_measured_deadline(measure(model, window, 5, &|| false)?);
    }
    let (client, stream) = Stream::open(&Plan::new(request)?, model.stems(), 2, scheduler);
    stream.swap(Some(model.clone()))?;
    Ok(Instance { name, client, stream })
}

/// Plays noise through all instances in real time.
fn play(instances: &mut [Instance], seconds: u64) {
    let noise = Random::new(7).noise(BLOCK * 64, 0.3);
    let blocks = seconds * u64::from(RATE) / BLOCK as u64;
    let started = Instant::now();
    for block in 0..blocks {
        let due = started + Duration::from_secs_f64((block * BLOCK as u64) as f64 / f64::from(RATE));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let from = (block as usize % 64) * BLOCK;
        for Instance { client, .. } in instances.iter_mut() {
            let (mut left, mut right) = ([0.0; BLOCK], [0.0; BLOCK]);
            left.copy_from_slice(&noise[from..from + BLOCK]);
            right.copy_from_slice(&noise[from..from + BLOCK]);
            client.process(&mut [&mut left, &mut right], &mut NoStems);
        }
    }
}
