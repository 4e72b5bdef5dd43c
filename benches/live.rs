//! What a live stream costs the audio thread: processor time of `Client::process` as a share of real time.
//!
//! `cargo bench --bench live`. 48 kHz, stereo, four stems, the plan of a *Low* tier. The model is a stub that halves the window.
//! Only the audio thread is timed, not the model. Without a per-thread clock (Windows) the figures are wall time.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use nullsum::live::plan::Deadline;
use nullsum::live::{
    HostSamples, ModelSamples, ModelTiming, NoStems, Plan, PlanRequest, SharedModel, StemPlanes, Stream,
    WindowError, WindowSeparator,
};
use nullsum::separator::MaskRule;

const RATE: u32 = 48_000;
const STEMS: usize = 4;
const CHANNELS: usize = 2;
/// Seconds of audio in a measurement.
const SECONDS: usize = 20;
/// Samples between two readings of the clock, which cost as much as a small block: whole blocks, less than a hop.
const TURN: usize = 2_048;

/// Every stem is half of the window.
struct Half;

impl WindowSeparator for Half {
    fn stems(&self) -> usize {
        STEMS
    }

    fn channels(&self) -> usize {
        CHANNELS
    }

    fn timing(&self) -> ModelTiming {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None }
    }

    fn separate_window(&mut self, window: &[f32], _: MaskRule, out: &mut [f32]) -> Result<(), WindowError> {
        for stem in out.chunks_exact_mut(window.len()) {
            stem.iter_mut().zip(window).for_each(|(y, x)| *y = 0.5 * x);
        }
        Ok(())
    }
}

/// How the host uses the stream.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Unity,
    Mixed,
    Moving,
    Buses,
}

/// Seconds of the audio thread per second of audio: the median over all seconds.
fn cost(block: usize, usage: Use) -> Result<f64, Box<dyn std::error::Error>> {
    let plan = Plan::new(PlanRequest {
        host_rate: RATE,
        model_rate: 44_100,
        window: ModelSamples(65_536),
        hop: ModelSamples(4_096),
        lookahead: ModelSamples(4_096),
        fade: ModelSamples(1_024),
        deadline: Deadline::WholeHop,
        max_block: HostSamples(block as u64),
        context: None,
    })?;
    let (mut client, mut engine) = Stream::manual(&plan, STEMS, CHANNELS);
    engine.swap(Some(SharedModel::new(Box::new(Half))))?;
    let [mut left, mut right] = [(); CHANNELS].map(|()| vec![0.0f32; TURN]);
    let mut buses = vec![vec![0.0f32; block]; STEMS * CHANNELS];
    let mut planes: Vec<&mut [f32]> = buses.iter_mut().map(|plane| &mut plane[..]).collect();
    let (mut times, mut spent, mut done) = (Vec::new(), Duration::ZERO, 0);
    for turn in 0..SECONDS * RATE as usize / TURN {
        for (channel, plane) in [&mut left, &mut right].into_iter().enumerate() {
            for (i, x) in plane.iter_mut().enumerate() {
                *x = ((turn * TURN + i) as f32 * 0.01 * (channel + 1) as f32).sin();
            }
        }
        let started = thread_time()?;
        for (i, (left, right)) in left.chunks_mut(block).zip(right.chunks_mut(block)).enumerate() {
            if usage != Use::Unity && (turn + i == 0 || usage == Use::Moving) {
                for stem in 0..STEMS {
                    let gain = 0.5 + 0.1 * ((turn + i + stem) % 7) as f32;
                    (0..CHANNELS).for_each(|channel| client.set_gain(stem, channel, gain));
                }
            }
            let main = &mut [left, right];
            match usage {
                Use::Buses => {
                    client.process(main, &mut StemPlanes { planes: &mut planes, channels: CHANNELS });
                }
                _ => client.process(main, &mut NoStems),
            }
            black_box(main);
        }
        spent += thread_time()? - started;
        engine.run_until_idle();
        done += TURN;
        if done >= RATE as usize {
            times.push(spent.as_secs_f64() * f64::from(RATE) / done as f64);
            (spent, done) = (Duration::ZERO, 0);
        }
    }
    // Skip the first seconds, which have no stems yet.
    times.drain(..2);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Processor time of this thread so far.
#[cfg(unix)]
fn thread_time() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    match unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Wall time, where no per-thread clock exists.
#[cfg(not(unix))]
fn thread_time() -> io::Result<Duration> {
    static STARTED: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    Ok(STARTED.get_or_init(std::time::Instant::now).elapsed())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "| Block | Unity | Mixed | Gains move in every block | Four stem buses |\n|---|---|---|---|---|"
    );
    for block in [32, 128, 512, 2048] {
        print!("| {block} |");
        for usage in [Use::Unity, Use::Mixed, Use::Moving, Use::Buses] {
            print!(" {:.2} % |", 100.0 * cost(block, usage)?);
        }
        println!();
    }
    Ok(())
}
