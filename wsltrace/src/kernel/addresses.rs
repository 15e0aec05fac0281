//! The addresses of a network namespace, with their real prefixes, and the networks that they are in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::links::{ARPHRD_LOOPBACK, Link};
use super::netlink;
use super::netns::Netns;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// The interface.
    pub interface: String,
    /// Why it is not used.
    #[serde(default)]
    pub unready: Option<Unready>,
}

/// Why the kernel does not use an IPv6 address that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unready {
    /// Another machine on that network had it when it was added (duplicate address detection).
    Duplicate,
    /// That is still being checked.
    Tentative,
}

impl OwnAddress {
    /// Whether an address is of its network.
    pub fn covers(&self, address: IpAddr) -> bool {
        covers(self.address, self.prefix, address)
    }

    /// The network's last address, which stands for all of it, for IPv4.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = self.address else { return None };
        // A network of one or two has none.
        (self.prefix < 31).then(|| Ipv4Addr::from_bits(address.to_bits() | u32::MAX >> self.prefix))
    }
}

/// All addresses of a namespace, in the kernel's order.
pub fn list_addresses(netns: &Netns) -> io::Result<Vec<OwnAddress>> {
    netns
        .run(|| {
            let answers = netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
            Ok(answers.into_iter().filter_map(own).collect())
        })
        .map_err(io::Error::other)?
}

fn own(message: RouteNetlinkMessage) -> Option<OwnAddress> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let interface = nix::net::if_::if_indextoname(message.header.index).ok()?.to_string_lossy().into_owned();
    let (mut local, mut address) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(own) => local = Some(own),
            AddressAttribute::Address(of_prefix) => address = Some(of_prefix),
            _ => {}
        }
    }
    let is = |flag| message.header.flags.contains(flag);
    let unready = if is(AddressHeaderFlags::Dadfailed) {
        Some(Unready::Duplicate)
    } else {
        // One that is optimistic is used meanwhile.
        (is(AddressHeaderFlags::Tentative) && !is(AddressHeaderFlags::Optimistic)).then_some(Unready::Tentative)
    };
    // With a peer, `Address` is the peer's.
    Some(OwnAddress { address: local.or(address)?, prefix: message.header.prefix_len, interface, unready })
}

/// The address by which others reach the namespace: where something is at the other end first, then IPv4 before IPv6, hardware before what was made in software, no bridges.
pub fn outer<'a>(addresses: &'a [OwnAddress], links: &[Link]) -> Option<&'a OwnAddress> {
    let rank = |address: &OwnAddress| {
        let link = links.iter().find(|link| link.name == address.interface)?;
        let kind = link.kind.as_deref();
        let inside = link.arphrd == ARPHRD_LOOPBACK || !link.up || kind == Some("bridge") || link.name == "loopback0";
        (!inside && is_global(address.address)).then_some((!link.carrier, kind.is_some(), address.address.is_ipv6(), link.index))
    };
    addresses
        .iter()
        .filter_map(|address| Some((rank(address)?, address)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, address)| address)
}

/// Those of interfaces that stand on another's wire (macvlan, ipvlan), of the family of `like`, which others can ask for.
pub(crate) fn on_wire<'a>(own: &'a [OwnAddress], links: &[Link], like: IpAddr) -> Vec<&'a OwnAddress> {
    let stands = |own: &&OwnAddress| links.iter().any(|link| link.is_stacked() && link.name == own.interface);
    let is_local = |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    own.iter().filter(stands).filter(|own| own.address.is_ipv4() == like.is_ipv4() && !is_local(own.address)).collect()
}

/// Whether it is neither of this machine nor of a link alone.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// The first address of the network of so many bits that an address is in, which stands for it.
pub fn network_of(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !u32::MAX.checked_shr(bits.into()).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::MAX.checked_shr(bits.into()).unwrap_or(0)).into(),
    }
}

