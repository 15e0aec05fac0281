//! The `wsltrace` program: parse, run, print, exit.

use std::process::ExitCode;

use clap::Parser;
use wsltrace::cli::{Cli, Command};
use wsltrace::command;

fn main() -> ExitCode {
    give_memory_back();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error),
    };
    wsltrace::log_to_stderr(cli.trace.verbose);
    let done = |()| 0;
    let result = match &cli.command {
        None if cli.version => command::version::run(cli.trace.verbose).map(done),
        None => command::trace::run(&cli.trace),
        Some(Command::Bench(args)) => command::bench::run(args).map(done),
        Some(Command::Doctor(args)) => command::doctor::run(args),
        Some(Command::Report(args)) => command::report::run(args).map(done),
        Some(Command::Diff(args)) => command::diff::run(args).map(done),
        Some(Command::Convert(args)) => command::convert::run(args).map(done),
        Some(Command::Explain { word }) => command::explain::run(word.as_deref()).map(done),
        Some(Command::Completions { shell }) => command::manual::completions(*shell).map(done),
        Some(Command::Man) => command::manual::man().map(done),
        Some(Command::Demo { list: true, .. }) => command::demo::list().map(done),
        Some(Command::Demo { scenario, .. }) => command::demo::demo(scenario.as_deref()).map(done),
        Some(Command::Selftest { json, part, scenarios }) => command::demo::selftest(scenarios, *part, *json).map(done),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => fail(&failure),
    }
}

/// Makes the allocator give large blocks back to the system as soon as they are freed. Left to itself, glibc keeps more the larger
/// the blocks were, and a start reads megabytes of the kernel's types that are never needed again.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: libc::c_int = 128 << 10;
        // SAFETY: only sets parameters of the allocator; no other thread runs yet. Failing would only cost memory.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}

/// What was typed is no command to carry out: it asks for help, or it is wrong.
fn unparsed(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let first = std::env::args_os().nth(1);
        return fail(&command::Failure::unparsed(error, first.as_ref().and_then(|first| first.to_str())));
    }
    match command::help(error) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &command::Failure) -> ExitCode {
    failure.tell();
    ExitCode::from(failure.status)
}
