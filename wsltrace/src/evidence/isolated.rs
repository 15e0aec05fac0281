//! Ports of a bridge that send each other nothing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::around::Around;
use super::gather::Gatherer;
use crate::journey::{Journey, Outcome, symbol};
use crate::kernel::links::Link;
use crate::kernel::neighbours::Neighbour;

/// Where a bridge frees what it may not send. A flood that finds no port frees in `br_flood`, and is told at its caller where the compiler made
/// the last call a jump (Linux 6.18; `br_flood` on 6.12).
pub const BRIDGE_FREES: [&str; 6] =
    ["br_handle_frame_finish", "br_flood", "br_forward", "__br_forward", "br_dev_xmit", "br_dev_queue_push_xmit"];

/// Ports of one bridge that send each other nothing (`isolated on`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Isolated {
    /// The bridge.
    pub bridge: String,
    /// The one by which the packet came.
    pub from: String,
    /// The one behind which its destination is.
    pub to: String,
}

impl Gatherer {
    /// The ports between which a bridge did not send a packet.
    pub(super) fn add_isolated(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let refused = journey.location.as_deref().is_some_and(|place| BRIDGE_FREES.contains(&symbol(place)));
        let Some(from) = journey.interface.as_deref().filter(|_| refused && journey.outcome == Outcome::Dropped) else { return };
        let found = self.lend_around(journey.netns, |_, around| around.isolated(from, journey.last_destination().0));
        evidence.isolated = found.flatten();
    }
}

impl Around {
    /// The port by which a packet came, and the one to its destination, where the bridge sends nothing from one to the other.
    fn isolated(&self, from: &str, to: IpAddr) -> Option<Isolated> {
        let (from, bridge) = (self.named(from)?, self.routed(from)?);
        let leads_to = |port: &&Link| {
            let seen = self.others.iter().any(|other| {
                let end = other.end_of(port).filter(|_| other.addresses.iter().any(|own| own.address == to));
                end.is_some()
            });
            let entry = self.neighbours.iter().find(|entry| entry.address == to && entry.index == bridge.index);
            let learned = |entry: &Neighbour| {
                self.learned.iter().any(|learned| learned.port == port.index && learned.hardware == entry.hardware)
            };
            seen || entry.is_some_and(learned)
        };
        let mut ports = self.links.iter().filter(|port| port.master == Some(bridge.index) && port.index != from.index);
        let to = ports.find(leads_to)?;
        let both = from.isolated && to.isolated;
        both.then(|| Isolated { bridge: bridge.name.clone(), from: from.name.clone(), to: to.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::around::Around;
    use crate::evidence::around::tests::around;
    use crate::kernel::neighbours::Learned;
    use crate::output::samples::ip;

    #[test]
    fn ports_are_isolated_from_each_other_only_when_both_are() {
        let mut around = around(15);
        let told = |around: &Around| around.isolated("vk", ip("10.9.0.2")).map(|found| (found.bridge, found.to));
        around.links[1].isolated = true;
        assert_eq!(told(&around), None);
        around.links[2].isolated = true;
        assert_eq!(told(&around), Some(("br0".to_owned(), "vk2".to_owned())));
        // A machine that nobody looks into: the bridge knows where it is.
        around.others.pop();
        assert_eq!(told(&around), None);
        around.learned.push(Learned { port: 5, hardware: vec![2, 0, 0, 0, 0, 15] });
        assert_eq!(told(&around), Some(("br0".to_owned(), "vk2".to_owned())));
        around.links[1].isolated = false;
        assert_eq!(told(&around), None);
    }
}
