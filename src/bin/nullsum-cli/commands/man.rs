//! `man`: the man page, for packages.

use clap::CommandFactory;

use crate::args::Cli;

/// Prints the man page of the program, followed by a section for each command.
pub fn run() {
    let mut page = Vec::new();
    let command = Cli::command().about("Separate songs into stems that sum to the original");
    // Writing to a vector cannot fail.
    let _ = clap_mangen::Man::new(command).render(&mut page);
    crate::printer::print_line(String::from_utf8_lossy(&page).trim_end());
}
