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
mod queue;
mod reporter;
mod signals;
mod stalled;
mod unaccepted;

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::causes::{reason, with_causes};
use crate::cli::Cli;
use crate::escape::shell_word;
use crate::export::{Format, Out};
use crate::kernel::netns::{Netns, NetnsError};
use crate::output::{tell, tell_whole};

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

    /// What was typed cannot be read; its `first` word may be a command, which has a help of its own.
    pub fn unparsed(error: &clap::Error, first: Option<&str>) -> Self {
        let text = error.to_string();
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        // What is missing stands in lines of its own.
        let list: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect();
        let message = if line.ends_with(':') { format!("{line} {}", list.join(", ")) } else { line.to_owned() };
        let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
        let message = match (error.get(ContextKind::ValidValue), meant.into_iter().find_map(|kind| error.get(kind))) {
            // Who asked for tcsh does not mean zsh: what there is says more than a guess.
            (Some(ContextValue::Strings(values)), _) if !values.is_empty() => {
                format!("{message}: there are {}", values.join(", "))
            }
            (_, Some(meant)) => format!("{message}: is {meant} meant?"),
            (_, None) => message,
        };
        if let Some(port) = first.filter(|_| error.kind() == ErrorKind::UnknownArgument).and_then(port_in) {
            return Self::usage(message, format!("sudo wsltrace --port {port}"));
        }
        if let Some(option) = first.filter(|_| error.kind() == ErrorKind::UnknownArgument).and_then(option_of_name) {
            return Self::usage(format!("there is no command {option}: is --{option} meant?"), "wsltrace --help");
        }
        if error.kind() == ErrorKind::UnknownArgument
            && let Some((typed, meant)) = first.and_then(|first| Some((first, nearest_command(first)?)))
        {
            return Self::usage(
                format!("there is no command {}: is {meant} meant?", shell_word(typed)),
                format!("wsltrace {meant} --help"),
            );
        }
        let message = if error.kind() == ErrorKind::UnknownArgument { misplaced(error, message) } else { message };
        let command = first.filter(|first| Cli::command().find_subcommand(first).is_some());
        Self::usage(message, command.map_or_else(|| "wsltrace --help".to_owned(), |name| format!("wsltrace {name} --help")))
    }

    /// It failed while it was being done.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: 1 }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        tell(&format!("wsltrace: {}", self.message));
        let Some(hint) = &self.hint else { return };
        // Commands are there to be copied, and a line break is copied too.
        if ["wsltrace ", "sudo "].iter().any(|command| hint.starts_with(command)) {
            tell_whole(&format!("  try: {hint}"));
        } else {
            tell(&format!("  try: {hint}"));
        }
    }
}

/// What was typed is not known where it stands: says more of a number below 0, and of a command behind options.
fn misplaced(error: &clap::Error, message: String) -> String {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return message };
    if word.starts_with('-') && word.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit()) {
        return format!("{message}: no option takes a number below 0");
    }
    if Cli::command().find_subcommand(word).is_some() {
        return format!("{message}: the command {word} comes before all options, and takes its own only");
    }
    message
}

/// The port in a word that is one, or an address or URL with one.
fn port_in(word: &str) -> Option<u16> {
    let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    host.rsplit_once(':').map_or(host, |(_, port)| port).parse().ok().filter(|port| *port != 0)
}

/// The option of this name, typed without its dashes.
fn option_of_name(word: &str) -> Option<String> {
    let all = Cli::command();
    all.get_arguments().filter_map(clap::Arg::get_long).find(|name| *name == word).map(str::to_owned)
}

/// The command whose name is nearly this word.
fn nearest_command(word: &str) -> Option<String> {
    /// More letters that are wrong make another word.
    const SLIPS: usize = 2;
    let slips = |name: &str| strsim::damerau_levenshtein(name, word);
    let all = Cli::command();
    // An option in the place of a command is no command that was mistyped.
    let names = all
        .get_subcommands()
        .map(clap::Command::get_name)
        .filter(|name| !word.starts_with('-') && (1..=SLIPS).contains(&slips(name)));
    names.min_by_key(|name| slips(name)).map(str::to_owned)
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(with_causes(&error))
    }
}

/// Writes to stdout; a reader that goes away is no failure.
fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_ref()).and_then(|()| out.flush()))
}

/// What came of writing to stdout; a reader that goes away is no failure.
fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {}", reason(&error))))
        }
        _ => Ok(()),
    }
}

/// Prints the help that was asked for.
pub fn help(asked: &clap::Error) -> Result<(), Failure> {
    printed(asked.print().and_then(|()| io::stdout().flush()))
}

/// A file that cannot be written to; `-` is stdout.
fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let name = if path.as_os_str() == "-" { "standard output".to_owned() } else { progress::shown(path) };
    Failure::new(format!("cannot write to {name}: {}", reason(error)))
}

/// A file that was to be made; `what` it would be.
fn cannot_make(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot make the {what} {}: {}", progress::shown(path), reason(error));
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Failure::usage(message, "another name, or --force to overwrite it");
    }
    let hint = match error.kind() {
        io::ErrorKind::InvalidData => "another name: what is no recording is never overwritten by one",
        io::ErrorKind::InvalidInput => "the name of a regular file",
        _ => "name a file in a folder that exists and can be written to",
    };
    Failure { message, hint: Some(hint.to_owned()), status: 1 }
}

/// Files that are written side by side: no two may be one.
fn distinct<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
    let mut places = Vec::new();
    for file in files {
        // A file that is yet to be made is known by its folder.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = || Some(folder.canonicalize().ok()?.join(file.file_name()?));
        let place = file.canonicalize().ok().or_else(made).unwrap_or_else(|| file.to_owned());
        if places.contains(&place) {
            let message = format!("{} is to be written twice", progress::shown(file));
            return Err(Failure::usage(message, "give each thing that is written a file of its own"));
        }
        places.push(place);
    }
    Ok(())
}

/// The network namespace that was named, or the own one.
fn netns(named: Option<&str>) -> Result<Netns, Failure> {
    let Some(named) = named else { return Ok(Netns::current()?) };
    Netns::open(named).map_err(|error| {
        let message = with_causes(&error);
        match &error {
            NetnsError::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Failure { message, hint: Some(format!("as root: sudo {}", typed_command())), status: 1 }
            }
            NetnsError::Open { .. } => {
                Failure::usage(message, "name one of /run/netns, the number of a process, or a path such as /proc/PID/ns/net")
            }
            NetnsError::NotOne { .. } | NetnsError::NoProcess(_) | NetnsError::NoName(_) => {
                Failure { message, hint: None, status: 2 }
            }
            NetnsError::Enter { .. } | NetnsError::Thread { .. } => Failure::new(message),
        }
    })
}

/// The command as one would type it again.
fn typed_command() -> String {
    std::env::args_os().map(|argument| shell_word(&argument.to_string_lossy())).collect::<Vec<_>>().join(" ")
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
