//! BS-RoFormer and Mel-Band RoFormer: configuration, weights, network.

pub mod checkpoint;
pub mod config;
pub mod convert;
