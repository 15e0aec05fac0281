//! Connections that were made, looked at once a second while they are young: one that does not get on has failed as surely as one that
//! was never made, and no probe sees it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::diagnosis::{Lately, Stall, stall};
use crate::evidence::{Connection, Gatherer};
use crate::journey::{DataDrop, Journey, Outcome};

/// How many connections are looked at; of more, the youngest.
const WATCHED: usize = 64;
/// So old a connection has to be: what was lost is sent again several times meanwhile.
const OLD_ENOUGH: Duration = Duration::from_secs(1);
/// How long a connection is looked at.
const YOUNG: Duration = Duration::from_mins(1);

/// How many are followed packet by packet; of more, the youngest.
const FOLLOWED: usize = 16;

/// A young connection.
struct Young {
    since: Instant,
    journey: Journey,
    /// Bytes that had come in, had been confirmed and were unread at the last look, and since when it is so.
    still: Option<([u64; 3], Instant)>,
    /// Whether it is to be followed.
    suspect: bool,
}

/// The young connections.
#[derive(Default)]
pub(super) struct Stalled {
    young: VecDeque<Young>,
    told: u64,
}

impl Stalled {
    /// A journey was told: if its connection stands, that is looked at from now on, and followed at once where its first data died.
    pub(super) fn watch(&mut self, journey: &Journey, gatherer: &mut Gatherer, now: Instant) {
        if journey.outcome != Outcome::Answered || !journey.facts.established || journey.came_to_nothing() {
            return;
        }
        if self.young.len() == WATCHED {
            self.young.pop_front();
        }
        let suspect = journey.facts.data_dropped == Some(DataDrop::Firewall);
        self.young.push_back(Young { since: now, journey: journey.clone(), still: None, suspect });
        if suspect {
            self.follow(gatherer);
        }
    }

    fn follow(&self, gatherer: &mut Gatherer) {
        let suspects = self.young.iter().rev().filter(|young| young.suspect).take(FOLLOWED);
        gatherer.follow(suspects.map(|young| &young.journey));
    }

    /// The connections that have stopped getting on since the last look; each is told once. Those that may have are followed.
    pub(super) fn look(&mut self, gatherer: &mut Gatherer, now: Instant) -> Vec<(Journey, Connection, Stall)> {
        self.young.retain(|young| now.duration_since(young.since) < YOUNG);
        let found = gatherer.connections(self.young.iter().map(|young| &young.journey));
        let mut stalled = Vec::new();
        let looked = std::mem::take(&mut self.young).into_iter().zip(found);
        for (mut young, connection) in looked {
            let Some(connection) = connection else { continue };
            let dropped = if young.suspect { gatherer.dropped(&young.journey) } else { None };
            let nothing = young.suspect && connection.received_bytes == 0;
            let dropped = dropped.or_else(|| if nothing { gatherer.suspect_of_data(&young.journey) } else { None });
            let obstacle = gatherer.obstacle(&young.journey, &connection);
            let lately = Lately { still: young.look(&connection, now), dropped: dropped.as_ref(), obstacle };
            let old_enough = now.duration_since(young.since) >= OLD_ENOUGH;
            match stall(&young.journey, &connection, &lately).filter(|_| old_enough) {
                Some(stall) => stalled.push((young.journey, connection, stall)),
                None => self.young.push_back(young),
            }
        }
        self.follow(gatherer);
        self.told += stalled.len() as u64;
        stalled
    }

    /// How many have stopped getting on.
    pub(super) fn told(&self) -> u64 {
        self.told
    }
}

impl Young {
    /// For how long nothing has come through; whether it is to be followed depends on that, or on what its socket sends in vain.
    fn look(&mut self, connection: &Connection, now: Instant) -> Duration {
        let seen = [connection.received_bytes, connection.confirmed_bytes, connection.unread_bytes.into()];
        let since = self.still.filter(|(before, _)| *before == seen).map_or(now, |(_, since)| since);
        let known = self.still.replace((seen, since)).is_some();
        let still = now.duration_since(since);
        let lost_its_first = self.journey.facts.data_dropped == Some(DataDrop::Firewall) && connection.received_bytes == 0;
        let waits = known && !still.is_zero() || connection.retransmissions > 0 || connection.probes > 0;
        self.suspect = lost_its_first || waits;
        still
    }
}
