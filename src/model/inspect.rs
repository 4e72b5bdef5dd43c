//! A report on a checkpoint file, without running the network.

use std::collections::BTreeSet;
use std::fmt;

use super::architecture::{Architecture, ArchitectureError, Family, HyperAceVersion, MaskKind};
use super::checkpoint::{Checkpoint, TensorView};
use super::config::Config;
use super::context::{ContextMemory, kept_context_unsupported};
use super::fused::unsupported_feature;

/// A report on a checkpoint and its configuration. Displays as text.
#[derive(Debug)]
pub struct Inspection {
    /// The checkpoint's path.
    pub origin: String,
    /// Container: PyTorch archive or safetensors.
    pub format: String,
    /// Dict keys that lead to the weights, where they are wrapped.
    pub wrapper: Option<String>,
    /// Prefix removed from every name.
    pub prefix: String,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Number of tensors in the file.
    pub tensors: usize,
    /// Number of their elements.
    pub elements: usize,
    /// Element types, with the number of tensors of each.
    pub dtypes: Vec<(String, usize)>,
    /// The network, or why it cannot be built.
    pub architecture: Result<Architecture, ArchitectureError>,
    /// Stem names in the YAML.
    pub stems: Vec<String>,
    /// Sample rate in Hz.
    pub sample_rate: u32,
    /// Samples per chunk, where the YAML states it.
    pub chunk: Option<usize>,
    /// Keys under `model` in the YAML that are unknown here.
    pub unknown_options: Vec<String>,
    /// Warnings about the YAML.
    pub warnings: Vec<String>,
    /// Names of other complete networks in the file.
    pub alternatives: Vec<String>,
    /// Names of tensors that do not belong to the network.
    pub leftovers: Vec<String>,
    /// Weights whose number type cannot be used, with the type.
    pub unusable: Vec<(String, String)>,
    /// Weights that cannot be read or are not finite; `None` where they were not read.
    pub values: Option<Vec<String>>,
}

impl Inspection {
    /// Inspects `checkpoint` with the configuration `config`.
    pub fn new(checkpoint: &Checkpoint, config: &Config, family: Option<Family>) -> Self {
        let mut dtypes: Vec<(String, usize)> = Vec::new();
        let mut elements = 0;
        for view in checkpoint.tensors() {
            elements += view.elements();
            let name = view.dtype().to_string();
            match dtypes.iter_mut().find(|(dtype, _)| *dtype == name) {
                Some((_, count)) => *count += 1,
                None => dtypes.push((name, 1)),
            }
        }
        let mut inspection = Self {
            origin: checkpoint.origin().into(),
            format: checkpoint.format().to_string(),
            wrapper: checkpoint.wrapper().map(Into::into),
            prefix: checkpoint.prefix().into(),
            file_bytes: checkpoint.file_bytes(),
            tensors: checkpoint.len(),
            elements,
            dtypes,
            architecture: Architecture::resolve(config, checkpoint, family),
            stems: config.stems().to_vec(),
            sample_rate: config.audio.sample_rate.unwrap_or(44_100),
            chunk: config.chunk_size(),
            unknown_options: config.model.unknown.clone(),
            warnings: config.warnings.clone(),
            alternatives: checkpoint.alternatives().to_vec(),
            leftovers: checkpoint.leftovers().to_vec(),
            unusable: Vec::new(),
            values: None,
        };
        inspection.unusable = inspection
            .weights(checkpoint)
            .filter(|weight| !holds_weights(weight))
            .map(|weight| (weight.name().to_owned(), weight.dtype().to_string()))
            .collect();
        inspection
    }

    /// Reads all weights, and records those that cannot be read or are not finite.
    pub fn read_values(&mut self, checkpoint: &Checkpoint) {
        let defects = self.weights(checkpoint).filter(holds_weights).filter_map(|weight| {
            let values = if weight.dtype().is_complex() { weight.to_complex() } else { weight.to_f32() };
            match values {
                Ok(values) => {
                    let (index, value) = values.iter().enumerate().find(|(_, value)| !value.is_finite())?;
                    Some(format!("{}: value {index} is {value}, expected a finite number", weight.name()))
                }
                Err(error) => Some(error.to_string()),
            }
        });
        self.values = Some(defects.collect());
    }

    /// Whether the network loads, as far as it was inspected.
    pub fn loads(&self) -> bool {
        self.architecture.is_ok()
            && self.unusable.is_empty()
            && self.values.as_ref().is_none_or(Vec::is_empty)
    }

    /// The tensors that the network needs; all floating-point tensors where there is no network.
    fn weights<'a>(&self, checkpoint: &'a Checkpoint) -> impl Iterator<Item = TensorView<'a>> {
        let needed: Option<Vec<_>> = self.architecture.as_ref().ok().map(Architecture::tensors);
        let required =
            needed.into_iter().flatten().filter(|t| !t.optional).map(|t| t.name).collect::<BTreeSet<_>>();
        let unknown = self.architecture.is_err();
        checkpoint
            .tensors()
            .filter(move |tensor| required.contains(tensor.name()) || (unknown && tensor.dtype().is_float()))
    }
}

