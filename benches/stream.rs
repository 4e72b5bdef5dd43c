//! What a live stream costs the audio thread: processor time of `Client::process` as a share of real time.
//!
//! `cargo bench --bench stream`. 48 kHz, stereo, four stems, the plan of a *Low* tier. The model is a stub that halves the window, and its turn is
//! not counted: only the audio thread is.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nullsum::separator::MaskRule;
use nullsum::stream::plan::Deadline;
use nullsum::stream::{
    HostSamples, ModelSamples, ModelTiming, NoStems, Plan, PlanRequest, SharedModel, StemPlanes, Stream,
    WindowError, WindowSeparator,
};

const RATE: u32 = 48_000;
const STEMS: usize = 4;
const CHANNELS: usize = 2;
/// Seconds of audio in a measurement.
const SECONDS: usize = 20;

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
        ModelTiming { rate: 44_100, chunk, frame_hop, frame }
    }

    fn separate_window(&mut self, window: &[f32], _: MaskRule, out: &mut [f32]) -> Result<(), WindowError> {
        for stem in out.chunks_exact_mut(window.len()) {
            stem.iter_mut().zip(window).for_each(|(y, x)| *y = 0.5 * x);
        }
        Ok(())
    }
}

/// What the host does meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Unity,
    Mixed,
    Moving,
    Buses,
}

/// Seconds that the audio thread takes for a second of audio: the median over the seconds.
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
    })?;
    let (mut client, mut engine) = Stream::manual(&plan, STEMS, CHANNELS);
    engine.swap(Some(SharedModel::new(Box::new(Half))))?;
    let mut main = vec![vec![0.0f32; block]; CHANNELS];
    let mut buses = vec![vec![0.0f32; block]; STEMS * CHANNELS];
    let (mut times, mut spent, mut done) = (Vec::new(), Duration::ZERO, 0);
    for turn in 0..SECONDS * RATE as usize / block {
        for (channel, plane) in main.iter_mut().enumerate() {
            for (i, x) in plane.iter_mut().enumerate() {
                *x = ((turn * block + i) as f32 * 0.01 * (channel + 1) as f32).sin();
            }
        }
        if usage != Use::Unity && (turn == 0 || usage == Use::Moving) {
            for stem in 0..STEMS {
                let gain = 0.5 + 0.1 * ((turn + stem) % 7) as f32;
                (0..CHANNELS).for_each(|channel| client.set_gain(stem, channel, gain));
            }
        }
        let mut main: Vec<&mut [f32]> = main.iter_mut().map(|plane| &mut plane[..]).collect();
        let mut planes: Vec<&mut [f32]> = buses.iter_mut().map(|plane| &mut plane[..]).collect();
        let started = Instant::now();
        match usage {
            Use::Buses => {
                client.process(&mut main, &mut StemPlanes { planes: &mut planes, channels: CHANNELS });
            }
            _ => client.process(&mut main, &mut NoStems),
        }
        spent += started.elapsed();
        black_box(&main);
        engine.run_until_idle();
        done += block;
        if done >= RATE as usize {
            times.push(spent.as_secs_f64() * f64::from(RATE) / done as f64);
            (spent, done) = (Duration::ZERO, 0);
        }
    }
    // The first seconds have no stems yet.
    times.drain(..2);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
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
