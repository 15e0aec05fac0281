//! Connections that the application has not accepted, where no probe sees it accept: looked at when they are made, and a second later.
//!
//! Nearly every server has accepted by the first look, so a healthy connection is told at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::evidence::Gatherer;
use crate::journey::{Journey, Outcome, Stage};
use wsltrace_common::Record;

/// How long an application may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many connections are looked at in a second; those of a flood beyond that are told as they are.
const LOOKS_PER_SECOND: u32 = 100;

/// A connection that nobody had accepted at the first look.
pub(super) struct Waiting {
    since: Instant,
    pub(super) record: Box<Record>,
    pub(super) journey: Journey,
}

/// The connections that wait.
#[derive(Default)]
pub(super) struct Unaccepted {
    /// A probe tells when applications accept.
    seen_by_probe: bool,
    looks: u32,
    waiting: VecDeque<Waiting>,
}

impl Unaccepted {
    /// A probe tells it: nothing has to be looked at.
    pub(super) fn leave_to_probe(&mut self) {
        self.seen_by_probe = true;
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        self.looks = 0;
    }

    /// Keeps a journey whose connection nobody has accepted yet; gives back every other.
    pub(super) fn keep(&mut self, record: Box<Record>, journey: Journey, gatherer: &Gatherer) -> Option<(Box<Record>, Journey)> {
        let open = journey.outcome == Outcome::Answered
            && journey.facts.established
            && !journey.came_to_nothing()
            && !journey.stages.iter().any(|visit| visit.stage == Stage::Accepted);
        if self.seen_by_probe || !open || self.looks >= LOOKS_PER_SECOND {
            return Some((record, journey));
        }
        self.looks += 1;
        if !gatherer.is_unaccepted(&journey) {
            return Some((record, journey));
        }
        self.waiting.push_back(Waiting { since: Instant::now(), record, journey });
        None
    }

    /// When the next has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since + PATIENCE)
    }

    /// The next that has waited long enough by this moment, with what has come of it.
    pub(super) fn next(&mut self, now: Instant, gatherer: &Gatherer) -> Option<Waiting> {
        if self.due()? > now {
            return None;
        }
        let mut waiting = self.waiting.pop_front()?;
        if gatherer.is_unaccepted(&waiting.journey) {
            waiting.journey.facts.not_accepted = true;
            waiting.record.flags |= wsltrace_common::Flags::NOT_ACCEPTED;
        }
        Some(waiting)
    }
}
