//! `wsltrace demo` and `wsltrace selftest`: the lab, shown and checked.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::ProgressBar;

use super::Failure;
use super::signals::until_ended;
use crate::bench::doubts::told_of_paths;
use crate::bench::load::Stop;
use crate::bench::result::Bench;
use crate::bench::rounds::drawn_seed;
use crate::escape::shell_word;
use crate::lab::{self, LabError, Part};
use crate::output::{self, Shown, TextOptions, Verbosity};

/// The name of the demonstration that measures.
const BENCH: &str = "bench";
/// How long each way is measured.
const EACH: Duration = Duration::from_secs(2);

/// Lists what can be broken.
pub fn list() -> Result<(), Failure> {
    super::printed(lab::list(&mut io::stdout()))
}

/// Breaks a private network and shows what the tracer says.
pub fn demo(scenario: Option<&str>) -> Result<(), Failure> {
    if scenario == Some(BENCH) {
        return bench();
    }
    let binary = std::env::current_exe()?;
    told(lab::demo(scenario, &binary, &mut io::stdout()), &["demo"].into_iter().chain(scenario).collect::<Vec<_>>())
}

/// Measures the ways into WSL, rebuilt in a private network. Whoever ends it gets what was measured by then.
fn bench() -> Result<(), Failure> {
    let bar = spinner();
    let shown = bar.clone();
    let work =
        move |stop: Stop| lab::compare(EACH, drawn_seed(), &stop, |name, _| shown.set_message(format!("measuring {name}")));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (compared, interrupted) = runtime.block_on(until_ended(work))?;
    bar.finish_and_clear();
    let (plan, measured, mut warnings) = match compared {
        Ok(compared) => compared,
        Err(error) => return told(Err(error), &["demo", BENCH]),
    };
    warnings.extend(told_of_paths(&plan, &measured.paths, interrupted));
    let result = Bench::of(&plan, &measured, interrupted, warnings, jiff::Timestamp::now());
    let options = TextOptions::detect(Verbosity::Normal, Shown::default());
    super::print(output::bench_ways(&lab::WAYS, options) + &output::bench(&result, options))
}

/// A line on the terminal that says what is measured.
fn spinner() -> ProgressBar {
    if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() }
}

/// Runs the scenarios of these names, or all, or a part of them; an error when one failed.
pub fn selftest(scenarios: &[String], part: Part, json: bool) -> Result<(), Failure> {
    let binary = std::env::current_exe()?;
    match lab::selftest(scenarios, part, json, &binary, &mut io::stdout()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new("some scenarios failed on this kernel; attach the table to a bug report")),
        Err(error) => {
            let names = scenarios.iter().map(String::as_str);
            told(Err(error), &["selftest"].into_iter().chain(names).collect::<Vec<_>>())
        }
    }
}

/// What came of a command of these words. A reader of the output that goes away is no failure.
fn told(result: Result<(), LabError>, words: &[&str]) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(LabError::Output(error)) => super::printed(Err(error)),
        Err(error @ LabError::Unknown(_)) => Err(Failure::usage(error.chain(), "wsltrace demo --list")),
        Err(error) => {
            let command = words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
            let root = nix::unistd::geteuid().is_root();
            let hint = (!root).then(|| format!("run it as root: sudo wsltrace {command}"));
            Err(Failure { message: error.chain(), hint, status: 1 })
        }
    }
}
