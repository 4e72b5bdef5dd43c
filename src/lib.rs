//! Music source separation that loses nothing: the stems sum to exactly the mixture.
//!
//! # Nouns
//!
//! - A [`Model`] is a network with its weights: a BS-RoFormer or Mel-Band RoFormer checkpoint, or the small one that is part of the program.
//! - [`Audio`] holds samples in memory; the *mixture* is the audio to separate.
//! - A *stem* is one separated part, such as vocals. [`Stems`] holds all of them.
//! - [`Options`] say how a song is separated. The defaults follow the model.
//! - A [`LiveStream`] separates block by block with constant latency.
//!
//! # From file to files
//!
//! ```no_run
//! use nullsum::{Model, Options};
//!
//! let mut model = Model::open("my.ckpt")?; // finds my.yaml beside it
//! let report = model.separate_file("song.flac", "stems", &Options::default())?;
//! for file in &report.files {
//!     println!("{}", file.display());
//! }
//! # Ok::<(), nullsum::Error>(())
//! ```
//!
//! # In memory
//!
//! ```
//! use nullsum::{Audio, Model};
//!
//! let mixture = Audio::new(vec![vec![0.25; 44_100]; 2], 44_100)?;
//! let stems = Model::embedded()?.separate(&mixture)?;
//! let sum: f32 = stems.iter().map(|(_, audio)| audio.channel(0)[1_000]).sum();
//! assert_eq!(sum, 0.25);
//! # Ok::<(), nullsum::Error>(())
//! ```
//!
//! # Live
//!
//! [`LiveStream`] has an example. The audio thread calls [`LiveStream::process`], which never allocates, locks or waits.
//!
//! # Cargo features
//!
//! `default-features = false` leaves out the command line, downloads and the embedded model. `embedded` adds the embedded model, `cuda`, `metal`, `accelerate` and
//! `mkl` are candle's back ends. `train` adds the module `train` and the program `nullsum-train`.
//!
//! Everything outside this page serves the programs and tests of this package and may change in any version.

mod api;
#[doc(hidden)]
pub mod atomic_file;
#[doc(hidden)]
pub mod audio;
mod cache_file;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod dsp;
#[doc(hidden)]
pub mod embedded;
#[doc(hidden)]
pub mod environment;
mod hash;
#[doc(hidden)]
pub mod kernels;
#[doc(hidden)]
pub mod live;
#[doc(hidden)]
pub mod live_cost;
#[doc(hidden)]
pub mod lossless;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod offline;
#[cfg(feature = "plugin")]
#[doc(hidden)]
pub mod plugin;
#[doc(hidden)]
pub mod prepared;
#[doc(hidden)]
pub mod registry;
#[doc(hidden)]
pub mod separator;
#[cfg(feature = "train")]
pub mod train;
#[doc(hidden)]
pub mod worker;

pub use api::{
    Audio, Error, Inspection, LiveOptions, LiveStream, Model, ModelOptions, Report, Result, Stems,
};
pub use audio::{Container, SampleFormat};
pub use live::Tier;
pub use lossless::LosslessMode;
pub use model::device::DeviceChoice;
pub use model::precision::Precision;
pub use offline::mix::Mix;
pub use offline::options::{RenderOptions as Options, TimeRange};
pub use offline::template::OutputTemplate;
