//! Exit statuses, errors that carry one, and the text of an error.

use nullsum::kernels::KernelError;
use nullsum::model::device::DeviceError;
use nullsum::model::sidecar_config::SidecarConfigError;
use nullsum::offline::error::OfflineError;
use nullsum::registry::FetchError;
use nullsum::separator::{LoadError, SeparateError};

/// Exit status of the process. `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Some songs failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The model cannot be loaded.
    Model = 3,
    /// The input cannot be read or the output not written.
    Io = 4,
    /// Stopped by a signal. The exit status is 128 plus its number, 130 for Ctrl-C.
    Interrupted = 130,
}

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    pub status: ExitStatus,
    pub error: anyhow::Error,
    /// Whether the messages have been printed, so that the process only exits.
    pub reported: bool,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(status: ExitStatus, message: impl std::fmt::Display) -> Self {
        Self { status, error: anyhow::anyhow!("{message}"), reported: false }
    }

    /// A failure whose messages have been printed.
    pub fn already_reported(status: ExitStatus) -> Self {
        Self { reported: true, ..Self::new(status, "") }
    }

    /// Stopped by Ctrl-C.
    pub fn interrupted() -> Self {
        Self::new(ExitStatus::Interrupted, "interrupted; no stem was left unfinished")
    }
}

pub type CliResult<T = ()> = Result<T, Failure>;

/// Turns an error into a [`Failure`].
pub trait OrFail<T> {
    /// Fails with `status`.
    fn or_fail(self, status: ExitStatus) -> CliResult<T>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, status: ExitStatus) -> CliResult<T> {
        self.map_err(|error| Failure { status, error: error.into(), reported: false })
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        let status = match error {
            OfflineError::Audio(_) | OfflineError::Spool { .. } | OfflineError::NonFinite { .. } => {
                ExitStatus::Io
            }
            OfflineError::UnknownStem { .. } | OfflineError::Options { .. } => ExitStatus::Usage,
            OfflineError::Separate(_) => ExitStatus::Failed,
            OfflineError::Cancelled => return Self::interrupted(),
        };
        Self { status, error: error.into(), reported: false }
    }
}

/// Text of an error: its causes, each named once, and the flags that help.
pub fn format_error(error: &anyhow::Error) -> String {
    let text = error.chain().fold(String::new(), |text, cause| {
        let cause = without_backtrace(&cause.to_string()).to_owned();
        match text.contains(&cause) {
            true => text,
            false if text.is_empty() => cause,
            false => format!("{text}: {cause}"),
        }
    });
    match flag_hint(error) {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

/// The text without the backtrace that candle's errors have where RUST_BACKTRACE is set.
fn without_backtrace(text: &str) -> &str {
    text.split_once("\n   0: ").map_or(text, |(text, _)| text).trim_end()
}

/// The flags that help. The library's errors name no flags, since the plugin shows them too.
fn flag_hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        let hint = cause.downcast_ref().and_then(song_hint);
        hint.or_else(|| cause.downcast_ref().and_then(chunk_hint))
            .or_else(|| cause.downcast_ref().and_then(model_hint))
            .or_else(|| cause.downcast_ref().and_then(device_hint))
            .or_else(|| cause.downcast_ref().and_then(kernel_hint))
            .or_else(|| cause.downcast_ref().and_then(config_hint))
            .or_else(|| cause.downcast_ref().and_then(download_hint))
    })
}

fn song_hint(error: &OfflineError) -> Option<&'static str> {
    match error {
        OfflineError::NonFinite { .. } => Some("--non-finite clean"),
        // `#[error(transparent)]` hides this error from the chain.
        OfflineError::Separate(error) => chunk_hint(error),
        _ => None,
    }
}

fn chunk_hint(error: &SeparateError) -> Option<&'static str> {
    match error {
        SeparateError::OutOfMemory { .. } => Some("--chunk, --device cpu"),
        SeparateError::Network { .. } => Some("--batch, --chunk"),
        _ => None,
    }
}

fn model_hint(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::Precision(_) => Some("--precision"),
        LoadError::Device(error) => device_hint(error),
        LoadError::Kernel(error) => kernel_hint(error),
        _ => None,
    }
}

fn device_hint(error: &DeviceError) -> Option<&'static str> {
    match error {
        DeviceError::NotBuilt("cuda") => Some("--device cpu, or the build of scripts/cuda"),
        DeviceError::NotBuilt(_) | DeviceError::Start { .. } => Some("--device cpu"),
        DeviceError::Unknown(_) => None,
    }
}

fn kernel_hint(error: &KernelError) -> Option<&'static str> {
    matches!(error, KernelError::Threads { .. }).then_some("--threads")
}

fn config_hint(error: &SidecarConfigError) -> Option<&'static str> {
    matches!(error, SidecarConfigError::Missing { .. }).then_some("--config")
}

fn download_hint(error: &FetchError) -> Option<&'static str> {
    let hint = "--offline switched them off; `nullsum-cli models download` fetches it";
    matches!(error, FetchError::Offline { .. }).then_some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_adds_the_flags_that_help() {
        let memory = || SeparateError::OutOfMemory { device: "cuda:0".into(), samples: 44_100 };
        let threads = KernelError::Threads { threads: 999, reason: "too many".into() };
        let errors: [(anyhow::Error, &str); 8] = [
            (OfflineError::NonFinite { input: "song.wav".into(), count: 2 }.into(), "--non-finite clean"),
            (memory().into(), "--chunk, --device cpu"),
            (anyhow::Error::from(OfflineError::from(memory())).context("song.wav"), "--chunk, --device cpu"),
            (LoadError::Precision("there is no f16".into()).into(), "--precision"),
            (LoadError::from(DeviceError::NotBuilt("metal")).into(), "--device cpu"),
            (DeviceError::Start { name: "cuda:0".into(), reason: "no driver".into() }.into(), "--device cpu"),
            (LoadError::from(threads).into(), "--threads"),
            (FetchError::Offline { name: "model".into(), folder: "cache".into() }.into(), "models download"),
        ];
        for (error, flags) in errors {
            assert!(format_error(&error).contains(flags), "{}", format_error(&error));
            assert!(error.chain().all(|cause| !cause.to_string().contains("--")), "{error:?}");
        }
        assert_eq!(format_error(&OfflineError::Cancelled.into()), "cancelled");
    }
}
