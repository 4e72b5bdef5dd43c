//! From a YAML and a checkpoint's tensor shapes to an [`Architecture`].

use std::collections::BTreeSet;

use super::{Architecture, Family, HyperConnections, Mismatch, Position, ValueResidual, contiguous_bands};
use crate::dsp::stft::StftConfig;
use crate::model::bands::{default_freqs_per_bands, mel_bands};
use crate::model::config::Config;

/// The names and shapes of a checkpoint's tensors.
pub trait TensorShapes {
    /// All names with their shapes.
    fn shapes(&self) -> Box<dyn Iterator<Item = (&str, &[usize])> + '_>;
    /// Shape of the tensor `name`.
    fn shape(&self, name: &str) -> Option<&[usize]>;
}

/// Why a configuration and a checkpoint give no network.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// The file holds weights of something else.
    #[error(
        "these are not the weights of a BS-RoFormer or Mel-Band RoFormer: no tensor `band_split.to_features.0.1.weight` among {count} (the first: {first})"
    )]
    NotARoformer {
        /// Tensors in the file.
        count: usize,
        /// Some of their names.
        first: String,
    },
    /// A known relative of the networks that is not supported.
    #[error("{what} is not supported (found tensor `{tensor}`)")]
    Unsupported {
        /// The feature, by its usual name.
        what: &'static str,
        /// The tensor that tells.
        tensor: String,
    },
    /// A value that no network can have.
    #[error("model.{key}: expected {expected}, found {found}")]
    Invalid {
        /// Key under `model` in the YAML.
        key: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Tensors and configuration disagree.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
}

/// Most modules that a list of a real network holds.
const MAX_MODULES: usize = 4096;

/// Most modules of a whole network: a few bytes of YAML must not ask for gigabytes of names.
const MAX_MODULES_IN_ALL: usize = 1 << 15;
/// Most bands times bins of a mel filter bank, for the same reason: seconds of work.
const MAX_FILTERS: usize = 1 << 27;

/// Counts and shapes read off the tensors; `None` where no tensor tells.
struct Evidence<'a> {
    tensors: &'a dyn TensorShapes,
    branch: &'static str,
    indices: [usize; 3],
    has_linear: bool,
    family: Option<Family>,
}

