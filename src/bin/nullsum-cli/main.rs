//! `nullsum-cli`: files and folders in, stems out.

mod args;
mod batch;
mod commands;
mod deal;
mod exit;
mod interrupt;
mod model_source;
mod progress;
mod report;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::{Code, Failure, Outcome, told};

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::tidy(std::env::args_os()));
    let command = cli.command.unwrap_or_else(|| Command::Separate(Box::new(cli.separate)));
    let talk = command.talk();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.code as u8;
            if !failure.said {
                talk.fatal(&told(&failure.error), code);
            }
            ExitCode::from(code)
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Separate(args) => stoppable(|| commands::separate::run(&args)),
        Command::Bench(args) => stoppable(|| commands::bench::run(&args)),
        Command::Demo(args) => stoppable(|| commands::demo::run(&args)),
        Command::Tiers(args) => stoppable(|| commands::tiers::run(&args)),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Convert(args) => stoppable(|| commands::convert::run(&args)),
        Command::Models(args) => stoppable(|| commands::models::run(&args)),
        Command::Devices(args) => {
            commands::devices::run(&args);
            Ok(())
        }
        Command::Completions(args) => {
            commands::completions::run(&args);
            Ok(())
        }
    }
}

/// Runs `work` so that Ctrl-C can stop it.
fn stoppable(work: impl FnOnce() -> Outcome) -> Outcome {
    interrupt::install();
    work().map_err(|failure| match interrupt::requested() {
        true if !failure.said => Failure { code: Code::Interrupted, ..failure },
        _ => failure,
    })
}
