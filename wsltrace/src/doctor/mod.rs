//! `wsltrace doctor`: one port examined before any packet comes. Facts are gathered once, by whoever else needs them too; what is
//! said of them are pure functions, a file for each subject and a row for each check.

pub mod checks;
mod finding;
pub mod linux;

pub use finding::{Finding, Line, Severity, Shell};
pub use linux::{Address, Interface, Linux};

use crate::wsl::{NetworkingMode, Source, Wsl};

/// Everything that is known when a port is judged. Plain data: no check asks the system for more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The port of the server.
    pub port: u16,
    /// What Linux says.
    pub linux: Linux,
    /// What is known of WSL from Linux' side.
    pub wsl: WslFacts,
}

/// What is known of WSL from Linux' side.
#[derive(Clone, Debug, PartialEq)]
pub struct WslFacts {
    /// Which WSL this is, if any.
    pub wsl: Wsl,
    /// Its version, such as `2.6.1`.
    pub version: Option<String>,
    /// The networking mode, and who says so.
    pub mode: Option<(NetworkingMode, Source)>,
}

impl Default for WslFacts {
    fn default() -> Self {
        Self { wsl: Wsl::No, version: None, mode: None }
    }
}

/// Judges the facts by every check; the worst first, otherwise in the checks' order.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let named = |check: &checks::Check| {
        let name = check.name;
        (check.judge)(facts).into_iter().map(move |finding| Finding { check: name.to_owned(), ..finding })
    };
    let mut findings: Vec<Finding> = checks::CHECKS.iter().flat_map(named).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}
