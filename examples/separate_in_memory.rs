//! Separates samples in memory, and checks that the stems sum to the mixture.
//!
//!     cargo run --release --example separate_in_memory

use nullsum::{Audio, Model};

/// Two seconds of a chord, on the grid of 24-bit samples.
fn chord() -> Vec<f32> {
    let sample = |n: u32| -> f32 {
        let seconds = n as f32 / 44_100.0;
        let sum: f32 = [220.0, 277.2, 329.6]
            .iter()
            .map(|hertz: &f32| (std::f32::consts::TAU * hertz * seconds).sin())
            .sum();
        (sum * 0.2 * 8_388_608.0).round() / 8_388_608.0
    };
    (0..88_200).map(sample).collect()
}

fn main() -> Result<(), nullsum::Error> {
    println!("exact: {}", run()?);
    Ok(())
}

/// Returns whether the stems sum to the mixture in every sample.
pub fn run() -> Result<bool, nullsum::Error> {
    let mixture = Audio::new(vec![chord(), chord()], 44_100)?;
    let stems = Model::embedded()?.separate(&mixture)?;
    for (name, audio) in stems.iter() {
        let peak = audio.channel(0).iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        println!("{name}: peak {peak:.3}");
    }
    let exact = (0..mixture.samples()).all(|n| {
        let sum: f32 = stems.iter().map(|(_, audio)| audio.channel(0)[n]).sum();
        sum == mixture.channel(0)[n]
    });
    println!("null: {} dBFS", stems.null_dbfs());
    Ok(exact)
}
