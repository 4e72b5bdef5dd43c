//! The text of *Copy diagnostics*: what a bug report needs, without paths of the user's home folder.

use std::fmt::Write;

use super::text;
use crate::kernels::Isa;
use crate::live::Status;
use crate::plugin::instance_shared::{InstanceShared, ModelView, View};
use crate::plugin::selection::ModelSource;
use crate::plugin::{logger, thread_setting};

/// Describes the plugin, its host, the model, the stream and the latest warnings.
pub fn report(shared: &InstanceShared, view: &View) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_report(&mut out, shared, view);
    replace_home(&out, super::files::home().as_deref())
}

fn write_report(out: &mut String, shared: &InstanceShared, view: &View) -> std::fmt::Result {
    let debug = if cfg!(debug_assertions) { ", debug build" } else { "" };
    writeln!(
        out,
        "Nullsum {}{debug}, {} {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )?;
    let host = std::env::current_exe().ok();
    let host = host.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
    writeln!(out, "Host: {}", host.to_string_lossy())?;
    let threads = thread_setting::processors();
    let isas: Vec<String> = Isa::available().iter().map(ToString::to_string).collect();
    writeln!(out, "Processor: {threads} logical, {}", isas.join(", "))?;
    writeln!(out, "Threads for live separation: {}", thread_setting::describe())?;
    match &view.plan_inputs {
        Some(inputs) => {
            writeln!(out, "Audio: {} Hz, blocks of up to {} samples", inputs.host_rate, inputs.block.0)?;
        }
        None => writeln!(out, "Audio: {} Hz", view.host_rate)?,
    }
    write_model(out, shared, view)?;
    write_plan(out, shared, view)?;
    match &view.status {
        Some(status) => write_stream(out, status)?,
        None => writeln!(out, "Stream: none")?,
    }
    let enabled = if logger::is_file_enabled() { "on" } else { "off" };
    let path =
        logger::file_path().map_or_else(|| "no cache folder".into(), |path| path.display().to_string());
    writeln!(out, "Log file: {enabled}, {path}")?;
    writeln!(out, "Latest warnings:")?;
    let warnings = logger::recent_warnings();
    if warnings.is_empty() {
        writeln!(out, "  none")?;
    }
    warnings.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn write_model(out: &mut String, shared: &InstanceShared, view: &View) -> std::fmt::Result {
    let selection = shared.params.model.get();
    let source = match &selection.source {
        ModelSource::Registry { name } => format!("registry, {name}"),
        ModelSource::File { checkpoint, .. } => {
            let name = checkpoint.file_name().unwrap_or_default();
            format!("file, {}", name.to_string_lossy())
        }
        ModelSource::Embedded => "embedded".into(),
        #[allow(unreachable_patterns, reason = "the enum may grow")]
        _ => "other".into(),
    };
    let hash: String = selection.sha256.as_deref().unwrap_or("unknown").chars().take(16).collect();
    writeln!(out, "Model: {} ({source}), SHA-256 {hash}", selection.shown_title())?;
    let state = match &view.model {
        ModelView::Idle => "not loaded".into(),
        ModelView::Loading(_) => "loading".into(),
        ModelView::Measuring => "measuring".into(),
        ModelView::Ready { runs_on, stems, .. } => format!("{runs_on}; stems {}", stems.join(", ")),
        ModelView::Failed(error) => format!("failed: {error}"),
        ModelView::Unplanned(reason) => format!("cannot run live: {reason}"),
    };
    writeln!(out, "Model state: {state}")?;
    let note = view.device_note.as_deref().unwrap_or("as asked for");
    writeln!(out, "Device: {}; {note}", shared.params.device.get())
}

fn write_plan(out: &mut String, shared: &InstanceShared, view: &View) -> std::fmt::Result {
    let window = *shared.params.window.lock();
    let plan = match (window, view.tier) {
        (Some(spec), _) => format!(
            "custom, window {:.3} s, hop {:.3} s, lookahead {:.3} s",
            spec.window, spec.hop, spec.lookahead
        ),
        (None, Some(tier)) => format!("tier {}", text::tier(tier)),
        (None, None) => "no tier".into(),
    };
    writeln!(out, "Plan: {plan}, latency {}", text::time(view.latency_ms))?;
    for found in &view.tiers {
        let load = found.load.map_or_else(|| "load not measured".into(), |load| format!("load {load:.2}"));
        writeln!(out, "  {}: {}, {load}", text::tier(found.tier), text::time(found.latency_ms))?;
    }
    Ok(())
}

fn write_stream(out: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(
        out,
        "Stream: {:?}, latency {} samples, {} channels, load {:.2}, windows {}, late {}, skipped {}, cleaned samples {}",
        status.state(),
        status.latency_samples(),
        status.channels(),
        status.load(),
        status.windows(),
        status.late_windows(),
        status.skipped_windows(),
        status.cleaned_samples()
    )?;
    match status.message() {
        Some(message) => writeln!(out, "Stream message: {message}"),
        None => Ok(()),
    }
}

/// Replaces the user's home folder by `~`.
fn replace_home(report: &str, home: Option<&std::path::Path>) -> String {
    match home.and_then(std::path::Path::to_str).filter(|home| home.len() > 1) {
        Some(home) => report.replace(home, "~"),
        None => report.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::plugin::instance_shared::InstanceGuard;
    use crate::plugin::model_loader::ModelLoadError;
    use crate::plugin::params::NullsumParams;
    use crate::plugin::selection::Selection;

    #[test]
    fn report_names_model_and_state_and_hides_the_home_folder() {
        let shared = InstanceShared::new(Arc::new(NullsumParams::new()), None, crate::plugin::control::run);
        let guard = InstanceGuard(shared);
        let home = super::super::files::home().unwrap_or_else(|| "/home/somebody".into());
        let file = home.join("models/my model.ckpt");
        guard.0.params.model.choose(Selection::file(file.clone(), None));
        let path = file.display().to_string();
        let failed = ModelView::Failed(ModelLoadError::Missing { path });
        let view = View { model: failed, host_rate: 48_000, ..View::default() };
        let text = report(&guard.0, &view);
        for part in ["Nullsum ", "Host: ", "48000 Hz", "my model.ckpt", "Stream: none", "Latest warnings:"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        if let Some(home) = super::super::files::home().filter(|home| home.as_os_str().len() > 1) {
            assert!(!text.contains(&home.display().to_string()), "{text}");
        }
        assert_eq!(replace_home("a /home/x/b", Some(Path::new("/home/x"))), "a ~/b");
        assert_eq!(replace_home("a /b", Some(Path::new("/"))), "a /b");
    }
}
