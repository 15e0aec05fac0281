//! The hardware addresses that a network namespace knows: those of its neighbours, and those that its bridges have learned.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::netlink;
use super::netns::Netns;

/// A neighbour whose hardware address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// The number of the interface behind which it is.
    pub index: u32,
    /// Its hardware address, bytes as on the wire.
    pub hardware: Vec<u8>,
    /// Somebody has set it, and the kernel never asks whether it is right.
    pub permanent: bool,
}

/// Where a bridge has learned a hardware address to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The number of the bridge's port.
    pub port: u32,
    /// The address, bytes as on the wire.
    pub hardware: Vec<u8>,
}

/// The neighbours of a namespace, of both families.
pub fn neighbours(netns: &Netns) -> io::Result<Vec<Neighbour>> {
    Ok(dump(netns, AddressFamily::Unspec)?.iter().filter_map(neighbour).collect())
}

/// What the bridges of a namespace have learned.
pub fn learned(netns: &Netns) -> io::Result<Vec<Learned>> {
    let of = |message: &NeighbourMessage| Some(Learned { port: message.header.ifindex, hardware: hardware(message)?.to_vec() });
    Ok(dump(netns, AddressFamily::Bridge)?.iter().filter_map(of).collect())
}

fn dump(netns: &Netns, family: AddressFamily) -> io::Result<Vec<NeighbourMessage>> {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    let request = RouteNetlinkMessage::GetNeighbour(message);
    let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &request))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => Some(message),
            _ => None,
        })
        .collect())
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let permanent = message.header.state == NeighbourState::Permanent;
    Some(Neighbour { address, index: message.header.ifindex, hardware: hardware(message)?.to_vec(), permanent })
}

fn hardware(message: &NeighbourMessage) -> Option<&[u8]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(address.as_slice()),
        _ => None,
    })
}

/// A hardware address as `ip` writes it.
pub fn written(hardware: &[u8]) -> String {
    hardware.iter().enumerate().fold(String::new(), |mut text, (place, byte)| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{byte:02x}", if place == 0 { "" } else { ":" });
        text
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::links::list_links;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn neighbours_and_what_bridges_know_are_listed() {
        let Some(netns) = fresh("neighbours_and_what_bridges_know_are_listed") else { return };
        for command in [
            "link add br0 type bridge",
            "link add port type veth peer name end",
            "link set port master br0",
            "link set br0 up",
            "neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev br0 nud permanent",
            "neighbour add fd00::9 lladdr 02:00:00:00:00:0a dev br0 nud reachable",
        ] {
            ip(&netns, command);
        }
        let links = list_links(&netns).unwrap();
        let link = |name: &str| links.iter().find(|link| link.name == name).unwrap();
        let found = neighbours(&netns).unwrap();
        let at = |address: &str| found.iter().find(|found| found.address.to_string() == address).unwrap();
        assert_eq!((at("10.0.0.9").permanent, at("fd00::9").permanent), (true, false));
        assert_eq!((at("fd00::9").index, written(&at("fd00::9").hardware).as_str()), (link("br0").index, "02:00:00:00:00:0a"));
        // Of a port itself the bridge knows without having learned it.
        let port = link("port");
        assert!(learned(&netns).unwrap().contains(&Learned { port: port.index, hardware: port.address.clone() }));
        assert_eq!(written(&[]), "");
    }
}
