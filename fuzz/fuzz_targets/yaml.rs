//! The input is the text of a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nullsum::model::config::Config;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::from_yaml(text, "fuzz") {
        assert_eq!(config.text(), text);
        assert!(config.stems().iter().all(|stem| !stem.is_empty()));
    }
});
