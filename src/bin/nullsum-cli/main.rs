//! `nullsum-cli`: files and folders in, stems out.

mod args;
mod batch;
mod commands;
mod exit;
mod interrupt;
mod model_source;
mod progress;
mod report;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use args::{Cli, Command};
use exit::{Code, Failure, OrFail, Outcome};

/// Stack of a worker thread: as large as a main thread's.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::tidy(std::env::args_os()));
    let json = wants_json(&cli);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.said {
                let message = format!("{:#}", failure.error);
                if json {
                    let code = failure.code as u8;
                    report::say(&json!({"event": "error", "message": message, "exit_code": code}).to_string());
                } else {
                    report::warn(&message);
                }
            }
            ExitCode::from(failure.code as u8)
        }
    }
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
        Command::Separate(args) => pooled(args.run.threads, || commands::separate::run(&args)),
        Command::Bench(args) => pooled(args.run.threads, || commands::bench::run(&args)),
        Command::Demo(args) => pooled(args.run.threads, || commands::demo::run(&args)),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Convert(args) => commands::convert::run(&args),
        Command::Models(args) => commands::models::run(&args),
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

/// Runs `work` in a pool of `threads` threads of our own, so that --threads holds for all arithmetic.
fn pooled(threads: Option<u16>, work: impl FnOnce() -> Outcome + Send) -> Outcome {
    interrupt::install();
    rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(threads.unwrap_or(0)))
        .stack_size(STACK_BYTES)
        .thread_name(|n| format!("nullsum-{n}"))
        .build()
        .or_fail(Code::Failed)?
        .install(work)
        .map_err(|failure| match interrupt::requested() {
            true if !failure.said => Failure { code: Code::Interrupted, ..failure },
            _ => failure,
        })
}
