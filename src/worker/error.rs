//! What can go wrong between a client and its worker.

/// Why a worker cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// This system is not supported.
    #[error("worker processes are not available on this system")]
    Unsupported,
    /// There is no program to start.
    #[error(
        "the program nullsum-worker was not found: expected it beside the plugin, in {folder}, on PATH, or named by NULLSUM_WORKER"
    )]
    NotFound {
        /// The package's folder.
        folder: String,
    },
    /// No worker runs for this device.
    #[error("no worker runs for {device}")]
    NotRunning {
        /// The device.
        device: String,
    },
    /// The program does not start.
    #[error("{program} does not start: {reason}")]
    Start {
        /// Its path.
        program: String,
        /// What it, or the system, says.
        reason: String,
    },
    /// Worker and plugin are of different versions.
    #[error(
        "the worker that runs is of version {found} (protocol {found_protocol}), this program is of version {expected} (protocol {expected_protocol}); close the other hosts, or install the same version everywhere"
    )]
    Version {
        /// Version of the worker.
        found: String,
        /// Its protocol.
        found_protocol: u32,
        /// Version of this program.
        expected: String,
        /// Its protocol.
        expected_protocol: u32,
    },
    /// The worker does not respond.
    #[error("the worker does not respond")]
    Hung,
    /// The worker has ended, or closed the connection.
    #[error("the worker has ended")]
    Lost,
    /// The worker's messages make no sense.
    #[error("the worker sent {0}")]
    Protocol(String),
    /// The checkpoint cannot be used, on any device.
    #[error("{reason}")]
    InvalidModel {
        /// What is wrong.
        reason: String,
        /// What the checkpoint contains.
        report: Option<String>,
    },
    /// The device does not work.
    #[error("{0}")]
    Device(String),
    /// A request failed; the worker goes on.
    #[error("{reason}")]
    Failed {
        /// What the worker says.
        reason: String,
        /// Whether the device ran out of memory.
        out_of_memory: bool,
    },
    /// The worker was started again since a stream was opened.
    #[error("the worker was started again; the stream begins anew")]
    StreamLost,
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// No shared memory.
    #[error("no memory can be shared with the worker: {0}")]
    Memory(std::io::Error),
    /// The system reports an error.
    #[error("the worker cannot be reached: {0}")]
    Io(#[from] std::io::Error),
}

impl WorkerError {
    /// Whether the connection can be used after this error.
    pub fn is_recoverable(&self) -> bool {
        matches!(
            self,
            Self::InvalidModel { .. }
                | Self::Device(_)
                | Self::Failed { .. }
                | Self::StreamLost
                | Self::Cancelled
                | Self::Memory(_)
        )
    }

    /// Whether another attempt may do better: the worker ended, hung, or did not start.
    pub fn is_crash(&self) -> bool {
        matches!(
            self,
            Self::Hung
                | Self::Lost
                | Self::Protocol(_)
                | Self::Io(_)
                | Self::NotRunning { .. }
                | Self::Start { .. }
        )
    }
}
