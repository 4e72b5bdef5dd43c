//! Models in worker processes: the same bits as in this process, and what happens when a worker, a client or the memory fails.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "helpers of tests; a failure is a failed test"
)]

mod exact;
mod faults;
mod hostile;
mod lifecycle;
mod playback;
mod support;
