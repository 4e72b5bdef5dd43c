//! Prints what a checkpoint contains, and why it would not load.
//!
//!     cargo run --release --example inspect_checkpoint -- CHECKPOINT [YAML]

use std::path::{Path, PathBuf};

use nullsum::Inspection;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let checkpoint = arguments.next().ok_or("usage: inspect_checkpoint CHECKPOINT [YAML]")?;
    println!("{}", if run(&checkpoint, arguments.next().as_deref())? { "loads" } else { "does not load" });
    Ok(())
}

/// Returns whether the checkpoint loads.
pub fn run(checkpoint: &Path, config: Option<&Path>) -> Result<bool, nullsum::Error> {
    let inspection = Inspection::of(checkpoint, config)?;
    print!("{inspection}");
    Ok(inspection.is_loadable())
}
