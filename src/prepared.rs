//! Prepared stems: a song is separated once, in the background, at full quality, and its stems are played from disk from then on.
//!
//! ```text
//! audio thread ─ exchange ─→ player ──→ recording ──→ job: separate in the background ──→ store
//!              ←─ stems ────   ↑ matching, alignment, song ←─────────────────────────────────┘
//! ```
//!
//! - The [`store`] is a folder of [`entries`](entry): the audio, its stems, checksums, an index. It has a size limit.
//! - The [`player`] compares what arrives with what was prepared, and plays stems only where it is the same. Unknown audio goes to the [`recording`].
//! - A [`job`] separates a recording or a file as the command line does.

pub mod align;
pub mod block;
pub mod entry;
pub mod error;
pub mod exchange;
pub mod export;
pub mod file;
pub mod job;
pub mod key;
pub mod matching;
pub mod placement;
pub mod player;
pub mod ranges;
pub mod recording;
pub mod song;
pub mod store;
