//! The public interface, re-exported at the crate's root.

mod audio;
mod error;
mod live;
mod model;
mod stems;

pub use audio::Audio;
pub use error::{Error, Result};
pub use live::{LiveOptions, LiveStream};
pub use model::{Inspection, Model, ModelOptions, Report};
pub use stems::Stems;
