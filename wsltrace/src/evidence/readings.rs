//! What the kernel counted while a journey was under way. A counter tells something about one SYN only when it is known how it
//! stood before: so readings are taken all the time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Instant;

use super::counters;
use super::sockets::{self, Found};
use crate::kernel::netns::Netns;

/// How many readings are kept for a namespace.
const MAX_READINGS: usize = 64;

/// By how much the kernel's counters rose in the namespace of a silent listener, since a reading from before the SYN.
///
/// Every SYN that a listener swallows counts in `drops`, whatever the cause. So where all that was swallowed was swallowed for
/// one cause, this SYN was too; and where it was not all, nothing tells which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        })
    }
}

struct Reading {
    /// When it was begun and when it was done: what happened between may or may not be in it.
    begun: Instant,
    done: Instant,
    counts: Counts,
    /// What each listener had dropped, by its cookie.
    by_listener: HashMap<[u8; 8], u32>,
}

/// The readings of one namespace, and the journeys that the counters are to tell something about.
#[derive(Default)]
pub(super) struct Readings {
    /// Oldest first.
    kept: VecDeque<Reading>,
    /// When each silent journey began, and its port.
    silent: VecDeque<(Instant, u16)>,
    /// When the journeys began that netfilter dropped.
    dropped: VecDeque<Instant>,
}

impl Readings {
    /// Takes a reading.
    pub(super) fn take(&mut self, netns: &Netns) -> io::Result<()> {
        let begun = Instant::now();
        let (counts, by_listener) = (Counts::read(netns)?, sockets::listener_drops(netns)?);
        if self.kept.len() == MAX_READINGS {
            self.kept.pop_front();
        }
        self.kept.push_back(Reading { begun, done: Instant::now(), counts, by_listener });
        Ok(())
    }

    /// The newest reading from before a moment.
    fn before(&self, moment: Instant) -> Option<&Reading> {
        self.kept.iter().rev().find(|reading| reading.done < moment)
    }

    /// What the kernel counted since the newest reading from before a silent journey began; `None` when there is none.
    /// `listeners` are those on its port, by a look from after its end.
    pub(super) fn silence(
        &mut self,
        netns: &Netns,
        began: Instant,
        port: u16,
        listeners: &[Found],
    ) -> io::Result<Option<Silence>> {
        self.silent.push_back((began, port));
        if let Some(oldest) = self.kept.front() {
            self.silent.retain(|(time, _)| *time >= oldest.begun);
        }
        let Some(base) = self.before(began) else { return Ok(None) };
        let journeys = self.silent.iter().filter(|(time, of)| *time >= base.begun && *of == port).count();
        // A listener that is newer than the reading has begun with 0.
        let dropped = |found: &Found| found.drops.unwrap_or(0).wrapping_sub(*base.by_listener.get(&found.cookie).unwrap_or(&0));
        let now = Counts::read(netns)?;
        Ok(Some(Silence {
            drops: now.drops.saturating_sub(base.counts.drops),
            overflows: now.overflows.saturating_sub(base.counts.overflows),
            syn_queue_full: now.syn_queue_full.saturating_sub(base.counts.syn_queue_full),
            own_drops: listeners.iter().map(|found| u64::from(dropped(found))).sum(),
            journeys: u64::try_from(journeys).unwrap_or(u64::MAX),
        }))
    }

    /// By how much the count of suppressed ICMP errors rose since the newest reading from before a journey began that netfilter
    /// dropped, and how many such journeys, this one included, began since then. No rise is told when there is no such reading
    /// or no such counter.
    pub(super) fn icmp_suppressed(&mut self, netns: &Netns, began: Instant) -> io::Result<(Option<u64>, u64)> {
        self.dropped.push_back(began);
        if let Some(oldest) = self.kept.front() {
            self.dropped.retain(|time| *time >= oldest.begun);
        }
        let Some(base) = self.before(began) else { return Ok((None, 1)) };
        let now = Counts::read(netns)?.icmp_suppressed;
        let rise = now.zip(base.counts.icmp_suppressed).map(|(now, before)| now.saturating_sub(before));
        let journeys = self.dropped.iter().filter(|time| **time >= base.begun).count();
        Ok((rise, u64::try_from(journeys).unwrap_or(u64::MAX)))
    }
}
