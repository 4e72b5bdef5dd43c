//! Live separation: latency, exactness, lateness, recovery, threads, allocations. Models are fakes: what is tested is the stream.

mod align;
mod exact;
mod late;
mod realtime;
mod segments;
mod support;
mod threads;
