//! Keeps the plugin's library loaded once it is, and tells a CUDA build how it finds NVIDIA's libraries.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=NULLSUM_CUDA_SHIM");
    println!("cargo:rustc-check-cfg=cfg(cuda_shim)");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        if std::env::var_os("CARGO_FEATURE_CUDA").is_some() && std::env::var_os("NULLSUM_CUDA_SHIM").is_some()
        {
            // Set by scripts/cuda, which also made the library that has nullsum_cuda_load.
            println!("cargo:rustc-cfg=cuda_shim");
            println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
        }
    }
}
