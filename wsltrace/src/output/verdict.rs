//! One attempt in words: a line for what works; for what fails a sentence, the path, the evidence, the commands.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use anstyle::Style;

use super::{
    Report, Verbosity,
    path::path,
    words::{BAD, COMMAND, FAINT, GOOD, Page, STRONG, duration, ends, sentence},
};
use crate::{
    diagnosis::{Code, Confidence, reason_page, row, rule_name},
    escape::escape,
    evidence::Rule,
    journey::{Flow, Journey, Origin, Stage},
};

/// An attempt that works; `more` sockets of the same client were answered with it, and `tried` failed before it at the other
/// family's localhost.
pub(super) fn fine(page: Page, verbosity: Verbosity, report: &Report, more: u64, tried: &[Report]) -> String {
    let Report { journey, diagnosis, .. } = report;
    let (head, used) = head(page, &[report], true);
    let took = journey.stages.iter().rev().find(|visit| !matches!(visit.stage, Stage::Established | Stage::Accepted));
    let took = took.map(|visit| format!(" in {}", duration(visit.ns))).unwrap_or_default();
    let by = journey.interface.as_deref().map(|name| format!(" on {}", escape(name))).unwrap_or_default();
    let more = match more {
        0 => String::new(),
        1 => ", and 1 more socket with it".to_owned(),
        more => format!(", and {more} more sockets with it"),
    };
    let unsaid = match journey.facts.server_closed_ns {
        Some(after_ns) if diagnosis.code == Code::Healthy => {
            format!(", and closed by the server {} later without a byte", duration(after_ns))
        }
        _ => String::new(),
    };
    let said = format!("{}{took}{by}{}{unsaid}{more}", row(diagnosis.code).map_or("", |row| row.title), origin(journey));
    let beside = used + 2 + said.chars().count() <= page.width;
    let (gap, first) = if beside { ("  ", used + 2) } else { ("\n  ", 2) };
    let mut text = format!("{head}{gap}{}\n", page.wrap(&said, first, 2, FAINT));
    for failed in tried {
        let end = destination(&failed.journey.flow);
        let said = format!("it tried {end} first ({}) and took the other address", failed.diagnosis.code);
        text.push_str(&format!("  {}\n", page.wrap(&said, 2, 2, FAINT)));
    }
    if verbosity == Verbosity::Verbose {
        text.push_str(&path(page, journey, true));
    }
    text
}

/// An attempt that fails; `twins` ended alike at the other family's localhost.
pub(super) fn failure(page: Page, verbosity: Verbosity, report: &Report, twins: &[&Report]) -> String {
    let Report { journey, diagnosis, .. } = report;
    let all: Vec<&Report> = std::iter::once(report).chain(twins.iter().copied()).collect();
    let (head, _) = head(page, &all, false);
    let verdict = sentence(&diagnosis.summary);
    let mut text = format!("{head}\n  {}\n", page.wrap(&verdict, 2, 2, STRONG));
    if verbosity != Verbosity::Quiet {
        text.push('\n');
        text.push_str(&path(page, journey, verbosity == Verbosity::Verbose));
        text.push('\n');
        text.push_str(&evidence(page, report));
        text.push_str(&remedy(page, &diagnosis.remedy));
        text.push('\n');
    }
    text
}

/// The mark and who connects to whom, and how many columns its last line takes.
fn head(page: Page, reports: &[&Report], fine: bool) -> (String, usize) {
    let (mark, style) = if fine { ("\u{2713}", GOOD) } else { ("\u{2717}", BAD) };
    let flows: Vec<String> = reports.iter().map(|report| ends(&report.journey.flow)).collect();
    let flows = flows.join(", then ");
    let attempt = reports.first().map_or(1, |report| report.journey.attempt);
    let attempt = if attempt > 1 { format!("attempt {attempt}") } else { String::new() };
    let flows = page.wrap(&flows, 2, 2, Style::new());
    let last = flows.rsplit_once('\n').map_or_else(|| 2 + flows.chars().count(), |(_, last)| last.chars().count());
    let (gap, begin) = match attempt.chars().count() {
        0 => ("", last),
        more if last + 2 + more <= page.width => ("  ", last + 2),
        _ => ("\n  ", 2),
    };
    let used = begin + attempt.chars().count();
    (format!("{} {flows}{gap}{}", page.paint(style, mark), page.paint(FAINT, &attempt)), used)
}

