//! One file per command.

pub mod bench;
pub mod cache;
pub mod completions;
pub mod convert;
pub mod demo;
pub mod devices;
pub mod env;
pub mod inspect;
pub mod man;
pub mod models;
pub mod separate;
pub mod tiers;
