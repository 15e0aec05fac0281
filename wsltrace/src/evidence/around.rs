//! A namespace and what stands behind its interfaces: the other namespaces that are watched, with their interfaces and addresses.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::OwnAddress;
use super::gather::Gatherer;
use super::told::OrTold as _;
use crate::kernel::addresses::list_addresses;
use crate::kernel::links::{Link, list_links};
use crate::kernel::neighbours::{self, Learned, Neighbour, written};
use crate::kernel::vlans::{Vlans, bridge_vlans};

/// A namespace and what is behind it.
pub(super) struct Around {
    pub(super) links: Vec<Link>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) learned: Vec<Learned>,
    pub(super) others: Vec<Other>,
    /// What is in which VLAN, where a bridge looks at that.
    pub(super) vlans: BTreeMap<u32, Vlans>,
}

/// A namespace with interfaces and the addresses of them.
pub(super) struct Other {
    pub(super) netns: u32,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<OwnAddress>,
}

/// A neighbour that is seen: the interface by which it is to be found.
#[derive(Debug)]
pub(super) struct Stands {
    /// The inode number of its namespace.
    pub(super) netns: u32,
    /// The interface there that frames come to, or its bridge.
    pub(super) device: String,
    /// Where that is a bridge, its port.
    pub(super) port: Option<String>,
    /// Whether the interface, not another one there, has the address.
    pub(super) has: bool,
    /// It is switched on.
    pub(super) up: bool,
    /// It answers nobody who asks for its hardware address.
    pub(super) no_arp: bool,
}

impl Gatherer {
    /// What a question finds out about a namespace and what is behind it. Lent from its namespace: to look anew, all are looked at.
    pub(super) fn lend_around<T>(&mut self, netns: u32, ask: impl FnOnce(&Self, &Around) -> T) -> Option<T> {
        let mut kept = std::mem::take(&mut self.watched.get_mut(&netns)?.around);
        let around = kept.get(|| self.around(netns)).or_told(netns, "look for hardware addresses").and_then(Option::as_ref);
        let found = around.map(|around| ask(self, around));
        if let Some(watched) = self.watched.get_mut(&netns) {
            watched.around = kept;
        }
        found
    }

    fn around(&self, netns: u32) -> io::Result<Option<Around>> {
        let Some(watched) = self.watched.get(&netns) else { return Ok(None) };
        let mut others = Vec::new();
        for other in self.watched.values().filter(|other| other.netns != watched.netns) {
            let netns = other.netns.inum();
            others.push(Other { netns, links: list_links(&other.netns)?, addresses: list_addresses(&other.netns)? });
        }
        let netns = &watched.netns;
        let (neighbours, learned) = (neighbours::neighbours(netns)?, neighbours::learned(netns)?);
        let links = list_links(netns)?;
        let vlans = bridge_vlans(netns, &links)?;
        Ok(Some(Around { links, neighbours, learned, others, vlans }))
    }
}

impl Around {
    pub(super) fn named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface that routing knows: of a port it is the bridge.
    pub(super) fn routed(&self, device: &str) -> Option<&Link> {
        let link = self.named(device)?;
        let is_bridge = |master: &&Link| Some(master.index) == link.master && master.kind.as_deref() == Some("bridge");
        Some(self.links.iter().find(is_bridge).unwrap_or(link))
    }

    /// The ports of a bridge that are switched on.
    pub(super) fn ports(&self, bridge: &str) -> Option<impl Iterator<Item = &Link>> {
        let bridge = self.named(bridge).filter(|device| device.kind.as_deref() == Some("bridge"))?;
        Some(self.links.iter().filter(|link| link.up && link.master == Some(bridge.index)))
    }

