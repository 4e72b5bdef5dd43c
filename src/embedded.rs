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
    fn embedded_model_exists_with_feature_and_resolves() {
        let checkpoint = checkpoint();
        assert_eq!(checkpoint.is_some(), cfg!(feature = "embedded"));
        if let Some(checkpoint) = checkpoint {
            let config = Config::from_yaml(checkpoint.config_yaml().unwrap(), NAME).unwrap();
            ModelSpec::resolve(&checkpoint, &config, None).unwrap();
        }
    }
}