/// Whether an address lies in a network.
pub fn covers(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let same = |one: u128, other: u128, len: u8| bits == 0 || (one ^ other) >> (len - bits.min(len)) == 0;
    match (network, address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::links::list_links;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn addresses_have_their_real_prefixes_and_the_outer_one_is_known() {
        let Some(netns) = fresh("addresses_have_their_real_prefixes_and_the_outer_one_is_known") else { return };
        ip(&netns, "link set lo up");
        ip(&netns, "link add br0 type bridge");
        ip(&netns, "link add eth0 type veth peer name eth1");
        for link in ["br0", "eth0", "eth1"] {
            ip(&netns, &format!("link set {link} up"));
        }
        ip(&netns, "address add 172.17.0.1/16 dev br0");
        ip(&netns, "address add 2001:db8::5/64 dev eth0 nodad");
        ip(&netns, "address add 172.28.20.5/20 dev eth0");
        ip(&netns, "address add 172.28.20.6/20 dev eth0 label eth0:1");
        let addresses = list_addresses(&netns).unwrap();
        let links = list_links(&netns).unwrap();
        let outer = outer(&addresses, &links).unwrap();
        assert_eq!((outer.address.to_string().as_str(), outer.prefix, outer.interface.as_str()), ("172.28.20.5", 20, "eth0"));
        assert!(addresses.iter().any(|address| address.interface == "lo" && address.prefix == 8));
        // A label is no interface's name.
        let labelled = addresses.iter().find(|own| own.address == IpAddr::from([172, 28, 20, 6])).unwrap();
        assert_eq!(labelled.interface, "eth0");
        assert!(addresses.iter().any(|address| address.address.is_ipv6() && address.prefix == 64));
    }

    #[test]
    fn addresses_of_both_families_are_found_with_their_interface() {
        let Some(netns) = fresh("addresses_of_both_families_are_found_with_their_interface") else { return };
        ip(&netns, "link set lo up");
        ip(&netns, "link add one type veth peer name two");
        ip(&netns, "address add 172.28.16.2/20 dev one");
        ip(&netns, "address add 10.1.0.1 peer 10.1.0.2/32 dev two");
        ip(&netns, "address add fd00::2/64 dev one nodad");
        let found = list_addresses(&netns).unwrap();
        let of_one: Vec<_> =
            found.iter().filter(|own| own.interface == "one").map(|own| (own.address.to_string(), own.prefix)).collect();
        assert_eq!(of_one, [("172.28.16.2".to_owned(), 20), ("fd00::2".to_owned(), 64)]);
        let at = |address: &str| found.iter().find(|own| own.address.to_string() == address).unwrap();
        assert_eq!(at("10.1.0.1").interface, "two");
        assert_eq!(at("172.28.16.2").broadcast(), Some(Ipv4Addr::new(172, 28, 31, 255)));
        assert_eq!((at("10.1.0.1").broadcast(), at("fd00::2").broadcast()), (None, None));
        assert_eq!(at("::1").interface, "lo");
        assert!(found.iter().filter(|own| own.interface == "one").all(|own| own.unready.is_none()));
    }

    #[test]
    fn only_what_stands_on_a_wire_can_be_asked_for_there() {
        let own = |interface: &str, address: &str| OwnAddress {
            address: address.parse().unwrap(),
            prefix: 64,
            interface: interface.to_owned(),
            unready: None,
        };
        let link = |name: &str, kind: &str| Link { name: name.to_owned(), kind: Some(kind.to_owned()), ..Link::default() };
        let links = [link("eth0", "veth"), link("eth1", "macvlan"), link("eth2", "ipvlan")];
        let all = [own("eth0", "10.0.0.1"), own("eth1", "10.0.0.2"), own("eth1", "fe80::2"), own("eth2", "fd00::2")];
        let found = |like: &str| -> Vec<String> {
            on_wire(&all, &links, like.parse().unwrap()).iter().map(|own| own.address.to_string()).collect()
        };
        assert_eq!(found("192.0.2.1"), ["10.0.0.2"]);
        assert_eq!(found("2001:db8::1"), ["fd00::2"]);
    }

    #[test]
    fn an_address_that_waits_for_its_check_is_told() {
        let Some(netns) = fresh("an_address_that_waits_for_its_check_is_told") else { return };
        // Without a carrier the check never begins.
        ip(&netns, "link add one type veth peer name two");
        netns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/one/accept_dad", "1")).unwrap().unwrap();
        ip(&netns, "link set one up");
        ip(&netns, "address add fd00::2/64 dev one");
        let found = list_addresses(&netns).unwrap();
        assert_eq!(found.iter().find(|own| own.prefix == 64).and_then(|own| own.unready), Some(Unready::Tentative));
    }
}
