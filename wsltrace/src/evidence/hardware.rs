//! What bears on a frame that left for a hardware address which nobody takes: the neighbour's entry is old, or somebody has set it; and on
//! ports of a bridge that send each other nothing.
//!
//! A bridge that does not know where an address is sends the frame by every port. That nobody has it can be said only where all that stands
//! behind them is watched.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use super::told::OrTold as _;
use super::{Evidence, OwnAddress, Shut, addresses, routes};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::links::{Link, list_links};
use crate::kernel::neighbours::{self, Learned, Neighbour, written};

/// The gateway that WSL itself sets: it is no machine's.
const OF_WSL: &str = "00:11:22:33:44:55";
/// Where a bridge frees what it may not send. A flood that finds no port frees in `br_flood`, and is told at its caller where the compiler made
/// the last call a jump (Linux 6.18; `br_flood` on 6.12).
pub const BRIDGE_FREES: [&str; 6] =
    ["br_handle_frame_finish", "br_flood", "br_forward", "__br_forward", "br_dev_xmit", "br_dev_queue_push_xmit"];

/// The hardware address that a packet was sent to, where that is not its neighbour's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unclaimed {
    /// Whose it is taken for: the destination, or the gateway to it.
    pub neighbour: Option<IpAddr>,
    /// The interface behind which it is taken to be.
    pub device: String,
    /// The hardware address, as `ip` writes it.
    pub hardware: String,
    /// Somebody has set it (`nud permanent`), and the kernel never asks whether it is right.
    pub permanent: bool,
    /// The one that the neighbour has, where a namespace that is watched has its address.
    pub real: Option<String>,
    /// All that stands behind the interface is watched, and nothing there has the address.
    pub is_nobodys: bool,
}

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

/// A namespace with interfaces and the addresses of them.
pub(super) struct Other {
    pub(super) netns: u32,
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<OwnAddress>,
}

/// The only container on a bridge.
pub(super) struct Only<'a> {
    /// The bridge.
    pub(super) bridge: &'a str,
    /// The inode number of the container's network namespace.
    pub(super) netns: u32,
    /// Its interface on the bridge.
    pub(super) device: &'a str,
    /// Its addresses, of every interface.
    pub(super) addresses: &'a [OwnAddress],
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

/// A namespace and what is behind it.
pub(super) struct Around {
    pub(super) links: Vec<Link>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) learned: Vec<Learned>,
    pub(super) others: Vec<Other>,
}

impl Gatherer {
    /// What bears on a packet that left for a hardware address, or that a bridge did not send.
    pub(super) fn add_hardware(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let refused = journey.location.as_deref().is_some_and(|place| BRIDGE_FREES.contains(&symbol(place)));
        let sent = sent(journey);
        let netns = match sent {
            Some((netns, ..)) => netns,
            None if refused && journey.outcome == Outcome::Dropped => journey.netns,
            None => return,
        };
        self.lend_around(netns, |gatherer, around| {
            if let Some((_, device, to)) = sent {
                let found = gatherer.unclaimed(around, netns, device, to, journey.outcome);
                evidence.unclaimed = found.or_told(netns, "look for hardware addresses").flatten();
            } else {
                let from = journey.interface.as_deref();
                evidence.isolated = from.and_then(|from| around.isolated(from, journey.last_destination().0));
            }
        });
    }

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

    fn unclaimed(
        &self,
        around: &Around,
        netns: u32,
        device: &str,
        to: IpAddr,
        outcome: Outcome,
    ) -> io::Result<Option<Unclaimed>> {
        let Some((routed, watched)) = around.routed(device).zip(self.watched.get(&netns)) else { return Ok(None) };
        // Of an answer only what somebody has set tells something, and the route is dear to ask for in a flood.
        if outcome == Outcome::Answered && !around.neighbours.iter().any(|entry| entry.permanent && entry.index == routed.index) {
            return Ok(None);
        }
        let hop = routes::hop_by(&watched.netns, None, to, &routed.name)?;
        Ok(around.unclaimed(routed, hop.and_then(|hop| hop.gateway).unwrap_or(to)))
    }

