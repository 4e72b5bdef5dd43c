//! The input is a GGUF file: every tensor that is accepted must convert, and its YAML must be one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;

fuzz_target!(|bytes: &[u8]| {
    // What follows the four bytes of the format is the fuzzer's.
    let file = [b"GGUF", bytes].concat();
    let Ok(checkpoint) = Checkpoint::from_bytes(file, "fuzz") else { return };
    if let Some(yaml) = checkpoint.derived_config_yaml() {
        let _ = Config::from_yaml(yaml, "fuzz");
    }
    for tensor in checkpoint.tensors() {
        if let Ok(values) = tensor.to_f32() {
            assert_eq!(values.len(), tensor.elements());
        }
    }
});
