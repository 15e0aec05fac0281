//! `wsltrace report FILE...`: what was told live, from recordings, without root.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::Failure;
use super::progress::{Opened, open, shown};
use crate::cli::{ReportArgs, Since};
use crate::output::contract::Lost;
use crate::output::{JsonOutput, Report, Shown, Start, Summary, TextOptions, TextOutput, Verbosity};
use crate::recording::filter::Filter;
use crate::recording::{Ending, Entry, Header};

/// No run lasts longer: a recording that says so is not right, and only its times suffer.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// Prints the report.
pub fn run(args: &ReportArgs) -> Result<(), Failure> {
    let mut printer = Printer::new(args);
    super::printed(printer.files(args)?)
}

/// Where the report goes.
enum Output {
    Text(Box<TextOutput<io::Stdout, io::Stderr>>),
    Json(JsonOutput<io::Stdout>),
}

struct Printer {
    output: Output,
    filter: Filter,
    slowest: Option<Slowest>,
    summary: Summary,
    /// Of the runs before the one that is read: how long they took, and what they lost.
    before: (Duration, Lost),
    /// The same of the one that is read. Its files all count from its beginning.
    current: (Duration, Lost),
    ended: Timestamp,
    /// The instant that stands for a recording's beginning.
    base: Instant,
}

/// The journeys that took longest.
struct Slowest {
    keep: usize,
    heap: BinaryHeap<Reverse<(u64, Reverse<u64>, usize)>>,
    reports: Vec<Option<Report>>,
}

impl Printer {
    fn new(args: &ReportArgs) -> Self {
        let output = if args.json {
            Output::Json(JsonOutput::new(io::stdout(), false))
        } else {
            let verbosity = Verbosity::asked(args.quiet, args.verbose);
            let shown = Shown::asked(args.all || args.slowest.is_some(), args.failures);
            let options = TextOptions { live: false, ..TextOptions::detect(verbosity, shown) };
            Output::Text(Box::new(TextOutput::new(io::stdout(), io::stderr(), options, Instant::now())))
        };
        let base = Instant::now();
        Self {
            output,
            filter: args.filter(),
            slowest: args.slowest.map(|keep| Slowest::new(keep as usize)),
            summary: Summary::default(),
            before: (Duration::ZERO, Lost::default()),
            current: (Duration::ZERO, Lost::default()),
            ended: Timestamp::UNIX_EPOCH,
            base,
        }
    }

    /// The outer error is that of a file, the inner one that of the output.
    fn files(&mut self, args: &ReportArgs) -> Result<io::Result<()>, Failure> {
        let crowded = io::stdout().is_terminal();
        for path in &args.files {
            self.filter.since = match args.since {
                Some(Since::Time(time)) => Some(time),
                Some(Since::BeforeTheEnd(duration)) => Some(last(path, crowded)?.checked_sub(duration)?),
                None => None,
            };
            let mut opened = open(path, crowded)?;
            if let Err(error) = self.begin(&opened) {
                return Ok(Err(error));
            }
            let mut told = Duration::ZERO;
            if let Err(error) = opened.for_each(|entry| self.entry(entry, &mut told))? {
                return Ok(Err(error));
            }
            self.ended(&opened, told);
            if let Some(missing) = opened.missing() {
                log::warn!("{missing}");
            }
            if let Some(Ending::Whole(end)) = opened.reader.ending()
                && let Some(next) = &end.continued
            {
                self.talk(&format!("{} goes on in {}", shown(path), crate::escape::escape(next)))?;
            }
        }
        Ok(self.finish())
    }

    fn begin(&mut self, opened: &Opened) -> io::Result<()> {
        let header = opened.reader.header();
        self.base = Instant::now();
        self.talk(&format!("{}: {}", shown(&opened.path), provenance(header)))?;
        match &mut self.output {
            // What was to be done then is not to be done now.
            Output::Text(text) => {
                text.armed(&header.armed, &Start { invitation: String::new(), ..header.start.clone() }, self.base)
            }
            Output::Json(json) => json.armed(&header.armed),
        }
    }

