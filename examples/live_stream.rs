//! Feeds a live stream block by block, as an audio callback would, with the vocals muted.
//!
//!     cargo run --release --example live_stream

use nullsum::{LiveOptions, LiveStream, Model, Tier};

const BLOCK: usize = 480;

fn main() -> Result<(), nullsum::Error> {
    println!("peak of the output: {:.3}", run()?);
    Ok(())
}

/// Returns the peak of the output.
pub fn run() -> Result<f32, nullsum::Error> {
    let options = LiveOptions { max_block: BLOCK, tier: Tier::Low, ..LiveOptions::default() };
    let mut stream = LiveStream::open(Model::embedded()?, &options)?;
    println!("latency: {} samples", stream.latency_samples());
    if let Some(vocals) = stream.stems().iter().position(|stem| stem == "vocals") {
        stream.set_gain(vocals, 0.0);
    }

    let mut peak = 0.0f32;
    for block in 0..200 {
        let tone = |n: usize| ((block * BLOCK + n) as f32 * 0.03).sin() * 0.5;
        let mut left: Vec<f32> = (0..BLOCK).map(tone).collect();
        let mut right = left.clone();
        // An audio callback calls `process`, which never waits. Here nothing paces the loop, so it waits for the worker.
        stream.process_offline(&mut [&mut left, &mut right], &mut [])?;
        peak = left.iter().chain(&right).fold(peak, |peak, x| peak.max(x.abs()));
    }
    println!("late windows: {}", stream.late_windows());
    Ok(peak)
}
