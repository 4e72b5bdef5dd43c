//! The input is a whole file, zip directory and all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nullsum::model::checkpoint::Checkpoint;

fuzz_target!(|file: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes(file.to_vec(), "fuzz") {
        for tensor in checkpoint.tensors() {
            if let Ok(values) = tensor.to_f32() {
                assert_eq!(values.len(), tensor.elements());
            }
        }
    }
});
