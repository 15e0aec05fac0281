//! What a program that ran has printed, compared with what it should have.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

use wsltrace::lab::{LabError, Namespace};

/// An error with everything that it printed, unless something holds.
pub fn check(output: &Output, holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Err(format!("expected {what}; {}\nstdout:\n{out}\nstderr:\n{err}", output.status).into())
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Result<Output, LabError> {
    command.output().map_err(|source| LabError::Io { doing: format!("run {command:?}"), source })
}

/// Runs `wsltrace bench` in a namespace, where it has its own network.
pub fn bench_in(namespace: &Namespace, binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(binary);
    command.arg("bench").args(arguments);
    Ok(namespace.run(|| output(&mut command))?)
}
