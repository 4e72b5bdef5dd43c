//! Command line definition.

pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use nullsum::model::device::DeviceChoice;
use nullsum::offline::mix::Mix;
use nullsum::offline::template::OutputTemplate;
use nullsum::separator::Runtime;

use values::{
    Bits, Cascade, ChunkLength, FileType, LosslessArg, ModelType, NonFinite, PcmType, PrecisionArg, Shard,
};

const EXAMPLES: &str = "\
Examples:
  nullsum-cli song.wav                           separate a song into ./output
  nullsum-cli --model embedded song.wav          use the built-in model, without a download
  nullsum-cli -o stems --format flac music/      separate a folder and keep its tree
  nullsum-cli --mix \"vocals=mute\" song.mp3       write a remix as well
  nullsum-cli --model my.ckpt --config my.yaml song.wav
  nullsum-cli demo                               compose a short piece and separate it

Option names may be written with underscores (--output_folder). To separate a file whose name is a command,
write ./inspect.

Exit codes:
  0    success
  1    some files failed or are damaged; each has a message of its own
  2    the command line is wrong
  3    the model cannot be loaded
  4    the input cannot be read or the output cannot be written
  130  interrupted by Ctrl-C (143 by SIGTERM); no stem is left unfinished";

/// Music source separation that loses nothing: the stems sum to the song exactly.
#[derive(Debug, Parser)]
#[command(
    name = "nullsum-cli",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES,
    max_term_width = 110
)]
pub struct Cli {
    /// The command; separation if none is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of separation.
    #[command(flatten)]
    pub separate: SeparateArgs,
    /// Print what is loaded, chosen and downloaded on standard error; -vv prints details
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Separate songs into stems (the default command)
    #[command(after_help = EXAMPLES)]
    Separate(Box<SeparateArgs>),
    /// Describe a checkpoint: architecture, cost, and problems that keep it from loading
    Inspect(InspectArgs),
    /// Write a checkpoint as one safetensors file with its configuration inside
    Convert(ConvertArgs),
    /// List the known models, download them, or print their paths
    Models(ModelsArgs),
    /// Prepare songs for the plugin, and list, export or erase prepared stems
    Cache(CacheArgs),
    /// Time the whole pass, from waveform to stems
    Bench(BenchArgs),
    /// Measure latency, load and quality of the plugin's tiers on this device
    Tiers(TiersArgs),
    /// Compose a short piece, separate it and measure the result
    Demo(DemoArgs),
    /// List the devices that this build can use
    Devices(DevicesArgs),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Print the environment variables that Nullsum reads
    #[command(hide = true)]
    Env,
    /// Print the man page
    #[command(hide = true)]
    Man,
}

/// Options that choose the model.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A name of `models`, a checkpoint file, or `embedded` [default for songs: the first of `models`; for demo and
    /// tiers: embedded; for bench: random weights]
    #[arg(long, alias = "start-check-point", value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub model: Option<PathBuf>,
    /// The checkpoint's YAML [default: inside the checkpoint, or beside it]
    #[arg(long, alias = "config-path", value_name = "YAML", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Family of the network, if YAML and tensors do not determine it
    #[arg(long, value_name = "FAMILY")]
    pub model_type: Option<ModelType>,
    /// Which network of a file with several: the keys and prefix that lead to it, such as `ema` or `state_dict.student`
    #[arg(long, value_name = "PREFIX")]
    pub weights: Option<String>,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
}

