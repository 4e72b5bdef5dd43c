//! The input is a safetensors file without the length in front: JSON up to the last brace, then data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nullsum::model::checkpoint::Checkpoint;

fuzz_target!(|input: &[u8]| {
    let header = input.iter().rposition(|byte| *byte == b'}').map_or(input.len(), |at| at + 1);
    let mut file = (header as u64).to_le_bytes().to_vec();
    file.extend_from_slice(input);
    if let Ok(checkpoint) = Checkpoint::from_bytes(file, "fuzz") {
        for tensor in checkpoint.tensors() {
            if let Ok(values) = tensor.to_f32() {
                assert_eq!(values.len(), tensor.elements());
            }
        }
    }
});
