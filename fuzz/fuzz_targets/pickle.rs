//! The input is the index of a PyTorch archive with three small storages: every tensor that is accepted must convert.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use nullsum::model::checkpoint::Checkpoint;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fuzz_target!(|index: &[u8]| {
    let Some(bytes) = archive(index) else { return };
    if let Ok(checkpoint) = Checkpoint::from_bytes(bytes, "fuzz") {
        for tensor in checkpoint.tensors() {
            if let Ok(values) = tensor.to_f32() {
                assert_eq!(values.len(), tensor.elements());
            }
        }
    }
});

fn archive(index: &[u8]) -> Option<Vec<u8>> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let storage = [0x3f; 48];
    for (name, bytes) in [
        ("a/data.pkl", index),
        ("a/data/0", &storage[..]),
        ("a/data/1", &storage[..8]),
        ("a/data/2", &storage[..0]),
    ] {
        zip.start_file(name, options).ok()?;
        zip.write_all(bytes).ok()?;
    }
    Some(zip.finish().ok()?.into_inner())
}
