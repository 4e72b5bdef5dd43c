//! Exit codes, errors that carry one, and how errors are told.

use nullsum::kernels::KernelError;
use nullsum::model::companion::CompanionError;
use nullsum::model::device::DeviceError;
use nullsum::offline::error::OfflineError;
use nullsum::registry::FetchError;
use nullsum::separator::{LoadError, SeparateError};

/// What the process ends with. `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Some of the work failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No model.
    Model = 3,
    /// The input cannot be read or the output not written.
    Io = 4,
    /// Stopped by the user.
    Interrupted = 130,
}

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub code: Code,
    /// What is said.
    pub error: anyhow::Error,
    /// Whether it has been said already, so that the process only ends.
    pub said: bool,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(code: Code, message: impl std::fmt::Display) -> Self {
        Self { code, error: anyhow::anyhow!("{message}"), said: false }
    }

    /// A failure whose messages have been printed.
    pub fn said(code: Code) -> Self {
        Self { said: true, ..Self::new(code, "") }
    }

    /// The end after Ctrl-C.
    pub fn interrupted() -> Self {
        Self::new(Code::Interrupted, "interrupted; no stem was left unfinished")
    }
}

/// What commands return.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Gives an error its exit code.
pub trait OrFail<T> {
    /// Fails with `code`.
    fn or_fail(self, code: Code) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, code: Code) -> Outcome<T> {
        self.map_err(|error| Failure { code, error: error.into(), said: false })
    }
}

/// A song that could not be separated.
impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        let code = match error {
            OfflineError::Audio(_) | OfflineError::Spool { .. } | OfflineError::NonFinite { .. } => Code::Io,
            OfflineError::UnknownStem { .. } | OfflineError::Options { .. } => Code::Usage,
            OfflineError::Separate(_) => Code::Failed,
            OfflineError::Cancelled => return Self::interrupted(),
        };
        Self { code, error: error.into(), said: false }
    }
}

/// An error with its causes, but for those that it names itself, and the flags that help.
pub fn told(error: &anyhow::Error) -> String {
    let told = error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        match told.contains(&cause) {
            true => told,
            false if told.is_empty() => cause,
            false => format!("{told}: {cause}"),
        }
    });
    match hint(error) {
        Some(hint) => format!("{told} ({hint})"),
        None => told,
    }
}

/// The flags that help against an error of the library, whose texts are the plugin's too and name none.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        let hint = cause.downcast_ref().and_then(of_song);
        hint.or_else(|| cause.downcast_ref().and_then(of_chunk))
            .or_else(|| cause.downcast_ref().and_then(of_model))
            .or_else(|| cause.downcast_ref().and_then(of_device))
            .or_else(|| cause.downcast_ref().and_then(of_kernels))
            .or_else(|| cause.downcast_ref().and_then(of_config))
            .or_else(|| cause.downcast_ref().and_then(of_download))
    })
}

fn of_song(error: &OfflineError) -> Option<&'static str> {
    match error {
        OfflineError::NonFinite { .. } => Some("--non-finite clean"),
        // A transparent error is no link of the chain.
        OfflineError::Separate(error) => of_chunk(error),
        _ => None,
    }
}

fn of_chunk(error: &SeparateError) -> Option<&'static str> {
    match error {
        SeparateError::OutOfMemory { .. } => Some("--chunk, --device cpu"),
        SeparateError::Network { .. } => Some("--batch, --chunk"),
        SeparateError::Shape { .. } => None,
    }
}

fn of_model(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::Precision(_) => Some("--precision"),
        LoadError::Device(error) => of_device(error),
        LoadError::Kernel(error) => of_kernels(error),
        _ => None,
    }
}

fn of_device(error: &DeviceError) -> Option<&'static str> {
    match error {
        DeviceError::NotBuilt("cuda") => Some("--device cpu, or the build of scripts/cuda"),
        DeviceError::NotBuilt(_) | DeviceError::Start { .. } => Some("--device cpu"),
        DeviceError::Unknown(_) => None,
    }
}

fn of_kernels(error: &KernelError) -> Option<&'static str> {
    matches!(error, KernelError::Threads { .. }).then_some("--threads")
}

fn of_config(error: &CompanionError) -> Option<&'static str> {
    matches!(error, CompanionError::Missing { .. }).then_some("--config")
}

fn of_download(error: &FetchError) -> Option<&'static str> {
    let hint = "--offline switched them off; `nullsum-cli models download` fetches it";
    matches!(error, FetchError::Offline { .. }).then_some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_help_are_told_by_the_command_line_and_not_by_the_library() {
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
            assert!(told(&error).contains(flags), "{}", told(&error));
            assert!(error.chain().all(|cause| !cause.to_string().contains("--")), "{error:?}");
        }
        assert_eq!(told(&OfflineError::Cancelled.into()), "cancelled");
    }
}
