//! Errors and warnings on standard error, and other lines outside of a page: wrapped at words where a terminal shows them.

use std::io::{self, Write as _};
use std::os::fd::AsFd;

use anstyle::Style;

use super::options::{NARROWEST, WIDEST};
use super::words::Page;

/// Writes lines to standard error, wrapped.
pub fn tell(text: &str) {
    tell_whole(&wrapped(text, &io::stderr(), 0));
}

/// Writes lines to standard error as they are. What cannot be written is left out: there is no other place to complain at, and the
/// exit status says what it is to say all the same.
pub fn tell_whole(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Columns of the terminal that this file is; of any other file those that `COLUMNS` asks for, as for `ls` and `git`.
pub(super) fn columns(of: &impl AsFd) -> Option<usize> {
    match terminal_size::terminal_size_of(of) {
        Some((width, _)) => Some(usize::from(width.0)),
        None => std::env::var("COLUMNS").ok().as_deref().and_then(asked_for),
    }
}

fn asked_for(columns: &str) -> Option<usize> {
    columns.parse().ok().filter(|columns| *columns > 0)
}

/// Lines as this file is to show them: on a terminal wrapped at words, what follows further in than the line began and at least
/// `indent` columns; anywhere else as they are, because programs read them line by line.
pub(crate) fn wrapped(text: &str, to: &impl AsFd, indent: usize) -> String {
    match terminal_size::terminal_size_of(to) {
        Some((width, _)) => wrapped_at(text, usize::from(width.0), indent),
        None => text.to_owned(),
    }
}

fn wrapped_at(text: &str, width: usize, indent: usize) -> String {
    let page = Page { width: width.clamp(NARROWEST, WIDEST), color: false };
    let lines = text.split('\n').map(|line| {
        let said = line.trim_start_matches(' ');
        let begin = line.len() - said.len();
        format!("{}{}", &line[..begin], page.wrap(said, begin, (begin + 2).max(indent), Style::new()))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_a_number_or_not_heeded() {
        assert_eq!((asked_for("40"), asked_for("100000")), (Some(40), Some(100_000)));
        for not in ["", "0", "-1", "wide", "80 "] {
            assert_eq!(asked_for(not), None, "{not:?}");
        }
    }

    #[test]
    fn lines_are_wrapped_at_words_and_keep_where_they_begin() {
        let text = "the port of the server is missing; these TCP ports have a listener now:\n  8080  0.0.0.0  a server with a long name (pid 20404)";
        let narrow = "the port of the server is missing; these\n  TCP ports have a listener now:\n  8080  0.0.0.0  a server with a long\n    name (pid 20404)";
        assert_eq!(wrapped_at(text, 40, 0), narrow);
        assert_eq!(wrapped_at(text, 80, 0), text);
        assert_eq!(
            wrapped_at("probes    not known: only root may load them at all", 40, 10).lines().nth(1),
            Some("          them at all")
        );
        // A word that is wider than the terminal stays whole, for it is a path or an address to be copied.
        assert_eq!(wrapped_at(&"x".repeat(50), 40, 0), "x".repeat(50));
    }
}
