//! `convert`: one safetensors file that is a whole model.

use nullsum::model::convert::{Precision, convert};
use nullsum::registry::human_size;
use nullsum::separator::ModelInfo;

use crate::args::{ConvertArgs, Dtype};
use crate::batch::is_same;
use crate::exit::{Code, Failure, OrFail, Outcome};
use crate::interrupt;
use crate::model_source::{Source, at_hand};
use crate::report::{say, warn};

/// Converts, after making sure that the result will load.
pub fn run(args: &ConvertArgs) -> Outcome {
    if is_same(&args.input, &args.output) {
        return Err(Failure::new(Code::Usage, "IN and OUT are one file; give the new file another name"));
    }
    let source = at_hand(&args.input, args.config.as_deref())?;
    if let Some(warning) = source.not_understood() {
        warn(&warning);
    }
    let Source { checkpoint, config, .. } = source;
    ModelInfo::resolve(&checkpoint, &config, args.model_type.map(Into::into)).or_fail(Code::Model)?;
    if args.output.extension().is_none_or(|extension| extension != "safetensors") {
        warn(&format!("{}: safetensors files are usually called .safetensors", args.output.display()));
    }
    let precision = match args.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::F16 => Precision::F16,
    };
    let report = convert(&checkpoint, config.text(), &args.output, precision, &mut interrupt::flow)
        .or_fail(Code::Io)?;
    if !args.quiet {
        say(&format!(
            "{}: {} tensors, {:.1} M parameters, {}, configuration inside",
            args.output.display(),
            report.tensors,
            report.parameters as f64 / 1e6,
            human_size(report.bytes)
        ));
        if !report.left_out.is_empty() {
            say(&format!("  left out, as they hold no weights: {}", report.left_out.join(", ")));
        }
        say(&format!("  made from SHA-256 {}", report.source_sha256));
    }
    Ok(())
}
