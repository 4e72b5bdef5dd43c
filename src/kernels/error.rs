//! What can be wrong with the arguments of a kernel.

/// Why a kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice of the wrong length.
    #[error(
        "{what} holds {found} values where the other shapes ask for {expected}; check the sizes given with it"
    )]
    Size {
        /// The tensor or argument.
        what: String,
        /// The length it should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A size no kernel takes.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// The argument.
        what: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: usize,
    },
    /// An instruction set this processor, or this build, does not have.
    #[error(
        "this processor cannot run the {isa} kernels; unset NULLSUM_KERNEL or set it to one of: {available}"
    )]
    Unavailable {
        /// The instruction set asked for.
        isa: String,
        /// Those there are.
        available: String,
    },
    /// A name that means no instruction set.
    #[error("NULLSUM_KERNEL={found} is unknown; use one of: {available}")]
    UnknownIsa {
        /// The name.
        found: String,
        /// Those there are.
        available: String,
    },
    /// The operating system refused threads.
    #[error("cannot start {threads} worker threads: {reason}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

impl KernelError {
    /// An error unless `found` is `expected`.
    pub(super) fn check(what: &str, expected: usize, found: usize) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Self::Size { what: what.to_owned(), expected, found }) }
    }
}