    fn around(&self, netns: u32) -> io::Result<Option<Around>> {
        let Some(watched) = self.watched.get(&netns) else { return Ok(None) };
        let mut others = Vec::new();
        for other in self.watched.values().filter(|other| other.netns != watched.netns) {
            let netns = other.netns.inum();
            others.push(Other { netns, links: list_links(&other.netns)?, addresses: addresses::of(&other.netns)? });
        }
        let netns = &watched.netns;
        let (neighbours, learned) = (neighbours::neighbours(netns)?, neighbours::learned(netns)?);
        Ok(Some(Around { links: list_links(netns)?, neighbours, learned, others }))
    }
}

/// The namespace and the interface that a packet was last seen leaving, and where it was to go: a SYN that was sent on, or an answer that
/// nobody has confirmed.
pub(super) fn sent(journey: &Journey) -> Option<(u32, &str, IpAddr)> {
    let facts = journey.facts;
    let to = match journey.outcome {
        Outcome::Forwarded => journey.last_destination().0,
        Outcome::Answered if facts.syn_ack && facts.answer_left && !facts.acknowledged && !facts.established => {
            journey.flow.source
        }
        _ => return None,
    };
    let last = journey.stages.iter().rfind(|visit| visit.stage == Stage::TcEgress)?;
    Some((last.netns, last.interface.as_deref()?, to))
}

impl Around {
    fn named(&self, name: &str) -> Option<&Link> {
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

    /// The interface behind which an address is that is seen, where the bridge that a packet was to leave by sends nothing there, and why.
    pub(super) fn shut_port(&self, bridge: &str, address: IpAddr) -> Option<(String, String, Shut)> {
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
            return None;
        };
        Some((bridge.name.clone(), port.name.clone(), why))
    }

