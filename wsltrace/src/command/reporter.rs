//! The thread that turns records into reports: it names, asks for evidence, diagnoses and writes, while the reading goes on.

use std::io::{self, Stderr, Stdout};
use std::sync::mpsc::{Receiver, Sender};

use super::names::MachineNames;
use crate::evidence::{Evidence, Gatherer, Scope};
use crate::journey::{Outcome, assemble, decode};
use crate::kernel::links::Link;
use crate::kernel::netns::Netns;
use crate::output::contract::{Absence, Armed, Lost};
use crate::output::{JsonOutput, Report, Summary, TextOutput};

/// What the reporter is asked to do, in order.
pub(super) enum Job {
    /// The interfaces of a namespace have these names.
    Links(u32, Vec<Link>),
    /// Evidence may be needed from this namespace.
    Watch(Netns),
    /// The firewalls of a namespace that is watched are to be traced.
    Firewalls(u32, Scope),
    /// Every probe is on; the answer says when it is written.
    Armed(Box<Armed>, Sender<io::Result<()>>),
    /// A journey has ended: its record as the ring buffer carried it, which is shorter than one with room for all stages.
    Record(Vec<u8>),
    /// Events were missed between the last time that this was looked at and now, nanoseconds of `CLOCK_MONOTONIC`.
    Missed(u64),
    /// No SYN came.
    Absence(Box<Absence>),
    /// A second has passed.
    Tick,
    /// Write what was counted so far (nanoseconds traced, losses).
    Summary(u64, Lost, When),
}

/// Whether a summary is the last line or asked for in between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Between,
    AtTheEnd,
}

/// Where reports go.
pub(super) enum Output {
    Text(Box<TextOutput<Stdout, Stderr>>),
    Json(JsonOutput<Stdout>),
}

pub(super) struct Reporter {
    pub(super) names: MachineNames,
    pub(super) gatherer: Gatherer,
    pub(super) output: Output,
    pub(super) interfaces: Vec<String>,
}

/// Whether a journey belongs to the interfaces that were asked for.
pub(super) fn is_wanted(wanted: &[String], interface: Option<&str>) -> bool {
    wanted.is_empty() || interface.is_some_and(|interface| wanted.iter().any(|name| name == interface))
}

impl Reporter {
    /// Works until the sender is gone or the output cannot be written.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) -> io::Result<()> {
        let mut summary = Summary::default();
        let mut id = 0;
        let mut missed_ns = 0;
        for job in jobs {
            match job {
                Job::Links(netns, links) => self.names.learn(netns, &links),
                Job::Watch(netns) => {
                    if let Err(error) = self.gatherer.watch(&netns) {
                        log::warn!("no evidence from the network namespace {}: {error}", netns.label());
                    }
                }
                Job::Firewalls(netns, scope) => {
                    if let Err(error) = self.gatherer.trace_firewalls(netns, scope) {
                        log::warn!("no rule will be named in the network namespace {netns}: cannot trace its firewalls: {error}");
                    }
                }
                Job::Tick => {
                    if let Err(error) = self.gatherer.tick() {
                        log::warn!("cannot read the kernel's counters: {error}");
                    }
                }
                Job::Record(bytes) => {
                    let record = decode(&bytes).map_err(io::Error::other)?;
                    let mut journey = assemble(&record, id + 1, &self.names);
                    if journey.outcome == Outcome::Unfinished && missed_ns >= record.first_ns {
                        journey.complete = false;
                    }
                    if !is_wanted(&self.interfaces, journey.interface.as_deref()) {
                        continue;
                    }
                    id += 1;
                    let evidence = if journey.facts.established {
                        Evidence { translator: self.gatherer.translator(&journey), ..Evidence::default() }
                    } else {
                        self.gatherer.gather(&journey)
                    };
                    let report = Report::new(journey, evidence);
                    summary.add(&report.journey, &report.diagnosis);
                    self.journey(&report)?;
                }
                Job::Armed(armed, written) => {
                    let result = self.armed(&armed);
                    // The other side waits; it is only gone when the program ends.
                    let _ = written.send(result);
                }
                Job::Missed(now_ns) => missed_ns = now_ns,
                Job::Absence(absence) => self.absence(&absence)?,
                Job::Summary(duration_ns, lost, when) => {
                    let line = summary.line(jiff::Timestamp::now(), duration_ns, lost);
                    match &mut self.output {
                        Output::Text(text) => text.summary(&line)?,
                        Output::Json(json) if when == When::AtTheEnd => json.summary(&line)?,
                        Output::Json(_) => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn armed(&mut self, armed: &Armed) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.armed(armed),
            Output::Json(json) => json.armed(armed),
        }
    }

    fn journey(&mut self, report: &Report) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.journey(report),
            Output::Json(json) => json.journey(report),
        }
    }

    fn absence(&mut self, absence: &Absence) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.absence(absence),
            Output::Json(json) => json.absence(absence),
        }
    }
}
