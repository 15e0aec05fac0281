//! An examination for people: what is wrong first, then the ways in, then what is in order.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use anstyle::Style;

use super::TextOptions;
use super::words::{BAD, COMMAND, FAINT, GOOD, Page, STRONG, sentence};
use crate::doctor::{Examination, Finding, Line, Severity, Shell};
use crate::escape::escape;
use crate::wsl::{Answer, Carrier, Row};

/// Narrower pages have no room for a table.
const TABLE: usize = 72;
/// Columns of the table but the last: the way, whether it works, by what.
const COLUMNS: [usize; 3] = [23, 13, 13];

/// The whole text; `all` says also what is in order.
pub fn examination(examined: &Examination, options: TextOptions, all: bool) -> String {
    let page = options.page();
    let mut text = verdict(page, examined);
    let wrong = examined.findings.iter().filter(|finding| finding.severity != Severity::Fine);
    for finding in wrong {
        text.push('\n');
        text.push_str(&told(page, finding));
    }
    text.push('\n');
    text.push_str(&table(page, &examined.ways, examined.port));
    let fine: Vec<&Finding> = examined.findings.iter().filter(|finding| finding.severity == Severity::Fine).collect();
    if !fine.is_empty() {
        text.push_str(&format!("\n{}\n", page.paint(STRONG, "In order")));
        for finding in fine {
            text.push_str(&format!("  {}\n", page.wrap(&sentence(&finding.summary), 2, 2, Style::new())));
            let evidence = finding.evidence.iter().filter(|_| all);
            for line in evidence {
                text.push_str(&format!("    {}\n", page.wrap(line, 4, 4, FAINT)));
            }
        }
    }
    text
}

/// The first sentence.
fn verdict(page: Page, examined: &Examination) -> String {
    let count = |severity| examined.findings.iter().filter(|finding| finding.severity == severity).count();
    let (fails, warns) = (count(Severity::Fails), count(Severity::Warns));
    let many = |count: usize, one: &str, more: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {more}") };
    let said = match (fails, warns) {
        (0, 0) if count(Severity::Unknown) > 0 => "nothing wrong was seen, but not everything could be looked at".to_owned(),
        (0, 0) => "nothing is wrong with it as far as could be seen".to_owned(),
        // The first way is the one that most people mean.
        (0, _) if examined.ways.first().is_some_and(|row| row.answer == Answer::Works) => {
            format!("it works, with {}", many(warns, "thing to know", "things to know"))
        }
        (0, 1) => "nothing is sure to fail, but there is 1 thing to know".to_owned(),
        (0, _) => format!("nothing is sure to fail, but there are {warns} things to know"),
        _ => format!("{} keep connections from it", many(fails, "thing", "things")).replace("1 thing keep ", "1 thing keeps "),
    };
    let place = match (examined.wsl, &examined.mode) {
        (None, _) => String::new(),
        (Some(_), None) => " in WSL".to_owned(),
        (Some(_), Some(mode)) => format!(" in WSL ({mode} mode)"),
    };
    let style = if fails > 0 { BAD } else { STRONG };
    format!("{}\n", page.wrap(&sentence(&format!("port {}{place}: {said}", examined.port)), 0, 0, style))
}

fn told(page: Page, finding: &Finding) -> String {
    let (label, style) = match finding.severity {
        Severity::Fails => ("fails", BAD),
        Severity::Warns => ("know", STRONG),
        Severity::Unknown => ("unseen", FAINT),
        Severity::Fine => ("fine", GOOD),
    };
    let label = page.paint(style, &format!("{label:<8}"));
    let mut text = format!("{label}{}\n", page.wrap(&sentence(&finding.summary), 8, 8, Style::new()));
    for line in &finding.evidence {
        text.push_str(&format!("        {}\n", page.wrap(line, 8, 10, FAINT)));
    }
    for line in &finding.remedy {
        text.push_str(&typed(page, line));
    }
    text
}

/// A line to type, whole: a command is copied.
fn typed(page: Page, line: &Line) -> String {
    let place = match line.shell {
        Shell::Linux => "",
        Shell::PowerShell => "PowerShell> ",
        Shell::AdminPowerShell => "PowerShell as administrator> ",
    };
    match line.text.strip_prefix('#') {
        Some(words) => format!("      > {}\n", page.wrap(words.trim(), 8, 8, Style::new())),
        None => format!("      $ {}{}\n", page.paint(FAINT, place), page.paint(COMMAND, &escape(&line.text))),
    }
}

fn table(page: Page, rows: &[Row], port: u16) -> String {
    let mut text = format!("{}\n", page.paint(STRONG, &format!("Ways to port {port}")));
    for row in rows {
        let (answer, style) = match row.answer {
            Answer::Works => ("works", GOOD),
            Answer::Fails => ("fails", BAD),
            Answer::Unknown => ("cannot know", FAINT),
        };
        let carrier = row.carrier.as_ref().map_or("-", Carrier::words);
        let why = match (&row.listener, row.why.as_str()) {
            (Some(listener), "") => format!("taken by the socket on {listener}"),
            (Some(listener), why) if row.answer == Answer::Works => format!("{why}, taken by the socket on {listener}"),
            (_, why) => why.to_owned(),
        };
        if page.width < TABLE {
            let by = row.carrier.as_ref().map(|carrier| format!(" (by {})", carrier.words())).unwrap_or_default();
            let said = format!("{}: {answer}{by}; {why}", row.way.words());
            text.push_str(&format!("  {}\n", page.wrap(&said, 2, 4, style)));
            continue;
        }
        let [way, works, by] = COLUMNS;
        let indent = 2 + way + works + by;
        text.push_str(&format!(
            "  {:<way$}{}{:<by$}{}\n",
            row.way.words(),
            page.paint(style, &format!("{answer:<works$}")),
            escape(carrier),
            page.wrap(&why, indent, indent, Style::new())
        ));
    }
    text
}

/// A script of the commands, to be read before it is run: Linux' lines are commands of it, those of Windows are comments.
pub fn script(examined: &Examination) -> String {
    let mut text =
        format!("#!/bin/sh\n# What wsltrace doctor --port {} advises. Read it before you run it.\nset -e\n", examined.port);
    let with_remedy = examined
        .findings
        .iter()
        .filter(|finding| !finding.remedy.is_empty() && matches!(finding.severity, Severity::Fails | Severity::Warns));
    let mut with_remedy = with_remedy.peekable();
    if with_remedy.peek().is_none() {
        text.push_str("\n# There is nothing to mend.\n");
    } else {
        // Images of containers have no sudo, and root needs none.
        text.push_str("command -v sudo >/dev/null || sudo() { \"$@\"; }\n");
    }
    for finding in with_remedy {
        text.push_str(&format!("\n# {}\n", escape(&sentence(&finding.summary))));
        for line in &finding.remedy {
            let line_text = escape(&line.text);
            text.push_str(&match (line.shell, line_text.starts_with('#')) {
                (_, true) | (Shell::Linux, false) => format!("{line_text}\n"),
                (Shell::PowerShell, false) => format!("# in PowerShell on Windows:\n#   {line_text}\n"),
                (Shell::AdminPowerShell, false) => format!("# in PowerShell on Windows, as administrator:\n#   {line_text}\n"),
            });
        }
    }
    text
}
