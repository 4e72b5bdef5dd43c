//! The kernels as a library for the CPU, compiled from the same source (`tests/emulation/emulate.cpp`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;
use parking_lot::Mutex;

type Run = unsafe extern "C" fn(*const c_char, c_int, *const *const c_void) -> c_int;

/// The library, where there is a C++ compiler. One kernel runs at a time: its threads share what stands for a GPU.
fn library() -> Option<&'static Mutex<Library>> {
    static LIBRARY: OnceLock<Option<Mutex<Library>>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("emulate.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulation/emulate.cpp");
            let options =
                ["-O1", "-std=c++17", "-fno-strict-aliasing", "-ffp-contract=off", "-shared", "-fPIC"];
            // Traps where an access is not aligned as a GPU wants it.
            let checks = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"];
            match Command::new("c++").args(options).args(checks).arg("-o").arg(&file).arg(source).output() {
                Err(error) => {
                    println!("no C++ compiler ({error}): kernels were not tested in emulation");
                    return None;
                }
                Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
            }
            // SAFETY: the library is the one just compiled; nothing of it runs when it is loaded but the list of its kernels being made.
            Some(Mutex::new(unsafe { Library::new(file) }.unwrap()))
        })
        .as_ref()
}

/// Whether the emulator could be built.
pub fn is_available() -> bool {
    library().is_some()
}

/// Runs `blocks` blocks of a kernel. Panics if the kernel does not exist or has other parameters than inputs, output and numbers.
pub fn run(kernel: &str, inputs: &[*const c_void], out: *mut c_void, numbers: &[i32], blocks: i32) {
    let library = library().unwrap().lock();
    let pointers: Vec<*const c_void> = inputs.iter().copied().chain([out.cast_const()]).collect();
    // As for the driver: the address of each argument, here followed by a null.
    let arguments: Vec<*const c_void> = pointers
        .iter()
        .map(|pointer| std::ptr::from_ref(pointer).cast())
        .chain(numbers.iter().map(|number| std::ptr::from_ref(number).cast()))
        .chain([std::ptr::null()])
        .collect();
    let name = CString::new(kernel).unwrap();
    // SAFETY: `run` of emulate.cpp has this type, and calls the kernel only when it has as many parameters; the callers of `Launch` give
    // contiguous tensors of the sizes in `numbers`.
    let code = unsafe { library.get::<Run>(b"run\0").unwrap()(name.as_ptr(), blocks, arguments.as_ptr()) };
    assert_eq!(code, 0, "{kernel} with {} arguments", arguments.len() - 1);
}
