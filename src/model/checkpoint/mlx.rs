//! Names of weights that were exported for Apple's MLX.
//!
//! `mlx.nn.Sequential` keeps its modules in a list called `layers`, and `mlx.nn.RMSNorm` calls its factor `weight`. Shapes and
//! the order of rows are those of PyTorch. Ports that keep PyTorch's names need no table.

use super::networks::MARKER;
use super::tensor::TensorEntry;
use super::{CheckpointError, Dtype};

/// [`MARKER`] in a module list of MLX.
const MLX_MARKER: &str = "band_split.to_features.0.layers.1.weight";
/// Modules whose children are sequences in the reference code.
const SEQUENCES: [&str; 4] = ["to_features", "to_freqs", "to_out", "net"];
const ADVICE: &str =
    "use the PyTorch checkpoint that it was made from, or save the weights with the names of PyTorch";

/// Gives weights of MLX the names of PyTorch; others stay. `says_mlx`: the metadata of the file name MLX.
///
/// # Errors
/// [`CheckpointError::Unsupported`] for quantised weights and for a file of MLX with names of another kind.
pub(super) fn with_pytorch_names(
    listed: Vec<(String, TensorEntry)>,
    says_mlx: bool,
    origin: &str,
) -> Result<Vec<(String, TensorEntry)>, CheckpointError> {
    let unsupported =
        |found: String| Err(CheckpointError::Unsupported { file: origin.to_owned(), found, advice: ADVICE });
    let has = |name: &str| listed.binary_search_by(|(listed, _)| listed.as_str().cmp(name)).is_ok();
    let is_quantised = |(name, entry): &&(String, TensorEntry)| {
        entry.dtype == Dtype::U32
            && name.strip_suffix(".weight").is_some_and(|module| has(&format!("{module}.scales")))
    };
    if let Some((name, _)) = listed.iter().find(is_quantised) {
        return unsupported(format!("an MLX export with quantised weights (`{}`)", super::printable(name)));
    }
    let is_network = |marker: &str| listed.iter().any(|(name, _)| name.ends_with(marker));
    match (is_network(MLX_MARKER), is_network(MARKER)) {
        (true, false) => {
            let renamed = listed.into_iter().map(|(name, entry)| (pytorch_name(&name), entry));
            let mut renamed: Vec<_> = renamed.collect();
            renamed.sort_by(|(a, _), (b, _)| a.cmp(b));
            match renamed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                Some(pair) => unsupported(format!(
                    "an MLX export with two weights for `{}`",
                    super::printable(&pair[0].0)
                )),
                None => Ok(renamed),
            }
        }
        (false, false) if says_mlx => {
            unsupported("an MLX export whose names are not those of a known port".to_owned())
        }
        _ => Ok(listed),
    }
}

/// The name that PyTorch gives a weight of MLX.
fn pytorch_name(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut in_sequence = false;
    for part in name.split('.') {
        in_sequence |= SEQUENCES.contains(&part);
        if !(in_sequence && part == "layers") {
            parts.push(part);
        }
    }
    let is_norm = matches!(
        parts[..],
        [.., "norm" | "final_norm", "weight"]
            | [.., "to_features", _, "0", "weight"]
            | [.., "net", "0", "weight"]
    );
    if is_norm && let Some(last) = parts.last_mut() {
        *last = "gamma";
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mlx_become_those_of_pytorch() {
        for (mlx, pytorch) in [
            ("band_split.to_features.3.layers.0.weight", "band_split.to_features.3.0.gamma"),
            ("band_split.to_features.3.layers.1.bias", "band_split.to_features.3.1.bias"),
            ("layers.5.0.layers.0.0.norm.weight", "layers.5.0.layers.0.0.norm.gamma"),
            ("layers.5.0.layers.0.0.to_qkv.weight", "layers.5.0.layers.0.0.to_qkv.weight"),
            ("layers.5.1.layers.0.0.to_out.layers.0.weight", "layers.5.1.layers.0.0.to_out.0.weight"),
            ("layers.5.1.layers.0.1.net.layers.0.weight", "layers.5.1.layers.0.1.net.0.gamma"),
            ("layers.5.1.layers.0.1.net.layers.4.bias", "layers.5.1.layers.0.1.net.4.bias"),
            ("layers.5.1.norm.weight", "layers.5.1.norm.gamma"),
            ("final_norm.weight", "final_norm.gamma"),
            (
                "mask_estimators.0.to_freqs.7.layers.0.layers.2.weight",
                "mask_estimators.0.to_freqs.7.0.2.weight",
            ),
            ("model.band_split.to_features.0.layers.1.weight", "model.band_split.to_features.0.1.weight"),
        ] {
            assert_eq!(pytorch_name(mlx), pytorch);
        }
    }
}
