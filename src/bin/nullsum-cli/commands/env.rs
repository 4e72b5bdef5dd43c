//! `env`: prints the environment variables that Nullsum reads.

use nullsum::environment::VARIABLES;

/// Prints every variable with its current value.
pub fn run() {
    for variable in VARIABLES {
        let value = std::env::var_os(variable.name);
        let value = value.map_or_else(|| "(not set)".into(), |value| value.to_string_lossy().into_owned());
        println!("{}={value}\n    {}", variable.name, variable.meaning);
    }
}
