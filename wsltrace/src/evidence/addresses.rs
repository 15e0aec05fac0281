//! The addresses that a namespace has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::routes;
use crate::kernel::links::Link;
use crate::kernel::netlink;
use crate::kernel::netns::Netns;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
        self.address.is_ipv4() == address.is_ipv4() && routes::covers(self.address, self.prefix, address)
    }

    /// The network's last address, which stands for all of it, for IPv4.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = self.address else { return None };
        // A network of one or two has none.
        (self.prefix < 31).then(|| Ipv4Addr::from_bits(address.to_bits() | u32::MAX >> self.prefix))
    }
}

/// The first address of the network of so many bits that an address is in, which stands for it.
pub fn network_of(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !u32::MAX.checked_shr(bits.into()).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::MAX.checked_shr(bits.into()).unwrap_or(0)).into(),
    }
}

/// All addresses of a namespace.
pub fn of(netns: &Netns) -> io::Result<Vec<OwnAddress>> {
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

/// Those of interfaces that stand on another's wire (macvlan, ipvlan), of the family of `like`, which others can ask for.
pub(super) fn on_wire<'a>(own: &'a [OwnAddress], links: &[Link], like: IpAddr) -> Vec<&'a OwnAddress> {
    let stands = |own: &&OwnAddress| links.iter().any(|link| link.is_stacked() && link.name == own.interface);
    let is_local = |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    own.iter().filter(stands).filter(|own| own.address.is_ipv4() == like.is_ipv4() && !is_local(own.address)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn addresses_of_both_families_are_found_with_their_interface() {
        let Some(netns) = fresh("addresses_of_both_families_are_found_with_their_interface") else { return };
        ip(&netns, "link set lo up");
        ip(&netns, "link add one type veth peer name two");
        ip(&netns, "address add 172.28.16.2/20 dev one");
        ip(&netns, "address add 10.1.0.1 peer 10.1.0.2/32 dev two");
        ip(&netns, "address add fd00::2/64 dev one nodad");
        let found = of(&netns).unwrap();
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
        let found = of(&netns).unwrap();
        assert_eq!(found.iter().find(|own| own.prefix == 64).and_then(|own| own.unready), Some(Unready::Tentative));
    }
}
