//! Handshakes of one path, by leg: a path through a proxy has more than one in this Linux, each with a destination of its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Part, Spent, spent};
use crate::bench::result::Times;
use crate::journey::{Journey, Origin, Outcome};
use crate::output::contract::Latency;
use crate::output::{StageTimes, spent_histogram};

/// Handshakes of a leg that are kept one by one: enough for the middle of them, and bounded.
const KEPT: usize = 20_000;
/// A leg with fewer handshakes than this part of the path's busiest is somebody else's connections.
const RARE: u64 = 20;

/// What tells the legs of a path apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    from_here: bool,
    destination: SocketAddr,
}

/// Handshakes of one leg.
#[derive(Clone, Debug)]
struct Handshakes {
    origin: Origin,
    interface: Option<String>,
    onward: Option<SocketAddr>,
    /// All of them; also where only some are kept.
    whole: Histogram<u32>,
    stages: StageTimes,
    kept: Vec<Spent>,
    random: fastrand::Rng,
}

/// What was seen of the handshakes of one path.
#[derive(Clone, Debug, Default)]
pub struct Legs {
    seen: BTreeMap<Name, Handshakes>,
    /// Handshakes that left this machine: what happens to them is not seen.
    left: u64,
    /// SYNs that came to their end here without a connection, by the outcome's name.
    died: BTreeMap<&'static str, u64>,
    /// SYNs whose handshake was not seen to its end.
    unfinished: u64,
}

/// One leg of a path, as programs read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    /// Whether the SYN came from outside or from this Linux.
    pub origin: Origin,
    /// The interface where it was first seen.
    pub interface: Option<String>,
    /// The address that it asked for.
    pub destination: SocketAddr,
    /// The address that it was sent on to, where one was put in its place.
    pub onward: Option<SocketAddr>,
    /// From the SYN's first sight to the connection's establishment, or its acceptance where that can be seen.
    pub handshake: Times,
    /// Where the time of the middle half of the handshakes went: mean nanoseconds of each part that took any, in order. Their sum is the
    /// mean of that half.
    pub parts: Vec<Share>,
    /// The times spent in each stage, over all handshakes.
    pub stages: Vec<Latency>,
}

/// A part with its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The part.
    pub part: Part,
    /// Nanoseconds.
    pub ns: f64,
}

impl Legs {
    /// Counts a journey.
    pub fn add(&mut self, journey: &Journey) {
        let Some(spent) = spent(journey) else {
            let count = match journey.outcome {
                Outcome::Forwarded => &mut self.left,
                Outcome::Answered | Outcome::Unfinished => &mut self.unfinished,
                died => self.died.entry(died.name()).or_default(),
            };
            *count += 1;
            return;
        };
        let flow = &journey.flow;
        let name = Name {
            from_here: journey.origin != Origin::Remote,
            destination: SocketAddr::new(flow.destination, flow.destination_port),
        };
        let onward = Some(SocketAddr::from(journey.last_destination())).filter(|onward| *onward != name.destination);
        let leg = self.seen.entry(name).or_insert_with(|| Handshakes {
            origin: journey.origin,
            interface: journey.interface.as_deref().map(str::to_owned),
            onward,
            whole: spent_histogram(),
            stages: StageTimes::default(),
            kept: Vec::new(),
            random: fastrand::Rng::with_seed(0),
        });
        leg.whole.saturating_record(spent.iter().sum::<u64>().max(1));
        leg.stages.add(journey);
        leg.keep(spent);
    }

    /// Adds what another tracer saw of the same path.
    pub fn join(&mut self, other: Self) {
        self.left += other.left;
        self.unfinished += other.unfinished;
        for (outcome, count) in other.died {
            *self.died.entry(outcome).or_default() += count;
        }
        for (name, leg) in other.seen {
            match self.seen.entry(name) {
                Entry::Vacant(place) => drop(place.insert(leg)),
                Entry::Occupied(mut mine) => mine.get_mut().join(&leg),
            }
        }
    }

    /// The legs that belong to the path: those that about as many handshakes went through as through the busiest, in the order of a
    /// packet's way, from outside first.
    pub fn legs(&self) -> Vec<Leg> {
        let most = self.seen.values().map(|leg| leg.whole.len()).max().unwrap_or(0);
        self.seen.iter().filter(|(_, leg)| leg.whole.len() * RARE >= most).map(|(name, leg)| leg.told(name)).collect()
    }

