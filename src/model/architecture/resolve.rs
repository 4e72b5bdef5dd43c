//! From a YAML and a checkpoint's tensor shapes to an [`Architecture`].

use super::checkpoint_probe::CheckpointProbe;
use super::{
    Architecture, ArchitectureError, ConformerSizes, Family, HyperConnections, MaskKind, Mismatch, Position,
    TensorShapes, ValueResidual, contiguous_bands,
};
use crate::dsp::stft::StftConfig;
use crate::model::bands::{default_freqs_per_bands, mel_bands};
use crate::model::config::Config;

/// Most modules of a network. Without a limit, a few bytes of YAML could request gigabytes of names.
const MAX_MODULES_IN_ALL: usize = 1 << 15;
/// Most features, heads, and features per head. Tensor shapes have the same limit as the YAML.
const MAX_WIDTH: usize = 1 << 16;
/// Most bands times bins of a mel filter bank, which otherwise could take minutes to compute.
const MAX_FILTERS: usize = 1 << 27;

impl Architecture {
    /// Resolves a network from its YAML and its tensors. `family` is the user's choice, where there is one.
    ///
    /// # Errors
    /// [`ArchitectureError`] when the file is not a RoFormer, is an unsupported variant, or disagrees with the YAML. In the
    /// last case, every tensor that is missing, unexpected or of the wrong shape is listed with the likely cause.
    pub fn resolve(
        config: &Config,
        tensors: &dyn TensorShapes,
        family: Option<Family>,
    ) -> Result<Self, ArchitectureError> {
        let probe = CheckpointProbe::new(tensors)?;
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
                // A stray `num_bands` in the YAML of a BS-RoFormer has no effect in the reference.
                (false, true) if probe.family == Some(Family::BsRoformer) => None,
                (false, true) => Some(Family::MelBandRoformer),
                _ => None,
            });
        let resolved_family = named_family.or(probe.family).unwrap_or(Family::BsRoformer);

        let depth = agree("depth", options.depth, probe.count("layers."), "layers").unwrap_or(0);
        let dim = agree("dim", options.dim, probe.dim(), "features a token").unwrap_or(0);
        let num_stems =
            agree("num_stems", options.num_stems, probe.count("mask_estimators."), "mask estimators")
                .unwrap_or(1);
        let [linear_at, time_at, freq_at] = probe.indices;
        let blocks = |at: usize| probe.count(&format!("layers.0.{at}.layers."));
        let axis_depths = match probe.is_conformer {
            true => [
                ("time_conformer_depth", options.time_conformer_depth.or(options.time_transformer_depth)),
                ("freq_conformer_depth", options.freq_conformer_depth.or(options.freq_transformer_depth)),
            ],
            false => [
                ("time_transformer_depth", options.time_transformer_depth),
                ("freq_transformer_depth", options.freq_transformer_depth),
            ],
        };
        let [time_transformer_depth, freq_transformer_depth] =
            [(axis_depths[0], time_at), (axis_depths[1], freq_at)]
                .map(|((key, yaml), at)| agree(key, yaml, blocks(at), "blocks").unwrap_or(1));
        let linear_blocks = if probe.has_linear { blocks(linear_at) } else { Some(0) };
        let linear_yaml = options.linear_conformer_depth.filter(|_| probe.is_conformer);
        let linear_transformer_depth = agree(
            if linear_yaml.is_some() { "linear_conformer_depth" } else { "linear_transformer_depth" },
            linear_yaml.or(options.linear_transformer_depth),
            linear_blocks,
            "linear-attention blocks",
        )
        .unwrap_or(0);
        let heads = agree("heads", options.heads, probe.heads(), "gates").unwrap_or(8);
        let held_dim_head = probe.qkv_rows().map(|rows| rows / 3 / heads.max(1));
        let dim_head = agree("dim_head", options.dim_head, held_dim_head, "features a head").unwrap_or(64);
        let hyper = probe.hyper_connections()?;
        let hyper_connections = hyper.map(|(streams, fracs)| HyperConnections {
            streams,
            fracs,
            sinkhorn_iters: match resolved_family {
                Family::BsRoformer => options.mc_hyper_conn_sinkhorn_iters.unwrap_or(2),
                // The constructor of the reference ignores the option.
                Family::MelBandRoformer => 2,
            },
        });
        let held_streams = Some(hyper.map_or(1, |h| h.0));
        agree("num_residual_streams", options.num_residual_streams, held_streams, "residual streams");

        let conformer = probe.conformer();
        if let Some(sizes) = conformer {
            let expansion = sizes.conv_channels / dim.max(1);
            agree(
                "conv_kernel_size",
                options.conv_kernel_size,
                Some(sizes.conv_kernel),
                "tokens a convolution",
            );
            agree("conv_expansion_factor", options.conv_expansion_factor, Some(expansion), "times dim");
        }
        let hyperace = probe.hyperace(options.hyperace_band_strides.unwrap_or(false));
        if let Some(sizes) = hyperace {
            let version = Some(sizes.version as usize + 1);
            agree("hyperace_version", options.hyperace_version, version, "as its version of HyperACE");
        }

        let stft = StftConfig {
            n_fft: options.stft_n_fft.unwrap_or(2048),
            hop_length: options.stft_hop_length.unwrap_or(512),
            // The default of the references is 2048, not n_fft.
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
            if value > MAX_WIDTH {
                let (expected, found) = (format!("at most {MAX_WIDTH}"), value.to_string());
                return Err(ArchitectureError::Invalid { key, expected, found });
            }
        }
        let held_features = probe.band_features();
        let (channels, bands, min_freq) =
            resolve_bands(config, resolved_family, &stft, &held_features, &mut causes)?;
        if let (Some(said), Some(held)) = (named_family, probe.family)
            && said != held
        {
            causes.insert(
                0,
                format!("the checkpoint is a {held}, the configuration or the command says {said}"),
            );
        }

        if let Some(cause) = probe.known_variant() {
            causes.insert(0, cause);
        }

        if conformer.is_none()
            && (options.time_conformer_depth.is_some() || options.freq_conformer_depth.is_some())
        {
            causes.push("the YAML is that of a Conformer, the file holds transformer blocks".into());
        }
        if options.use_mask_estimator_hyper_ace == Some(true) && hyperace.is_none() {
            causes.push("the YAML says use_mask_estimator_hyper_ace, the file holds no HyperACE head".into());
        }
        let value_residual = match (probe.value_residual(), options.add_value_residual) {
            // The first layer has no earlier values to mix with, so a network of one layer has no such tensors.
            (None, Some(true)) if depth > 1 => {
                causes.push("the YAML says add_value_residual, the file holds no value residuals".into());
                Some(ValueResidual::LearnedValueResidualMix)
            }
            (held, _) => held,
        };
        let position = match (probe.polar(), options.use_pope) {
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
            transformer_indices: probe.indices,
            heads,
            dim_head,
            ff_inner: probe.ff_inner().unwrap_or(4 * dim),
            channels,
            num_stems,
            bands,
            mask_linears: probe.mask_linears(),
            mask_hidden: probe.mask_hidden().unwrap_or(4 * dim),
            stft,
            // The Conformers' references set it unless told otherwise.
            zero_dc: options.zero_dc.unwrap_or(conformer.is_some()) && min_freq == 0,
            skip_connection: options.skip_connection.unwrap_or(false),
            position,
            value_residual,
            hyper_connections,
            masks: hyperace.map_or_else(|| probe.masks(), MaskKind::HyperAce),
            attention_biases: probe.attention_biases(),
            experimental_residuals: options.experimental_residuals.unwrap_or(false),
            siamese: probe.siamese(),
            conformer,
            branch_names: !probe.branch.is_empty(),
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
        check_parts(&architecture)?;
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

/// Refuses sizes of Conformer blocks and HyperACE heads that no network has. They come from tensor shapes, which are untrusted.
fn check_parts(architecture: &Architecture) -> Result<(), ArchitectureError> {
    if let Some(ConformerSizes { conv_channels, conv_kernel, linear_ff_inner }) = architecture.conformer {
        let within = |size: usize| (1..=MAX_WIDTH).contains(&size);
        let has_linear = architecture.linear_transformer_depth > 0;
        let valid = within(conv_channels)
            && within(conv_kernel)
            && conv_kernel % 2 == 1
            && (!has_linear || within(linear_ff_inner));
        if !valid {
            return Err(ArchitectureError::Unsupported {
                what: "a Conformer with such a convolution",
                tensor: format!(
                    "layers.0.{}.layers.0.conv.net.4.weight",
                    architecture.transformer_indices[1]
                ),
            });
        }
    }
    if let MaskKind::HyperAce(sizes) = architecture.masks
        && !sizes.is_valid(total(&architecture.band_features()))
    {
        return Err(ArchitectureError::Unsupported {
            what: "a HyperACE head of such sizes",
            tensor: "mask_estimators.0.segm.upsample_head.final_conv.weight".into(),
        });
    }
    Ok(())
}

/// Returns the number of channels, the bins of every band, and the first bin that a band may own.
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
            // The default of the reference's constructor, regardless of `audio.sample_rate`.
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
                (total(&sizes) == Some(max_freq - min_freq)).then_some(sizes)
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
    let held_channels = (1..=2_usize).find(|channels| total(held) == Some(2 * channels * bins));
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

/// The sum, or `None` on overflow: a file may hold dimensions of any length, as long as another one is 0.
fn total(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes of a small network.
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
        resolve_shapes(&small(n_fft), yaml)
    }

    fn resolve_shapes(shapes: &Shapes, yaml: &str) -> Result<Architecture, ArchitectureError> {
        let config = Config::from_yaml(yaml, "small.yaml").unwrap();
        Architecture::resolve(&config, shapes, None)
    }

    /// The YAML of [`small`] with an n_fft of 128.
    const YAML: &str = "model: {freqs_per_bands: [9, 21, 35], stft_n_fft: 128, stft_hop_length: 64}";

    /// [`small`] with other tensors, or some of another shape.
    fn changed(changes: &[(&str, &[usize])]) -> Shapes {
        let mut shapes = small(128);
        for (name, shape) in changes {
            shapes.0.retain(|(held, _)| held != name);
            shapes.0.push(((*name).to_owned(), shape.to_vec()));
        }
        shapes
    }

    #[test]
    fn huge_shapes_are_reported() {
        assert!(resolve_shapes(&changed(&[]), YAML).is_ok());
        let wide = changed(&[("layers.0.0.layers.0.0.to_qkv.weight", &[3_usize << 56, 8])]);
        let message = resolve_shapes(&wide, YAML).unwrap_err().to_string();
        assert!(message.contains("dim_head") && message.contains("at most 65536"), "{message}");
        // As mono bands their sum is 65 modulo 2^64, which is what a transform of 128 asks for.
        let huge = usize::MAX - 1;
        let bands = changed(&[
            ("band_split.to_features.0.1.weight", &[0, huge]),
            ("band_split.to_features.1.1.weight", &[0, huge]),
            ("band_split.to_features.2.1.weight", &[0, 134]),
        ]);
        for (yaml, part) in [
            ("model: {dim: 8, stft_n_fft: 128, stft_hop_length: 64}", "freqs_per_bands"),
            (
                "model: {dim: 8, freqs_per_bands: [9, 21, 35], stft_n_fft: 128, stft_hop_length: 64}",
                "wrong shape",
            ),
        ] {
            let message = resolve_shapes(&bands, yaml).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn hyper_connections_without_streams_are_refused() {
        let none = changed(&[("layers.0.0.layers.0.0.static_alpha", &[0, 1])]);
        let error = resolve_shapes(&none, YAML).unwrap_err();
        assert!(matches!(error, ArchitectureError::Unsupported { .. }), "{error}");
    }

    #[test]
    fn lora_adapter_is_recognised_with_and_without_base_model() {
        let (a, b) = ("layers.0.0.layers.0.0.to_qkv.lora_A", "layers.0.0.layers.0.0.to_qkv.lora_B");
        let alone = Shapes(vec![(a.to_owned(), vec![4, 8]), (b.to_owned(), vec![24, 4])]);
        for shapes in [alone, changed(&[(a, &[4, 8]), (b, &[24, 4])])] {
            let message = resolve_shapes(&shapes, YAML).unwrap_err().to_string();
            assert!(message.contains("LoRA adapter") && message.contains("base model first"), "{message}");
            assert!(message.contains("to_qkv.lora_"), "{message}");
        }
    }

    #[test]
    fn variants_of_model_sw_are_named() {
        for (name, of_splifft) in [("cos_emb_time", true), ("sin_emb_time", true), ("shared_qkv_bias", true)]
        {
            let message = resolve_shapes(&changed(&[(name, &[24])]), YAML).unwrap_err().to_string();
            assert!(message.contains(&format!("likely cause: `{name}`")), "{message}");
            assert!(message.contains("\"fixed\" can be loaded"), "{message}");
            assert_eq!(message.contains("splifft"), of_splifft, "{message}");
        }
    }

    #[test]
    fn huge_sizes_in_yaml_are_refused_before_allocation() {
        let depths = "model: {freqs_per_bands: [9, 21, 35], stft_n_fft: 128, stft_hop_length: 64, depth: 1024, \
                      time_transformer_depth: 1024, freq_transformer_depth: 1024, linear_transformer_depth: 1024}";
        let message = resolve(128, depths).unwrap_err().to_string();
        assert!(message.contains("depth 1024, the file holds 1 layers"), "{message}");
        assert!(message.contains("asks for 31457"), "{message}");
        let bands = "model: {num_bands: 65536, stft_n_fft: 1048576, num_stems: 256}";
        let message = resolve(128, bands).unwrap_err().to_string();
        assert!(message.contains("freqs_per_bands") && message.contains("524289 bins"), "{message}");
        // The same as a Mel model: its filters would take many gigabytes.
        let config = Config::from_yaml(bands, "small.yaml").unwrap();
        let mel = Architecture::resolve(&config, &small(128), Some(Family::MelBandRoformer));
        let message = mel.unwrap_err().to_string();
        assert!(message.contains("num_bands") && message.contains("at most"), "{message}");
    }

    #[test]
    fn refused_variants_are_told_apart_exactly() {
        for (tensor, what) in [
            ("layers.0.0.layers.0.attn.fn.to_q.weight", "MSST's first Mel-Band Conformer"),
            ("layers.0.1.layers.0.ff1.fn.fn.net.0.weight", "MSST's first Mel-Band Conformer"),
            ("layers.0.0.mixer.A_log", "a Mamba network"),
            ("mask_estimators.0.segm.backbone.stem.pwconv.weight", "a HyperACE head of such sizes"),
            ("layers.0.0.layers.0.ff1.ff.net.1.weight", "a Conformer with such a convolution"),
            ("layers.0.0.layers.0.0.attend.sink", "attention sinks"),
            ("layers.0.0.layers.0.0.to_q.weight", "separate query"),
        ] {
            let message = resolve_shapes(&changed(&[(tensor, &[8])]), YAML).unwrap_err().to_string();
            let named = tensor.split(".layers.0.").next().unwrap();
            assert!(
                message.contains(what) && message.contains(named.split(".segm.").next().unwrap()),
                "{message}"
            );
        }
        // The same words elsewhere are not those families.
        for tensor in [
            "head.conv.weight",
            "mask_estimators.0.conv.weight",
            "ff1.weight",
            "layers.0.0.layers.0.conv.net.2.weight",
            "mask_estimators.0.segm.weight",
        ] {
            let message = resolve_shapes(&changed(&[(tensor, &[8])]), YAML).unwrap_err().to_string();
            assert!(message.contains("unexpected") && !message.contains("Conformer"), "{message}");
        }
    }

    #[test]
    fn stray_num_bands_is_ignored_where_tensors_are_of_bs_roformer() {
        let yaml = "model: {num_bands: 60, stft_n_fft: 128, stft_hop_length: 64}";
        let architecture = resolve(128, yaml).unwrap();
        assert_eq!((architecture.family, architecture.bands.len()), (Family::BsRoformer, 3));
    }

    #[test]
    fn default_win_length_is_that_of_references() {
        for (n_fft, window) in [(4096, 2048), (2048, 2048), (1024, 1024)] {
            let bands = format!("[9, 21, {}]", n_fft / 2 - 29);
            let yaml =
                format!("model: {{freqs_per_bands: {bands}, stft_n_fft: {n_fft}, stft_hop_length: 512}}");
            assert_eq!(resolve(n_fft, &yaml).unwrap().stft.win_length, window);
        }
    }
}
