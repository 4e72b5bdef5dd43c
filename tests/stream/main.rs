//! Live separation: latency, exactness, lateness, recovery, threads, allocations. Models are fakes: what is tested is the stream.

#![allow(clippy::unwrap_used, reason = "a failure to set up is a failure of the test")]

mod align;
mod exact;
mod late;
mod network;
mod realtime;
mod segments;
mod support;
mod threads;