impl Architecture {
    /// Resolves a network from its YAML and its tensors. `family` is the user's word, where there is one.
    ///
    /// # Errors
    /// [`ArchitectureError`]: the file is no RoFormer, uses something unsupported, or disagrees with the YAML; in the last
    /// case every tensor that is missing, unexpected or misshapen is listed with the likely cause.
    pub fn resolve(
        config: &Config,
        tensors: &dyn TensorShapes,
        family: Option<Family>,
    ) -> Result<Self, ArchitectureError> {
        let evidence = Evidence::gather(tensors)?;
        let options = &config.model;
        let mut causes = Vec::new();
        let mut agree = |key: &str, yaml: Option<usize>, file: Option<usize>, held: &str| {
            if let (Some(yaml), Some(file)) = (yaml, file)
                && yaml != file
            {
                causes.push(format!("the YAML says {key} {yaml}, the file holds {file} {held}"));
            }
            yaml.or(file)
        };
        let named_family =
            family.or(match (options.freqs_per_bands.is_some(), options.num_bands.is_some()) {
                (true, false) => Some(Family::BsRoformer),
                (false, true) => Some(Family::MelBandRoformer),
                _ => None,
            });
        let resolved_family = named_family.or(evidence.family).unwrap_or(Family::BsRoformer);

        let depth = agree("depth", options.depth, evidence.count("layers."), "layers").unwrap_or(0);
        let dim = agree("dim", options.dim, evidence.dim(), "features a token").unwrap_or(0);
        let num_stems =
            agree("num_stems", options.num_stems, evidence.count("mask_estimators."), "mask estimators")
                .unwrap_or(1);
        let [linear_at, time_at, freq_at] = evidence.indices;
        let blocks = |at: usize| evidence.count(&format!("layers.0.{at}.layers."));
        let time_transformer_depth =
            agree("time_transformer_depth", options.time_transformer_depth, blocks(time_at), "blocks")
                .unwrap_or(1);
        let freq_transformer_depth =
            agree("freq_transformer_depth", options.freq_transformer_depth, blocks(freq_at), "blocks")
                .unwrap_or(1);
        let linear_blocks = if evidence.has_linear { blocks(linear_at) } else { Some(0) };
        let linear_transformer_depth = agree(
            "linear_transformer_depth",
            options.linear_transformer_depth,
            linear_blocks,
            "linear-attention blocks",
        )
        .unwrap_or(0);
        let heads = agree("heads", options.heads, evidence.heads(), "gates").unwrap_or(8);
        let held_dim_head = evidence.qkv_rows().map(|rows| rows / 3 / heads.max(1));
        let dim_head = agree("dim_head", options.dim_head, held_dim_head, "features a head").unwrap_or(64);
        let hyper = evidence.hyper_connections()?;
        let hyper_connections = hyper.map(|(streams, fracs)| HyperConnections {
            streams,
            fracs,
            sinkhorn_iters: match resolved_family {
                Family::BsRoformer => options.mc_hyper_conn_sinkhorn_iters.unwrap_or(2),
                // Its constructor does not pass the option on.
                Family::MelBandRoformer => 2,
            },
        });
        let held_streams = Some(hyper.map_or(1, |h| h.0));
        agree("num_residual_streams", options.num_residual_streams, held_streams, "residual streams");

        let stft = StftConfig {
            n_fft: options.stft_n_fft.unwrap_or(2048),
            hop_length: options.stft_hop_length.unwrap_or(512),
            // Its own default, not n_fft.
            win_length: options.stft_win_length.unwrap_or(options.stft_n_fft.unwrap_or(2048).min(2048)),
            normalized: options.stft_normalized.unwrap_or(false),
        };
        check_stft(&stft)?;
        for (key, value) in [
            ("dim", dim),
            ("depth", depth),
            ("num_stems", num_stems),
            ("heads", heads),
            ("dim_head", dim_head),
        ] {
            positive(key, value)?;
        }
        let held_features = evidence.band_features();
        let (channels, bands, min_freq) =
            resolve_bands(config, resolved_family, &stft, &held_features, &mut causes)?;
        if let (Some(said), Some(held)) = (named_family, evidence.family)
            && said != held
        {
            causes.insert(
                0,
                format!("the checkpoint is a {held}, the configuration or the command says {said}"),
            );
        }

        let value_residual = match (evidence.value_residual(), options.add_value_residual) {
            // The first layer has none to mix with, so a network of one layer holds none.
            (None, Some(true)) if depth > 1 => {
                causes.push("the YAML says add_value_residual, the file holds no value residuals".into());
                Some(ValueResidual::LearnedValueResidualMix)
            }
            (held, _) => held,
        };
        let position = match (evidence.polar(), options.use_pope) {
            (true, Some(false)) => {
                causes.push("the YAML says use_pope false, the file holds polar embeddings".into());
                Position::Rotary
            }
            (false, Some(true)) => {
                causes.push("the YAML says use_pope, the file holds no polar embeddings".into());
                Position::Polar
            }
            (true, _) => Position::Polar,
            (false, _) => Position::Rotary,
        };
        let architecture = Self {
            family: resolved_family,
            dim,
            depth,
            linear_transformer_depth,
            time_transformer_depth,
            freq_transformer_depth,
            transformer_indices: evidence.indices,
            heads,
            dim_head,
            ff_inner: evidence.ff_inner().unwrap_or(4 * dim),
            channels,
            num_stems,
            bands,
            mask_linears: evidence.mask_linears(),
            mask_hidden: evidence.mask_hidden().unwrap_or(4 * dim),
            stft,
            zero_dc: options.zero_dc.unwrap_or(false) && min_freq == 0,
            skip_connection: options.skip_connection.unwrap_or(false),
            position,
            value_residual,
            hyper_connections,
            branch_names: !evidence.branch.is_empty(),
        };
        if let Some(h) = architecture.hyper_connections
            && !dim.is_multiple_of(h.fracs)
        {
            return Err(ArchitectureError::Invalid {
                key: "num_residual_fracs",
                expected: format!("a divisor of dim {dim}"),
                found: h.fracs.to_string(),
            });
        }
        let modules = architecture.modules();
        if modules > MAX_MODULES_IN_ALL {
            causes.push(format!(
                "the YAML asks for {modules} modules, the file holds {} tensors",
                tensors.shapes().count()
            ));
            return Err(ArchitectureError::Mismatch(Box::new(Mismatch { causes, ..Mismatch::default() })));
        }
        let mut mismatch = Mismatch::between(&architecture.tensors(), tensors.shapes());
        mismatch.causes = causes;
        if mismatch.is_empty() {
            Ok(architecture)
        } else {
            Err(ArchitectureError::Mismatch(Box::new(mismatch)))
        }
    }
}

