//! Lines at the bottom of a terminal that are rewritten in place. The cursor stays at the end of the last one.

use std::io::{self, IsTerminal};

/// The lines as they stand on the terminal now.
#[derive(Default)]
pub(super) struct Live {
    lines: usize,
}

impl Live {
    /// What removes the lines.
    pub(super) fn erase(&mut self) -> String {
        match std::mem::take(&mut self.lines) {
            0 => String::new(),
            lines => format!("\r{}\x1b[J", "\x1b[1A".repeat(lines - 1)),
        }
    }

    /// What writes these lines, each no wider than the terminal, where none stand.
    pub(super) fn draw(&mut self, text: &str) -> String {
        self.lines = text.lines().count();
        text.trim_end().to_owned()
    }

    /// Somebody else has written meanwhile: what stands there stays, and new lines go below.
    pub(super) fn forget(&mut self) {
        self.lines = 0;
    }
}

/// Whether stdout is a terminal that can rewrite lines.
pub(super) fn is_possible() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}
