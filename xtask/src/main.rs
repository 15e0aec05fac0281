//! Project tasks: `cargo xtask setup|build|install|dist|demo|test|rulesets|pairs|fuzz|bench|vm|lint`. Every task first brings the part of the set-up that it
//! needs.

mod bench;
mod build;
mod command;
mod demo;
mod dist;
mod error;
mod fuzz;
mod install;
mod libtest;
mod lint;
mod managers;
mod pairs;
mod places;
mod rulesets;
mod setup;
mod skips;
mod test;
mod vm;
mod wide;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Tasks of the wsltrace project.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Task {
    /// Bring whatever is missing to build, lint and test on this machine
    Setup,
    /// Build the program with its kernel side embedded
    Build {
        /// Optimise, and leave the program at target/release/wsltrace
        #[arg(long)]
        release: bool,
    },
    /// Build for release and put the program at /usr/local/bin/wsltrace
    Install,
    /// Make a Debian package under target/dist, check it with lintian and try it in a root of its own
    Dist,
    /// Build for release and run `wsltrace demo`
    Demo {
        /// Passed to `wsltrace demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run all tests: unit tests, and end-to-end tests in private network namespaces (root)
    Test {
        /// Only the tests that need neither root nor the kernel side
        #[arg(long)]
        unit: bool,
        /// Passed to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure start, latency, programs and a flood of SYNs on this machine, and print the figures (root)
    Bench {
        /// What to measure: pairs, programs, flood, recordings, loads; everything when none is named
        parts: Vec<String>,
    },
    /// Boot a kernel under QEMU and run `wsltrace selftest` in it
    Vm(vm::Arguments),
    /// Give made-up recordings to the reader, and to everything that tells what it read
    Fuzz {
        /// How many
        #[arg(long, default_value_t = 100_000)]
        runs: u32,
    },
    /// Try random rulesets, each with one killer, and whether it is named (root)
    Rulesets(rulesets::Arguments),
    /// Break the lab twice, mend it by what is printed, and see whether all that was said is true (root)
    Pairs(pairs::Arguments),
    /// Check formatting and run clippy with warnings denied, on the user side and on the kernel side
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup => setup::run(),
        Task::Build { release } => build::run(release),
        Task::Install => install::run(),
        Task::Dist => dist::run(),
        Task::Demo { arguments } => demo::run(&arguments),
        Task::Test { unit, arguments } => test::run(unit, &arguments),
        Task::Pairs(arguments) => pairs::run(&arguments),
        Task::Bench { parts } => bench::run(&parts),
        Task::Fuzz { runs } => fuzz::run(runs),
        Task::Rulesets(arguments) => rulesets::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Lint => lint::run(),
    };
    outcome.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// Prints the error with what is behind it and what to do about it.
fn fail(error: &Error) -> ExitCode {
    command::say(&format!("error: {error}"));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        command::say(&format!("  because: {inner}"));
        cause = inner.source();
    }
    if let Some(hint) = error.hint() {
        for line in hint.lines() {
            command::say(&format!("  to do: {line}"));
        }
    }
    ExitCode::FAILURE
}
