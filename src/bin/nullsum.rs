//! Nullsum as an app of its own, on the system's audio devices. `nullsum --help` lists back ends, devices and rates.

use nice_plug::prelude::nice_export_standalone;
use nullsum::plugin::Stereo;

fn main() -> std::process::ExitCode {
    if nice_export_standalone::<Stereo>() {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}