fn destination(flow: &Flow) -> std::net::SocketAddr {
    std::net::SocketAddr::new(flow.destination, flow.destination_port)
}

fn evidence(page: Page, report: &Report) -> String {
    let Report { journey, evidence, diagnosis } = report;
    let sure = match diagnosis.confidence {
        Confidence::Proved => "proved",
        Confidence::Inferred => "inferred",
    };
    let mut text = page.labelled("finding", &format!("{} ({sure})", diagnosis.code));
    match (&journey.reason, &journey.location) {
        (Some(reason), location) => {
            let at = location.as_ref().map(|location| format!(" at {location}")).unwrap_or_default();
            let means = reason_page(reason).map(|page| format!(": {}", page.short)).unwrap_or_default();
            text.push_str(&page.labelled("kernel", &format!("{reason}{at}{means}")));
        }
        (None, Some(location)) => text.push_str(&page.labelled("kernel", &format!("freed at {location}"))),
        (None, None) => {}
    }
    if let Some(rule) = evidence.rule.as_ref().and_then(|rule| rule.text.as_ref()) {
        text.push_str(&page.labelled("rule", rule));
    }
    for listener in evidence.sockets.iter().flat_map(|sockets| &sockets.listeners).chain(&evidence.elsewhere) {
        let end = std::net::SocketAddr::new(listener.address, listener.port);
        let device = listener.device.as_ref().map(|device| format!("%{device}")).unwrap_or_default();
        let only = if listener.v6only { ", IPv6 only" } else { "" };
        let who = match (&listener.command, listener.pid) {
            (Some(command), Some(pid)) => format!("{command} (pid {pid})"),
            (None, Some(pid)) => format!("pid {pid}"),
            _ => "no process in this distro".to_owned(),
        };
        let netns =
            if listener.netns == journey.netns { String::new() } else { format!(", network namespace {}", listener.netns) };
        let said = format!("{end}{device} {who}{only}, queue {} of {}{netns}", listener.queue, listener.backlog);
        text.push_str(&page.labelled("listener", &said));
    }
    if let Some(translated) = &journey.translated {
        let end = |address, port| std::net::SocketAddr::new(address, port).to_string();
        let now = format!(
            "to {} \u{2192} {}",
            end(translated.source, translated.source_port),
            end(translated.destination, translated.destination_port)
        );
        text.push_str(&page.labelled("rewritten", &now));
        if let Some(rule) = &translated.rule {
            text.push_str(&page.labelled("by", &rule_line(rule)));
        }
    }
    if let Some(rule) = &evidence.exempted_by {
        text.push_str(&page.labelled("untracked", &format!("by {}", rule_line(rule))));
    }
    for (name, value) in &evidence.sysctls {
        text.push_str(&page.labelled("sysctl", &format!("{name} = {value}")));
    }
    if journey.origin == Origin::WslLocalhostRelay {
        text.push_str(&page.labelled("from", "Windows' localhost, by WSL's relay"));
    }
    text.push_str(&page.labelled("more", &format!("wsltrace explain {}", diagnosis.code)));
    text
}

/// A rule's place and its text.
fn rule_line(rule: &Rule) -> String {
    let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    format!("{}{text}", rule_name(rule))
}

/// The commands are never wrapped: they are there to be copied.
pub(super) fn remedy(page: Page, lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        if line.starts_with('#') {
            text.push_str(&format!("  {}\n", page.wrap(line, 2, 6, FAINT).replace("\n      ", "\n  #   ")));
        } else {
            text.push_str(&format!("  {}\n", page.paint(COMMAND, &escape(line))));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn origin(journey: &Journey) -> &'static str {
    match journey.origin {
        Origin::Remote => "",
        Origin::Local => ", from this machine",
        Origin::WslLocalhostRelay => ", from Windows' localhost",
    }
}
