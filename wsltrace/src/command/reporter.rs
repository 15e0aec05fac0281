//! The thread that turns records into reports: it names, asks for evidence, diagnoses and writes, while the reading goes on.

use std::cell::OnceCell;
use std::io::{self, Stderr, Stdout, Write};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::keeper::Keeper;
use super::queue::Receiver;
use super::stalled::Stalled;
use super::unaccepted::Unaccepted;
use crate::evidence::{Gatherer, Scope};
use crate::journey::{Journey, assemble, decode};
use crate::kernel::links::Link;
use crate::kernel::names::{MachineNames, now_ns};
use crate::kernel::netns::Netns;
use crate::kernel::programs::Programs;
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
    /// A namespace is gone.
    Forget(u32),
    /// The firewalls of a namespace that is watched are to be traced.
    Firewalls(u32, Scope),
    /// Every probe is on; the answer says when it is written.
    Armed(Box<Header>, oneshot::Sender<io::Result<()>>),
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

/// Text goes to stdout or stderr, talk to stderr.
pub(super) type Text = TextOutput<Box<dyn Write + Send>, Stderr>;

/// Where reports go.
pub(super) enum Output {
    Text(Box<Text>),
    Json(JsonOutput<Stdout>),
    /// What there was could not be written to any more: only files are written from then on.
    Gone,
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
    /// The same moment for the text, whose times are all reckoned from it as those of a recording are.
    pub(super) began: Instant,
    /// Until when events may have been missed, on the same clock.
    pub(super) missed_ns: u64,
    /// What remedies would be typed with and is not here, since it was first asked for.
    pub(super) programs: OnceCell<Programs>,
    /// The namespace that is traced.
    pub(super) netns: Netns,
    /// The last journey's number.
    pub(super) id: u64,
    /// Dropped when the output cannot be written to any more, and when the thread ends, however it ends.
    pub(super) gone: Option<oneshot::Sender<()>>,
    /// The first thing that could not be written.
    pub(super) written: io::Result<()>,
}

/// Whether a journey belongs to the interfaces that were asked for.
pub(super) fn is_wanted(wanted: &[String], interface: Option<&str>) -> bool {
    wanted.is_empty() || interface.is_some_and(|interface| wanted.iter().any(|name| name == interface))
}

