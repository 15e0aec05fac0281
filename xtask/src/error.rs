//! What can go wrong in a task, and the command that mends it.

use std::{io, path::PathBuf};

/// Why a task stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program could not be started at all.
    #[error("could not run `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// A program ran and reported failure.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// A file could not be read, written or moved.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something that the task needs is not there and could not be brought.
    #[error("missing: {missing}: {reason}")]
    Missing {
        /// Names of what is missing, each with what it is for.
        missing: String,
        /// Why it was not brought.
        reason: String,
        /// The commands that bring it, one a line.
        bring: String,
        /// What failed while bringing it.
        source: Option<Box<Error>>,
    },
    /// The task needs root.
    #[error("{task} needs root: {reason}")]
    NeedsRoot {
        /// Which task.
        task: &'static str,
        /// What it would do as root.
        reason: &'static str,
        /// The command that does it.
        command: String,
    },
    /// A program said something that we do not understand.
    #[error("`{command}` said {said:?}")]
    Odd {
        /// The command line.
        command: String,
        /// What it said.
        said: String,
    },
    /// Nothing tells who makes the package.
    #[error("cannot tell who makes the package: this is no git checkout")]
    NoStamp,
    /// The package does not do what it should.
    #[error("the package is wrong: {0}")]
    Package(String),
    /// Tests failed although cargo itself ran.
    #[error("{0}")]
    Tests(String),
    /// A file that was to be booted is no kernel that we know how to boot.
    #[error("{} is no kernel image for x86 (bzImage)", .0.display())]
    Image(PathBuf),
    /// Debian's archive does not give what is wanted.
    #[error("{0}")]
    Archive(String),
    /// A virtual machine did not come to its end.
    #[error("{what}; the end of its console ({}):\n{tail}", console.display())]
    Guest {
        /// What happened.
        what: String,
        /// Where its console was written to.
        console: PathBuf,
        /// The console's last lines.
        tail: String,
    },
    /// A line of the list of expected skips cannot be understood.
    #[error("{}:{line}: expected `name  # reason`", path.display())]
    SkipList {
        /// The list.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

impl Error {
    /// The exact command that the reader can type, when there is one.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Missing { bring, .. } => Some(bring),
            Self::NeedsRoot { command, .. } => Some(command),
            Self::NoStamp => Some("build from a git checkout, or set DEBFULLNAME and DEBEMAIL in one"),
            _ => None,
        }
    }
}
