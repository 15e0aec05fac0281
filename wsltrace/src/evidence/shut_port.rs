//! The way to a container that is shut on this side: the port of the bridge behind which the container is has been switched off, or does not
//! forward.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::around::Around;
use super::gather::Gatherer;
use super::isolated::BRIDGE_FREES;
use super::{Evidence, way};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::links::Link;
use crate::kernel::vlans::{Apart, apart};

/// The interface here behind which a packet's destination is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShutPort {
    /// The bridge that was to send it.
    pub bridge: String,
    /// The interface.
    pub port: String,
    /// What is wrong with it.
    pub why: Shut,
}

/// Why a bridge sends nothing by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shut {
    /// It is switched off.
    SwitchedOff,
    /// It does not forward: somebody has set its state, or the spanning tree has (STP).
    NotForwarding,
    /// The bridge filters by VLANs, and what it sends itself is in another VLAN than what comes by this port.
    OtherVlan {
        /// The VLAN of the bridge itself, where it is in one.
        of_bridge: Option<u16>,
        /// The VLAN of untagged frames of the port, where it takes such.
        of_port: Option<u16>,
    },
}

impl Gatherer {
    /// Why a bridge did not bring a packet to a container that is seen.
    pub(super) fn add_shut_port(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let last = journey.died_at.or_else(|| journey.stages.last().map(|visit| visit.stage));
        let freed = journey.location.as_deref().is_some_and(|place| BRIDGE_FREES.contains(&symbol(place)));
        let no_carrier = evidence.queue.as_ref().is_some_and(|queue| queue.is_bridge && !queue.carrier);
        let died_on = || journey.death.as_ref()?.interface.as_deref();
        let device = match last {
            Some(Stage::Neighbour) => way::waited_for(journey).map(|(_, device)| device),
            Some(Stage::TcEgress) if freed || no_carrier => died_on(),
            _ => None,
        };
        let of_syn = !journey.facts.syn_ack && journey.outcome != Outcome::AnswerDropped;
        let (Some(device), here) = (device.filter(|_| of_syn), journey.last_netns()) else { return };
        let to = journey.last_destination().0;
        let found = self.lend_around(here, |_, around| around.shut_port(device, to)).flatten();
        evidence.shut_port = found.map(|(bridge, port, why)| ShutPort { bridge, port, why });
    }
}

impl Around {
    /// The interface behind which an address is that is seen, where the bridge that a packet was to leave by sends nothing there, and why.
    fn shut_port(&self, bridge: &str, address: IpAddr) -> Option<(String, String, Shut)> {
        let bridge = self.routed(bridge).filter(|device| device.kind.as_deref() == Some("bridge"))?;
        let leads_there = |link: &&Link| {
            let mut seen = self.others.iter().filter(|other| other.end_of(link).is_some());
            seen.any(|other| other.addresses.iter().any(|own| own.address == address))
        };
        let port = self.links.iter().find(leads_there)?;
        let why = if port.master != Some(bridge.index) {
            return None;
        } else if !port.up {
            Shut::SwitchedOff
        // Where nothing is at its other end, no port forwards.
        } else if port.held_back && port.carrier {
            Shut::NotForwarding
        } else {
            let Apart { of_bridge, of_port } = apart(&self.vlans, bridge, port)?;
            Shut::OtherVlan { of_bridge, of_port }
        };
        Some((bridge.name.clone(), port.name.clone(), why))
    }
}

#[cfg(test)]
mod tests {
    use super::Shut;
    use crate::evidence::around::tests::around;
    use crate::kernel::links::Link;
    use crate::kernel::vlans::Vlans;
    use crate::output::samples::ip;

    #[test]
    fn the_way_to_a_container_may_be_shut_on_this_side() {
        let shut = |change: fn(&mut Link)| {
            let mut around = around(99);
            change(&mut around.links[2]);
            around.shut_port("br0", ip("10.9.0.2")).map(|(bridge, port, why)| {
                assert_eq!((bridge.as_str(), port.as_str()), ("br0", "vk2"));
                why
            })
        };
        assert_eq!(shut(|_| ()), None);
        assert_eq!(shut(|port| port.up = false), Some(Shut::SwitchedOff));
        assert_eq!(shut(|port| port.held_back = true), None, "its other end is down");
        assert_eq!(shut(|port| (port.held_back, port.carrier) = (true, true)), Some(Shut::NotForwarding));
        assert_eq!(shut(|port| port.master = Some(77)), None, "it leads there another way");
        let mut around = around(99);
        around.links[2].up = false;
        assert_eq!(around.shut_port("br0", ip("10.9.0.9")), None, "nobody has it");
    }

    #[test]
    fn vlans_may_keep_a_bridge_from_its_port() {
        let mut around = around(99);
        around.links[0].filters_vlans = true;
        let mut shut = |bridge: Option<u16>, port: Option<u16>, too: u16| {
            let vlans =
                |own: Option<u16>| Vlans { untagged: own, members: own.into_iter().chain([too]).map(|id| id..=id).collect() };
            around.vlans = [(3, vlans(bridge)), (5, vlans(port))].into();
            around.shut_port("br0", ip("10.9.0.2")).map(|(_, _, why)| why)
        };
        assert_eq!([shut(Some(1), Some(1), 7), shut(Some(1), Some(1), 1)], [None, None]);
        let other = Some(Shut::OtherVlan { of_bridge: Some(1), of_port: Some(20) });
        // In the bridge's VLAN, too, but what comes by it is not.
        assert_eq!([shut(Some(1), Some(20), 7), shut(Some(1), Some(20), 1)], [other, other]);
        assert_eq!(shut(None, Some(20), 20), Some(Shut::OtherVlan { of_bridge: None, of_port: Some(20) }));
        around.links[0].filters_vlans = false;
        assert_eq!(around.shut_port("br0", ip("10.9.0.2")), None);
    }
}
