//! `completions`: for bash, zsh, fish, PowerShell and Elvish.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};

/// Prints the script.
pub fn run(args: &CompletionsArgs) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nullsum-cli", &mut script);
    crate::printer::print_line(String::from_utf8_lossy(&script).trim_end());
}
