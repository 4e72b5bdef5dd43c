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
use serde_json::json;

use args::{Cli, Command};
use exit::{Code, Failure, Outcome};

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::tidy(std::env::args_os()));
    let json = wants_json(&cli);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.said {
                let message = told(&failure.error);
                if json {
                    let code = failure.code as u8;
                    report::say(
                        &json!({"event": "error", "message": message, "exit_code": code}).to_string(),
                    );
                } else {
                    report::warn(&message);
                }
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

/// An error with its causes, but for those that it names itself.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        match told.contains(&cause) {
            true => told,
            false if told.is_empty() => cause,
            false => format!("{told}: {cause}"),
        }
    })
}

/// Whether errors go to standard output as events.
fn wants_json(cli: &Cli) -> bool {
    match &cli.command {
        None => cli.separate.talk.json,
        Some(Command::Separate(args)) => args.talk.json,
        Some(Command::Demo(args)) => args.talk.json,
        _ => false,
    }
}

fn run(cli: Cli) -> Outcome {
    match cli.command.unwrap_or_else(|| Command::Separate(Box::new(cli.separate))) {
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
