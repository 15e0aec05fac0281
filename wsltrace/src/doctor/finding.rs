//! What an examination says: findings, worst first, each with how it is known and what to type.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::programs::Programs;

/// How bad a finding is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A connection will fail.
    Fails,
    /// It works now, or for some, and will not for others or later.
    Warns,
    /// It could not be looked at, so nothing is claimed about it.
    Unknown,
    /// Nothing is wrong here; said because somebody will ask.
    Fine,
}

/// Where a command is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// A shell in this Linux.
    Linux,
    /// PowerShell on Windows.
    PowerShell,
    /// PowerShell on Windows, started as administrator.
    AdminPowerShell,
}

/// A line to type; one that begins with `#` says what no command can do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Where.
    pub shell: Shell,
    /// What.
    pub text: String,
}

/// One thing that was examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The check that says so, such as `listener_address`; see `super::checks::CHECKS`.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence for somebody who has never read a kernel source, without its full stop.
    pub summary: String,
    /// How it is known, a sentence or a line of output each.
    pub evidence: Vec<String>,
    /// What mends it, in order; empty when nothing is to be mended.
    pub remedy: Vec<Line>,
}

impl Finding {
    /// What is wrong, with what to type where that is one line.
    pub fn in_a_sentence(&self) -> String {
        match self.remedy.as_slice() {
            [Line { shell: Shell::Linux, text }] if !text.starts_with('#') => format!("{}; type `{text}`", self.summary),
            _ => self.summary.clone(),
        }
    }

    /// A finding; [`super::diagnose`] fills in the check's name.
    pub fn new(severity: Severity, summary: impl Into<String>) -> Self {
        Self { check: String::new(), severity, summary: summary.into(), evidence: Vec::new(), remedy: Vec::new() }
    }

    /// Adds how it is known.
    #[must_use]
    pub fn because(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// Adds a line for a shell in this Linux.
    #[must_use]
    pub fn linux(self, text: impl Into<String>) -> Self {
        self.line(Shell::Linux, text)
    }

    /// Adds a line for PowerShell as administrator.
    #[must_use]
    pub fn admin(self, text: impl Into<String>) -> Self {
        self.line(Shell::AdminPowerShell, text)
    }

    /// Adds a line for PowerShell.
    #[must_use]
    pub fn powershell(self, text: impl Into<String>) -> Self {
        self.line(Shell::PowerShell, text)
    }

    /// Has its lines for Linux as they are to be typed here.
    #[must_use]
    pub(super) fn typed_with(mut self, programs: &Programs) -> Self {
        for line in self.remedy.iter_mut().filter(|line| line.shell == Shell::Linux) {
            line.text = programs.entered(std::mem::take(&mut line.text));
        }
        let lines = self.remedy.iter().filter(|line| line.shell == Shell::Linux);
        if let Some(text) = programs.before(lines.map(|line| line.text.as_str())) {
            self.remedy.insert(0, Line { shell: Shell::Linux, text });
        }
        self
    }

    fn line(mut self, shell: Shell, text: impl Into<String>) -> Self {
        self.remedy.push(Line { shell, text: text.into() });
        self
    }
}