    /// The interface behind which an address is that is seen, a bridge or one's own end of a veth, and the namespace that has it there.
    pub(super) fn whereabouts(&self, address: IpAddr) -> Option<(String, u32)> {
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
    pub(super) fn has_left(&self, device: &str, bridge: &str) -> bool {
        let is_loose = self.named(device).is_some_and(|device| device.master.is_none() && device.kind.as_deref() == Some("veth"));
        is_loose && self.named(bridge).is_some_and(|device| device.kind.as_deref() == Some("bridge"))
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

    pub(super) fn unclaimed(&self, device: &Link, neighbour: IpAddr) -> Option<Unclaimed> {
        let entry = self.neighbours.iter().find(|entry| entry.index == device.index && entry.address == neighbour)?;
        let theirs = self.others.iter().flat_map(|other| &other.links);
        let has = |link: &Link| link.address == entry.hardware;
        let hardware = written(&entry.hardware);
        if self.links.iter().chain(theirs).any(has) || hardware == OF_WSL {
            return None;
        }
        let is_port = |link: &&Link| link.up && link.master == Some(device.index);
        let ports: Vec<&Link> = self.links.iter().filter(is_port).collect();
        let known = self
            .learned
            .iter()
            .any(|learned| learned.hardware == entry.hardware && ports.iter().any(|port| port.index == learned.port));
        let is_bridge = device.kind.as_deref() == Some("bridge");
        let is_seen = |link: &&Link| self.others.iter().any(|other| other.end_of(link).is_some());
        let all_seen = if is_bridge { ports.iter().all(is_seen) } else { is_seen(&device) };
        Some(Unclaimed {
            neighbour: Some(neighbour),
            device: device.name.clone(),
            hardware,
            permanent: entry.permanent,
            real: self.others.iter().find_map(|other| other.hardware_of(neighbour)),
            is_nobodys: all_seen && !known,
        })
    }

    /// The only container on the bridge that a device is or belongs to, where nobody that is seen has an address and all that stands behind
    /// the bridge is seen.
    pub(super) fn only_resident(&self, device: &str, address: IpAddr) -> Option<Only<'_>> {
        let bridge = self.routed(device).filter(|device| device.up && device.kind.as_deref() == Some("bridge"))?;
        if self.others.iter().any(|other| other.addresses.iter().any(|own| own.address == address)) {
            return None;
        }
        let mut ports = self.links.iter().filter(|link| link.up && link.master == Some(bridge.index));
        let (port, None) = (ports.next()?, ports.next()) else { return None };
        let (other, end) = self.others.iter().find_map(|other| Some((other, other.end_of(port)?)))?;
        Some(Only { bridge: &bridge.name, netns: other.netns, device: &end.name, addresses: &other.addresses })
    }

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

impl Other {
    /// The interface here that is the other end of this one.
    pub(super) fn end_of(&self, link: &Link) -> Option<&Link> {
        let is_end = |end: &&Link| end.peer_index == Some(link.index) && link.peer_index == Some(end.index);
        self.links.iter().find(is_end).filter(|_| link.kind.as_deref() == Some("veth"))
    }

    /// The hardware address of the interface that has an address.
    fn hardware_of(&self, address: IpAddr) -> Option<String> {
        let own = self.addresses.iter().find(|own| own.address == address)?;
        self.links.iter().find(|link| link.name == own.interface).map(|link| written(&link.address))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::output::samples::ip;

    fn veth(index: u32, name: &str, master: Option<u32>, peer: u32) -> Link {
        let address = vec![2, 0, 0, 0, 0, u8::try_from(index).unwrap()];
        let kind = Some("veth".to_owned());
        Link { index, name: name.to_owned(), up: true, address, master, peer_index: Some(peer), kind, ..Link::default() }
    }

    /// A bridge with two containers, of which the second has the address that is asked for, and a packet for this hardware address.
    fn around(hardware: u8) -> Around {
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
        }
    }

    fn found(around: &Around) -> Option<(Option<String>, bool)> {
        let found = around.unclaimed(around.routed("vk2").unwrap(), ip("10.9.0.2"))?;
        assert_eq!((found.device.as_str(), found.hardware.len()), ("br0", 17));
        Some((found.real, found.is_nobodys))
    }

    #[test]
    fn an_address_is_nobodys_only_where_all_behind_the_bridge_is_seen() {
        assert_eq!(found(&around(15)), None, "the container has it");
        assert_eq!(found(&around(99)), Some((Some("02:00:00:00:00:0f".to_owned()), true)));
        let mut gone = around(99);
        gone.others.pop();
        // Its veth is still there, and leads where nobody looks.
        assert_eq!(found(&gone), Some((None, false)));
        gone.links.pop();
        let stopped = gone.unclaimed(gone.routed("vk").unwrap(), ip("10.9.0.2")).unwrap();
        assert_eq!((stopped.real, stopped.is_nobodys), (None, true));
        let mut learned = around(99);
        learned.learned.push(Learned { port: 4, hardware: vec![2, 0, 0, 0, 0, 99] });
        assert!(!found(&learned).unwrap().1);
        let mut unknown = around(99);
        unknown.neighbours.clear();
        assert_eq!(found(&unknown), None);
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
        let container =
            Around { links: vec![veth(15, "eth0", None, 5)], neighbours: vec![], learned: vec![], others: vec![host] };
        let bridge = Some((1, "br0".to_owned(), Some("vk2".to_owned()), [true, true, false]));
        assert_eq!(found(&container, "eth0", "10.9.0.1"), bridge);
    }

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
    fn a_container_is_found_wherever_routes_lead() {
        let mut around = around(99);
        assert_eq!(around.whereabouts(ip("10.9.0.2")), Some(("br0".to_owned(), 15)));
        assert_eq!(around.whereabouts(ip("10.9.0.9")), None);
        assert!(!around.has_left("vk2", "br0"));
        around.links[2].master = None;
        assert_eq!(around.whereabouts(ip("10.9.0.2")), Some(("vk2".to_owned(), 15)));
        assert!(around.has_left("vk2", "br0") && !around.has_left("vk2", "vk"));
    }

    #[test]
    fn a_container_is_told_by_its_address_only_where_it_is_the_only_one() {
        let found = |around: &Around, asked: &str| {
            let Only { bridge, netns, device, addresses } = around.only_resident("br0", ip(asked))?;
            Some((bridge.to_owned(), netns, device.to_owned(), addresses.len()))
        };
        let mut around = around(99);
        assert_eq!(found(&around, "10.9.0.9"), None, "either may be meant");
        let second = around.links.pop();
        assert_eq!(found(&around, "10.9.0.9"), Some(("br0".to_owned(), 14, "eth0".to_owned(), 1)));
        assert_eq!(found(&around, "10.9.0.2"), None, "somebody has it, though elsewhere");
        around.others.remove(0);
        assert_eq!(found(&around, "10.9.0.9"), None, "nobody looks behind its port");
        around.links.pop();
        around.links.extend(second);
        assert_eq!(found(&around, "10.9.0.9").map(|(_, netns, ..)| netns), Some(15));
    }

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
