//! A container of a macvlan or ipvlan network that its own host asks for: the kernel keeps an interface and those that stand on it apart.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::around::Around;
use super::gather::Gatherer;
use super::{Evidence, way};
use crate::journey::Journey;

/// The interface that a packet waited on, and what stands on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedWire {
    /// The interface of this machine.
    pub device: String,
    /// What the container's interface is: `macvlan` or `ipvlan`.
    pub kind: String,
}

impl Gatherer {
    /// Whether a container on the interface on which a packet waited has the address that was asked for.
    pub(super) fn add_shared_wire(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let of_syn = |(whom, _): &(IpAddr, &str)| *whom == journey.last_destination().0;
        let Some((whom, device)) = way::waited_for(journey).filter(of_syn) else { return };
        evidence.shared_wire = self.lend_around(journey.last_netns(), |_, around| shared(around, device, whom)).flatten();
    }
}

fn shared(around: &Around, device: &str, whom: IpAddr) -> Option<SharedWire> {
    let lower = around.links.iter().find(|link| link.name == device)?;
    let stands = around.others.iter().find_map(|other| {
        let own = other.addresses.iter().find(|own| own.address == whom)?;
        let link = other.links.iter().find(|link| link.name == own.interface)?;
        // The number is that of another namespace, which may not be this one: then its own interface would have told it without.
        let upon = link.is_stacked() && link.peer_index == Some(lower.index) && link.peer_nsid.is_some();
        upon.then_some(link)
    })?;
    Some(SharedWire { device: device.to_owned(), kind: stands.kind.clone()? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::evidence::OwnAddress;
    use crate::evidence::around::Other;
    use crate::kernel::links::Link;
    use crate::output::samples::ip;

    #[test]
    fn a_container_on_the_interface_itself_is_told_by_its_address() {
        let link = |index, kind: &str, peer_index| Link {
            index,
            name: "eth0".to_owned(),
            kind: Some(kind.to_owned()),
            peer_index,
            peer_nsid: Some(0),
            ..Link::default()
        };
        let around = |kind, peer| Around {
            links: vec![link(2, "veth", None)],
            neighbours: Vec::new(),
            learned: Vec::new(),
            vlans: BTreeMap::new(),
            others: vec![Other {
                netns: 7,
                links: vec![link(9, kind, Some(peer))],
                addresses: vec![OwnAddress {
                    address: ip("172.28.16.20"),
                    prefix: 20,
                    interface: "eth0".to_owned(),
                    unready: None,
                }],
            }],
        };
        let found = |around: &Around, whom| shared(around, "eth0", ip(whom)).map(|found| found.kind);
        assert_eq!(found(&around("macvlan", 2), "172.28.16.20").as_deref(), Some("macvlan"));
        assert_eq!(found(&around("macvlan", 2), "172.28.16.21"), None);
        assert_eq!(found(&around("macvlan", 3), "172.28.16.20"), None, "on another interface");
        assert_eq!(found(&around("veth", 2), "172.28.16.20"), None);
    }
}
