//! Live separation: latency, exactness, lateness, recovery, threads, allocations. The models are fakes, since these tests cover the stream.

#![allow(clippy::unwrap_used, reason = "a failure to set up is a failure of the test")]

mod align;
mod context;
mod exact;
mod late;
mod network;
mod realtime;
mod segments;
mod support;
mod threads;
