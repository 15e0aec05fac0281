//! Connections that were made and do not get on: which rule of this machine drops their packets, on either way.

use std::collections::BTreeMap;

use super::told::OrTold as _;
use super::watched::others;
use super::{Gatherer, Rule, way};
use crate::journey::{DataDrop, Journey, Origin, Stage};
use crate::probe::netfilter_programs;
use crate::simulate::{Packet, Way, suspects};

/// A rule of this machine that dropped packets of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The rule.
    pub rule: Rule,
    /// Whether it stands in FORWARD.
    pub forward: bool,
    /// Whether the packets came from the client.
    pub from_client: bool,
    /// The server's port as they had it there.
    pub port: u16,
    /// How many; `None` where the kernel did not tell, and by the rules as they are now no other can have dropped the first data.
    pub packets: Option<u32>,
    /// The words before a command that run it where the rule is; `None` where that is the namespace that the SYN came into.
    pub entrance: Option<String>,
}

impl Gatherer {
    /// Has the kernel tell which rules drop packets of the connections that came of these journeys, and of no others.
    pub fn follow<'a>(&mut self, journeys: impl Iterator<Item = &'a Journey>) {
        let mut pairs: BTreeMap<u32, Vec<(u16, u16)>> = BTreeMap::new();
        for journey in journeys {
            for inum in places(journey) {
                pairs.entry(inum).or_default().extend(port_pairs(journey));
            }
        }
        for (inum, watched) in &mut self.watched {
            let Some(trace) = &mut watched.trace else { continue };
            trace.follow(pairs.get(inum).map_or(&[], Vec::as_slice)).or_told(*inum, "trace connections that do not get on");
        }
    }

    /// The rule that dropped packets of the connection that came of a journey, while it was followed.
    pub fn dropped(&mut self, journey: &Journey) -> Option<Dropped> {
        places(journey).into_iter().find_map(|inum| {
            let watched = self.watched.get_mut(&inum)?;
            let found = watched.trace.as_mut()?.dropping(&port_pairs(journey));
            let (named, ports, packets) = found.or_told(inum, "read the trace of a connection").flatten()?;
            let from_client = is_from_client(journey, ports);
            let entrance = if inum == journey.netns { None } else { watched.netns.entrance() };
            let forward = named.stage.is_some_and(Stage::is_forward);
            let port = if from_client { ports.1 } else { ports.0 };
            Some(Dropped { rule: named.rule, forward, from_client, port, packets: Some(packets), entrance })
        })
    }
}

impl Gatherer {
    /// The only rule that can have dropped the first data of a client, of which is known that a firewall dropped it: for those of the old
    /// iptables the kernel does not tell.
    pub fn suspect_of_data(&mut self, journey: &Journey) -> Option<Dropped> {
        let places = places(journey);
        let passes_others = journey.stages.iter().any(|visit| !places.contains(&visit.netns));
        if journey.facts.data_dropped != Some(DataDrop::Firewall) || passes_others {
            return None;
        }
        let mut found = Vec::new();
        for inum in places {
            let watched = self.watched.get_mut(&inum)?;
            let programs =
                watched.netfilter_programs.get(netfilter_programs).or_told(inum, "see which BPF programs are at netfilter");
            programs.filter(|names| others(names).is_empty())?;
            let rules = watched.rules()?;
            let suspected = suspects(&rules.rulesets, &data(journey, inum), &rules.machine)?;
            found.extend(suspected.into_iter().map(|suspect| (inum, suspect)));
        }
        let (Some((inum, only)), true) = (found.pop(), found.is_empty()) else { return None };
        let entrance = self.watched.get(&inum).filter(|_| inum != journey.netns).and_then(|watched| watched.netns.entrance());
        let port = only.port.unwrap_or(journey.last_destination().1);
        Some(Dropped { rule: only.rule, forward: only.forward, from_client: true, port, packets: None, entrance })
    }
}

/// Data of a journey's client as it comes into one of these namespaces.
fn data(journey: &Journey, inum: u32) -> Packet {
    let flow = &journey.flow;
    if inum != journey.netns {
        let (destination, destination_port) = journey.last_destination();
        let (source, source_port) = way::source_end(journey);
        let way = Way::Data { device: None };
        return Packet { way, source: Some(source), source_port: Some(source_port), destination, destination_port, ecn: None };
    }
    let device = journey.interface.as_deref().map(str::to_owned);
    let way = if journey.origin == Origin::Remote { Way::Data { device } } else { Way::LoopbackData };
    let (source, source_port) = (Some(flow.source), Some(flow.source_port));
    Packet { way, source, source_port, destination: flow.destination, destination_port: flow.destination_port, ecn: None }
}

/// The namespaces that the packets of a journey's connection pass: where its SYN came in, and where its server is.
fn places(journey: &Journey) -> Vec<u32> {
    let server = journey.stages.iter().rfind(|visit| visit.stage == Stage::Established).map(|visit| visit.netns);
    std::iter::once(journey.netns).chain(server.filter(|inum| *inum != journey.netns)).collect()
}

/// The source and destination ports that packets of its connection have somewhere on their way, from the client and back.
fn port_pairs(journey: &Journey) -> Vec<(u16, u16)> {
    let asked = (journey.flow.source_port, journey.flow.destination_port);
    let last = (way::source_end(journey).1, journey.last_destination().1);
    let mut pairs = vec![asked, last, (asked.1, asked.0), (last.1, last.0)];
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn is_from_client(journey: &Journey, (_, destination): (u16, u16)) -> bool {
    destination == journey.flow.destination_port || destination == journey.last_destination().1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn packets_are_known_by_their_ports_before_and_behind_nat() {
        let journey = samples::container().journey;
        let (client, asked, inner) = (journey.flow.source_port, journey.flow.destination_port, journey.last_destination().1);
        assert_ne!(asked, inner);
        for pair in [(client, asked), (client, inner)] {
            assert!(port_pairs(&journey).contains(&pair) && is_from_client(&journey, pair));
            let back = (pair.1, pair.0);
            assert!(port_pairs(&journey).contains(&back) && !is_from_client(&journey, back));
        }
    }
}
