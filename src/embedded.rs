//! The model that is part of the program, for the first run, demos and use without a network.

use std::sync::OnceLock;

use crate::hash;
use crate::model::checkpoint::Checkpoint;

/// Name of the embedded model, on the command line and in reports.
pub const NAME: &str = "embedded";

/// The embedded checkpoint with its configuration; `None` without the feature `embedded`.
#[must_use]
pub fn checkpoint() -> Option<Checkpoint> {
    Checkpoint::from_bytes(bytes()?, NAME).ok()
}

/// SHA-256 of the embedded checkpoint as lower-case hex; empty without the feature `embedded`.
#[must_use]
pub fn sha256() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| bytes().map_or_else(String::new, hash::sha256))
}

/// SDR of one stem on one song that the embedded model was not trained on.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct StemScore {
    /// Name of the song.
    pub song: String,
    /// Name of the stem.
    pub stem: String,
    /// SDR of the whole song in dB.
    pub sdr_db: f32,
    /// Median of the SDR over the song's seconds in dB.
    pub median_sdr_db: f32,
}

/// The description that lies beside the weights.
#[derive(serde::Deserialize)]
struct Description {
    sha256: String,
    evaluation: Vec<StemScore>,
}

/// Quality of the embedded model, measured with `training/evaluate.py`; `None` without the feature `embedded`.
#[must_use]
pub fn evaluation() -> Option<Vec<StemScore>> {
    let description: Description =
        serde_json::from_str(include_str!("../assets/nullsum-preview.json")).ok()?;
    (description.sha256 == sha256()).then_some(description.evaluation)
}

#[cfg(feature = "embedded")]
fn bytes() -> Option<&'static [u8]> {
    Some(include_bytes!("../assets/nullsum-preview.safetensors"))
}

#[cfg(not(feature = "embedded"))]
fn bytes() -> Option<&'static [u8]> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::Config;
    use crate::separator::ModelSpec;

    #[test]
    fn description_belongs_to_the_embedded_weights() {
        assert_eq!(evaluation().is_some(), cfg!(feature = "embedded"));
        assert!(evaluation().is_none_or(|scores| scores.len() == 7));
    }

    #[test]
    fn embedded_model_exists_with_feature_and_resolves() {
        let checkpoint = checkpoint();
        assert_eq!(checkpoint.is_some(), cfg!(feature = "embedded"));
        if let Some(checkpoint) = checkpoint {
            let config = Config::from_yaml(checkpoint.config_yaml().unwrap(), NAME).unwrap();
            ModelSpec::resolve(&checkpoint, &config, None).unwrap();
        }
    }
}