impl Reporter {
    /// Works until the sender is gone; tells what was counted, and whether all was written. An output that fails is given up, and
    /// the other side hears of it; recordings and exports still get what is under way, and their end.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) -> Reported {
        let mut summary = Summary::default();
        while let Some(job) = self.next(jobs, &mut summary) {
            self.work(job, &mut summary);
        }
        (
            Tally {
                journeys: summary.journeys(),
                failed: summary.failed() + self.stalled.told(),
                files_failed: self.keeper.has_failed(),
            },
            self.written,
        )
    }

    fn work(&mut self, job: Job, summary: &mut Summary) {
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
            Job::Forget(netns) => self.gatherer.forget(netns),
            Job::Firewalls(netns, scope) => {
                if let Err(error) = self.gatherer.trace_firewalls(netns, scope) {
                    log::warn!("no rule will be named in the network namespace {netns}: cannot trace its firewalls: {error}");
                }
            }
            Job::Interrupted => self.text(TextOutput::interrupted),
            Job::Resumed => self.text(TextOutput::resumed),
            Job::Tick => {
                let now = self.instant(now_ns());
                self.text(|text| text.refresh(now));
                self.unaccepted.tick();
                self.report_stalled();
                if let Err(error) = self.gatherer.tick() {
                    log::warn!("cannot read the kernel's counters: {error}");
                }
            }
            Job::Record(bytes) => self.record(&bytes, summary),
            Job::Armed(header, written) => {
                (self.began_ns, self.began) = (header.clock.monotonic_ns, Instant::now());
                if header.armed.probes_on.iter().any(|probe| probe.name == ACCEPT) {
                    self.unaccepted.leave_to_probe();
                }
                self.keeper.begin(&header);
                let result = match &mut self.output {
                    Output::Text(text) => text.armed(&header.armed, &header.start, self.began),
                    Output::Json(json) => json.armed(&header.armed),
                    Output::Gone => Ok(()),
                };
                // The other side waits; it is only gone when the program ends.
                let _ = written.send(result);
            }
            Job::Missed(now_ns) => self.missed_ns = now_ns,
            Job::Talk(said) => {
                self.keeper.talk(&said);
                self.text(|text| text.talk(&said));
            }
            Job::Absence(mut missed) => {
                let netns = missed.absence.interfaces.first().map_or(0, |interface| interface.netns);
                match self.gatherer.wrong_checksums(netns) {
                    Ok(wrong) => missed.absence.message.extend(near_miss_hint(&missed.absence.near_misses, wrong)),
                    Err(error) => log::warn!("cannot read the kernel's counters: {error}"),
                }
                self.keeper.missed(&missed);
                self.tell(|output| match output {
                    Output::Text(text) => text.absence(&missed.absence, &missed.waited),
                    Output::Json(json) => json.absence(&missed.absence),
                    Output::Gone => Ok(()),
                });
            }
            Job::Summary(duration_ns, lost, when) => {
                if when == When::AtTheEnd {
                    self.await_unaccepted(summary);
                    self.report_stalled();
                }
                let line = summary.line(jiff::Timestamp::now(), duration_ns, lost);
                if when == When::AtTheEnd {
                    let end = End { time: line.time.0, journeys: 0, duration_ns, lost: line.lost, continued: None };
                    self.keeper.end(&end, &line);
                }
                let now = self.instant(self.began_ns.saturating_add(duration_ns));
                self.tell(|output| match output {
                    Output::Text(text) => text.summary(&line, now),
                    Output::Json(json) if when == When::AtTheEnd => json.summary(&line),
                    Output::Json(_) | Output::Gone => Ok(()),
                });
            }
        }
    }

    /// When the text is told that something is at this time, nanoseconds of `CLOCK_MONOTONIC`.
    fn instant(&self, monotonic_ns: u64) -> Instant {
        self.began + Duration::from_nanos(monotonic_ns.saturating_sub(self.began_ns))
    }

    /// Writes to the output, unless it is given up already.
    fn tell(&mut self, what: impl FnOnce(&mut Output) -> io::Result<()>) {
        if let Err(error) = what(&mut self.output) {
            self.give_up(error);
        }
    }

    /// The same where only people read it.
    fn text(&mut self, what: impl FnOnce(&mut Text) -> io::Result<()>) {
        self.tell(|output| if let Output::Text(text) = output { what(text) } else { Ok(()) });
    }

    fn give_up(&mut self, error: io::Error) {
        self.output = Output::Gone;
        self.gone = None;
        if self.written.is_ok() {
            self.written = Err(error);
        }
    }

    /// Takes a record as the ring buffer carried it.
    fn record(&mut self, bytes: &[u8], summary: &mut Summary) {
        let record = match decode(bytes) {
            Ok(record) => record,
            Err(error) => return self.give_up(io::Error::other(error)),
        };
        let mut journey = assemble(&record, self.id + 1, &self.names);
        if journey.lacks_its_end() && self.missed_ns >= record.first_ns {
            journey.complete = false;
        }
        if !is_wanted(&self.interfaces, journey.interface.as_deref()) {
            return;
        }
        self.id += 1;
        if let Some((record, journey)) = self.unaccepted.keep(Box::new(record), journey, &self.gatherer) {
            self.report(&record, journey, summary);
        }
    }

    /// Tells of a journey, with the evidence for how it ended.
    fn report(&mut self, record: &Record, journey: Journey, summary: &mut Summary) {
        let evidence = if journey.facts.established && !journey.came_to_nothing() {
            self.gatherer.on_the_way(&journey)
        } else {
            self.gatherer.gather(&journey)
        };
        let report = Report::new(journey, evidence).typed_with(self.programs());
        summary.add(&report.journey, &report.diagnosis);
        let told_ns = now_ns();
        let now = self.instant(told_ns);
        let end = || End {
            time: jiff::Timestamp::now(),
            journeys: 0,
            duration_ns: told_ns.saturating_sub(self.began_ns),
            lost: Lost::default(),
            continued: None,
        };
        self.keeper.journey(record, &report, &self.names, told_ns, end);
        self.stalled.watch(&report.journey, &mut self.gatherer, Instant::now());
        self.tell(|output| match output {
            Output::Text(text) => text.journey(report, now),
            Output::Json(json) => json.journey(&report),
            Output::Gone => Ok(()),
        });
    }

    fn programs(&self) -> &Programs {
        self.programs.get_or_init(|| Programs::look().within(&self.netns))
    }

    /// Tells of the connections that were made and do not get on.
    fn report_stalled(&mut self) {
        for (journey, connection, mut stall) in self.stalled.look(&mut self.gatherer, Instant::now()) {
            stall.remedy = self.programs().typed(stall.remedy);
            let line = StallLine::new(jiff::Timestamp::now(), &journey, &connection, stall);
            self.keeper.talk(&format!("{}: {}", ends(&line.flow), line.summary));
            let now = self.instant(now_ns());
            self.tell(|output| match output {
                Output::Text(text) => text.stall(&line, now),
                Output::Json(json) => json.stall(&line),
                Output::Gone => Ok(()),
            });
        }
    }

    /// Tells of the connections that have waited long enough to be accepted.
    fn report_waited(&mut self, summary: &mut Summary) {
        while let Some(waited) = self.unaccepted.next(Instant::now(), &self.gatherer) {
            self.report(&waited.record, waited.journey, summary);
        }
    }

    /// Waits until every connection has been accepted or has waited long enough, which takes a second at most.
    fn await_unaccepted(&mut self, summary: &mut Summary) {
        while let Some(due) = self.unaccepted.due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.report_waited(summary);
        }
    }

    /// The next job, or `None` when there will be none; what is due meanwhile is written.
    fn next(&mut self, jobs: &Receiver<Job>, summary: &mut Summary) -> Option<Job> {
        loop {
            let text = match &self.output {
                Output::Text(text) => text.due(),
                Output::Json(_) | Output::Gone => None,
            };
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                // Nothing to do: a good moment to write.
                Err(TryRecvError::Empty) => self.keeper.flush(),
            }
            let Some(due) = text.into_iter().chain(self.unaccepted.due()).min() else { return jobs.recv().ok() };
            match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.report_waited(summary);
                    let now = self.instant(now_ns());
                    self.text(|text| text.advance(now));
                }
            }
        }
    }
}
