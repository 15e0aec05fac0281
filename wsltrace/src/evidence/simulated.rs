//! The rules of a namespace as they are now, to be followed in thought. What they say proves nothing of a packet that has gone.

use std::io;
use std::net::IpAddr;

use super::Rule;
use super::further::{Answers, Ways};
use super::unnamed::Suspects;
use crate::journey::{Journey, Origin};
use crate::kernel::addresses::list_addresses;
use crate::kernel::containers::interfaces_toward;
use crate::kernel::netns::Netns;
use crate::simulate::{End, Machine, Packet, Rulesets, Way, predict};

/// The rulesets of a namespace, and the addresses that they are followed with.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) rulesets: Rulesets,
    pub(super) machine: Machine,
    /// Whether any hands packets to a transparent proxy.
    pub(super) hand_to_proxies: bool,
    /// What was found behind rules with them.
    pub(super) further: Answers,
    /// Where packets would come to without a rule, with them.
    pub(super) ways: Ways,
    /// What was found that may stop packets, with them.
    pub(super) suspects: Suspects,
}

impl Rules {
    /// Made by hand.
    #[cfg(test)]
    pub(super) fn of(rulesets: Rulesets, machine: Machine) -> Self {
        Self::with(rulesets, machine)
    }

    fn with(rulesets: Rulesets, machine: Machine) -> Self {
        Self {
            hand_to_proxies: rulesets.hand_to_proxies(),
            rulesets,
            machine,
            further: Answers::new(),
            ways: Ways::new(),
            suspects: Suspects::new(),
        }
    }

    /// Reads them.
    pub(super) fn read(netns: &Netns) -> io::Result<Self> {
        let rulesets = crate::simulate::read(netns)?;
        let targets: Vec<IpAddr> = rulesets.targets().into_iter().collect();
        let addresses = list_addresses(netns)?.into_iter().map(|own| (own.interface, own.address)).collect();
        let machine = Machine { addresses, ways: interfaces_toward(netns, &targets)?.into_iter().collect(), proxies: None };
        Ok(Self::with(rulesets, machine))
    }

    /// The rule or policy that drops this packet, where it is certain by these rules.
    pub(super) fn dropper_of(&self, packet: &Packet) -> Option<Rule> {
        match predict(&self.rulesets, packet, &self.machine).end {
            End::Dropped { rule, .. } | End::Rejected { rule, .. } => Some(rule),
            End::Passes { .. } | End::Maybe { .. } | End::Queued { .. } => None,
        }
    }
}

/// A packet of a journey's client as it came into the namespace where it died, by one of these ways.
pub(super) fn came(journey: &Journey, outside: impl FnOnce(Option<String>) -> Way, loopback: Way) -> Packet {
    let behind = journey.last_netns() != journey.netns;
    let from_outside = behind || journey.origin == Origin::Remote;
    let way = if from_outside { outside(journey.entrance().map(str::to_owned)) } else { loopback };
    let flow = &journey.flow;
    let (source, (destination, destination_port)) = if behind {
        (journey.last_source(), journey.last_destination())
    } else {
        (flow.source, (flow.destination, flow.destination_port))
    };
    Packet { way, source: Some(source), source_port: Some(flow.source_port), destination, destination_port, ecn: None }
}
