//! Models in another process, `nullsum-worker`: on a GPU whose driver must not take a host with it, or on the processor, for tests.
//!
//! A [`RemoteModel`] stands for such a model in the live engine. It sends jobs over a local socket ([`channel`]) and shares the memory of their
//! samples ([`memory`]). One worker a device and user serves every instance and every host ([`endpoint`]); it is started when it is needed
//! ([`launch`]) and ends with its last client ([`server`]). If it ends before, the plugin plays the delayed input while a [`Supervisor`] starts it
//! again.

#[cfg(unix)]
pub mod channel;
#[cfg(unix)]
pub mod connection;
#[cfg(unix)]
pub mod daemon;
#[cfg(unix)]
mod device_models;
#[cfg(unix)]
pub mod endpoint;
mod error;
#[cfg(unix)]
pub mod launch;
#[cfg(unix)]
pub mod memory;
pub mod protocol;
#[cfg(unix)]
mod remote_model;
#[cfg(unix)]
pub mod server;
#[cfg(unix)]
mod shared_models;
#[cfg(unix)]
mod supervisor;
#[cfg(unix)]
mod turns;
#[cfg(not(unix))]
mod unsupported;

pub use error::WorkerError;
#[cfg(unix)]
pub use launch::{Launcher, WorkerDevice, devices, known_devices};
#[cfg(unix)]
pub use remote_model::RemoteModel;
#[cfg(unix)]
pub use shared_models::{LoadedRemote, load_shared_remote};
#[cfg(unix)]
pub use supervisor::{RemoteState, RestartPolicy, Supervisor, set_observer};
#[cfg(not(unix))]
pub use unsupported::*;
