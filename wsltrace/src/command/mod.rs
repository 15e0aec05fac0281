//! One file a command; each wires the rooms of the library together.

pub mod bench;
pub mod convert;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod manual;
pub mod report;
pub mod trace;
pub mod version;

mod keeper;
mod ports;
mod progress;
mod reporter;
mod stalled;
mod unaccepted;

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use clap::error::ContextKind;

use crate::causes::with_causes;
use crate::export::{Format, Out};

/// Why a command failed: one line, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// What failed, on what.
    pub message: String,
    /// What to type.
    pub hint: Option<String>,
    /// The exit status: 2 for what was typed, 1 for the rest.
    pub status: u8,
}

impl Failure {
    /// What was typed cannot be done.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), status: 2 }
    }

    /// What was typed cannot be read.
    pub fn unparsed(error: &clap::Error) -> Self {
        let text = error.to_string();
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        // What is missing stands in lines of its own.
        let list: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect();
        let message = if line.ends_with(':') { format!("{line} {}", list.join(", ")) } else { line.to_owned() };
        let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
        let message = match meant.into_iter().find_map(|kind| error.get(kind)) {
            Some(meant) => format!("{message}: is {meant} meant?"),
            None => message,
        };
        Self::usage(message, "wsltrace --help")
    }

    /// It failed while it was being done.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: 1 }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(with_causes(&error))
    }
}

/// Writes to stdout; a reader that goes away is no failure.
fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Stdout for an export: not a terminal, when the format is no text.
fn stdout_for(format: Format) -> Result<Out, Failure> {
    let stdout = io::stdout();
    if format.is_binary() && stdout.is_terminal() {
        let name = format.name();
        let message = format!("{name} is no text: it is not written to a terminal");
        return Err(Failure::usage(message, format!("name a file, or pipe it into a program that reads {name}")));
    }
    Ok(Box::new(BufWriter::new(stdout)))
}