/// Channels, the bins of every band, and the first bin that any band may own.
#[allow(clippy::type_complexity, reason = "three results of one decision, used once")]
fn resolve_bands(
    config: &Config,
    family: Family,
    stft: &StftConfig,
    held: &[usize],
    causes: &mut Vec<String>,
) -> Result<(usize, Vec<Vec<usize>>, usize), ArchitectureError> {
    let options = &config.model;
    let freqs = stft.freqs();
    let yaml_channels = options.stereo.map(|stereo| if stereo { 2 } else { 1 });
    let (bands, min_freq) = match family {
        Family::MelBandRoformer => {
            let num_bands = options.num_bands.unwrap_or(held.len());
            positive("num_bands", num_bands)?;
            let most = freqs.min(MAX_FILTERS / freqs);
            if num_bands > most {
                return Err(ArchitectureError::Invalid {
                    key: "num_bands",
                    expected: format!("at most {most} for the {freqs} bins of n_fft {}", stft.n_fft),
                    found: num_bands.to_string(),
                });
            }
            if num_bands != held.len() {
                causes.push(format!(
                    "the YAML says num_bands {num_bands}, the file holds {} bands",
                    held.len()
                ));
            }
            // The constructor's default, whatever `audio.sample_rate` says.
            let bands = mel_bands(options.sample_rate.unwrap_or(44_100), stft.n_fft, num_bands);
            let mut covered = vec![false; freqs];
            bands.iter().flatten().for_each(|&f| covered[f] = true);
            if let Some(hole) = covered.iter().position(|c| !c) {
                return Err(ArchitectureError::Invalid {
                    key: "num_bands",
                    expected: format!("mel bands that cover all {freqs} bins of n_fft {}", stft.n_fft),
                    found: format!("{num_bands} bands, none with bin {hole}"),
                });
            }
            (bands, 0)
        }
        Family::BsRoformer => {
            let (min_freq, max_freq) = freq_range(options.freq_range, freqs)?;
            let held_sizes = |channels: usize| -> Option<Vec<usize>> {
                let sizes: Vec<usize> = held.iter().map(|f| f / (2 * channels)).collect();
                (sizes.iter().sum::<usize>() == max_freq - min_freq).then_some(sizes)
            };
            let sizes = options
                .freqs_per_bands
                .clone()
                .or_else(|| yaml_channels.and_then(held_sizes))
                .or_else(|| held_sizes(2))
                .or_else(|| held_sizes(1))
                .unwrap_or_else(default_freqs_per_bands);
            let sum: usize = sizes.iter().sum();
            if sum != max_freq - min_freq {
                return Err(ArchitectureError::Invalid {
                    key: "freqs_per_bands",
                    expected: format!(
                        "{} bins in all, for n_fft {} and bins {min_freq} to {max_freq}",
                        max_freq - min_freq,
                        stft.n_fft
                    ),
                    found: format!("{sum} bins in {} bands", sizes.len()),
                });
            }
            if sizes.len() != held.len() {
                causes.push(format!(
                    "the YAML says freqs_per_bands of {} bands, the file holds {}",
                    sizes.len(),
                    held.len()
                ));
            }
            (contiguous_bands(&sizes, min_freq), min_freq)
        }
    };
    let bins: usize = bands.iter().map(Vec::len).sum();
    let held_channels = (1..=2).find(|channels| held.iter().sum::<usize>() == 2 * channels * bins);
    if let (Some(yaml), Some(file)) = (yaml_channels, held_channels)
        && yaml != file
    {
        causes.push(format!(
            "the YAML says stereo {}, the file holds a {} model",
            yaml == 2,
            if file == 2 { "stereo" } else { "mono" }
        ));
    }
    let channels = yaml_channels.or(held_channels).or(config.audio.num_channels).unwrap_or(2);
    if !(1..=2).contains(&channels) {
        return Err(ArchitectureError::Invalid {
            key: "stereo",
            expected: "one or two audio channels".into(),
            found: channels.to_string(),
        });
    }
    Ok((channels, bands, min_freq))
}

fn freq_range(range: Option<(i64, i64)>, freqs: usize) -> Result<(usize, usize), ArchitectureError> {
    let (min, max) = range.unwrap_or((-1, -1));
    let min = if min == -1 { 0 } else { min };
    let max = if max == -1 { freqs as i64 } else { max };
    if 0 <= min && min < max && max <= freqs as i64 {
        Ok((min as usize, max as usize))
    } else {
        Err(ArchitectureError::Invalid {
            key: "freq_range",
            expected: format!("0 ≤ first < last ≤ {freqs}"),
            found: format!("{min}, {max}"),
        })
    }
}

