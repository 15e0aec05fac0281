//! The `wsltrace` program: parse, run, print, exit.

use std::process::ExitCode;

use clap::Parser;
use wsltrace::cli::{Cli, Command};
use wsltrace::command;

fn main() -> ExitCode {
    let cli = Cli::parse();
    wsltrace::log_to_stderr(cli.trace.verbose);
    let result = match &cli.command {
        None => command::trace::run(&cli.trace),
        Some(Command::Explain { word }) => command::explain::run(word.as_deref()),
        Some(Command::Demo { .. } | Command::Selftest { .. }) => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("wsltrace: {}", failure.message);
            if let Some(hint) = failure.hint {
                anstream::eprintln!("  try: {hint}");
            }
            ExitCode::from(failure.status)
        }
    }
}
