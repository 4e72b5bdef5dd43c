//! Separates an audio file into one file per stem.
//!
//!     cargo run --release --example separate_file -- SONG [FOLDER] [CHECKPOINT]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use nullsum::{Model, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let song = arguments.next().ok_or("usage: separate_file SONG [FOLDER] [CHECKPOINT]")?;
    let folder = arguments.next().unwrap_or_else(|| "stems".into());
    run(&song, &folder, arguments.next().as_deref())?;
    Ok(())
}

/// Separates with the checkpoint, or with the embedded model.
pub fn run(song: &Path, folder: &Path, checkpoint: Option<&Path>) -> Result<Vec<PathBuf>, nullsum::Error> {
    // The configuration is found in the checkpoint or beside it.
    let mut model = match checkpoint {
        Some(checkpoint) => Model::open(checkpoint)?,
        None => Model::embedded()?,
    };
    println!("{} on {}", model.stems().join(", "), model.runs_on());

    let report = model.separate_file_with(song, folder, &Options::default(), |fraction| {
        eprint!("\r{:3.0} %", 100.0 * fraction);
        ControlFlow::Continue(())
    })?;
    eprintln!();
    for file in &report.files {
        println!("{}", file.display());
    }
    println!(
        "{:.1} s of audio in {:.1} s, null {} dBFS",
        report.audio_seconds, report.elapsed_seconds, report.null_dbfs
    );
    report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    Ok(report.files)
}
