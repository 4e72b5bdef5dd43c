//! `convert`: writes a checkpoint as one safetensors file that contains its configuration.

use nullsum::model::convert::{WeightFormat, convert};
use nullsum::registry::human_size;
use nullsum::separator::ModelSpec;

use crate::args::{ConvertArgs, Dtype};
use crate::batch::is_same_file;
use crate::exit::{CliResult, ExitStatus, Failure, OrFail};
use crate::interrupt;
use crate::model_source::{ModelSource, open_local};
use crate::printer::{print_line, print_warning};

/// Converts, after checking that the result will load.
pub fn run(args: &ConvertArgs) -> CliResult {
    if is_same_file(&args.input, &args.output) {
        return Err(Failure::new(
            ExitStatus::Usage,
            "IN and OUT are one file; give the new file another name",
        ));
    }
    let source = open_local(&args.input, args.config.as_deref(), args.weights.clone())?;
    source.config_warnings().iter().for_each(|warning| print_warning(warning));
    let ModelSource { checkpoint, config, .. } = source;
    let family = args.model_type.map(Into::into);
    ModelSpec::resolve(&checkpoint, &config, family).or_fail(ExitStatus::Model)?;
    if args.output.extension().is_none_or(|extension| extension != "safetensors") {
        print_warning(&format!(
            "{}: safetensors files are usually called .safetensors",
            args.output.display()
        ));
    }
    let precision = match args.dtype {
        Dtype::F32 => WeightFormat::F32,
        Dtype::F16 => WeightFormat::F16,
        Dtype::Int8 => WeightFormat::Int8,
    };
    let report = convert(&checkpoint, &config, family, &args.output, precision, &mut interrupt::stop_flow)
        .or_fail(ExitStatus::Io)?;
    if !args.quiet {
        print_line(&format!(
            "{}: {} tensors, {:.1} M parameters, {}, configuration inside",
            args.output.display(),
            report.tensors,
            report.parameters as f64 / 1e6,
            human_size(report.bytes)
        ));
        if !report.skipped.is_empty() {
            print_line(&format!("  not part of the network, and left out: {}", report.skipped.join(", ")));
        }
        print_line(&format!("  made from SHA-256 {}", report.source_sha256));
    }
    Ok(())
}
