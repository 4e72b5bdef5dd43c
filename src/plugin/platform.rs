//! Code for one window system or operating system.

pub(super) mod window_threads;
pub(super) mod x11;