    /// The neighbour with an address, where it is seen at the other end of a device, or of a port of the bridge that it is.
    pub(super) fn stands(&self, device: &str, address: IpAddr) -> Option<Stands> {
        let ends = self.ports(device).map(Iterator::collect::<Vec<_>>).or_else(|| Some(vec![self.named(device)?]))?;
        let stands = |other: &Other, end: &Link| {
            let own = other.addresses.iter().find(|own| own.address == address)?;
            let is_bridge = |master: &&Link| Some(master.index) == end.master && master.kind.as_deref() == Some("bridge");
            let bridge = other.links.iter().find(is_bridge);
            let at = bridge.unwrap_or(end);
            Some(Stands {
                netns: other.netns,
                device: at.name.clone(),
                port: bridge.map(|_| end.name.clone()),
                has: own.interface == at.name,
                up: at.up && end.up,
                no_arp: at.no_arp,
            })
        };
        ends.into_iter().find_map(|link| self.others.iter().find_map(|other| stands(other, other.end_of(link)?)))
    }
}

impl Other {
    /// The interface here that is the other end of this one.
    pub(super) fn end_of(&self, link: &Link) -> Option<&Link> {
        let is_end = |end: &&Link| end.peer_index == Some(link.index) && link.peer_index == Some(end.index);
        self.links.iter().find(is_end).filter(|_| link.is_of_pair())
    }

    /// The hardware address of the interface that has an address.
    pub(super) fn hardware_of(&self, address: IpAddr) -> Option<String> {
        let own = self.addresses.iter().find(|own| own.address == address)?;
        self.links.iter().find(|link| link.name == own.interface).map(|link| written(&link.address))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
pub(super) mod tests {
    use super::*;
    use crate::output::samples::ip;

    fn veth(index: u32, name: &str, master: Option<u32>, peer: u32) -> Link {
        let address = vec![2, 0, 0, 0, 0, u8::try_from(index).unwrap()];
        let kind = Some("veth".to_owned());
        Link { index, name: name.to_owned(), up: true, address, master, peer_index: Some(peer), kind, ..Link::default() }
    }

    /// A bridge with two containers, of which the second has the address that is asked for, and a packet for this hardware address.
    pub(in crate::evidence) fn around(hardware: u8) -> Around {
        let bridge = Link { kind: Some("bridge".to_owned()), peer_index: None, ..veth(3, "br0", None, 0) };
        let other = |index: u32, peer: u32, address: &str| Other {
            netns: index,
            links: vec![veth(index, "eth0", None, peer)],
            addresses: vec![OwnAddress { address: ip(address), prefix: 24, interface: "eth0".to_owned(), unready: None }],
        };
        let hardware = vec![2, 0, 0, 0, 0, hardware];
        Around {
            links: vec![bridge, veth(4, "vk", Some(3), 14), veth(5, "vk2", Some(3), 15)],
            neighbours: vec![Neighbour { address: ip("10.9.0.2"), index: 3, hardware, permanent: false }],
            learned: Vec::new(),
            others: vec![other(14, 4, "10.9.0.3"), other(15, 5, "10.9.0.2")],
            vlans: BTreeMap::new(),
        }
    }

    #[test]
    fn a_neighbour_is_found_behind_a_bridge_and_from_behind_it() {
        let found = |around: &Around, device: &str, address: &str| {
            let Stands { netns, device, port, has, up, no_arp } = around.stands(device, ip(address))?;
            Some((netns, device, port, [has, up, no_arp]))
        };
        let mut around = around(99);
        let eth0 = |netns, is: [bool; 3]| Some((netns, "eth0".to_owned(), None, is));
        assert_eq!(found(&around, "br0", "10.9.0.2"), eth0(15, [true, true, false]));
        assert_eq!([found(&around, "br0", "10.9.0.9"), found(&around, "vk2", "10.9.0.3")], [None, None]);
        (around.others[1].links[0].up, around.others[1].links[0].no_arp) = (false, true);
        around.others[1].addresses[0].interface = "lo".to_owned();
        assert_eq!(found(&around, "br0", "10.9.0.2"), eth0(15, [false, false, true]));
        // A container that looks for the address of its bridge.
        let address = OwnAddress { address: ip("10.9.0.1"), prefix: 24, interface: "br0".to_owned(), unready: None };
        let host = Other { netns: 1, links: around.links.clone(), addresses: vec![address] };
        let container = Around { links: vec![veth(15, "eth0", None, 5)], others: vec![host], ..self::around(99) };
        let bridge = Some((1, "br0".to_owned(), Some("vk2".to_owned()), [true, true, false]));
        assert_eq!(found(&container, "eth0", "10.9.0.1"), bridge);
    }
}
