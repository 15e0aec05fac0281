//! How text looks and how much of it there is: as asked for, and as the terminal has it.

use std::io::{self, IsTerminal};

use super::{live, telling::columns, words::Page};

/// Lines are not longer than this, however wide the terminal is.
pub(super) const WIDEST: usize = 100;
/// Narrower terminals get lines of this width.
pub(super) const NARROWEST: usize = 40;
/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Verdicts only.
    Quiet,
    /// The path by hooks.
    #[default]
    Normal,
    /// Every stage.
    Verbose,
}

impl Verbosity {
    /// As --quiet and --verbose ask.
    pub fn asked(quiet: bool, verbose: bool) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (_, true) => Self::Verbose,
            _ => Self::Normal,
        }
    }
}

/// What is shown of the journeys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// The sockets of one attempt as one; failures whose cause was told are counted.
    #[default]
    Attempts,
    /// The same, without healthy attempts.
    Failures,
    /// Every journey on its own, at once.
    Each,
}

impl Shown {
    /// As --all and --failures ask.
    pub fn asked(all: bool, failures: bool) -> Self {
        match (all, failures) {
            (true, _) => Self::Each,
            (_, true) => Self::Failures,
            _ => Self::Attempts,
        }
    }
}

/// How the text looks.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// Write colours.
    pub color: bool,
    /// Columns of the terminal.
    pub width: usize,
    /// Columns of the terminal that talk goes to.
    pub talk_width: usize,
    /// Findings go to a terminal.
    pub terminal: bool,
    /// How much is said.
    pub verbosity: Verbosity,
    /// What is shown.
    pub shown: Shown,
    /// Counts of what repeats stand at the bottom and are rewritten in place.
    pub live: bool,
}

impl TextOptions {
    /// Colours and width as stdout's terminal has them; `NO_COLOR`, `CLICOLOR_FORCE` and `TERM=dumb` are kept.
    pub fn detect(verbosity: Verbosity, shown: Shown) -> Self {
        let stdout = io::stdout();
        let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let talk = columns(&io::stderr());
        // What goes through a pipe to a pager is read on the terminal that talk goes to.
        let found = columns(&stdout).or(talk);
        let width = found.unwrap_or(WIDEST);
        let live = width >= NARROWEST && live::is_possible();
        let (talk_width, terminal) = (talk.unwrap_or(WIDEST), stdout.is_terminal());
        Self { color, width, talk_width, terminal, verbosity, shown, live }
    }

    /// The page for findings.
    pub(super) fn page(self) -> Page {
        Page { width: self.width.clamp(NARROWEST, WIDEST), color: self.color }
    }

    /// The same where stdout carries something else, and findings go to stderr as well.
    pub fn detect_beside(verbosity: Verbosity, shown: Shown) -> Self {
        let stderr = io::stderr();
        let color = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
        let width = columns(&stderr).unwrap_or(WIDEST);
        Self { color, width, talk_width: width, terminal: stderr.is_terminal(), verbosity, shown, live: false }
    }
}