    /// Why there is nothing to show, or what is left out or is too much, in words; the clients made so many connections to this port.
    pub fn remark(&self, own: u64, port: u16) -> Option<String> {
        let most = self.seen.values().map(|leg| leg.whole.len()).max().unwrap_or(0);
        let mut said = Vec::new();
        if most > own {
            said.push(format!(
                "{most} handshakes were seen and the clients made {own} connections: the others are somebody else's to the same address, and part of the figures"
            ));
        }
        if !self.died.is_empty() {
            let died: Vec<String> =
                self.died.iter().map(|(outcome, count)| format!("{count} {}", outcome.replace('_', " "))).collect();
            said.push(format!(
                "SYNs that ended here without a connection: {}; sudo wsltrace --port {port} tells why",
                died.join(", ")
            ));
        }
        match (self.seen.is_empty(), self.left, self.unfinished) {
            (true, 0, 0) if said.is_empty() => said.push("no handshake of it was seen in this Linux".to_owned()),
            (true, 0, some @ 1..) => said.push(format!("none of {some} handshakes was completed")),
            (true, left @ 1.., _) => {
                said.push(format!("{left} connections left this machine: what answers them is not seen from here"));
            }
            (false, _, some @ 1..) => said.push(format!("{some} handshakes were not seen to their end, and are left out")),
            _ => {}
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

impl Handshakes {
    /// Adds what another tracer saw of the same leg. Both kept a part of theirs, and the busier one must not count for less.
    fn join(&mut self, other: &Self) {
        let seen = [self.whole.len(), other.whole.len()];
        self.kept = drawn([std::mem::take(&mut self.kept), other.kept.clone()], seen, KEPT, &mut self.random);
        // Both have the same bounds, so that nothing can be lost.
        if self.whole.add(&other.whole).is_err() {
            log::error!("two histograms of one run have different bounds");
        }
        self.stages.join(&other.stages);
    }

    /// Keeps a handshake among those that are looked at one by one: each has about the same chance.
    fn keep(&mut self, spent: Spent) {
        if self.kept.len() < KEPT {
            return self.kept.push(spent);
        }
        let place = usize::try_from(self.random.u64(..self.whole.len())).unwrap_or(usize::MAX);
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = spent;
        }
    }

    fn told(&self, name: &Name) -> Leg {
        Leg {
            origin: self.origin,
            interface: self.interface.clone(),
            destination: name.destination,
            onward: self.onward,
            handshake: Times::of(&self.whole),
            parts: middle(&self.kept),
            stages: self.stages.latencies(),
        }
    }
}

/// So many of two lots together, of each of which a part was kept by chance: drawn as from all that were seen, so that every one has the
/// same chance, whichever lot it is of.
fn drawn(mut kept: [Vec<Spent>; 2], mut seen: [u64; 2], most: usize, random: &mut fastrand::Rng) -> Vec<Spent> {
    let mut drawn = Vec::new();
    while let Some(all) = seen.iter().sum::<u64>().checked_sub(1).filter(|_| drawn.len() < most) {
        let lot = usize::from(random.u64(..=all) >= seen[0]);
        seen[lot] -= 1;
        // A lot that was not kept whole has as many as can be drawn in all.
        if let Some(last) = kept[lot].len().checked_sub(1) {
            drawn.push(kept[lot].swap_remove(random.usize(..=last)));
        }
    }
    drawn
}

/// The mean of each part over the middle half of the handshakes by their whole time: the few that wait for something else than the
/// path decide neither the sum nor a part.
fn middle(kept: &[Spent]) -> Vec<Share> {
    let mut by_time: Vec<&Spent> = kept.iter().collect();
    by_time.sort_by_key(|spent| spent.iter().sum::<u64>());
    let outside = by_time.len() / 4;
    let middle = by_time.get(outside..by_time.len() - outside).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds stay far below 2^52")]
    let mean = |index: usize| middle.iter().filter_map(|spent| spent.get(index)).sum::<u64>() as f64 / middle.len() as f64;
    Part::ALL.into_iter().map(|part| Share { part, ns: mean(part as usize) }).filter(|share| share.ns > 0.0).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn the_middle_half_is_summed_up_and_the_extremes_are_not() {
        let one = |ns: u64| {
            let mut spent = Spent::default();
            spent[Part::Socket as usize] = ns;
            spent[Part::SynAck as usize] = 2 * ns;
            spent
        };
        let shares = middle(&[one(1_000_000), one(10), one(1), one(20)]);
        assert_eq!(shares, [Share { part: Part::Socket, ns: 15.0 }, Share { part: Part::SynAck, ns: 30.0 }]);
        assert!(middle(&[]).is_empty());
    }

    #[test]
    fn of_two_lots_each_handshake_has_the_same_chance() {
        let (few, many) = (Spent::from([1; Part::ALL.len()]), Spent::from([2; Part::ALL.len()]));
        let mut random = fastrand::Rng::with_seed(1);
        // Of the busier lot 1,000 of 9,000 were kept, of the other all 1,000.
        let both = drawn([vec![few; 1_000], vec![many; 1_000]], [1_000, 9_000], 1_000, &mut random);
        let from_few = both.iter().filter(|spent| **spent == few).count();
        assert_eq!(both.len(), 1_000);
        // A tenth; five standard deviations of such a draw are 45.
        assert!((55..=145).contains(&from_few), "{from_few} of 1,000 are of the lot that is a tenth of all");
        let whole = drawn([vec![few; 3], vec![many; 4]], [3, 4], 1_000, &mut random);
        assert_eq!([few, many].map(|one| whole.iter().filter(|spent| **spent == one).count()), [3, 4]);
    }

    #[test]
    fn a_stranger_s_connections_are_no_leg() {
        let mut journey = samples::healthy().journey;
        journey.facts.established = true;
        let mut legs = Legs::default();
        for _ in 0..100 {
            legs.add(&journey);
        }
        let own = journey.flow.destination_port;
        journey.flow.destination_port = 1;
        legs.add(&journey);
        let told = legs.legs();
        assert_eq!(told.iter().map(|leg| leg.destination.port()).collect::<Vec<_>>(), [own]);
        assert_eq!((told[0].handshake.count, legs.remark(100, 80)), (100, None));
        assert!(legs.remark(60, 80).unwrap().contains("100 handshakes were seen and the clients made 60 connections"));
        journey.facts.established = false;
        journey.outcome = Outcome::Forwarded;
        let mut left = Legs::default();
        journey.outcome = Outcome::Dropped;
        let mut dead = Legs::default();
        dead.add(&journey);
        let mut both = dead.clone();
        both.join(dead);
        let said = "SYNs that ended here without a connection: 2 dropped; sudo wsltrace --port 80 tells why";
        assert_eq!(both.remark(2, 80).as_deref(), Some(said));
        journey.outcome = Outcome::Forwarded;
        assert!(left.remark(1, 80).unwrap().contains("no handshake"));
        left.add(&journey);
        assert!(left.legs().is_empty() && left.remark(1, 80).unwrap().contains("1 connections left this machine"));
    }
}
