//! `cargo xtask test`: all tests, summed in one line.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, ExitStatus, Stdio},
};

use crate::{
    build,
    command::{self, is_root, own_cargo, say},
    error::Error,
    libtest::Tally,
    managers, places,
    setup::{self, Part},
    skips, vm,
};

/// The package with the tests that trace real packets.
const END_TO_END: &str = "wsltrace-tests";

/// What to type when the end-to-end tests need root: sudo's own PATH has no cargo.
const AS_ROOT: &str = "sudo -E env \"PATH=$PATH\" cargo xtask test";

/// Runs the tests; without root only those that need none, which is an error unless that was asked for.
pub(crate) fn run(unit: bool, arguments: &[String]) -> Result<(), Error> {
    let all = !unit && is_root();
    let mut guest = None;
    let mut cargo = own_cargo();
    cargo.current_dir(places::root()).args(["test", "--workspace", "--no-fail-fast", "--target-dir"]).arg(places::user_target());
    if all {
        setup::ensure(&[Part::Build, Part::Test])?;
        setup::ensure_readers();
        build::run(true)?;
        cargo.env("WSLTRACE_BIN", places::program(true));
        match managers::bring() {
            Ok(directory) => {
                cargo.env("WSLTRACE_MANAGERS", directory);
            }
            // Their test says that it is skipped.
            Err(error) => say(&format!("test: no packages of ufw, firewalld and Docker: {error}")),
        }
        guest = vm::start_default()?;
    } else {
        cargo.args(["--exclude", END_TO_END]);
    }
    cargo.args(with_output_shown(arguments));
    let (status, tally) = follow(&mut cargo)?;
    let outcome = judge(&cargo, status, &tally);
    let summary = tally.summary();
    if all {
        let in_guest = guest.map_or(Ok(()), vm::Started::finish);
        tally.failures().iter().chain(&tally.reasons()).for_each(|line| say(line));
        say(&summary);
        return match (outcome, in_guest) {
            (Err(error), Err(other)) => {
                say(&format!("error: {other}"));
                Err(error)
            }
            (outcome, in_guest) => outcome.and(in_guest),
        };
    }
    say(&summary);
    outcome?;
    if unit {
        return Ok(());
    }
    Err(Error::NeedsRoot {
        task: "test",
        reason: "the unit tests ran; the end-to-end tests make network namespaces and trace in them",
        command: format!("{AS_ROOT}, or only the unit tests: cargo xtask test --unit"),
    })
}

/// The arguments, with libtest asked to show what passing tests print: a skip must not be hidden.
fn with_output_shown(arguments: &[String]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    if !arguments.iter().any(|argument| argument == "--") {
        arguments.push("--".to_owned());
    }
    arguments.push("--show-output".to_owned());
    arguments
}

/// Runs `cargo test`, passing every byte on as it comes and counting.
fn follow(cargo: &mut Command) -> Result<(ExitStatus, Tally), Error> {
    let start = |source, cargo: &Command| Error::Start { command: command::line(cargo), source };
    let mut child = cargo.stdout(Stdio::piped()).spawn().map_err(|source| start(source, cargo))?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).map_err(|source| start(source, cargo))? > 0 {
            tally.read(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
            let mut terminal = std::io::stdout().lock();
            terminal.write_all(&line).and_then(|()| terminal.flush()).map_err(|source| start(source, cargo))?;
            line.clear();
        }
    }
    let status = child.wait().map_err(|source| start(source, cargo))?;
    Ok((status, tally))
}

/// Whether the run was good: cargo succeeded, and in CI nothing was skipped that is not on the list.
fn judge(cargo: &Command, status: ExitStatus, tally: &Tally) -> Result<(), Error> {
    if tally.failed() > 0 {
        return Err(Error::Tests(format!("{} tests failed", tally.failed())));
    }
    if !status.success() {
        return Err(Error::Failed { command: command::line(cargo), status });
    }
    if std::env::var("CI").as_deref() != Ok("true") {
        return Ok(());
    }
    let expected = skips::read(&places::expected_skips())?;
    let unexpected = skips::unexpected(tally.skips(), &expected);
    if unexpected.is_empty() {
        return Ok(());
    }
    let listed = unexpected.iter().map(|skip| format!("{} ({})", skip.name, skip.reason)).collect::<Vec<_>>().join(", ");
    Err(Error::Tests(format!("skipped but not in tests/expected-skips.txt: {listed}")))
}

#[cfg(test)]
mod tests {
    use super::with_output_shown;

    #[test]
    fn skips_are_shown_whatever_is_asked_of_cargo() {
        let shown = |arguments: &[&str]| with_output_shown(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(shown(&[]), ["--", "--show-output"]);
        assert_eq!(shown(&["--test", "lab"]), ["--test", "lab", "--", "--show-output"]);
        assert_eq!(shown(&["--", "drop"]), ["--", "drop", "--show-output"]);
    }
}
