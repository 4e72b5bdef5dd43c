//! The CUDA attention kernel, run by an emulation of its threads and of the tensor cores' instructions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_cuda_attention_kernel_is_attention_in_emulation() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("emulate");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flash/emulate.cpp");
    match Command::new("c++").args(["-O1", "-std=c++17", "-o"]).arg(&program).arg(source).output() {
        Err(error) => return println!("no C++ compiler ({error}): nothing was tested"),
        Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
    }
    let done = Command::new(program).output().unwrap();
    let snr: f64 = String::from_utf8(done.stdout).unwrap().trim().parse().unwrap();
    // Outputs are rounded to f16, which alone leaves 73 dB.
    assert!(snr > 65.0, "{snr:.1} dB");
}
