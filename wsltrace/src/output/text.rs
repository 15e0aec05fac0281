//! Text for people, verdict first: one line for what works; for what fails a sentence, the path, the evidence, the commands.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
};

use anstyle::Style;
use jiff::Timestamp;

use super::{
    Report, Waited,
    contract::{Absence, Armed, SummaryLine},
    listening::{Start, sentences},
    path::path,
    summary_text,
    words::{BAD, COMMAND, FAINT, GOOD, Page, STRONG, duration, ends, is_fine, ports, sentence},
};
use crate::{
    diagnosis::{Code, Confidence, reason_page, row},
    escape::escape,
    journey::{Flow, Journey, Origin, Stage},
};

/// Lines are not longer than this, however wide the terminal is.
const WIDEST: usize = 100;
/// Narrower terminals get lines of this width.
const NARROWEST: usize = 40;
/// How many flows are remembered for folding their retransmissions.
const REMEMBERED: usize = 4096;

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

/// How the text looks.
#[derive(Clone, Copy, Debug)]
pub struct TextOptions {
    /// Write colours.
    pub color: bool,
    /// Columns of the terminal.
    pub width: usize,
    /// How much is said.
    pub verbosity: Verbosity,
    /// Leave out healthy journeys.
    pub failures_only: bool,
}

impl TextOptions {
    /// Colours and width as stdout's terminal has them; `NO_COLOR` and `CLICOLOR_FORCE` are kept.
    pub fn detect(verbosity: Verbosity, failures_only: bool) -> Self {
        let stdout = io::stdout();
        let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let columns =
            if stdout.is_terminal() { terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)) } else { None };
        Self { color, width: columns.unwrap_or(WIDEST), verbosity, failures_only }
    }
}

/// What was said of a flow's first finished attempt.
struct Told {
    time: Timestamp,
    code: Code,
    died_at: Option<Stage>,
}

/// Writes text: findings to `out`, talk to `err`.
pub struct TextOutput<O, E> {
    out: O,
    err: E,
    options: TextOptions,
    page: Page,
    told: HashMap<Flow, Told>,
    /// The last text was a single line, so that a block needs an empty line before it.
    after_line: bool,
}

impl<O: Write, E: Write> TextOutput<O, E> {
    /// Writes to these two.
    pub fn new(out: O, err: E, options: TextOptions) -> Self {
        let page = Page { width: options.width.clamp(NARROWEST, WIDEST), color: options.color };
        Self { out, err, options, page, told: HashMap::new(), after_line: false }
    }

    /// Says on `err` who listens, what is watched, which probes are missing, and what to do now.
    pub fn armed(&mut self, armed: &Armed, start: &Start) -> io::Result<()> {
        if self.options.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        let names: Vec<_> = armed.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let probes: u32 = armed.probes_on.iter().map(|probe| probe.count).sum();
        let mut said = sentences(&armed.ports, start);
        said.push(format!("watching {} on {} with {probes} probes", ports(&armed.ports), names.join(", ")));
        let missing = armed.probes_missing.iter();
        said.extend(missing.map(|missing| format!("without {}: {} ({})", missing.probe, missing.cost, missing.reason)));
        said.push(start.invitation.clone());
        // Colours were chosen for stdout; stderr may be another file.
        let page = Page { color: false, ..self.page };
        for text in said {
            writeln!(self.err, "{}", page.wrap(&text, 0, 2, Style::new()))?;
        }
        self.err.flush()
    }

    /// Says something on `err`.
    pub fn talk(&mut self, said: &str) -> io::Result<()> {
        if self.options.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        let page = Page { color: false, ..self.page };
        writeln!(self.err, "{}", page.wrap(said, 0, 2, Style::new()))?;
        self.err.flush()
    }

    /// Writes one journey: in full the first time, in a line when an attempt of the same SYN was told before.
    pub fn journey(&mut self, report: &Report) -> io::Result<()> {
        let Report { journey, diagnosis, .. } = report;
        if self.options.failures_only && diagnosis.code == Code::Healthy {
            return Ok(());
        }
        let before = self.told.get(&journey.flow).map(|told| {
            (
                journey.time.duration_since(told.time).unsigned_abs(),
                told.code == diagnosis.code && told.died_at == journey.died_at,
            )
        });
        let text = match before {
            Some((apart, true)) => self.again(journey, diagnosis.code, apart),
            _ => self.full(report),
        };
        self.remember(report);
        self.write(&text)
    }

