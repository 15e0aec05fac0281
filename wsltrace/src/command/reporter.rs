//! The thread that turns records into reports: it names, asks for evidence, diagnoses and writes, while the reading goes on.

use std::io::{self, Stderr, Stdout, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Instant;

use super::keeper::Keeper;
use super::stalled::Stalled;
use super::unaccepted::Unaccepted;
use crate::evidence::{Gatherer, Scope};
use crate::journey::{Journey, assemble, decode};
use crate::kernel::links::Link;
use crate::kernel::names::{MachineNames, now_ns};
use crate::kernel::netns::Netns;
use crate::output::contract::Lost;
use crate::output::words::ends;
use crate::output::{JsonOutput, Report, StallLine, Summary, TextOutput, near_miss_hint};
use crate::probe::ACCEPT;
use crate::recording::{End, Header, Missed};
use wsltrace_common::Record;

/// What the reporter is asked to do, in order.
pub(super) enum Job {
    /// The interfaces of a namespace have these names.
    Links(u32, Vec<Link>),
    /// Evidence may be needed from this namespace.
    Watch(Netns),
    /// The firewalls of a namespace that is watched are to be traced.
    Firewalls(u32, Scope),
    /// Every probe is on; the answer says when it is written.
    Armed(Box<Header>, Sender<io::Result<()>>),
    /// A journey has ended: its record as the ring buffer carried it, which is shorter than one with room for all stages.
    Record(Vec<u8>),
    /// Events were missed between the last time that this was looked at and now, nanoseconds of `CLOCK_MONOTONIC`.
    Missed(u64),
    /// Something to tell people.
    Talk(String),
    /// No SYN came.
    Absence(Box<Missed>),
    /// Ctrl-C was typed.
    Interrupted,
    /// The program was stopped and goes on.
    Resumed,
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
    Text(Box<TextOutput<Box<dyn Write + Send>, Stderr>>),
    Json(JsonOutput<Stdout>),
}

/// How many journeys there were, and how many of them failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) journeys: u64,
    pub(super) failed: u64,
    /// A recording or an export could not be written to its end.
    pub(super) files_failed: bool,
}

/// What a reporter leaves: its count, and whether all was written.
pub(super) type Reported = (Tally, io::Result<()>);

pub(super) struct Reporter {
    pub(super) names: MachineNames,
    pub(super) gatherer: Gatherer,
    pub(super) output: Output,
    pub(super) keeper: Keeper,
    pub(super) unaccepted: Unaccepted,
    pub(super) stalled: Stalled,
    pub(super) interfaces: Vec<String>,
    /// When tracing began, nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) began_ns: u64,
}

/// Whether a journey belongs to the interfaces that were asked for.
pub(super) fn is_wanted(wanted: &[String], interface: Option<&str>) -> bool {
    wanted.is_empty() || interface.is_some_and(|interface| wanted.iter().any(|name| name == interface))
}