/// Arguments of `cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do; `list` if nothing is given.
    #[command(subcommand)]
    pub command: Option<CacheCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Commands of `cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List prepared stems, the ones used last first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Separate songs as the plugin does in the background; it finds their stems by the content of the audio
    Prepare {
        /// The songs
        #[arg(required = true, value_name = "SONG", value_hint = ValueHint::FilePath)]
        songs: Vec<PathBuf>,
        /// Sample rate of the project in Hz [default: that of each song]
        #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(8_000..=384_000))]
        rate: Option<u32>,
        /// Chunks that cover each sample on average, 1 to 64 [default: the model's]
        #[arg(long, value_name = "N")]
        overlap: Option<f64>,
        /// How the residual is distributed
        #[arg(long, default_value = "spectral", value_name = "MODE")]
        lossless: LosslessArg,
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Write prepared stems as WAV files that a host places where the song was
    Export {
        /// Name of the entry, as `list` prints it
        id: String,
        /// Folder of the files
        #[arg(long, short, default_value = "output", value_hint = ValueHint::DirPath)]
        output: PathBuf,
    },
    /// Erase prepared stems from this computer
    Erase {
        /// Names of entries, as `list` prints them
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Erase everything that is not in use
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Print the size limit, or set it and erase the oldest stems beyond it
    Limit {
        /// Gigabytes, such as 20 or 2.5
        #[arg(value_name = "GB")]
        gigabytes: Option<f64>,
    },
}

/// Options that choose device, precision and threads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Device")]
pub struct RunArgs {
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// CUDA devices by number; songs are distributed over all of them
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub device_ids: Vec<usize>,
    /// Run on the CPU even if there is a GPU
    #[arg(long)]
    pub force_cpu: bool,
    /// Number format of the network
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    pub precision: PrecisionArg,
    /// CPU threads [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl RunArgs {
    /// Runtime of the first device.
    pub fn runtime(&self) -> Runtime {
        Runtime {
            device: self.devices()[0],
            threads: self.threads.map_or(0, usize::from),
            precision: self.precision.into(),
            ..Runtime::default()
        }
    }

    /// One runtime per device.
    pub fn runtimes(&self) -> Vec<Runtime> {
        let runtime = self.runtime();
        self.devices().into_iter().map(|device| Runtime { device, ..runtime }).collect()
    }

    /// The devices that the options select, at least one.
    fn devices(&self) -> Vec<DeviceChoice> {
        self.chosen(|| DeviceChoice::Cuda(0).open().is_ok())
    }

    fn chosen(&self, cuda_starts: impl Fn() -> bool) -> Vec<DeviceChoice> {
        let cuda = match self.device {
            _ if self.force_cpu || self.device_ids.is_empty() => false,
            DeviceChoice::Cuda(_) => true,
            // The reference program passes 0 on machines without CUDA too.
            DeviceChoice::Auto => cuda_starts(),
            DeviceChoice::Cpu | DeviceChoice::Metal => false,
        };
        if !cuda {
            return vec![if self.force_cpu { DeviceChoice::Cpu } else { self.device }];
        }
        let mut ids = self.device_ids.clone();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(DeviceChoice::Cuda).collect()
    }
}

/// Options for messages.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Messages")]
pub struct MessageArgs {
    /// Print warnings and errors only
    #[arg(long, short)]
    pub quiet: bool,
    /// Print JSON events on standard output, one object per line
    #[arg(long)]
    pub json: bool,
    /// Print plain lines instead of progress bars
    #[arg(long)]
    pub disable_detailed_pbar: bool,
}

/// Options of separation.
#[derive(Debug, Clone, Args)]
pub struct SeparateArgs {
    /// Songs: files, folders (searched recursively), patterns such as "*.flac", or - for standard input
    #[arg(value_name = "INPUT", value_hint = ValueHint::AnyPath)]
    pub inputs: Vec<PathBuf>,
    /// One more folder of songs [default: ./input when no INPUT is given]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub input_folder: Option<PathBuf>,
    /// Folder for the stems
    #[arg(long, short, alias = "output-folder", default_value = "output", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,

    #[command(flatten)]
    pub model: ModelArgs,
    /// Average the stems of several models, separated by commas; they must have the same stems
    #[arg(long, value_name = "MODEL,…", help_heading = "Model", value_delimiter = ',', conflicts_with_all = ["model", "config"])]
    pub ensemble: Vec<PathBuf>,
    /// Separate a stem further with another model, as in vocals:lead-backing.ckpt; may be given several times
    #[arg(long, value_name = "STEM:MODEL", help_heading = "Model")]
    pub then: Vec<Cascade>,
    #[command(flatten)]
    pub run: RunArgs,

    #[command(flatten)]
    pub quality: QualityArgs,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub printer: MessageArgs,
}

/// Options for the separation.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Separation")]
pub struct QualityArgs {
    /// Distribute the residual to the stems so that they sum to the song exactly: spectral, hybrid or off
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "spectral", default_missing_value = "spectral", value_name = "MODE")]
    pub lossless: LosslessArg,
    /// The same as --lossless=off
    #[arg(long, overrides_with = "lossless")]
    pub disable_lossless: bool,
    /// Number of chunks that cover each sample, 1 to 64; 1.25 is a fifth of overlap, and 1 leaves a short crossfade
    /// [default: the model's]
    #[arg(long, value_name = "N", value_parser = values::overlap)]
    pub overlap: Option<f64>,
    /// Length of a chunk in seconds (8s) or samples (352800) [default: the model's]
    #[arg(long, value_name = "LENGTH")]
    pub chunk: Option<ChunkLength>,
    /// Chunks per batch [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Option<u16>,
    /// Test-time augmentation: average with swapped channels and inverted polarity (three times the work)
    #[arg(long, alias = "use-tta")]
    pub tta: bool,
    /// Average over N circular shifts of the song (N times the work)
    #[arg(long, alias = "bigshifts", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub big_shifts: Option<u16>,
    /// Standardise the song first [default: the model's]
    #[arg(long, overrides_with = "no_normalize")]
    pub normalize: bool,
    /// Do not standardise the song first
    #[arg(long, overrides_with = "normalize")]
    pub no_normalize: bool,
    /// Samples that are NaN or infinite: clean or refuse
    #[arg(long, default_value = "clean", value_name = "WHAT")]
    pub non_finite: NonFinite,
}

/// Options for the output files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct FileArgs {
    /// Stems to write, separated by commas; `instrumental` is the song without vocals, `none` leaves only --mix
    /// [default: all]
    #[arg(long, value_delimiter = ',', value_name = "STEM,…")]
    pub stems: Option<Vec<String>>,
    /// Also write the song without vocals
    #[arg(long)]
    pub extract_instrumental: bool,
    /// Write nothing but the song without vocals
    #[arg(long, conflicts_with = "stems")]
    pub instrumental_only: bool,
    /// Also write a remix, as in "vocals=-6dB,drums=mute"
    #[arg(long, value_name = "STEM=GAIN,…", allow_hyphen_values = true)]
    pub mix: Option<Mix>,
    /// File type: wav, flac, or stem.m4a (one file with the song and four stems, for DJ software)
    #[arg(long, default_value = "wav", value_name = "TYPE")]
    pub format: FileType,
    /// The same as --format flac
    #[arg(long)]
    pub flac_file: bool,
    /// Bits per sample: 16, 24 or float [default: as the input]
    #[arg(long, value_name = "BITS", conflicts_with = "pcm_type")]
    pub bits: Option<Bits>,
    /// The same as --bits, in the reference program's words: PCM_16, PCM_24 or FLOAT
    #[arg(long, value_name = "TYPE")]
    pub pcm_type: Option<PcmType>,
    /// File names: {name}, {stem}, {model} and {ext} (extension of the input) are replaced; / makes folders
    #[arg(long, default_value = "{name}_{stem}", value_name = "TEXT")]
    pub template: OutputTemplate,
    /// Leave tags, cover art and production chunks out; later runs cannot recognise such stems as theirs
    #[arg(long)]
    pub no_metadata: bool,
    /// Where in the song to start, in seconds or m:ss; the music before it is still heard as context
    #[arg(long, value_name = "TIME", value_parser = values::position)]
    pub start: Option<f64>,
    /// Where in the song to end, in seconds or m:ss
    #[arg(long, value_name = "TIME", value_parser = values::position)]
    pub end: Option<f64>,
    /// Write one set of stems for each part between the cue points of a WAV file
    #[arg(long, conflicts_with_all = ["start", "end"])]
    pub segments: bool,
    /// Also write a summary with all songs, warnings and errors to a JSON file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub report: Option<PathBuf>,
    /// Replace existing files (the default)
    #[arg(long, overrides_with = "skip_existing")]
    pub overwrite: bool,
    /// Skip songs whose output files all exist
    #[arg(long)]
    pub skip_existing: bool,
    /// Separate only share I of N of the songs, as in 1/8
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Continue with the next song after an error (the default)
    #[arg(long, overrides_with = "fail_fast")]
    pub keep_going: bool,
    /// Stop at the first error
    #[arg(long)]
    pub fail_fast: bool,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A checkpoint file, the name of a downloaded model, or `embedded`
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The checkpoint's YAML
    #[arg(long, alias = "config-path", value_name = "YAML", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Family of the network, if YAML and tensors do not determine it
    #[arg(long, value_name = "FAMILY")]
    pub model_type: Option<ModelType>,
    /// Which network of a file with several: the keys and prefix that lead to it
    #[arg(long, value_name = "PREFIX")]
    pub weights: Option<String>,
    /// Read all weights and report those that are not finite
    #[arg(long)]
    pub values: bool,
}

/// Options of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The checkpoint
    #[arg(value_name = "IN", value_hint = ValueHint::FilePath)]
    pub input: PathBuf,
    /// The safetensors file to write
    #[arg(value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// The checkpoint's YAML
    #[arg(long, alias = "config-path", value_name = "YAML", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Number type of the new file
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    pub dtype: Dtype,
    /// Family of the network, if YAML and tensors do not determine it
    #[arg(long, value_name = "FAMILY")]
    pub model_type: Option<ModelType>,
    /// Which network of a file with several: the keys and prefix that lead to it
    #[arg(long, value_name = "PREFIX")]
    pub weights: Option<String>,
    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Number types that `convert` writes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// 32 bits
    F32,
    /// 16 bits: half the size
    F16,
    /// 8 bits: a quarter of the size, 30 to 40 dB from the source
    Int8,
}

/// Options of `models`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ModelsArgs {
    #[command(subcommand)]
    pub command: Option<ModelsCommand>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Commands of `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List them (the default)
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// Only models for this task: stems, vocals, instrumental, karaoke, singers, guitar, dereverb, denoise, debleed,
        /// crowd, breath or other
        #[arg(long)]
        task: Option<nullsum::registry::Task>,
        /// Sort by the score in this benchmark, the best first
        #[arg(long, value_name = "BENCHMARK")]
        sort: Option<String>,
    },
    /// Download models into the cache
    Download {
        /// Names of the models
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        printer: MessageArgs,
    },
    /// Print the cache folder, or the path of a downloaded model
    Path {
        /// Name of the model
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// An architecture with seeded random weights (default), or the embedded model
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub arch: Option<ArchArg>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Seconds of audio in the pass
    #[arg(long, default_value = "8", value_name = "SECONDS", value_parser = values::seconds)]
    pub seconds: f64,
    /// Measured passes; the median is reported
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Passes before the measurement
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub warmup: u32,
    /// Seed of weights and noise
    #[arg(long, default_value = "0")]
    pub seed: u64,
    /// Write the chunk and its stems as raw f32, channel after channel, without mask completion
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub stems: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Options of `tiers`.
#[derive(Debug, Clone, Args)]
pub struct TiersArgs {
    /// A song to measure quality on [default: the piece that `demo` composes]
    #[arg(value_name = "SONG", value_hint = ValueHint::FilePath)]
    pub song: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Seconds of the song
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = values::seconds)]
    pub seconds: f64,
    /// Start position in the song, in seconds
    #[arg(long, default_value = "0.0", value_name = "SECONDS")]
    pub start: f64,
    /// True stems of the song, named as the model names them (drums.wav, vocals.flac, ...), to measure against as well. Without a
    /// SONG it is the folder's `mixture` file, or the sum of all its files
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub stems: Option<PathBuf>,
    /// Measure every combination of windows, hops and lookaheads instead of the tiers: windows
    #[arg(long, value_name = "SECONDS,...", value_delimiter = ',', value_parser = values::seconds)]
    pub windows: Vec<f64>,
    /// Hops of the combinations
    #[arg(long, value_name = "SECONDS,...", value_delimiter = ',', value_parser = values::seconds)]
    pub hops: Vec<f64>,
    /// Lookaheads of the combinations
    #[arg(long, value_name = "SECONDS,...", value_delimiter = ',', value_parser = values::seconds)]
    pub lookaheads: Vec<f64>,
    /// Only predict latency and load, from the speed of this machine, for a network that need not be here: `default`, `embedded`, or a
    /// name of `models`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["song", "model", "stems"])]
    pub arch: Option<String>,
    /// The host's sample rate in Hz
    #[arg(long, default_value = "48000", value_name = "HZ", value_parser = clap::value_parser!(u32).range(8_000..=192_000))]
    pub rate: u32,
    /// The host's largest block
    #[arg(long, default_value = "512", value_name = "SAMPLES", value_parser = clap::value_parser!(u16).range(1..))]
    pub block: u16,
    /// One JSON object a tier on standard output
    #[arg(long)]
    pub json: bool,
}

