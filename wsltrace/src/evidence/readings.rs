//! What the kernel counted while a journey was under way. A counter tells something about one SYN only when it is known how it
//! stood before: so readings are taken all the time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::counters;
use super::sockets::{self, Found};
use crate::kernel::netns::Netns;

/// How many readings are kept for a namespace.
const MAX_READINGS: usize = 64;
/// By how much the clocks of journeys and readings may differ when one is put on the other.
const CLOCK_ERROR: Duration = Duration::from_millis(1);

/// By how much the kernel's counters rose in the namespace of a silent listener, since a reading from before the SYN.
///
/// Every SYN that a listener swallows counts in `drops`, whatever the cause. So where all that was swallowed was swallowed for
/// one cause, this SYN was too; and where it was not all, nothing tells which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Silence {
    /// `TcpExt.ListenDrops`.
    pub drops: u64,
    /// `TcpExt.ListenOverflows`: dropped for a full accept queue.
    pub overflows: u64,
    /// `TcpExt.TCPReqQFullDrop`: dropped for a full queue of half-open connections.
    pub syn_queue_full: u64,
    /// What the listeners on this port dropped, by their own counts.
    pub own_drops: u64,
    /// How many journeys ended silently on this port in that time.
    pub journeys: u64,
}

impl Silence {
    /// Whether every SYN that was swallowed is among these: then this one is.
    pub fn is_all(&self, of_one_cause: u64) -> bool {
        of_one_cause > 0 && of_one_cause == self.drops && self.own_drops >= self.journeys
    }

    /// Whether the counters prove a full queue, of either kind.
    pub fn proves_a_full_queue(&self) -> bool {
        self.is_all(self.overflows) || self.is_all(self.syn_queue_full)
    }
}

/// The counters of a namespace at one moment.
#[derive(Clone, Copy)]
struct Counts {
    drops: u64,
    overflows: u64,
    syn_queue_full: u64,
    /// See [`counters::icmp_suppressed`].
    icmp_suppressed: Option<u64>,
    /// TCP segments with a wrong checksum.
    wrong_checksums: u64,
    /// `TcpExt.EmbryonicRsts`.
    resets_of_half_open: u64,
}

impl Counts {
    fn read(netns: &Netns) -> io::Result<Self> {
        let counters = counters::read(netns)?;
        let count = |name| counters.get(name).copied().unwrap_or(0);
        Ok(Self {
            drops: count("ListenDrops"),
            overflows: count("ListenOverflows"),
            syn_queue_full: count("TCPReqQFullDrop"),
            icmp_suppressed: counters::icmp_suppressed(&counters),
            wrong_checksums: count("Tcp.InCsumErrors"),
            resets_of_half_open: count("EmbryonicRsts"),
        })
    }
}

/// When a journey began and when its last event was, on the clock of the readings.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

struct Reading {
    /// When it was begun and when it was done: what happened between may or may not be in it.
    begun: Instant,
    done: Instant,
    counts: Counts,
    /// What each listener had dropped, by its cookie.
    by_listener: HashMap<[u8; 8], u32>,
    /// How many silent journeys began between this reading and the next, by their port.
    silent: HashMap<u16, u64>,
    /// How many journeys began between this reading and the next that netfilter dropped.
    dropped: u64,
}

/// The readings of one namespace, with how many journeys the counters are to tell something about.
#[derive(Default)]
pub(super) struct Readings {
    /// Oldest first.
    kept: VecDeque<Reading>,
    /// The last look at the counters that followed a journey, and when it was begun.
    latest: Option<(Instant, Counts)>,
}

impl Readings {
    /// Takes a reading.
    pub(super) fn take(&mut self, netns: &Netns) -> io::Result<()> {
        let begun = Instant::now();
        let (counts, by_listener) = (Counts::read(netns)?, sockets::listener_drops(netns)?);
        if self.kept.len() == MAX_READINGS {
            self.kept.pop_front();
        }
        let reading = Reading { begun, done: Instant::now(), counts, by_listener, silent: HashMap::new(), dropped: 0 };
        self.kept.push_back(reading);
        Ok(())
    }

