//! Exit codes, and errors that carry one.

use nullsum::offline::error::OfflineError;

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

/// The code of a song that could not be separated.
pub fn code_of(error: &OfflineError) -> Code {
    match error {
        OfflineError::Audio(_) | OfflineError::Spool { .. } | OfflineError::NonFinite { .. } => Code::Io,
        OfflineError::UnknownStem { .. } | OfflineError::Options { .. } => Code::Usage,
        OfflineError::Cancelled => Code::Interrupted,
        OfflineError::Separate(_) => Code::Failed,
    }
}