/// Whether weights may have the type of this tensor. The only complex ones are those of Fourier neural operators.
pub(super) fn holds_weights(tensor: &TensorView<'_>) -> bool {
    let is_spectral = tensor.name().ends_with(".weight.tensor");
    tensor.dtype().is_float() || (is_spectral && tensor.dtype().is_complex())
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.origin)?;
        let dtypes: Vec<String> =
            self.dtypes.iter().map(|(name, count)| format!("{count} × {name}")).collect();
        writeln!(
            f,
            "  file          {}, {:.1} MB, {} tensors ({})",
            self.format,
            self.file_bytes as f64 / 1e6,
            self.tensors,
            dtypes.join(", ")
        )?;
        if let Some(wrapper) = &self.wrapper {
            writeln!(f, "  weights under `{wrapper}`")?;
        }
        if !self.prefix.is_empty() {
            writeln!(f, "  prefix        `{}` removed from every name", self.prefix)?;
        }
        if !self.alternatives.is_empty() {
            writeln!(f, "  other networks in the file: {}", shortened(&self.alternatives))?;
        }
        if !self.leftovers.is_empty() {
            writeln!(f, "  not part of the network: {}", shortened(&self.leftovers))?;
        }
        match &self.architecture {
            Ok(arch) => self.write_network(f, arch)?,
            Err(error) => {
                writeln!(f, "  does not load:")?;
                for line in error.to_string().lines() {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        if !self.unknown_options.is_empty() {
            writeln!(f, "  unknown keys in the YAML's model section: {}", self.unknown_options.join(", "))?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        self.write_defects(f)
    }
}

/// The first names of a list.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let first = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first} and {} more", names.len() - SHOWN) } else { first }
}

impl Inspection {
    fn write_defects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.unusable.is_empty() {
            let names: Vec<String> =
                self.unusable.iter().map(|(name, dtype)| format!("{name} ({dtype})")).collect();
            writeln!(f, "  does not load: weights of types that cannot be used: {}", shortened(&names))?;
        }
        match self.values.as_deref() {
            None => Ok(()),
            Some([]) => writeln!(f, "  values        all weights were read and are finite"),
            Some(defects) => writeln!(f, "  does not load: {}", shortened(defects)),
        }
    }

    fn write_network(&self, f: &mut fmt::Formatter<'_>, arch: &Architecture) -> fmt::Result {
        writeln!(f, "  architecture  {}, {:.1} M parameters", arch.title(), arch.parameters() as f64 / 1e6)?;
        let stems = if self.stems.is_empty() { "not named".into() } else { self.stems.join(", ") };
        writeln!(f, "  stems         {} ({stems})", arch.num_stems)?;
        writeln!(
            f,
            "  audio         {}, {} Hz",
            if arch.channels == 2 { "stereo" } else { "mono" },
            self.sample_rate
        )?;
        writeln!(
            f,
            "  transformers  dim {}, depth {}, {} heads of {}, feed-forward {}; blocks per layer: {} time, {} frequency, {} linear",
            arch.dim,
            arch.depth,
            arch.heads,
            arch.dim_head,
            arch.ff_inner,
            arch.time_transformer_depth,
            arch.freq_transformer_depth,
            arch.linear_transformer_depth
        )?;
        writeln!(
            f,
            "  transform     n_fft {}, hop {}, window {}, {} bands over {} bins",
            arch.stft.n_fft,
            arch.stft.hop_length,
            arch.stft.win_length,
            arch.bands.len(),
            arch.stft.freqs()
        )?;
        writeln!(f, "  masks         {} Linears, hidden {}", arch.mask_linears, arch.mask_hidden)?;
        let mut options = Vec::new();
        if arch.zero_dc {
            options.push("zero_dc".to_string());
        }
        if arch.skip_connection {
            options.push("skip_connection".into());
        }
        if arch.position == super::architecture::Position::Polar {
            options.push("PoPE".into());
        }
        if arch.value_residual.is_some() {
            options.push("value residuals".into());
        }
        if let Some(hyper) = arch.hyper_connections {
            options.push(format!("hyper-connections ({} streams, {} fractions)", hyper.streams, hyper.fracs));
        }
        if let Some(sizes) = arch.conformer {
            options.push(format!("convolutions over {} tokens", sizes.conv_kernel));
        }
        if let MaskKind::HyperAce(sizes) = arch.masks
            && sizes.version == HyperAceVersion::V1
        {
            options.push(format!(
                "head halves {} (public references disagree; model.hyperace_band_strides chooses)",
                if sizes.band_strides { "frames and bands" } else { "frames" }
            ));
        }
        if !options.is_empty() {
            writeln!(f, "  options       {}", options.join(", "))?;
        }
        match unsupported_feature(arch) {
            None => writeln!(f, "  on the CPU    fused kernels")?,
            Some(option) => writeln!(f, "  on the CPU    candle (slower): no fused kernels for {option}")?,
        }
        self.write_live(f, arch)?;
        let chunk = self.chunk.unwrap_or(8 * self.sample_rate as usize);
        let seconds = chunk as f64 / f64::from(self.sample_rate);
        writeln!(
            f,
            "  cost          {:.0} GFLOP per second of audio and pass, in chunks of {seconds:.1} s",
            arch.flops(chunk) / seconds / 1e9
        )
    }

    /// Whether live streams keep their context, and what it takes.
    fn write_live(&self, f: &mut fmt::Formatter<'_>, arch: &Architecture) -> fmt::Result {
        if let Some(reason) = kept_context_unsupported(arch) {
            return writeln!(f, "  live          repeats whole windows: {reason}");
        }
        // As much as a chunk holds, up to four seconds.
        let chunk = self.chunk.unwrap_or(8 * self.sample_rate as usize).min(4 * self.sample_rate as usize);
        let memory = ContextMemory::new(arch, chunk / arch.stft.hop_length.max(1));
        let format = if memory.bytes_per_value == 4 { "f32" } else { "bf16" };
        writeln!(
            f,
            "  live          keeps its context between hops: {:.1} s of it take {:.1} MB ({format}) a stream",
            chunk as f64 / f64::from(self.sample_rate.max(1)),
            memory.bytes as f64 / 1e6
        )
    }
}
