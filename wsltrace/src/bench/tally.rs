//! What attempts came to: counts and times.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::attempt::{Failure, Segments};

/// Longer times count as this long, nanoseconds: ten minutes.
const LONGEST_NS: u64 = 600_000_000_000;

/// Attempts of one target, and how long they took.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Attempts that were answered, by the time from their intended start: what a user waits who does not know that the client was
    /// late. The same as `service` where each attempt begins when the one before has ended.
    pub waited: Histogram<u32>,
    /// The same by the time from their real start.
    pub service: Histogram<u32>,
    /// Attempts that failed.
    pub failed: BTreeMap<Failure, u64>,
    /// Segments of the client's side.
    pub segments: Segments,
    /// The client's connections, with those that were never made.
    pub connections: u64,
    /// How many of them had to send a segment again.
    pub connections_again: u64,
    /// Attempts that were due at a fixed rate, and for which no client was free before the time was up: nothing is known of them, and
    /// they would have waited longest.
    pub not_begun: u64,
    /// Attempts that were under way when the run was ended before its time: how long they would have taken is not known.
    pub given_up: u64,
    /// How long the longest of them had waited by then.
    pub given_up_after: Duration,
    /// When the first attempt was begun, since the run began.
    pub began: Duration,
    /// From when the first attempt was begun to the end of the last.
    pub lasted: Duration,
    /// Answered attempts a second: the sum over the clients of what each had answered in its own time, so that a client that waits long
    /// for its last answer lengthens nobody else's time.
    pub rate: f64,
    /// Answers among them that say by their status that there was an error (400 and above).
    pub errors: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            waited: histogram(),
            service: histogram(),
            failed: BTreeMap::new(),
            segments: Segments::default(),
            connections: 0,
            connections_again: 0,
            not_begun: 0,
            given_up: 0,
            given_up_after: Duration::ZERO,
            began: Duration::ZERO,
            lasted: Duration::ZERO,
            rate: 0.0,
            errors: 0,
        }
    }
}

#[expect(clippy::expect_used, reason = "the arguments are constants that the library takes")]
fn histogram() -> Histogram<u32> {
    Histogram::new_with_max(LONGEST_NS, 3).expect("1 <= LONGEST_NS / 2 and 3 <= 5 significant digits")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS).clamp(1, LONGEST_NS)
}

/// So many in a time, a second.
pub fn per_second(count: f64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

impl Tally {
    /// Counts an attempt that was answered, by a status that tells of an error or not.
    pub fn answered(&mut self, waited: Duration, service: Duration, is_error: bool) {
        self.errors += u64::from(is_error);
        self.waited.saturating_record(nanoseconds(waited));
        self.service.saturating_record(nanoseconds(service));
    }

    /// Counts so many that were answered and took the same time.
    pub fn answered_times(&mut self, time: Duration, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.waited.saturating_record_n(nanoseconds(time), count);
        self.service.saturating_record_n(nanoseconds(time), count);
    }

    /// Whether attempts were made and each waited for an answer in vain.
    pub fn is_silent(&self) -> bool {
        self.waited.is_empty() && !self.failed.is_empty() && self.failed.keys().all(|failure| *failure == Failure::TimedOut)
    }

    /// Counts one that failed.
    pub fn failed(&mut self, failure: Failure) {
        *self.failed.entry(failure).or_default() += 1;
    }

    /// Counts one that was under way at the end, and had waited for so long.
    pub fn given_up(&mut self, waited: Duration) {
        self.given_up += 1;
        self.given_up_after = self.given_up_after.max(waited);
    }

    /// Whether the run was ended before anything came of it: then it tells nothing of how long an attempt takes.
    pub fn is_cut_off(&self) -> bool {
        self.attempts() == 0 && self.given_up > 0
    }

    /// Counts a connection with its segments.
    pub fn add_connection(&mut self, segments: Segments) {
        self.connections += 1;
        self.connections_again += u64::from(segments.again > 0);
        self.add_segments(segments);
    }

    fn add_segments(&mut self, segments: Segments) {
        self.segments.again += segments.again;
        self.segments.sent += segments.sent;
    }

    /// Adds another part of the same target's attempts; they were made at the same time, or one after the other.
    pub fn add(&mut self, other: &Self, at_the_same_time: bool) {
        // Both have the same bounds, so that nothing can be lost.
        if self.waited.add(&other.waited).is_err() || self.service.add(&other.service).is_err() {
            log::error!("two histograms of one run have different bounds");
        }
        for (failure, count) in &other.failed {
            *self.failed.entry(*failure).or_default() += count;
        }
        self.add_segments(other.segments);
        self.connections += other.connections;
        self.connections_again += other.connections_again;
        self.add_left_over(other);
        self.errors += other.errors;
        if at_the_same_time {
            self.rate += other.rate;
            self.lasted = self.lasted.max(other.lasted);
        } else {
            let answers = self.rate * self.lasted.as_secs_f64() + other.rate * other.lasted.as_secs_f64();
            self.lasted += other.lasted;
            self.rate = per_second(answers, self.lasted);
        }
    }

    /// Adds what another part left over.
    pub fn add_left_over(&mut self, other: &Self) {
        self.not_begun += other.not_begun;
        self.given_up += other.given_up;
        self.given_up_after = self.given_up_after.max(other.given_up_after);
    }

    /// Whether an attempt that was given up had waited longer than every one that was answered: then the times leave out the longest.
    pub fn gave_up_the_longest(&self) -> bool {
        self.given_up > 0 && nanoseconds(self.given_up_after) > self.waited.max()
    }

    /// Attempts in all.
    pub fn attempts(&self) -> u64 {
        self.waited.len() + self.failures()
    }

    /// Attempts that failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}
