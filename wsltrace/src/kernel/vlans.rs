//! Which VLANs the ports of bridges, and the bridges themselves, are in.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use rtnetlink::packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::links::Link;
use super::netlink;
use super::netns::Netns;

/// The VLANs of an interface that is a bridge or a port of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// The one that untagged frames belong to that come by it.
    pub untagged: Option<u16>,
    /// All that it is in.
    pub members: Vec<RangeInclusive<u16>>,
}

impl Vlans {
    /// Whether it is in a VLAN.
    pub fn has(&self, vlan: u16) -> bool {
        self.members.iter().any(|range| range.contains(&vlan))
    }
}

/// The VLANs, where they are in any, of a bridge and of a port of it that the bridge's VLANs keep from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Of what the bridge itself sends.
    pub of_bridge: Option<u16>,
    /// Of what comes untagged by the port.
    pub of_port: Option<u16>,
}

/// Whether a bridge looks at VLANs, and what it sends itself does not leave by a port, or what comes by the port does not come to it.
pub fn apart(vlans: &BTreeMap<u32, Vlans>, bridge: &Link, port: &Link) -> Option<Apart> {
    let none = Vlans::default();
    let of = |link: &Link| vlans.get(&link.index).unwrap_or(&none);
    let (of_bridge, of_port) = (of(bridge).untagged, of(port).untagged);
    let there = of_bridge.is_some_and(|vlan| of(port).has(vlan));
    let back = of_port.is_some_and(|vlan| of(bridge).has(vlan));
    (bridge.filters_vlans && !(there && back)).then_some(Apart { of_bridge, of_port })
}

/// The VLANs of all such interfaces of a namespace, by their numbers; nothing where no bridge looks at them. One that is in none is not listed.
pub fn bridge_vlans(netns: &Netns, links: &[Link]) -> io::Result<BTreeMap<u32, Vlans>> {
    if !links.iter().any(|link| link.filters_vlans) {
        return Ok(BTreeMap::new());
    }
    let mut all = LinkMessage::default();
    all.header.interface_family = AddressFamily::Bridge;
    all.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed])];
    let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetLink(all)))?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    });
    Ok(links.map(|message| (message.header.index, vlans(&message.attributes))).collect())
}

fn vlans(attributes: &[LinkAttribute]) -> Vlans {
    let mut vlans = Vlans::default();
    let infos = attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(infos) => Some(infos),
        _ => None,
    });
    let mut first = None;
    for info in infos.flatten() {
        let AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid }) = info else { continue };
        if flags.contains(BridgeVlanInfoFlags::Pvid) {
            vlans.untagged = Some(*vid);
        }
        // Those that follow each other with the same settings are told by the first and the last.
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(*vid);
        } else {
            vlans.members.push(first.take().unwrap_or(*vid)..=*vid);
        }
    }
    vlans
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute};

    use super::vlans;

    #[test]
    fn ranges_are_told_by_their_ends() {
        let info = |flags, vid| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
        let infos = vec![
            info(BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged, 20),
            info(BridgeVlanInfoFlags::RangeBegin, 30),
            info(BridgeVlanInfoFlags::RangeEnd, 39),
        ];
        let found = vlans(&[LinkAttribute::AfSpecBridge(infos)]);
        assert_eq!(found.untagged, Some(20));
        assert_eq!([1, 20, 29, 30, 35, 39, 40].map(|vlan| found.has(vlan)), [false, true, false, true, true, true, false]);
        assert_eq!(vlans(&[]).untagged, None);
    }
}
