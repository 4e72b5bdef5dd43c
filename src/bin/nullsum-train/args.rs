//! Command line definition.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use nullsum::model::device::DeviceChoice;
use nullsum::train::teacher::StudentSize;

const EXAMPLES: &str = "\
Examples:
  nullsum-train --data songs --config model.yaml --steps 20000 --out model.safetensors
  nullsum-train --data songs --init model.ckpt --config model.yaml --lr 1e-5 --steps 2000 --out tuned.safetensors
  nullsum-train --data songs --init embedded --freeze 'layers.*' --steps 500 --out tuned.safetensors
  nullsum-train distill --teacher model.ckpt --music albums --cache stems --size medium --out live.safetensors

A song is a folder with one file a stem, named as in the YAML's training.instruments (drums.wav, vocals.flac, ...).
A run that was interrupted goes on when the same command is given again: its state is beside --out.";

/// Trains and fine-tunes BS-RoFormer and Mel-Band RoFormer models.
#[derive(Debug, Parser)]
#[command(
    name = "nullsum-train",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES,
    max_term_width = 110
)]
pub struct Cli {
    /// The command; training if none is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of training.
    #[command(flatten)]
    pub train: TrainArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a small model on the stems that a large one finds in music without stems
    Distill(Box<DistillArgs>),
}

/// Options of training.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Folder of songs with their stems
    #[arg(long, value_name = "FOLDER", required = true, value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Folder of songs to validate on
    #[arg(long, value_name = "FOLDER", conflicts_with = "holdout", value_hint = ValueHint::DirPath)]
    pub validation: Option<PathBuf>,
    /// Songs of --data that are never trained on, but validated on
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub holdout: Vec<String>,
    /// Take a stem that a song lacks for silence
    #[arg(long)]
    pub missing_is_silence: bool,
    /// Checkpoint to fine-tune, or `embedded`
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub init: Option<PathBuf>,
    /// YAML of the model, in the layout of Music-Source-Separation-Training
    #[arg(long, value_name = "YAML", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Parameters that stay as they are: names, in which * stands for any text
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub freeze: Vec<String>,
    /// Options that training and distillation share.
    #[command(flatten)]
    pub run: RunArgs,
    /// Share of examples whose stems come from different songs
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub remix: f32,
    /// Share of stems that are left out of an example
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub drop: f32,
}

/// Options of any run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The checkpoint to write, .safetensors
    #[arg(long, short, value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// State of the run, from which it goes on; by default --out with the extension .state
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub state: Option<PathBuf>,
    /// Steps of the whole run
    #[arg(long, default_value_t = 1000)]
    pub steps: u64,
    /// Examples a batch
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Batches a step
    #[arg(long, default_value_t = 1)]
    pub accumulate: u64,
    /// Length of an example in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub crop: f64,
    /// Learning rate of AdamW
    #[arg(long, default_value_t = 1e-3)]
    pub lr: f64,
    /// Learning rate of Muon, which then takes the matrices of the transformers; without it AdamW takes all
    #[arg(long)]
    pub muon_lr: Option<f64>,
    /// Steps over which the learning rate rises
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    pub warmup: u64,
    /// Share of the steps at the end over which it falls to 0
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub decay: f64,
    /// Longest gradient
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub clip: f64,
    /// Momentum of the averaged parameters, which are what is written; 0 keeps no average
    #[arg(long, value_name = "MOMENTUM", default_value_t = 0.998)]
    pub average: f64,
    /// Decay of the weights
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Largest change of a stem's level in dB
    #[arg(long, value_name = "DB", default_value_t = 6.0)]
    pub gain_db: f32,
    /// Share of stems whose polarity is inverted
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub invert: f32,
    /// Share of stems whose channels are swapped
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub swap: f32,
    /// Seed of new parameters and of all examples
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Steps between two validations; 0 validates only at the end
    #[arg(long, value_name = "STEPS", default_value_t = 500)]
    pub validate_every: u64,
    /// Seconds between two state files
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub save_every: u64,
    /// Settings of the loss.
    #[command(flatten)]
    pub loss: LossArgs,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Threads; 0 takes one a processor
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// One JSON object a line on standard output
    #[arg(long)]
    pub json: bool,
    /// No output but errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Settings of the loss; by default the YAML's, or the references'.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loss")]
pub struct LossArgs {
    /// Weight of the STFT terms
    #[arg(long, value_name = "WEIGHT")]
    pub stft_weight: Option<f32>,
    /// Window lengths in samples
    #[arg(long, value_name = "SAMPLES", value_delimiter = ',')]
    pub stft_windows: Vec<usize>,
    /// Distance of two frames in samples; the references' 147 costs more than a small model
    #[arg(long, value_name = "SAMPLES")]
    pub stft_hop: Option<usize>,
    /// Fewest points of a transform; by default the model's n_fft
    #[arg(long, value_name = "POINTS")]
    pub stft_n_fft: Option<usize>,
    /// Count the samples after the last whole hop too
    #[arg(long)]
    pub whole_crop: bool,
}

/// Options of distillation.
#[derive(Debug, Args)]
pub struct DistillArgs {
    /// Checkpoint of the teacher, or `embedded`; several of different stems are combined
    #[arg(long, value_name = "MODEL", required = true, value_hint = ValueHint::FilePath)]
    pub teacher: Vec<PathBuf>,
    /// YAML of each teacher, in their order, where it is not beside or in the checkpoint
    #[arg(long, value_name = "YAML", value_hint = ValueHint::FilePath)]
    pub teacher_config: Vec<PathBuf>,
    /// Folder of music
    #[arg(long, value_name = "FOLDER", required = true, value_hint = ValueHint::DirPath)]
    pub music: PathBuf,
    /// Folder for the teacher's stems, about 1.4 MB a second for four stems
    #[arg(long, value_name = "FOLDER", required = true, value_hint = ValueHint::DirPath)]
    pub cache: PathBuf,
    /// Songs of --music that are never trained on, but validated on: paths from it, without extension
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub holdout: Vec<String>,
    /// Size of the student
    #[arg(long, value_enum, default_value = "medium", conflicts_with_all = ["config", "init"])]
    pub size: SizeArg,
    /// YAML of the student, instead of a size
    #[arg(long, value_name = "YAML", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Checkpoint that the student begins with, instead of random parameters
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub init: Option<PathBuf>,
    /// Options that training and distillation share.
    #[command(flatten)]
    pub run: RunArgs,
}

/// A student's size, against the embedded model's work.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SizeArg {
    /// A quarter
    Tiny,
    /// Half
    Small,
    /// The same
    Medium,
    /// Three times as much
    Large,
}

impl From<SizeArg> for StudentSize {
    fn from(size: SizeArg) -> Self {
        match size {
            SizeArg::Tiny => Self::Tiny,
            SizeArg::Small => Self::Small,
            SizeArg::Medium => Self::Medium,
            SizeArg::Large => Self::Large,
        }
    }
}
