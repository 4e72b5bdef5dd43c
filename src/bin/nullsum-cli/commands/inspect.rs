//! `inspect`: what a checkpoint is, without running it.

use nullsum::model::inspect::Inspection;
use nullsum::separator::ModelInfo;

use crate::args::InspectArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::model_source::{Source, at_hand};
use crate::report::say;

/// Reports; fails when the checkpoint would not load.
pub fn run(args: &InspectArgs) -> Outcome {
    let Source { checkpoint, config, .. } = at_hand(&args.file, args.config.as_deref())?;
    let family = args.model_type.map(Into::into);
    let inspection = Inspection::new(&checkpoint, &config, family);
    say(inspection.to_string().trim_end());
    if inspection.architecture.is_err() {
        return Err(Failure::said(Code::Model));
    }
    // What is wrong beyond the tensors: names of stems, length of the chunk.
    if let Err(error) = ModelInfo::resolve(&checkpoint, &config, family) {
        say(&format!("  does not load:\n    {error}"));
        return Err(Failure::said(Code::Model));
    }
    Ok(())
}
