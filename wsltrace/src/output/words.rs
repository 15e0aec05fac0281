//! Words, colours and lines: text wrapped to the terminal, escapes for colours.

use anstyle::{AnsiColor, Style};

use super::contract::PortRange;
pub(crate) use crate::units::duration;
use crate::{
    diagnosis::{Code, Diagnosis},
    escape::escape,
    journey::Flow,
};

pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const COMMAND: Style = AnsiColor::Cyan.on_default();
pub(super) const STRONG: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();

/// Lines of text of a limited width, with or without colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Columns.
    pub(super) width: usize,
    /// Whether escapes for colours are written.
    pub(super) color: bool,
}

impl Page {
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if self.color && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Wraps escaped `text` after `first` columns that are already written, later lines indented by `indent` columns.
    pub(super) fn wrap(self, text: &str, first: usize, indent: usize, style: Style) -> String {
        let mut lines = vec![String::new()];
        let mut column = first;
        for word in escape(text).split(' ') {
            let length = word.chars().count();
            let Some(line) = lines.last_mut() else { continue };
            if line.is_empty() {
                line.push_str(word);
                column += length;
            } else if column + 1 + length > self.width {
                lines.push(word.to_owned());
                column = indent + length;
            } else {
                line.push(' ');
                line.push_str(word);
                column += 1 + length;
            }
        }
        let pad = format!("\n{}", " ".repeat(indent));
        lines.iter().map(|line| self.paint(style, line)).collect::<Vec<_>>().join(&pad)
    }

    /// A label in a column of its own, with text wrapped beside it.
    pub(super) fn labelled(self, label: &str, text: &str) -> String {
        format!("  {}{}\n", self.paint(FAINT, &format!("{label:<10}")), self.wrap(text, 12, 12, Style::new()))
    }
}

/// `CLIENT → SERVER`, with ports.
pub(crate) fn ends(flow: &Flow) -> String {
    let end = |address, port| std::net::SocketAddr::new(address, port).to_string();
    format!("{} \u{2192} {}", end(flow.source, flow.source_port), end(flow.destination, flow.destination_port))
}

/// `port 8080`, or `ports 80, 8000-8100`.
pub(crate) fn ports(ranges: &[PortRange]) -> String {
    let one = |range: &PortRange| {
        if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) }
    };
    let several = ranges.len() > 1 || ranges.iter().any(|range| range.first != range.last);
    format!("port{} {}", if several { "s" } else { "" }, ranges.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Whether nothing is wrong with a journey of this code, as far as it goes.
pub(crate) fn is_fine(code: Code) -> bool {
    matches!(code, Code::Healthy | Code::Forwarded)
}

/// Whether a journey needs no more than a line: one that was sent on may have been so by a fault, and then there is something to type.
pub(super) fn needs_a_line_only(diagnosis: &Diagnosis) -> bool {
    diagnosis.code == Code::Healthy || is_fine(diagnosis.code) && diagnosis.remedy.is_empty()
}

/// The first letter in upper case and a full stop at the end.
pub(crate) fn sentence(text: &str) -> String {
    let end = if text.ends_with('?') { "" } else { "." };
    if begins_with_name(text) {
        return format!("{text}{end}");
    }
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{end}", letters.as_str())
}

/// Names are spelled as they are: those of interfaces (`eth0`, `lo`), of settings (`rp_filter`, `networkMode`) and of programs, behind
/// which their number stands.
fn begins_with_name(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else { return false };
    first == "lo"
        || first.contains(|c: char| c.is_ascii_digit() || "_=".contains(c))
        || first.chars().skip(1).any(char::is_uppercase)
        || words.next() == Some("(pid")
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn names_are_spelled_as_they_are() {
        assert_eq!(sentence("lo is down"), "lo is down.");
        assert_eq!(sentence("eth0 is down"), "eth0 is down.");
        assert_eq!(sentence("localhost leads there"), "Localhost leads there.");
        for named in
            ["networkMode is no key", "rp_filter is strict", "node (pid 7) does not accept", "firewall=false turns it off"]
        {
            assert_eq!(sentence(named), format!("{named}."));
        }
        assert_eq!(sentence("did you mean networkingMode?"), "Did you mean networkingMode?");
    }
}
