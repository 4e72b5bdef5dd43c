//! The input is what follows the magic number in a file of PyTorch before 1.6: four pickles and the numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nullsum::model::checkpoint::Checkpoint;

/// The first pickle: the magic number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes([MAGIC, bytes].concat(), "fuzz") else { return };
    for tensor in checkpoint.tensors() {
        if let Ok(values) = tensor.to_f32() {
            assert_eq!(values.len(), tensor.elements());
        }
    }
});
