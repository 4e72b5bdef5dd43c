//! `nullsum-train`: trains, fine-tunes and distils RoFormers.

mod args;
mod console;
mod distill;
mod interrupt;
mod source;
mod training;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::install_handler();
    let result = match &cli.command {
        Some(Command::Distill(args)) => distill::run(args),
        None => training::run(&cli.train),
    };
    match result {
        Ok(()) if interrupt::stop_requested() => ExitCode::from(130),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::print_warning(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
