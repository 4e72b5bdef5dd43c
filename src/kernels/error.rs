//! Errors of the kernels: wrong sizes, missing instruction sets, no threads.

/// Why a kernel cannot be built or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice of the wrong length.
    #[error(
        "{what} holds {found} values, expected {expected} from the other shapes; check the sizes given with it"
    )]
    Size {
        /// The tensor or argument.
        what: String,
        /// The length it should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A size that no kernel accepts.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// The argument.
        what: String,
        /// The values it may have.
        expected: String,
        /// The value it has.
        found: usize,
    },
    /// An instruction set that this processor or this build lacks.
    #[error(
        "this processor cannot run the {isa} kernels; unset NULLSUM_KERNEL or set it to one of: {available}"
    )]
    Unavailable {
        /// The requested instruction set.
        isa: String,
        /// The available instruction sets.
        available: String,
    },
    /// The environment variable names no known instruction set.
    #[error("NULLSUM_KERNEL={found} is unknown; use one of: {available}")]
    UnknownIsa {
        /// The name.
        found: String,
        /// The available instruction sets.
        available: String,
    },
    /// The pass was cancelled by its [`JobControl`](super::JobControl).
    #[error("the computation was cancelled")]
    Cancelled,
    /// The operating system refused threads.
    #[error("cannot start {threads} worker threads: {reason}; try fewer")]
    Threads {
        /// The requested number.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

impl KernelError {
    /// An error unless `found` is `expected`.
    pub(crate) fn check(what: &str, expected: usize, found: usize) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Self::Size { what: what.to_owned(), expected, found }) }
    }
}
