//! `devices`: the devices that this build can use.

use nullsum::model::device::DeviceChoice;
use serde_json::json;

use crate::args::DevicesArgs;
use crate::exit::format_error;
use crate::printer::print_line;

/// More CUDA devices than any machine has.
const MAX_CUDA_DEVICES: usize = 64;

/// Lists the devices.
pub fn run(args: &DevicesArgs) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = format!("{threads} threads, {}", instructions());
    let mut found = vec![("cpu".to_string(), Ok(cpu))];
    let mut add = |choice: DeviceChoice| {
        let state = choice.describe().map_err(|error| format_error(&error.into()));
        let ready = state.is_ok();
        // The first missing device explains why; one past the last adds nothing.
        if ready || !matches!(choice, DeviceChoice::Cuda(1..)) {
            found.push((choice.to_string(), state));
        }
        ready
    };
    let _ = (0..MAX_CUDA_DEVICES).take_while(|&n| add(DeviceChoice::Cuda(n))).count();
    add(DeviceChoice::Metal);
    for (name, state) in found {
        if args.json {
            let (ready, note) = (state.is_ok(), state.unwrap_or_else(|error| error));
            print_line(&json!({"device": name, "ready": ready, "note": note}).to_string());
        } else {
            print_line(&match state {
                Ok(note) => format!("{name:<8} {note}"),
                Err(note) => format!("{name:<8} not usable: {note}"),
            });
        }
    }
}

/// The instruction sets that the kernels can use.
fn instructions() -> String {
    #[cfg(target_arch = "x86_64")]
    let sets = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let sets: [(&str, bool); 0] = [];
    let available = sets.iter().filter(|(_, available)| *available).map(|(name, _)| *name);
    std::iter::once(std::env::consts::ARCH).chain(available).collect::<Vec<_>>().join(", ")
}