impl Reporter {
    /// Works until the sender is gone or the output cannot be written; tells what was counted by then.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) -> Reported {
        let mut summary = Summary::default();
        let written = self.work(jobs, &mut summary);
        (
            Tally {
                journeys: summary.journeys(),
                failed: summary.failed() + self.stalled.told(),
                files_failed: self.keeper.has_failed(),
            },
            written,
        )
    }

    fn work(&mut self, jobs: &Receiver<Job>, summary: &mut Summary) -> io::Result<()> {
        let mut id = 0;
        let mut missed_ns = 0;
        while let Some(job) = self.next(jobs, summary)? {
            match job {
                Job::Links(netns, links) => {
                    self.names.learn(netns, &links);
                    self.keeper.forget_places();
                }
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
                Job::Interrupted => {
                    if let Output::Text(text) = &mut self.output {
                        text.interrupted()?;
                    }
                }
                Job::Resumed => {
                    if let Output::Text(text) = &mut self.output {
                        text.resumed();
                    }
                }
                Job::Tick => {
                    if let Output::Text(text) = &mut self.output {
                        text.tick(Instant::now())?;
                    }
                    self.unaccepted.tick();
                    self.report_stalled()?;
                    if let Err(error) = self.gatherer.tick() {
                        log::warn!("cannot read the kernel's counters: {error}");
                    }
                }
                Job::Record(bytes) => {
                    let record = decode(&bytes).map_err(io::Error::other)?;
                    let mut journey = assemble(&record, id + 1, &self.names);
                    if journey.lacks_its_end() && missed_ns >= record.first_ns {
                        journey.complete = false;
                    }
                    if !is_wanted(&self.interfaces, journey.interface.as_deref()) {
                        continue;
                    }
                    id += 1;
                    if let Some((record, journey)) = self.unaccepted.keep(Box::new(record), journey, &self.gatherer) {
                        self.report(&record, journey, summary)?;
                    }
                }
                Job::Armed(header, written) => {
                    self.began_ns = header.clock.monotonic_ns;
                    if header.armed.probes_on.iter().any(|probe| probe.name == ACCEPT) {
                        self.unaccepted.leave_to_probe();
                    }
                    self.keeper.begin(&header);
                    let result = self.armed(&header);
                    // The other side waits; it is only gone when the program ends.
                    let _ = written.send(result);
                }
                Job::Missed(now_ns) => missed_ns = now_ns,
                Job::Talk(said) => {
                    self.keeper.talk(&said);
                    if let Output::Text(text) = &mut self.output {
                        text.talk(&said)?;
                    }
                }
                Job::Absence(mut missed) => {
                    let netns = missed.absence.interfaces.first().map_or(0, |interface| interface.netns);
                    match self.gatherer.wrong_checksums(netns) {
                        Ok(wrong) => missed.absence.message.extend(near_miss_hint(&missed.absence.near_misses, wrong)),
                        Err(error) => log::warn!("cannot read the kernel's counters: {error}"),
                    }
                    self.keeper.missed(&missed);
                    self.absence(&missed)?;
                }
                Job::Summary(duration_ns, lost, when) => {
                    if when == When::AtTheEnd {
                        self.await_unaccepted(summary)?;
                        self.report_stalled()?;
                    }
                    let line = summary.line(jiff::Timestamp::now(), duration_ns, lost);
                    if when == When::AtTheEnd {
                        let end = End { time: line.time.0, journeys: 0, duration_ns, lost: line.lost, continued: None };
                        self.keeper.end(&end, &line);
                    }
                    match &mut self.output {
                        Output::Text(text) => text.summary(&line, Instant::now())?,
                        Output::Json(json) if when == When::AtTheEnd => json.summary(&line)?,
                        Output::Json(_) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells of a journey, with the evidence for how it ended.
    fn report(&mut self, record: &Record, journey: Journey, summary: &mut Summary) -> io::Result<()> {
        let evidence = if journey.facts.established && !journey.came_to_nothing() {
            self.gatherer.on_the_way(&journey)
        } else {
            self.gatherer.gather(&journey)
        };
        let report = Report::new(journey, evidence);
        summary.add(&report.journey, &report.diagnosis);
        let end = || End {
            time: jiff::Timestamp::now(),
            journeys: 0,
            duration_ns: now_ns().saturating_sub(self.began_ns),
            lost: Lost::default(),
            continued: None,
        };
        self.keeper.journey(record, &report, &self.names, end);
        self.stalled.watch(&report.journey, Instant::now());
        self.journey(report)
    }

    /// Tells of the connections that were made and do not get on.
    fn report_stalled(&mut self) -> io::Result<()> {
        for (journey, connection, stall) in self.stalled.look(&self.gatherer, Instant::now()) {
            let line = StallLine::new(jiff::Timestamp::now(), &journey, &connection, stall);
            self.keeper.talk(&format!("{}: {}", ends(&line.flow), line.summary));
            match &mut self.output {
                Output::Text(text) => text.stall(&line, Instant::now())?,
                Output::Json(json) => json.stall(&line)?,
            }
        }
        Ok(())
    }

    /// Tells of the connections that have waited long enough to be accepted.
    fn report_waited(&mut self, summary: &mut Summary) -> io::Result<()> {
        while let Some(waited) = self.unaccepted.next(Instant::now(), &self.gatherer) {
            self.report(&waited.record, waited.journey, summary)?;
        }
        Ok(())
    }

    /// Waits until every connection has been accepted or has waited long enough, which takes a second at most.
    fn await_unaccepted(&mut self, summary: &mut Summary) -> io::Result<()> {
        while let Some(due) = self.unaccepted.due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.report_waited(summary)?;
        }
        Ok(())
    }

    /// The next job, or `None` when there will be none; what is due meanwhile is written.
    fn next(&mut self, jobs: &Receiver<Job>, summary: &mut Summary) -> io::Result<Option<Job>> {
        loop {
            let text = match &self.output {
                Output::Text(text) => text.due(),
                Output::Json(_) => None,
            };
            match jobs.try_recv() {
                Ok(job) => return Ok(Some(job)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                // Nothing to do: a good moment to write.
                Err(TryRecvError::Empty) => self.keeper.flush(),
            }
            let Some(due) = text.into_iter().chain(self.unaccepted.due()).min() else { return Ok(jobs.recv().ok()) };
            match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(job) => return Ok(Some(job)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    self.report_waited(summary)?;
                    if let Output::Text(text) = &mut self.output {
                        text.settle(Instant::now())?;
                    }
                }
            }
        }
    }

    fn armed(&mut self, header: &Header) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.armed(&header.armed, &header.start),
            Output::Json(json) => json.armed(&header.armed),
        }
    }

    fn journey(&mut self, report: Report) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.journey(report, Instant::now()),
            Output::Json(json) => json.journey(&report),
        }
    }

    fn absence(&mut self, missed: &Missed) -> io::Result<()> {
        match &mut self.output {
            Output::Text(text) => text.absence(&missed.absence, &missed.waited),
            Output::Json(json) => json.absence(&missed.absence),
        }
    }
}
