//! The `wsltrace` program: parse, run, print, exit.

use std::process::ExitCode;

use clap::Parser;
use wsltrace::cli::{Cli, Command};
use wsltrace::command;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return fail(&command::Failure::unparsed(&error)),
        Err(help) => help.exit(),
    };
    wsltrace::log_to_stderr(cli.trace.verbose);
    let done = |()| 0;
    let result = match &cli.command {
        None if cli.version => command::version::run(cli.trace.verbose).map(done),
        None => command::trace::run(&cli.trace),
        Some(Command::Explain { word }) => command::explain::run(word.as_deref()).map(done),
        Some(Command::Completions { shell }) => command::manual::completions(*shell).map(done),
        Some(Command::Man) => command::manual::man().map(done),
        Some(Command::Demo { scenario }) => command::demo::demo(scenario.as_deref()).map(done),
        Some(Command::Selftest { json, scenarios }) => command::demo::selftest(scenarios, *json).map(done),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => fail(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "this is where errors are told")]
fn fail(failure: &command::Failure) -> ExitCode {
    eprintln!("wsltrace: {}", failure.message);
    if let Some(hint) = &failure.hint {
        eprintln!("  try: {hint}");
    }
    ExitCode::from(failure.status)
}
