//! What can go wrong in the lab.

use std::io;

use crate::causes::with_causes;

/// A lab that could not be built, broken or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call or a file failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, on what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused a link, an address or a route.
    #[error("cannot {doing}")]
    Netlink {
        /// What was being done, on what.
        doing: String,
        /// Why it failed; boxed because it is large.
        source: Box<rtnetlink::Error>,
    },
    /// A firewall tool failed.
    #[error("{tool} failed: {message}")]
    Tool {
        /// The program and its arguments.
        tool: String,
        /// What it wrote on standard error.
        message: String,
    },
    /// This machine lacks something that the scenario is about; it is skipped, not failed.
    #[error("{0}")]
    Unsupported(String),
    /// No scenario has this name.
    #[error("no scenario is called '{}'", .0.escape_debug())]
    Unknown(String),
    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Something that had to happen did not.
    #[error("{0}")]
    Failed(String),
}

impl LabError {
    /// For `map_err`: an [`io::Error`] or `nix` error number while `doing` something.
    pub fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source: source.into() }
    }

    /// The error with all its causes in one line.
    pub fn chain(&self) -> String {
        with_causes(self)
    }
}