fn positive(key: &'static str, value: usize) -> Result<(), ArchitectureError> {
    if value > 0 {
        return Ok(());
    }
    Err(ArchitectureError::Invalid {
        key,
        expected: "a positive whole number in the YAML or tensors that tell".into(),
        found: "neither".into(),
    })
}

fn check_stft(stft: &StftConfig) -> Result<(), ArchitectureError> {
    let invalid = |key, expected: String, found: usize| {
        Err(ArchitectureError::Invalid { key, expected, found: found.to_string() })
    };
    if stft.n_fft < 4 {
        return invalid("stft_n_fft", "at least 4".into(), stft.n_fft);
    }
    if stft.hop_length == 0 || stft.hop_length > stft.n_fft {
        return invalid("stft_hop_length", format!("1 to n_fft ({})", stft.n_fft), stft.hop_length);
    }
    if stft.win_length == 0 || stft.win_length > stft.n_fft {
        return invalid("stft_win_length", format!("1 to n_fft ({})", stft.n_fft), stft.win_length);
    }
    Ok(())
}

impl<'a> Evidence<'a> {
    fn gather(tensors: &'a dyn TensorShapes) -> Result<Self, ArchitectureError> {
        if tensors.shape("band_split.to_features.0.1.weight").is_none() {
            let first: Vec<&str> = tensors.shapes().map(|(name, _)| name).take(3).collect();
            return Err(ArchitectureError::NotARoformer {
                count: tensors.shapes().count(),
                first: if first.is_empty() { "none".into() } else { first.join(", ") },
            });
        }
        for (mark, what) in [
            (".dynamic_alpha_scale", "the first revision of hyper-connections (bs-roformer before 1.0)"),
            (".conv.", "a Conformer"),
            (".ff1.", "a Conformer"),
            (".lora_A", "a LoRA adapter not merged into its model"),
            (".attend.sink", "attention sinks"),
        ] {
            if let Some((name, _)) = tensors.shapes().find(|(name, _)| name.contains(mark)) {
                return Err(ArchitectureError::Unsupported { what, tensor: name.into() });
            }
        }
        let held: BTreeSet<usize> =
            tensors.shapes().filter_map(|(name, _)| index_after(name, "layers.0.")).collect();
        let has_linear = held.len() == 3;
        let held: Vec<usize> = held.into_iter().collect();
        let indices = match held[..] {
            [linear, time, freq] => [linear, time, freq],
            [time, freq] => [0, time, freq],
            _ => [0, 0, 1],
        };
        let norm = format!("layers.0.{}.norm.gamma", indices[1]);
        let family = match (tensors.shape("final_norm.gamma"), tensors.shape(&norm)) {
            (Some(_), None) => Some(Family::BsRoformer),
            (None, Some(_)) => Some(Family::MelBandRoformer),
            _ => None,
        };
        let attention = format!("layers.0.{}.layers.0.0", indices[1]);
        let branch = if tensors.shape(&format!("{attention}.branch.to_qkv.weight")).is_some() {
            ".branch"
        } else {
            ""
        };
        Ok(Self { tensors, branch, indices, has_linear, family })
    }

    /// Number of modules under `prefix`: the highest index plus one.
    fn count(&self, prefix: &str) -> Option<usize> {
        let indices = self.tensors.shapes().filter_map(|(name, _)| index_after(name, prefix));
        // No network is that large: a name that claims so is left over as unexpected.
        indices.filter(|&i| i < MAX_MODULES).max().map(|i| i + 1)
    }

    /// Axis `axis` of a tensor of the first time transformer's first block.
    fn block_axis(&self, part: usize, tensor: &str, axis: usize) -> Option<usize> {
        let name = format!("layers.0.{}.layers.0.{part}{}.{tensor}", self.indices[1], self.branch);
        self.tensors.shape(&name)?.get(axis).copied()
    }

    fn dim(&self) -> Option<usize> {
        self.tensors.shape("band_split.to_features.0.1.weight")?.first().copied()
    }

    fn heads(&self) -> Option<usize> {
        self.block_axis(0, "to_gates.weight", 0)
    }

    fn qkv_rows(&self) -> Option<usize> {
        self.block_axis(0, "to_qkv.weight", 0)
    }

