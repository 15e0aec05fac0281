//! Failures with one cause are told in full once and counted from then on.
//!
//! On a terminal the counts stand below everything else and are rewritten in place. In a file they are lines of their own,
//! written when a count has doubled, or after a minute, or at the end: so a log stays short and its last line is complete.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Report;
use super::words::duration;
use crate::diagnosis::Code;
use crate::evidence::Rule;
use crate::journey::{InterfaceName, Stage};

/// How many causes are remembered; with more, the oldest are told in full again.
const REMEMBERED: usize = 4096;
/// A count in a file is written again after this time though it has not doubled.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many counts stand below on a terminal.
const SHOWN: usize = 3;

/// Family, table, chain, handle and number of a rule.
type RuleId = (String, String, String, Option<u64>, Option<u32>);

/// What makes two failures the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cause {
    code: Code,
    died_at: Option<Stage>,
    interface: Option<InterfaceName>,
    rule: Option<RuleId>,
    location: Option<String>,
    destination: IpAddr,
    port: u16,
}

impl Cause {
    pub(super) fn of(report: &Report) -> Self {
        let Report { journey, evidence, diagnosis } = report;
        let id = |rule: &Rule| (rule.family.clone(), rule.table.clone(), rule.chain.clone(), rule.handle, rule.number);
        Self {
            code: diagnosis.code,
            died_at: journey.died_at,
            interface: journey.interface,
            rule: evidence.rule.as_ref().map(id),
            location: journey.location.clone(),
            destination: journey.flow.destination,
            port: journey.flow.destination_port,
        }
    }

    /// The same failure at the other family's localhost: two halves of one attempt by name.
    pub(super) fn is_twin(&self, other: &Self) -> bool {
        (self.code, self.died_at, self.port) == (other.code, other.died_at, other.port)
            && self.destination.is_loopback()
            && other.destination.is_loopback()
            && self.destination.is_ipv4() != other.destination.is_ipv4()
    }
}

/// How often one cause was met.
struct Count {
    /// Where to and what, as told.
    label: String,
    total: u64,
    /// The total that was written last; 1 is the full text.
    told: u64,
    told_at: Instant,
    first: Timestamp,
    last: Timestamp,
    /// When the last one was reported.
    last_at: Instant,
}

impl Count {
    fn line(&self, end: &str) -> String {
        format!("{} \u{d7} {}{end}", self.label, self.total)
    }

    /// True of a file for ever.
    fn lasting(&self) -> String {
        let spread = self.last.duration_since(self.first).unsigned_abs();
        self.line(&format!(" within {}", duration(u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX))))
    }

    fn fresh(&self, now: Instant) -> String {
        match now.duration_since(self.last_at).as_secs() {
            0 => self.line(", last just now"),
            seconds @ 1..120 => self.line(&format!(", last {seconds} s ago")),
            seconds => self.line(&format!(", last {} min ago", seconds / 60)),
        }
    }
}

/// The causes that were told.
#[derive(Default)]
pub(super) struct Folds {
    /// Which count a cause belongs to: twins share one.
    causes: HashMap<Cause, usize>,
    counts: Vec<Count>,
}

impl Folds {
    /// Counts a failure whose cause was told before; false when it was not.
    pub(super) fn count(&mut self, cause: &Cause, time: Timestamp, now: Instant) -> bool {
        let Some(count) = self.causes.get(cause).and_then(|index| self.counts.get_mut(*index)) else { return false };
        count.total += 1;
        count.last = count.last.max(time);
        count.first = count.first.min(time);
        count.last_at = now;
        true
    }

    /// Remembers that these causes were told together in full, met once each.
    pub(super) fn told(&mut self, causes: &[(Cause, Timestamp)], now: Instant) {
        let [(cause, first), ..] = causes else { return };
        let ends: Vec<_> = causes.iter().map(|(cause, _)| SocketAddr::new(cause.destination, cause.port).to_string()).collect();
        let label = format!("{} {}", ends.join(" and "), cause.code);
        let total = u64::try_from(causes.len()).unwrap_or(u64::MAX);
        let last = causes.iter().map(|(_, time)| *time).max().unwrap_or(*first);
        self.causes.extend(causes.iter().map(|(cause, _)| (cause.clone(), self.counts.len())));
        self.counts.push(Count { label, total, told: total, told_at: now, first: *first, last, last_at: now });
    }

    /// Whether so many are remembered that it is time to forget; say [`Folds::rest`] before.
    pub(super) fn is_full(&self) -> bool {
        self.causes.len() >= REMEMBERED
    }

    /// Whether something was counted that no line has told yet.
    pub(super) fn has_untold(&self) -> bool {
        self.counts.iter().any(|count| count.total > count.told)
    }

    /// The lines that a file gets now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        self.take(now, |count| count.total >= count.told * 2 || now.duration_since(count.told_at) >= PATIENCE)
    }

    /// The lines that have to be written before nothing more is.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<String> {
        self.take(now, |_| true)
    }

    fn take(&mut self, now: Instant, wanted: impl Fn(&Count) -> bool) -> Vec<String> {
        let untold = self.counts.iter_mut().filter(|count| count.total > count.told && wanted(count));
        untold
            .map(|count| {
                count.told = count.total;
                count.told_at = now;
                count.lasting()
            })
            .collect()
    }

    /// The lines that stand below on a terminal now, the latest last.
    pub(super) fn shown(&self, now: Instant) -> Vec<String> {
        let mut counted: Vec<&Count> = self.counts.iter().filter(|count| count.total > count.told).collect();
        counted.sort_by_key(|count| count.last_at);
        let older = counted.len().saturating_sub(SHOWN);
        let mut lines: Vec<String> = counted.iter().skip(older).map(|count| count.fresh(now)).collect();
        if older > 0 {
            lines.insert(0, format!("and {older} causes more that repeat"));
        }
        lines
    }
}
