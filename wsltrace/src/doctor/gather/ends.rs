//! The addresses of this machine by which connections come from elsewhere.

use std::net::IpAddr;

use crate::kernel::addresses::{self, OwnAddress};
use crate::kernel::links::Link;

/// The addresses, each with its interface, by which connections come from elsewhere.
pub(super) struct Ends {
    /// The one by which other machines reach this one.
    pub(super) outer: Option<(IpAddr, String)>,
    /// The one of IPv6, where that one is of IPv4.
    pub(super) outer6: Option<(IpAddr, String)>,
    /// The one by which containers do.
    pub(super) bridge: Option<(IpAddr, String)>,
}

pub(super) fn ends(links: &[Link], addresses: &[OwnAddress], default_by: Option<&str>) -> Ends {
    let place = |address: &OwnAddress| (address.address, address.interface.clone());
    let outer = led_bridge(links, addresses, default_by).or_else(|| addresses::outer(addresses, links)).map(place);
    let is_outer = |link: &&Link| outer.as_ref().is_some_and(|(_, interface)| *interface == link.name);
    let bridge = links.iter().filter(|link| link.up && link.kind.as_deref() == Some("bridge") && !is_outer(link));
    let bridge = bridge.flat_map(|link| addresses.iter().filter(|address| address.interface == link.name));
    let bridge = bridge.min_by_key(|address| address.address.is_ipv6()).map(place);
    let of_v6: Vec<OwnAddress> = addresses.iter().filter(|address| address.address.is_ipv6()).cloned().collect();
    let outer6 = outer.as_ref().filter(|(address, _)| address.is_ipv4()).and_then(|(_, interface)| {
        let beside = of_v6.iter().filter(|own| own.interface == *interface && addresses::is_global(own.address));
        let beside = beside.min_by_key(|own| own.prefix).filter(|_| default_by == Some(interface.as_str()));
        beside.filter(|_| is_bridge(links, interface)).or_else(|| addresses::outer(&of_v6, links)).map(place)
    });
    Ends { outer, outer6, bridge }
}

/// The address of a bridge to which the default route leads: one that has the LAN's interface as a port, as for virtual machines, and
/// not one of containers alone.
fn led_bridge<'a>(links: &[Link], addresses: &'a [OwnAddress], default_by: Option<&str>) -> Option<&'a OwnAddress> {
    let name = default_by.filter(|name| is_bridge(links, name))?;
    addresses.iter().find(|own| own.interface == name && own.address.is_ipv4() && addresses::is_global(own.address))
}

fn is_bridge(links: &[Link], name: &str) -> bool {
    links.iter().any(|link| link.name == name && link.up && link.kind.as_deref() == Some("bridge"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_that_the_default_route_leads_to_is_the_lan() {
        let link = |name: &str, kind: Option<&str>| Link {
            name: name.to_owned(),
            up: true,
            kind: kind.map(str::to_owned),
            ..Link::default()
        };
        let links = [link("eth0", None), link("br0", Some("bridge")), link("docker0", Some("bridge"))];
        let own = |interface: &str, text: &str| OwnAddress {
            interface: interface.to_owned(),
            address: text.parse().unwrap(),
            prefix: 24,
            unready: None,
        };
        let all = [own("br0", "fe80::1"), own("br0", "192.168.1.5"), own("docker0", "172.17.0.1"), own("eth0", "10.0.0.5")];
        let led = |by| led_bridge(&links, &all, by).map(|own| own.address.to_string());
        assert_eq!(led(Some("br0")).as_deref(), Some("192.168.1.5"));
        assert_eq!((led(Some("eth0")), led(None)), (None, None));
    }
}
