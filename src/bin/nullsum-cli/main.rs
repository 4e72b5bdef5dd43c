//! `nullsum-cli`: files and folders in, stems out.

mod args;
mod batch;
mod commands;
mod exit;
mod interrupt;
mod jobs;
mod logger;
mod model_source;
mod names;
mod pattern;
mod printer;
mod progress;
mod report;
mod summary;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::{CliResult, ExitStatus, Failure, format_error};

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::normalize_args(std::env::args_os()));
    logger::install(cli.verbose);
    let command = cli.command.unwrap_or_else(|| Command::Separate(Box::new(cli.separate)));
    let printer = command.printer();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let status = match failure.status {
                ExitStatus::Interrupted => u8::try_from(interrupt::exit_code()).unwrap_or(130),
                status => status as u8,
            };
            if !failure.reported {
                printer.fatal(&format_error(&failure.error), status);
            }
            ExitCode::from(status)
        }
    }
}

fn run(command: Command) -> CliResult {
    match command {
        Command::Separate(args) => run_interruptible(|| commands::separate::run(&args)),
        Command::Cache(args) => run_interruptible(|| commands::cache::run(&args)),
        Command::Bench(args) => run_interruptible(|| commands::bench::run(&args)),
        Command::Demo(args) => run_interruptible(|| commands::demo::run(&args)),
        Command::Tiers(args) => run_interruptible(|| commands::tiers::run(&args)),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Convert(args) => run_interruptible(|| commands::convert::run(&args)),
        Command::Models(args) => run_interruptible(|| commands::models::run(&args)),
        Command::Devices(args) => {
            commands::devices::run(&args);
            Ok(())
        }
        Command::Man => {
            commands::man::run();
            Ok(())
        }
        Command::Env => {
            commands::env::run();
            Ok(())
        }
        Command::Completions(args) => {
            commands::completions::run(&args);
            Ok(())
        }
    }
}

/// Runs `work` with a Ctrl-C handler.
fn run_interruptible(work: impl FnOnce() -> CliResult) -> CliResult {
    interrupt::install_handler();
    work().map_err(|failure| match interrupt::stop_requested() {
        true if !failure.reported => Failure { status: ExitStatus::Interrupted, ..failure },
        _ => failure,
    })
}
