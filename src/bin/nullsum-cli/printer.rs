//! Output policy: text for people, or one JSON object a line for programs.

use std::io::{IsTerminal, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::args::{CacheCommand, Command, MessageArgs, ModelsCommand};
use crate::report::path_text;

/// Prints a line on standard output. A closed pipe (`| head`) is not an error.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line on standard error.
pub fn print_warning(line: &str) {
    let _ = writeln!(std::io::stderr(), "nullsum-cli: {line}");
}

/// How much is printed, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printer {
    /// JSON events on standard output, nothing else.
    Json,
    /// Warnings and errors only.
    Quiet,
    /// Text without progress bars.
    Plain,
    /// Text, with progress bars if standard error is a terminal.
    Progress,
}

impl From<MessageArgs> for Printer {
    fn from(args: MessageArgs) -> Self {
        match args {
            MessageArgs { json: true, .. } => Self::Json,
            MessageArgs { quiet: true, .. } => Self::Quiet,
            MessageArgs { disable_detailed_pbar: true, .. } => Self::Plain,
            MessageArgs { .. } => Self::Progress,
        }
    }
}

impl Command {
    /// The output policy of the command.
    pub fn printer(&self) -> Printer {
        let of = |json: bool| if json { Printer::Json } else { Printer::Plain };
        match self {
            Self::Separate(args) => args.printer.into(),
            Self::Demo(args) => args.printer.into(),
            Self::Models(args) => match &args.command {
                None => of(args.json),
                Some(ModelsCommand::List { json, .. }) => of(*json || args.json),
                Some(ModelsCommand::Download { printer, .. }) => (*printer).into(),
                Some(ModelsCommand::Path { .. }) => Printer::Plain,
            },
            Self::Devices(args) => of(args.json),
            Self::Cache(args) => {
                of(args.json || matches!(args.command, Some(CacheCommand::List { json: true })))
            }
            // With `--json` standard output carries the measurements only.
            Self::Bench(_) | Self::Tiers(_) => Printer::stderr_only(),
            Self::Convert(args) if args.quiet => Printer::Quiet,
            Self::Convert(_) | Self::Inspect(_) | Self::Completions(_) | Self::Env | Self::Man => {
                Printer::Plain
            }
        }
    }
}

impl Printer {
    /// Text on standard error, for commands that print results on standard output.
    pub fn stderr_only() -> Self {
        Self::Progress
    }

    /// Without progress bars, for several songs at a time.
    pub fn without_progress(self) -> Self {
        if self == Self::Progress { Self::Plain } else { self }
    }

    /// Whether output is JSON.
    pub fn json(self) -> bool {
        self == Self::Json
    }

    /// Whether progress bars are drawn.
    pub fn has_progress(self) -> bool {
        self == Self::Progress && std::io::stderr().is_terminal()
    }

    /// Whether text other than warnings and errors is printed.
    fn is_text(self) -> bool {
        matches!(self, Self::Plain | Self::Progress)
    }

    /// Prints text on standard error, except with `--quiet` and `--json`.
    pub fn note(self, line: &str) {
        if self.is_text() {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Prints text on standard output, except with `--quiet` and `--json`.
    pub fn print_line(self, line: &str) {
        if self.is_text() {
            print_line(line);
        }
    }

    /// Prints a JSON event, with `--json` only.
    pub fn event(self, event: &Value) {
        if self.json() {
            print_line(&event.to_string());
        }
    }

    /// Prints the event with `--json`, otherwise the message on standard error.
    fn json_or_stderr(self, event: &Value, message: &str) {
        if self.json() {
            self.event(event);
        } else {
            print_warning(message);
        }
    }

    /// Reports the error that ends the program.
    pub fn fatal(self, message: &str, exit_code: u8) {
        self.json_or_stderr(&json!({"event": "error", "message": message, "exit_code": exit_code}), message);
    }

    /// Reports an error that does not end the program.
    pub fn error(self, input: Option<&Path>, message: &str) {
        self.json_or_stderr(
            &json!({"event": "error", "input": input.map(path_text), "message": message}),
            message,
        );
    }

    /// Reports a warning, whatever the policy.
    pub fn warning(self, message: &str) {
        self.json_or_stderr(&json!({"event": "warning", "message": message}), message);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_command_line_sets_the_output_policy() {
        for (line, printer) in [
            (&["models", "download", "--json", "name"][..], Printer::Json),
            (&["models", "--json"], Printer::Json),
            (&["models", "path"], Printer::Plain),
            (&["demo", "--quiet", "--json"], Printer::Json),
            (&["demo", "--quiet"], Printer::Quiet),
            (&["separate", "--disable-detailed-pbar"], Printer::Plain),
            (&["separate"], Printer::Progress),
            (&["bench", "--json"], Printer::stderr_only()),
        ] {
            let cli = Cli::try_parse_from([&["nullsum-cli"], line].concat()).unwrap();
            assert_eq!(cli.command.unwrap().printer(), printer, "{line:?}");
        }
    }
}