    /// How many segments with a wrong checksum came since the oldest reading.
    pub(super) fn wrong_checksums(&self, netns: &Netns) -> io::Result<u64> {
        let Some(oldest) = self.kept.front() else { return Ok(0) };
        Ok(Counts::read(netns)?.wrong_checksums.saturating_sub(oldest.counts.wrong_checksums))
    }

    /// The place of the newest reading from before a moment.
    fn before(&self, moment: Instant) -> Option<usize> {
        self.kept.iter().rposition(|reading| reading.done < moment)
    }

    /// The last reading that was begun by a moment: the moment lies between it and the next.
    fn begun_by(&mut self, moment: Instant) -> Option<&mut Reading> {
        self.kept.iter_mut().rev().find(|reading| reading.begun <= moment)
    }

    /// How the counters stood at some moment after a journey's end. Failures come in swarms: one look serves all that ended
    /// before it.
    fn after(&mut self, netns: &Netns, ended: Instant) -> io::Result<Counts> {
        match self.latest {
            Some((begun, counts)) if begun >= ended + CLOCK_ERROR => Ok(counts),
            _ => {
                let begun = Instant::now();
                let counts = Counts::read(netns)?;
                self.latest = Some((begun, counts));
                Ok(counts)
            }
        }
    }

    /// What the kernel counted since the newest reading from before a silent journey began; `None` when there is none.
    /// `listeners` are those on its port, by a look from after its end.
    pub(super) fn silence(&mut self, netns: &Netns, span: Span, port: u16, listeners: &[Found]) -> io::Result<Option<Silence>> {
        if let Some(reading) = self.begun_by(span.began) {
            *reading.silent.entry(port).or_default() += 1;
        }
        let Some(base) = self.before(span.began) else { return Ok(None) };
        let now = self.after(netns, span.ended)?;
        let journeys = self.kept.iter().skip(base).filter_map(|reading| reading.silent.get(&port)).sum();
        let Some(base) = self.kept.get(base) else { return Ok(None) };
        // A listener that is newer than the reading has begun with 0.
        let dropped = |found: &Found| found.drops.unwrap_or(0).wrapping_sub(*base.by_listener.get(&found.cookie).unwrap_or(&0));
        Ok(Some(Silence {
            drops: now.drops.saturating_sub(base.counts.drops),
            overflows: now.overflows.saturating_sub(base.counts.overflows),
            syn_queue_full: now.syn_queue_full.saturating_sub(base.counts.syn_queue_full),
            own_drops: listeners.iter().map(|found| u64::from(dropped(found))).sum(),
            journeys,
        }))
    }

    /// How many half-open connections the other side has reset since the newest reading from before a journey began; 0 where there is
    /// no such reading.
    pub(super) fn resets_of_half_open(&mut self, netns: &Netns, span: Span) -> io::Result<u64> {
        let Some(base) = self.before(span.began).and_then(|base| self.kept.get(base)).map(|reading| reading.counts) else {
            return Ok(0);
        };
        Ok(self.after(netns, span.ended)?.resets_of_half_open.saturating_sub(base.resets_of_half_open))
    }

    /// By how much the count of suppressed ICMP errors rose since the newest reading from before a journey began that netfilter
    /// dropped, and how many such journeys, this one included, began since then. No rise is told when there is no such reading
    /// or no such counter.
    pub(super) fn icmp_suppressed(&mut self, netns: &Netns, span: Span) -> io::Result<(Option<u64>, u64)> {
        if let Some(reading) = self.begun_by(span.began) {
            reading.dropped += 1;
        }
        let Some(base) = self.before(span.began) else { return Ok((None, 1)) };
        let now = self.after(netns, span.ended)?.icmp_suppressed;
        let before = self.kept.get(base).and_then(|reading| reading.counts.icmp_suppressed);
        let rise = now.zip(before).map(|(now, before)| now.saturating_sub(before));
        Ok((rise, self.kept.iter().skip(base).map(|reading| reading.dropped).sum()))
    }
}
