//! Where a container is whose packets were sent elsewhere: the routes lead elsewhere, or nowhere, or its interface was taken out of its bridge.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::around::{Around, Other};
use super::gather::Gatherer;
use super::told::OrTold as _;
use super::{Evidence, way};
use crate::journey::{Journey, Outcome, Stage};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links::Link;

/// Where a container is that a packet was not sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whereabouts {
    /// The interface here, such as a bridge, behind which it is.
    pub device: String,
    /// The inode number of its namespace.
    pub netns: u32,
    /// Whether that interface has an address of the container's network.
    pub in_network: bool,
    /// The bridge to which the routes lead, and which that interface is no port of (any longer), nor of another one.
    #[serde(default)]
    pub left: Option<String>,
}

impl Gatherer {
    /// Where the container is that has a packet's destination, where the packet was sent elsewhere, or found no route.
    pub(super) fn add_whereabouts(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let here = journey.netns;
        let last = journey.died_at.or_else(|| journey.stages.last().map(|visit| visit.stage));
        let took = match last {
            Some(Stage::Neighbour) => way::waited_for(journey).map(|(_, device)| Some(device)),
            Some(Stage::Routing) if journey.reason.as_deref() == Some("IP_INNOROUTES") => Some(None),
            _ if journey.outcome == Outcome::Forwarded && journey.is_turned_back() => Some(journey.interface.as_deref()),
            _ => None,
        };
        let of_syn = !journey.facts.syn_ack && journey.outcome != Outcome::AnswerDropped && journey.last_netns() == here;
        let Some(took) = took.filter(|_| of_syn && evidence.gateway.is_none()) else { return };
        let to = journey.last_destination().0;
        let found = self.lend_around(here, |_, around| {
            let (device, netns) = around.whereabouts(to).filter(|(device, _)| Some(device.as_str()) != took)?;
            let left = took.filter(|took| around.has_left(&device, took)).map(str::to_owned);
            Some((device, netns, left))
        });
        let Some((device, netns, left)) = found.flatten() else { return };
        let own = self
            .watched
            .get_mut(&here)
            .and_then(|watched| watched.addresses.get(|| list_addresses(&watched.netns)).or_told(here, "list the addresses"));
        let in_network = own.is_some_and(|own| own.iter().any(|own| own.interface == device && own.covers(to)));
        evidence.whereabouts = Some(Whereabouts { device, netns, in_network, left });
    }
}

impl Around {
    /// The interface behind which an address is that is seen, a bridge or one's own end of a veth, and the namespace that has it there.
    fn whereabouts(&self, address: IpAddr) -> Option<(String, u32)> {
        let has =
            |other: &&Other, end: &Link| other.addresses.iter().any(|own| own.address == address && own.interface == end.name);
        let found = self.links.iter().find_map(|link| {
            let other = self.others.iter().find(|other| other.end_of(link).is_some_and(|end| has(other, end)))?;
            Some((link, other.netns))
        });
        let (link, netns) = found?;
        Some((self.routed(&link.name)?.name.clone(), netns))
    }

    /// Whether a device is nobody's port, and the other one a bridge.
    fn has_left(&self, device: &str, bridge: &str) -> bool {
        let is_loose = self.named(device).is_some_and(|device| device.master.is_none() && device.kind.as_deref() == Some("veth"));
        is_loose && self.named(bridge).is_some_and(|device| device.kind.as_deref() == Some("bridge"))
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::around::tests::around;
    use crate::output::samples::ip;

    #[test]
    fn a_container_is_found_wherever_routes_lead() {
        let mut around = around(99);
        assert_eq!(around.whereabouts(ip("10.9.0.2")), Some(("br0".to_owned(), 15)));
        assert_eq!(around.whereabouts(ip("10.9.0.9")), None);
        assert!(!around.has_left("vk2", "br0"));
        around.links[2].master = None;
        assert_eq!(around.whereabouts(ip("10.9.0.2")), Some(("vk2".to_owned(), 15)));
        assert!(around.has_left("vk2", "br0") && !around.has_left("vk2", "vk"));
    }
}
