//! The addresses of a network namespace, with their real prefixes.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::SockaddrStorage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::links::{ARPHRD_LOOPBACK, Link};
use super::netns::Netns;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The interface's name, as the kernel has it.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// The bits of it that its network has.
    pub prefix: u8,
}

/// All addresses of a namespace, in the kernel's order.
pub fn list_addresses(netns: &Netns) -> io::Result<Vec<Address>> {
    let all = netns.try_run(|| Ok(getifaddrs()?.collect::<Vec<_>>()))?;
    Ok(all.into_iter().filter_map(address_of).collect())
}

fn address_of(entry: InterfaceAddress) -> Option<Address> {
    let prefix = match entry.netmask.as_ref().and_then(ip) {
        Some(IpAddr::V4(mask)) => mask.to_bits().count_ones(),
        Some(IpAddr::V6(mask)) => mask.to_bits().count_ones(),
        None => return None,
    };
    Some(Address { address: ip(entry.address.as_ref()?)?, prefix: u8::try_from(prefix).ok()?, interface: entry.interface_name })
}

fn ip(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// The address by which others reach the namespace: where something is at the other end first, then IPv4 before IPv6, hardware before what was made in software, no bridges.
pub fn outer<'a>(addresses: &'a [Address], links: &[Link]) -> Option<&'a Address> {
    let rank = |address: &Address| {
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

/// Whether it is neither of this machine nor of a link alone.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
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
        let addresses = list_addresses(&netns).unwrap();
        let links = list_links(&netns).unwrap();
        let outer = outer(&addresses, &links).unwrap();
        assert_eq!((outer.address.to_string().as_str(), outer.prefix, outer.interface.as_str()), ("172.28.20.5", 20, "eth0"));
        assert!(addresses.iter().any(|address| address.interface == "lo" && address.prefix == 8));
        assert!(addresses.iter().any(|address| address.address.is_ipv6() && address.prefix == 64));
    }
}