    /// Writes what it means that no SYN came.
    pub fn absence(&mut self, absence: &Absence, waited: Waited) -> io::Result<()> {
        let page = self.page;
        let names: Vec<_> = absence.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let port = ports(&absence.ports);
        let verdict = match waited {
            Waited::Time(time) => format!("no SYN to {port} in {} s: the packet has not reached Linux", time.as_secs_f64()),
            Waited::Command(_) => format!("no SYN to {port} while the command ran: it has not tried to connect there"),
        };
        let mut text = format!("{} {}\n", page.paint(BAD, "?"), page.wrap(&verdict, 2, 2, STRONG));
        if self.options.verbosity != Verbosity::Quiet {
            text.push('\n');
            text.push_str(&page.labelled("watched", &names.join(", ")));
            if let Some(mode) = &absence.mode {
                text.push_str(&page.labelled("mode", mode));
            }
            if !absence.message.is_empty() {
                text.push_str(&page.labelled("means", &absence.message));
            }
            for miss in &absence.near_misses {
                let times = if miss.count == 1 { "once".to_owned() } else { format!("{} times", miss.count) };
                text.push_str(&page.labelled("near miss", &format!("port {} on {}, {times}", miss.port, miss.interface)));
            }
            text.push('\n');
        }
        self.write(&text)
    }

    /// Writes the summary.
    pub fn summary(&mut self, summary: &SummaryLine) -> io::Result<()> {
        self.write(&summary_text::summary(self.page, summary, self.options.verbosity))
    }

    /// Writes a text, with an empty line between single lines and blocks.
    fn write(&mut self, text: &str) -> io::Result<()> {
        let block = text.contains("\n\n");
        if block && self.after_line {
            self.out.write_all(b"\n")?;
        }
        self.after_line = !block;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn full(&self, report: &Report) -> String {
        let Report { journey, diagnosis, .. } = report;
        let page = self.page;
        let fine = is_fine(diagnosis.code);
        let (mark, style) = if fine { ("\u{2713}", GOOD) } else { ("\u{2717}", BAD) };
        let attempt = if journey.attempt > 1 { format!("  attempt {}", journey.attempt) } else { String::new() };
        let head = format!(
            "{} {}{}",
            page.paint(style, mark),
            page.wrap(&ends(&journey.flow), 2, 2, Style::new()),
            page.paint(FAINT, &attempt)
        );
        if fine {
            let took = journey.stages.iter().rev().find(|visit| !matches!(visit.stage, Stage::Established | Stage::Accepted));
            let took = took.map(|visit| format!(" in {}", duration(visit.ns))).unwrap_or_default();
            let by = journey.interface.as_deref().map(|name| format!(" on {}", escape(name))).unwrap_or_default();
            let said = format!("{}{took}{by}{}", row(diagnosis.code).map_or("", |row| row.title), origin(journey));
            let used = 2 + ends(&journey.flow).chars().count() + attempt.chars().count();
            let beside = used + 2 + said.chars().count() <= page.width;
            let (gap, first) = if beside { ("  ", used + 2) } else { ("\n  ", 2) };
            let mut text = format!("{head}{gap}{}\n", page.wrap(&said, first, 2, FAINT));
            if self.options.verbosity == Verbosity::Verbose {
                text.push_str(&path(page, journey, true));
            }
            return text;
        }
        let verdict = sentence(&diagnosis.summary);
        let mut text = format!("{head}\n  {}\n", page.wrap(&verdict, 2, 2, STRONG));
        if self.options.verbosity != Verbosity::Quiet {
            text.push('\n');
            text.push_str(&path(page, journey, self.options.verbosity == Verbosity::Verbose));
            text.push('\n');
            text.push_str(&evidence(page, report));
            text.push_str(&remedy(page, &diagnosis.remedy));
            text.push('\n');
        }
        text
    }

    fn again(&self, journey: &Journey, code: Code, apart: std::time::Duration) -> String {
        let apart = duration(u64::try_from(apart.as_nanos()).unwrap_or(u64::MAX));
        let same = if is_fine(code) { "answered again" } else { "the same end" };
        let said = format!("{}  attempt {}, {apart} later: {same}", ends(&journey.flow), journey.attempt);
        format!("{} {}\n", self.page.paint(FAINT, "\u{21bb}"), self.page.wrap(&said, 2, 2, FAINT))
    }

    fn remember(&mut self, report: &Report) {
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        let told = Told { time: report.journey.time, code: report.diagnosis.code, died_at: report.journey.died_at };
        self.told.insert(report.journey.flow, told);
    }
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

/// The commands are never wrapped: they are there to be copied.
fn remedy(page: Page, lines: &[String]) -> String {
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