    fn entry(&mut self, entry: Entry, told: &mut Duration) -> io::Result<()> {
        match entry {
            Entry::Journey { report, told_ns } => {
                *told = Duration::from_nanos(told_ns).min(LONGEST);
                if !self.filter.wants(&report) {
                    return Ok(());
                }
                if let Some(slowest) = &mut self.slowest {
                    slowest.add(report);
                    return Ok(());
                }
                self.summary.add(&report.journey, &report.diagnosis);
                let now = self.base + *told;
                self.journey(report, now)
            }
            Entry::Missed(missed) if self.filter.is_open() => match &mut self.output {
                Output::Text(text) => text.absence(&missed.absence, &missed.waited),
                Output::Json(json) => json.absence(&missed.absence),
            },
            Entry::Talk(said) if self.filter.is_open() => self.talk(&crate::escape::escape(&said)),
            Entry::Missed(_) | Entry::Talk(_) => Ok(()),
        }
    }

    fn journey(&mut self, report: Report, now: Instant) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.journey(report, now),
            Output::Json(json) => json.journey(&report),
        }
    }

    fn talk(&mut self, said: &str) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.talk(said),
            Output::Json(_) => Ok(()),
        }
    }

    /// Adds up what the end of a file says.
    fn ended(&mut self, opened: &Opened, told: Duration) {
        if opened.reader.header().part == 1 {
            let (duration, lost) = std::mem::take(&mut self.current);
            self.before = (self.before.0 + duration, sum(self.before.1, lost));
        }
        if let Some(Ending::Whole(end)) = opened.reader.ending() {
            self.current = (Duration::from_nanos(end.duration_ns).min(LONGEST), end.lost);
            self.ended = end.time;
        } else {
            self.current.0 = told;
            let base = opened.reader.header().clock.wall;
            self.ended = SignedDuration::try_from(told).ok().and_then(|told| base.checked_add(told).ok()).unwrap_or(base);
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(slowest) = self.slowest.take() {
            let now = self.base;
            for report in slowest.in_order() {
                self.summary.add(&report.journey, &report.diagnosis);
                self.journey(report, now)?;
            }
        }
        let duration = self.before.0 + self.current.0;
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let line = self.summary.line(self.ended, nanoseconds, sum(self.before.1, self.current.1));
        match &mut self.output {
            Output::Text(text) => text.summary(&line, self.base + self.current.0),
            Output::Json(json) => json.summary(&line),
        }
    }
}

impl Slowest {
    fn new(keep: usize) -> Self {
        Self { keep, heap: BinaryHeap::new(), reports: Vec::new() }
    }

    fn add(&mut self, report: Report) {
        let took = report.journey.stages.last().map_or(0, |last| last.ns);
        let id = report.journey.id;
        let index = if self.heap.len() < self.keep {
            self.reports.push(None);
            self.reports.len() - 1
        } else {
            match self.heap.peek() {
                Some(Reverse((least, ..))) if *least < took => {}
                _ => return,
            }
            let Some(Reverse((_, _, index))) = self.heap.pop() else { return };
            index
        };
        self.heap.push(Reverse((took, Reverse(id), index)));
        if let Some(place) = self.reports.get_mut(index) {
            *place = Some(report);
        }
    }

    fn in_order(mut self) -> Vec<Report> {
        let mut order: Vec<_> = std::mem::take(&mut self.heap).into_iter().map(|Reverse(key)| key).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        order.into_iter().filter_map(|(_, _, index)| self.reports.get_mut(index)?.take()).collect()
    }
}

fn sum(a: Lost, b: Lost) -> Lost {
    Lost {
        table_full: a.table_full.saturating_add(b.table_full),
        ring_full: a.ring_full.saturating_add(b.ring_full),
        stages_full: a.stages_full.saturating_add(b.stages_full),
        keys_full: a.keys_full.saturating_add(b.keys_full),
        total: a.total.saturating_add(b.total),
    }
}

/// Where, when and by what a recording was made.
pub(crate) fn provenance(header: &Header) -> String {
    let machine = &header.machine;
    let mut said = format!("recorded {:.0} on Linux {} ({})", header.clock.wall, machine.kernel, machine.architecture);
    let more = [
        machine.wsl.as_ref().map(|wsl| format!(", WSL {wsl}")),
        machine.mode.as_ref().map(|mode| format!(", {mode} networking")),
        Some(format!(", by wsltrace {}", header.wsltrace)),
    ];
    said.extend(more.into_iter().flatten());
    crate::escape::escape(&said)
}

/// When the last journey of a file was first seen; the beginning where there is none.
fn last(path: &Path, crowded: bool) -> Result<Timestamp, Failure> {
    let mut opened = open(path, crowded)?;
    let mut last = opened.reader.header().clock.wall;
    while let Some(entry) = opened.reader.next_entry()? {
        if let Entry::Journey { report, .. } = entry {
            last = last.max(report.journey.time);
        }
    }
    Ok(last)
}