    fn ff_inner(&self) -> Option<usize> {
        self.block_axis(1, "net.1.weight", 0)
    }

    fn any(&self, mark: &str) -> bool {
        self.tensors.shapes().any(|(name, _)| name.contains(mark))
    }

    fn polar(&self) -> bool {
        self.any(".pope_embed.bias")
    }

    fn value_residual(&self) -> Option<ValueResidual> {
        if self.any(".to_value_residual_mix.") {
            Some(ValueResidual::ToValueResidualMix)
        } else if self.any(".learned_value_residual_mix.0.") {
            Some(ValueResidual::LearnedValueResidualMix)
        } else {
            None
        }
    }

    /// Streams and fractions, from a mixing matrix [streams·fracs, streams·fracs + fracs].
    fn hyper_connections(&self) -> Result<Option<(usize, usize)>, ArchitectureError> {
        let name = format!("layers.0.{}.layers.0.0.static_alpha", self.indices[1]);
        let Some(shape) = self.tensors.shape(&name) else { return Ok(None) };
        if let &[rows, columns] = shape
            && columns > rows
            && rows.is_multiple_of(columns - rows)
        {
            let fracs = columns - rows;
            return Ok(Some((rows / fracs, fracs)));
        }
        Err(ArchitectureError::Unsupported { what: "this form of hyper-connections", tensor: name })
    }

    /// Input features of each band.
    fn band_features(&self) -> Vec<usize> {
        (0..)
            .map_while(|k| {
                self.tensors.shape(&format!("band_split.to_features.{k}.1.weight"))?.get(1).copied()
            })
            .collect()
    }

    fn mask_linears(&self) -> usize {
        self.count("mask_estimators.0.to_freqs.0.0.").map_or(1, |last| last / 2 + 1)
    }

    fn mask_hidden(&self) -> Option<usize> {
        if self.mask_linears() < 2 {
            return None;
        }
        self.tensors.shape("mask_estimators.0.to_freqs.0.0.0.weight")?.first().copied()
    }
}

/// The number that follows `prefix` in `name`.
fn index_after(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors of a small network, by shape alone.
    struct Shapes(Vec<(String, Vec<usize>)>);

    impl TensorShapes for Shapes {
        fn shapes(&self) -> Box<dyn Iterator<Item = (&str, &[usize])> + '_> {
            Box::new(self.0.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())))
        }

        fn shape(&self, name: &str) -> Option<&[usize]> {
            self.shapes().find(|(held, _)| *held == name).map(|(_, shape)| shape)
        }
    }

    fn small(n_fft: usize) -> Shapes {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner, arch.mask_hidden) =
            (8, 1, 2, 4, 32, 16);
        arch.bands = contiguous_bands(&[9, 21, n_fft / 2 - 29], 0);
        Shapes(arch.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect())
    }

    fn resolve(n_fft: usize, yaml: &str) -> Result<Architecture, ArchitectureError> {
        let config = Config::from_yaml(yaml, "small.yaml").unwrap();
        Architecture::resolve(&config, &small(n_fft), None)
    }

    #[test]
    fn a_few_bytes_of_yaml_end_in_a_message_and_not_in_gigabytes() {
        let depths = "model: {freqs_per_bands: [9, 21, 35], stft_n_fft: 128, stft_hop_length: 64, depth: 1024, \
                      time_transformer_depth: 1024, freq_transformer_depth: 1024, linear_transformer_depth: 1024}";
        let message = resolve(128, depths).unwrap_err().to_string();
        assert!(message.contains("depth 1024, the file holds 1 layers"), "{message}");
        assert!(message.contains("asks for 31457"), "{message}");
        let bands = "model: {num_bands: 65536, stft_n_fft: 1048576, num_stems: 256}";
        let message = resolve(128, bands).unwrap_err().to_string();
        assert!(message.contains("num_bands") && message.contains("at most"), "{message}");
    }

    #[test]
    fn the_window_is_the_reference_s_where_a_yaml_does_not_say() {
        for (n_fft, window) in [(4096, 2048), (2048, 2048), (1024, 1024)] {
            let bands = format!("[9, 21, {}]", n_fft / 2 - 29);
            let yaml =
                format!("model: {{freqs_per_bands: {bands}, stft_n_fft: {n_fft}, stft_hop_length: 512}}");
            assert_eq!(resolve(n_fft, &yaml).unwrap().stft.win_length, window);
        }
    }
}
