//! Journeys that belong to one attempt of a person. A browser opens several sockets at once, and for a name it tries `::1`
//! and 127.0.0.1 side by side: whoever wants to know whether the page came needs one answer, not six.
//!
//! So text waits for a moment after an attempt's first journey. One attempt is what one client sends to one port within that
//! moment; all of localhost is one client.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::Report;
use super::fold::Cause;
use super::words::needs_a_line_only;

/// How far apart the SYNs of one attempt are at most, and how long text waits for them.
const MOMENT: Duration = Duration::from_millis(300);
/// How many attempts wait at most; a flood from many addresses is told without waiting.
const WAITING: usize = 1024;

/// One attempt.
pub(super) struct Attempt {
    /// `None` stands for localhost.
    client: Option<IpAddr>,
    port: u16,
    first: Timestamp,
    until: Instant,
    /// The first journey that was answered.
    pub(super) fine: Option<Report>,
    /// How many more were.
    pub(super) more: u64,
    /// The first failure of each cause, with all of the same cause.
    pub(super) failed: Vec<Failed>,
}

/// Failures of one cause within an attempt.
pub(super) struct Failed {
    pub(super) cause: Cause,
    pub(super) report: Report,
    /// When the others were sent.
    pub(super) others: Vec<Timestamp>,
}

impl Attempt {
    fn new(report: &Report, now: Instant) -> Self {
        let flow = &report.journey.flow;
        Self {
            client: client(flow.source),
            port: flow.destination_port,
            first: report.journey.time,
            until: now + MOMENT,
            fine: None,
            more: 0,
            failed: Vec::new(),
        }
    }

    fn holds(&self, report: &Report) -> bool {
        let flow = &report.journey.flow;
        let apart = report.journey.time.duration_since(self.first).abs();
        self.client == client(flow.source)
            && self.port == flow.destination_port
            && apart <= SignedDuration::try_from(MOMENT).unwrap_or(SignedDuration::MAX)
    }

    fn add(&mut self, report: Report) {
        if needs_a_line_only(&report.diagnosis) {
            match self.fine {
                None => self.fine = Some(report),
                Some(_) => self.more += 1,
            }
            return;
        }
        let cause = Cause::of(&report);
        match self.failed.iter_mut().find(|failed| failed.cause == cause) {
            Some(failed) => failed.others.push(report.journey.time),
            None => self.failed.push(Failed { cause, report, others: Vec::new() }),
        }
    }
}

fn client(source: IpAddr) -> Option<IpAddr> {
    (!source.is_loopback()).then_some(source)
}

/// The attempts that wait for the rest of their journeys.
#[derive(Default)]
pub(super) struct Attempts {
    waiting: Vec<Attempt>,
}

impl Attempts {
    /// Takes a journey.
    pub(super) fn add(&mut self, report: Report, now: Instant) {
        if let Some(attempt) = self.waiting.iter_mut().find(|attempt| attempt.holds(&report)) {
            attempt.add(report);
        } else {
            let mut attempt = Attempt::new(&report, now);
            attempt.add(report);
            self.waiting.push(attempt);
        }
    }

    /// When the next attempt is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.first().map(|attempt| attempt.until)
    }

    /// The attempts that have waited long enough, oldest first.
    pub(super) fn settled(&mut self, now: Instant) -> Vec<Attempt> {
        let full = self.waiting.len() > WAITING;
        let settled = self.waiting.iter().take_while(|attempt| full || attempt.until <= now).count();
        self.waiting.drain(..settled).collect()
    }

    /// All of them.
    pub(super) fn all(&mut self) -> Vec<Attempt> {
        std::mem::take(&mut self.waiting)
    }
}
