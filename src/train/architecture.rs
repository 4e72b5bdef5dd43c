//! The architecture of a new network, from its YAML alone.

use super::error::TrainError;
use crate::dsp::stft::StftConfig;
use crate::model::architecture::{
    Architecture, ArchitectureError, ExpectedTensor, Family, HyperConnections, MaskKind, Position,
    TensorShapes, ValueResidual,
};
use crate::model::bands::{default_freqs_per_bands, mel_bands};
use crate::model::config::{Config, ModelOptions};

/// Resolves a network that has no tensors yet. What the YAML leaves out has the default of the package whose options it uses:
/// `bs-roformer` where it names residual streams, fractions or value residuals, else `lossless-bs-roformer` and MSST.
///
/// # Errors
/// [`TrainError::Architecture`] where the YAML describes no network.
pub(super) fn from_config(config: &Config, family: Option<Family>) -> Result<Architecture, TrainError> {
    let wrong = |source| TrainError::Architecture { origin: "the configuration".into(), source };
    let options = &config.model;
    let is_conformer = options.time_conformer_depth.is_some() || options.freq_conformer_depth.is_some();
    let has_head =
        [options.use_mask_estimator_hyper_ace, options.use_mask_estimator_fno].contains(&Some(true));
    if is_conformer || has_head {
        let found =
            if is_conformer { "the keys of a Conformer" } else { "mask estimators of HyperACE or FNO" };
        return Err(TrainError::setting("model", "a network that can be trained", found));
    }
    let missing = |key: &'static str| {
        wrong(ArchitectureError::Invalid { key, expected: "a number".into(), found: "nothing".into() })
    };
    let family = family.unwrap_or(match (&options.freqs_per_bands, options.num_bands) {
        (None, Some(_)) => Family::MelBandRoformer,
        _ => Family::BsRoformer,
    });
    let dim = options.dim.ok_or_else(|| missing("dim"))?;
    let depth = options.depth.ok_or_else(|| missing("depth"))?;
    let n_fft = options.stft_n_fft.unwrap_or(2048);
    let stft = StftConfig {
        n_fft,
        hop_length: options.stft_hop_length.unwrap_or(512),
        win_length: options.stft_win_length.unwrap_or(n_fft.min(2048)),
        normalized: options.stft_normalized.unwrap_or(false),
    };
    let newer = options.num_residual_streams.is_some()
        || options.num_residual_fracs.is_some()
        || options.add_value_residual.is_some()
        || options.mc_hyper_conn_sinkhorn_iters.is_some();
    let mel = family == Family::MelBandRoformer;
    let linear_transformer_depth = options.linear_transformer_depth.unwrap_or(0);
    let arch = Architecture {
        family,
        dim,
        depth,
        linear_transformer_depth,
        time_transformer_depth: options.time_transformer_depth.unwrap_or(2),
        freq_transformer_depth: options.freq_transformer_depth.unwrap_or(2),
        transformer_indices: if mel || linear_transformer_depth > 0 { [0, 1, 2] } else { [0, 0, 1] },
        heads: options.heads.unwrap_or(8),
        dim_head: options.dim_head.unwrap_or(64),
        ff_inner: 4 * dim,
        channels: if options.stereo.unwrap_or(false) { 2 } else { 1 },
        num_stems: options.num_stems.unwrap_or(1),
        bands: bands(options, family, &stft),
        // Mel-Band RoFormer's `depth` counts hidden layers, BS-RoFormer's counts Linears.
        mask_linears: options.mask_estimator_depth.unwrap_or(if mel { 1 } else { 2 }) + usize::from(mel),
        mask_hidden: dim * options.mlp_expansion_factor.unwrap_or(4),
        stft,
        zero_dc: options.zero_dc.unwrap_or(false) && first_bin(options) == 0,
        skip_connection: options.skip_connection.unwrap_or(false),
        position: if options.use_pope.unwrap_or(false) { Position::Polar } else { Position::Rotary },
        value_residual: value_residual(options, newer, mel),
        hyper_connections: hyper_connections(options, newer, mel),
        masks: MaskKind::Mlp,
        attention_biases: false,
        experimental_residuals: false,
        siamese: false,
        conformer: None,
        branch_names: newer,
    };
    // The checks of a checkpoint's YAML, on the tensors that the network would have.
    if dim.saturating_mul(depth).saturating_mul(arch.bands.len()) > 1 << 28 {
        return Err(TrainError::setting(
            "model",
            "a network that fits into memory",
            format!("dim {dim}, depth {depth}, {} bands", arch.bands.len()),
        ));
    }
    Architecture::resolve(config, &Shapes(arch.tensors()), Some(family)).map_err(wrong)
}

fn bands(options: &ModelOptions, family: Family, stft: &StftConfig) -> Vec<Vec<usize>> {
    if family == Family::MelBandRoformer {
        let bands = options.num_bands.unwrap_or(60).min(stft.freqs());
        return mel_bands(options.sample_rate.unwrap_or(44_100), stft.n_fft, bands);
    }
    let sizes = options.freqs_per_bands.clone().unwrap_or_else(default_freqs_per_bands);
    let mut start = first_bin(options);
    sizes
        .iter()
        .map(|&size| {
            start += size;
            (start - size..start).collect()
        })
        .collect()
}

fn value_residual(options: &ModelOptions, newer: bool, mel: bool) -> Option<ValueResidual> {
    match (newer, mel) {
        (false, _) => None,
        (true, false) => Some(ValueResidual::ToValueResidualMix),
        (true, true) => {
            options.add_value_residual.unwrap_or(true).then_some(ValueResidual::LearnedValueResidualMix)
        }
    }
}

fn hyper_connections(options: &ModelOptions, newer: bool, mel: bool) -> Option<HyperConnections> {
    let (streams, fracs) =
        (options.num_residual_streams.unwrap_or(4), options.num_residual_fracs.unwrap_or(1));
    // Mel-Band RoFormer's constructor does not pass its iterations on.
    let sinkhorn_iters = if mel { 2 } else { options.mc_hyper_conn_sinkhorn_iters.unwrap_or(2) };
    (newer && (streams > 1 || fracs > 1)).then_some(HyperConnections { streams, fracs, sinkhorn_iters })
}

/// The tensors of an architecture in place of a checkpoint's.
struct Shapes(Vec<ExpectedTensor>);

impl TensorShapes for Shapes {
    fn shapes(&self) -> Box<dyn Iterator<Item = (&str, &[usize])> + '_> {
        Box::new(self.0.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())))
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.as_slice())
    }
}

/// The first bin that a band may own; -1 in the YAML leaves the end open.
fn first_bin(options: &ModelOptions) -> usize {
    options.freq_range.map_or(0, |(low, _)| usize::try_from(low).unwrap_or(0))
}
