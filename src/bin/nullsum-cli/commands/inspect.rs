//! `inspect`: describes a checkpoint without running it.

use nullsum::live_cost;
use nullsum::model::inspect::Inspection;
use nullsum::separator::ModelSpec;

use super::tiers::verdict;
use crate::args::InspectArgs;
use crate::exit::{CliResult, ExitStatus, Failure};
use crate::interrupt;
use crate::model_source::{ModelSource, open_local};
use crate::printer::print_line;

/// Prints the description; fails if the checkpoint would not load.
pub fn run(args: &InspectArgs) -> CliResult {
    let ModelSource { checkpoint, config, .. } =
        open_local(&args.file, args.config.as_deref(), args.weights.clone())?;
    let family = args.model_type.map(Into::into);
    let mut inspection = Inspection::new(&checkpoint, &config, family);
    if args.values {
        inspection.read_values(&checkpoint);
    }
    print_line(inspection.to_string().trim_end());
    if !inspection.loads() {
        return Err(Failure::already_reported(ExitStatus::Model));
    }
    // Problems beyond the tensors: stem names, chunk length.
    match ModelSpec::resolve(&checkpoint, &config, family) {
        Err(error) => {
            print_line(&format!("  does not load:\n    {error}"));
            Err(Failure::already_reported(ExitStatus::Model))
        }
        Ok(spec) => {
            if let Ok(speed) = live_cost::speed(&interrupt::stop_requested) {
                let verdict = verdict(&live_cost::of_spec(&spec, speed), speed);
                print_line(&format!("  {:<14}{verdict}", "this machine"));
            }
            Ok(())
        }
    }
}
