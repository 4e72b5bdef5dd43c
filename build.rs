//! Keeps the plugin's library loaded once opened. In CUDA builds, compiles the kernels with nvcc and sets how NVIDIA's libraries are found.

use std::path::Path;
use std::process::Command;

/// Source of the CUDA kernels, for tensor cores from Ampere on; the driver compiles their PTX for the card.
const KERNELS: &str = "src/model/cuda/kernels.cu";

fn main() {
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile_kernels();
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=NULLSUM_CUDA_SHIM");
    println!("cargo:rustc-check-cfg=cfg(cuda_shim)");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        if std::env::var_os("CARGO_FEATURE_CUDA").is_some() && std::env::var_os("NULLSUM_CUDA_SHIM").is_some()
        {
            // Set by scripts/cuda, which also builds the library that exports nullsum_cuda_load.
            println!("cargo:rustc-cfg=cuda_shim");
            println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
        }
    }
}

fn compile_kernels() {
    println!("cargo:rerun-if-changed=src/model/cuda");
    println!("cargo:rerun-if-env-changed=NVCC");
    let nvcc = std::env::var_os("NVCC").unwrap_or_else(|| "nvcc".into());
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    let status = Command::new(&nvcc)
        .args(["-ptx", "-arch=compute_80", "-O3", "-o"])
        .arg(Path::new(&out).join("kernels.ptx"))
        .arg(KERNELS)
        .status();
    if !status.as_ref().is_ok_and(|status| status.success()) {
        eprintln!(
            "{} cannot compile {KERNELS}: {status:?}; scripts/cuda fetches a compiler that can",
            nvcc.display()
        );
        std::process::exit(1);
    }
}
