//! Connections that were made, looked at once a second while they are young: one that does not get on has failed as surely as one that
//! was never made, and no probe sees it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::diagnosis::{Stall, stall};
use crate::evidence::{Connection, Gatherer};
use crate::journey::{Journey, Outcome};

/// How many connections are looked at; of more, the youngest.
const WATCHED: usize = 64;
/// So old a connection has to be: what was lost is sent again several times meanwhile.
const OLD_ENOUGH: Duration = Duration::from_secs(1);
/// How long a connection is looked at.
const YOUNG: Duration = Duration::from_mins(1);

/// The young connections.
#[derive(Default)]
pub(super) struct Stalled {
    young: VecDeque<(Instant, Journey)>,
    told: u64,
}

impl Stalled {
    /// A journey was told: if its connection stands, that is looked at from now on.
    pub(super) fn watch(&mut self, journey: &Journey, now: Instant) {
        if journey.outcome != Outcome::Answered || !journey.facts.established || journey.came_to_nothing() {
            return;
        }
        if self.young.len() == WATCHED {
            self.young.pop_front();
        }
        self.young.push_back((now, journey.clone()));
    }

    /// The connections that have stopped getting on since the last look; each is told once.
    pub(super) fn look(&mut self, gatherer: &Gatherer, now: Instant) -> Vec<(Journey, Connection, Stall)> {
        self.young.retain(|(since, _)| now.duration_since(*since) < YOUNG);
        let found = gatherer.connections(self.young.iter().map(|(_, journey)| journey));
        let mut stalled = Vec::new();
        let looked = std::mem::take(&mut self.young).into_iter().zip(found);
        for ((since, journey), connection) in looked {
            let Some(connection) = connection else { continue };
            let stall = stall(&journey, &connection).filter(|_| now.duration_since(since) >= OLD_ENOUGH);
            match stall {
                Some(stall) => stalled.push((journey, connection, stall)),
                None => self.young.push_back((since, journey)),
            }
        }
        self.told += stalled.len() as u64;
        stalled
    }

    /// How many have stopped getting on.
    pub(super) fn told(&self) -> u64 {
        self.told
    }
}
