//! Which rule drops what a client sends to confirm an answer. The kernel is not asked to name rules for such packets, of which every
//! connection has many; the rules as they are now are followed instead, so this proves nothing.

use std::io;
use std::net::IpAddr;

use super::Rule;
use crate::journey::{Conntrack, Journey, Origin};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links::interfaces_toward;
use crate::kernel::netns::Netns;
use crate::simulate::{End, Machine, Packet, Rulesets, Standing, Way, predict, predict_arp, predict_as};

/// The rulesets of a namespace, and the addresses that they are followed with.
#[derive(Debug)]
pub(super) struct Rules {
    rulesets: Rulesets,
    machine: Machine,
}

impl Rules {
    /// Made by hand.
    #[cfg(test)]
    pub(super) fn of(rulesets: Rulesets, machine: Machine) -> Self {
        Self { rulesets, machine }
    }

    /// Reads them.
    pub(super) fn read(netns: &Netns) -> io::Result<Self> {
        let rulesets = crate::simulate::read(netns)?;
        let targets: Vec<IpAddr> = rulesets.targets().into_iter().collect();
        let addresses = list_addresses(netns)?.into_iter().map(|own| (own.interface, own.address)).collect();
        let machine = Machine { addresses, ways: interfaces_toward(netns, &targets)?.into_iter().collect() };
        Ok(Self { rulesets, machine })
    }

    /// The rule or policy that drops this packet, where it is certain by these rules.
    pub(super) fn dropper_of(&self, packet: &Packet) -> Option<Rule> {
        match predict(&self.rulesets, packet, &self.machine).end {
            End::Dropped { rule, .. } | End::Rejected { rule, .. } => Some(rule),
            End::Passes { .. } | End::Maybe { .. } | End::Queued { .. } => None,
        }
    }

    /// The same for ARP, in either direction.
    pub(super) fn arp_dropper(&self) -> Option<Rule> {
        predict_arp(&self.rulesets).into_iter().find_map(|prediction| match prediction.end {
            End::Dropped { rule, .. } => Some(rule),
            _ => None,
        })
    }

    /// The rule or policy that drops or rejects the client's confirmation, where it is certain by these rules, and the port that the
    /// confirmation has there. What these rules would certainly let pass as part of its connection was none to connection tracking,
    /// since it died.
    pub(super) fn dropper(&self, journey: &Journey) -> Option<(Rule, Option<u16>)> {
        let likely = match journey.conntrack {
            Some(Conntrack::Untracked) => [Standing::Untracked, Standing::Established, Standing::Invalid],
            _ => [Standing::Established, Standing::Invalid, Standing::Untracked],
        };
        let packet = packet(journey);
        for standing in likely {
            match predict_as(&self.rulesets, &packet, &self.machine, standing).end {
                End::Dropped { rule, port, .. } | End::Rejected { rule, port, .. } => return Some((rule, port)),
                End::Passes { .. } => {}
                // What is not understood may have done it.
                End::Maybe { .. } | End::Queued { .. } => return None,
            }
        }
        None
    }
}

/// The confirmation as it came into the namespace where it died.
fn packet(journey: &Journey) -> Packet {
    let behind = journey.last_netns() != journey.netns;
    let way = match (journey.origin, behind) {
        (Origin::Remote, _) | (_, true) => Way::Confirmation { device: journey.entrance().map(str::to_owned), bridged: false },
        _ => Way::LoopbackConfirmation,
    };
    let flow = &journey.flow;
    let (source, (destination, destination_port)) = if behind {
        (journey.last_source(), journey.last_destination())
    } else {
        (flow.source, (flow.destination, flow.destination_port))
    };
    Packet { way, source: Some(source), source_port: Some(flow.source_port), destination, destination_port, ecn: None }
}

#[cfg(test)]
mod tests {
    use super::Rules;
    use crate::output::samples;
    use crate::simulate::tests::{chain, machine, rule, rulesets};

    fn dropper(rules: &[String]) -> Option<u64> {
        let all = [&[chain("c", 1, "input", 0, "accept")], rules].concat();
        let rules = Rules::of(rulesets(&all.join(",")), machine());
        rules.dropper(&samples::healthy().journey).and_then(|(rule, _)| rule.handle)
    }

    #[test]
    fn a_rule_for_invalid_packets_is_named_only_where_nothing_else_can_have_done_it() {
        let state = |which: &str| {
            format!(r#"{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": "{which}"}}}}, {{"drop": null}}"#)
        };
        let invalid = rule("c", 3, &state("invalid"));
        assert_eq!(dropper(std::slice::from_ref(&invalid)), Some(3));
        assert_eq!(dropper(&[rule("c", 2, &state("established")), invalid.clone()]), Some(2));
        let strange = rule("c", 2, r#"{"something": "new"}, {"drop": null}"#);
        assert_eq!(dropper(&[strange, invalid]), None);
    }
}