/// Architectures that `bench` knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArchArg {
    /// The reference's default checkpoint: dim 384, depth 8, 62 bands, 4 stems
    Default,
    /// The embedded model
    Embedded,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Folder for the piece and its stems
    #[arg(long, short, alias = "output-folder", default_value = "demo", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// Seed of the piece
    #[arg(long, default_value = "1")]
    pub seed: u64,
    #[command(flatten)]
    pub printer: MessageArgs,
}

/// Options of `devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Accepts the reference program's spellings: underscores in option names become hyphens, and the numbers after
/// `--device_ids` are joined, so that a song after them is still an input.
pub fn normalize_args(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut normalized = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            normalized.push(arg);
            break;
        }
        let Some(option) = arg.to_str().filter(|text| text.starts_with("--")) else {
            normalized.push(arg);
            continue;
        };
        let (name, value) = option.split_at(option.find('=').unwrap_or(option.len()));
        let name = name.replace('_', "-");
        let is_number = |arg: &OsString| {
            arg.to_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        };
        if name == "--device-ids" && value.is_empty() {
            let mut ids = Vec::new();
            while let Some(id) = args.next_if(is_number) {
                ids.push(id.to_string_lossy().into_owned());
            }
            if !ids.is_empty() {
                normalized.push(format!("{name}={}", ids.join(",")).into());
                continue;
            }
        }
        normalized.push((name + value).into());
    }
    normalized.extend(args);
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Cli {
        let args = std::iter::once("nullsum-cli").chain(line.iter().copied()).map(OsString::from);
        Cli::try_parse_from(normalize_args(args)).unwrap()
    }

    #[test]
    fn the_definition_is_valid() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_references_command_lines_parse() {
        let cli = parse(&[
            "song.wav",
            "--model_type",
            "mel_band_roformer",
            "--config_path",
            "a.yaml",
            "--start_check_point",
            "a.ckpt",
            "--output_folder",
            "out",
            "--input_folder",
            "in",
            "--extract_instrumental",
            "--disable_detailed_pbar",
            "--force_cpu",
            "--flac_file",
            "--pcm_type",
            "PCM_24",
            "--use_tta",
            "--disable-lossless",
        ]);
        let args = cli.separate;
        assert_eq!(args.inputs, [PathBuf::from("song.wav")]);
        assert_eq!(args.output, PathBuf::from("out"));
        assert_eq!(args.input_folder, Some("in".into()));
        assert_eq!((args.model.model, args.model.config), (Some("a.ckpt".into()), Some("a.yaml".into())));
        assert!(args.files.flac_file && args.files.extract_instrumental && args.quality.tta);
        assert!(args.quality.disable_lossless && args.run.devices() == [DeviceChoice::Cpu]);
    }

    #[test]
    fn a_song_after_lossless_or_device_ids_is_an_input() {
        assert_eq!(parse(&["--lossless", "song.wav"]).separate.inputs, [PathBuf::from("song.wav")]);
        let cli = parse(&["--device_ids", "0", "1", "song.wav"]);
        assert_eq!(cli.separate.inputs, [PathBuf::from("song.wav")]);
        assert_eq!(cli.separate.run.device_ids, [0, 1]);
        let hybrid = parse(&["--lossless=hybrid", "a.wav"]);
        assert_eq!(hybrid.separate.quality.lossless, LosslessArg::Hybrid);
    }

    #[test]
    fn device_ids_select_cuda_if_it_starts() {
        let devices = |line: &[&str], starts: bool| parse(line).separate.run.chosen(|| starts);
        let ids = ["--device_ids", "1", "0", "1", "song.wav"];
        assert_eq!(devices(&ids, true), [DeviceChoice::Cuda(0), DeviceChoice::Cuda(1)]);
        assert_eq!(devices(&ids, false), [DeviceChoice::Auto]);
        assert_eq!(devices(&[&ids[..], &["--force-cpu"]].concat(), true), [DeviceChoice::Cpu]);
        assert_eq!(devices(&["--device", "cpu", "--device-ids", "0"], true), [DeviceChoice::Cpu]);
        // Asked for by name, it must start.
        assert_eq!(devices(&["--device", "cuda", "--device-ids", "2"], false), [DeviceChoice::Cuda(2)]);
        assert_eq!(devices(&["--device", "cuda:3"], false), [DeviceChoice::Cuda(3)]);
        assert_eq!(devices(&["song.wav"], true), [DeviceChoice::Auto]);
    }

    #[test]
    fn files_named_like_commands_can_be_given() {
        assert!(parse(&["./inspect"]).command.is_none());
        assert_eq!(parse(&["a.wav", "bench"]).separate.inputs.len(), 2);
        assert_eq!(parse(&["--", "--a_b"]).separate.inputs, [PathBuf::from("--a_b")]);
        assert!(matches!(parse(&["bench"]).command, Some(Command::Bench(_))));
    }
}
