//! The model that comes with the program, for the first run, for demos, and for those without a network.

use std::sync::OnceLock;

use crate::hash;
use crate::model::checkpoint::Checkpoint;

/// Name of the embedded model, on the command line and in reports.
pub const NAME: &str = "embedded";

/// The embedded checkpoint, with its configuration inside; none where the feature `embedded` is off.
#[must_use]
pub fn checkpoint() -> Option<Checkpoint> {
    Checkpoint::from_bytes(bytes()?, NAME).ok()
}

/// SHA-256 of the embedded checkpoint in lower-case hex; empty where there is none.
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
    use crate::separator::ModelInfo;

    #[test]
    fn the_embedded_model_is_there_exactly_when_it_was_built_in_and_is_whole() {
        let checkpoint = checkpoint();
        assert_eq!(checkpoint.is_some(), cfg!(feature = "embedded"));
        if let Some(checkpoint) = checkpoint {
            let config = Config::from_yaml(checkpoint.config_yaml().unwrap(), NAME).unwrap();
            ModelInfo::resolve(&checkpoint, &config, None).unwrap();
        }
    }
}
