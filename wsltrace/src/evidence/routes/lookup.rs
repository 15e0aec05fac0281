//! Which way a packet would take: the kernel is asked, as by `ip route get`.

use std::io;
use std::net::IpAddr;

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::hops;
use crate::evidence::clients::Server;
use crate::kernel::netlink;
use crate::kernel::netns::Netns;

/// `IPPROTO_TCP`.
const TCP: u8 = 6;

/// Where packets for somewhere would go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Hop {
    /// The next machine; `None` when it is the destination itself.
    pub gateway: Option<IpAddr>,
}

/// A packet whose way the kernel is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its source: one of this machine's addresses, or none in particular; another machine's only with an interface that it came in by.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// The interface that it came in by; `None` for one that is made here.
    pub came_by: Option<&'a str>,
}

/// Whether a packet has a way by the routes as they are now, of one that is made in a VRF by those of that; `None` when the kernel does
/// not say.
pub fn is_way(netns: &Netns, packet: Question<'_>, vrf: Option<&str>) -> io::Result<Option<bool>> {
    Ok(match netns.run(|| ask(packet, vrf)).map_err(io::Error::other)?? {
        Way::Route(_) => Some(true),
        Way::None => Some(false),
        Way::Unknown => None,
    })
}

/// The interface by which a packet that has no mark leaves, of one that is made in a VRF by its routes; `None` when it has no way.
pub fn way_by(netns: &Netns, packet: Question<'_>, vrf: Option<&str>) -> io::Result<Option<String>> {
    netns
        .run(|| {
            let Way::Route(route) = ask(packet, vrf)? else { return Ok(None) };
            let oif = |attribute: &RouteAttribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None };
            let index = route.attributes.iter().find_map(oif);
            // It may have gone meanwhile.
            let name = |index| nix::net::if_::if_indextoname(index).map(|name| name.to_string_lossy().into_owned());
            Ok(index.and_then(|index| name(index).ok()))
        })
        .map_err(io::Error::other)?
}

/// Whether the route that a packet takes puts it into another one (`encap`).
pub fn is_wrapped(netns: &Netns, packet: Question<'_>) -> io::Result<bool> {
    let Way::Route(route) = netns.run(|| ask(packet, None)).map_err(io::Error::other)?? else { return Ok(false) };
    Ok(route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::EncapType(_))))
}

/// The number of the interface by which a server of this machine answers a client with a packet of this mark; `None` where it has no
/// way to other machines. In the calling thread's namespace.
pub(in crate::evidence) fn answered_by(server: Server<'_>, client: IpAddr, mark: u32) -> io::Result<Option<u32>> {
    let mut request = question(Question { from: server.address, to: client, came_by: None })?;
    let of_answer = [RouteAttribute::Mark(mark), RouteAttribute::IpProto(TCP), RouteAttribute::Sport(server.port)];
    request.attributes.extend(of_answer);
    leads_out(request)
}

/// Whether the kernel takes a packet of TCP with this mark, which comes in, for one of this machine's own. In the calling thread's
/// namespace.
pub(in crate::evidence) fn is_taken(packet: Question<'_>, mark: u32) -> io::Result<bool> {
    let mut request = question(packet)?;
    request.attributes.extend([RouteAttribute::Mark(mark), RouteAttribute::IpProto(TCP)]);
    Ok(matches!(asked(request)?, Way::Route(route) if route.header.kind == RouteType::Local))
}

/// The number of the interface by which this machine sends on a packet of TCP with this mark; `None` where it does not. In the calling
/// thread's namespace.
pub(in crate::evidence) fn led_by(packet: Question<'_>, mark: u32) -> io::Result<Option<u32>> {
    let mut request = question(packet)?;
    request.attributes.extend([RouteAttribute::Mark(mark), RouteAttribute::IpProto(TCP)]);
    leads_out(request)
}

fn leads_out(request: RouteMessage) -> io::Result<Option<u32>> {
    let Way::Route(route) = asked(request)? else { return Ok(None) };
    let oif = |attribute: &RouteAttribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None };
    Ok(route.attributes.iter().find_map(oif).filter(|_| route.header.kind == RouteType::Unicast))
}

/// The next hop of the route to `to` that leads by this interface, whatever other routes there are; `None` without one.
pub fn hop_by(netns: &Netns, from: Option<IpAddr>, to: IpAddr, interface: &str) -> io::Result<Option<Hop>> {
    netns
        .run(|| {
            let index = nix::net::if_::if_nametoindex(interface)?;
            let bits = if to.is_ipv4() { 32 } else { 128 };
            let mut request = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, bits).map_err(io::Error::other)?;
            if let Some(from) = from {
                request = request.source_prefix(from, bits).map_err(io::Error::other)?;
            }
            let request = request.output_interface(index).build();
            // The route itself: without one the kernel would take the destination for a neighbour.
            let mut itself = request.clone();
            itself.header.flags |= RouteFlags::FibMatch;
            let mut found = hops_there(itself, index)?;
            if found.len() > 1 {
                // Of several that share the packets the kernel says which one those with these ends take.
                found = hops_there(request, index)?;
            }
            // A gateway is reached without itself.
            Ok(found.first().map(|gateway| Hop { gateway: gateway.filter(|gateway| *gateway != to) }))
        })
        .map_err(io::Error::other)?
}

/// The next machines behind this interface that the kernel's answer names; `None` stands for the destination itself.
fn hops_there(request: RouteMessage, index: u32) -> io::Result<Vec<Option<IpAddr>>> {
    match netlink::ask(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) if route.header.kind == RouteType::Unicast => {
            Ok(hops(&route).into_iter().filter(|(oif, _)| *oif == index).map(|(_, gateway)| gateway).collect())
        }
        Ok(_) => Ok(Vec::new()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(Vec::new()),
            _ => Err(error),
        },
    }
}

/// What the kernel says to a question for the way.
enum Way {
    Route(Box<RouteMessage>),
    None,
    /// Nothing that tells either.
    Unknown,
}

fn ask(packet: Question<'_>, vrf: Option<&str>) -> io::Result<Way> {
    if packet.from.is_ipv4() != packet.to.is_ipv4() {
        return Ok(Way::Unknown);
    }
    let mut request = question(packet)?;
    if let Some(vrf) = vrf {
        // What leaves by the VRF's own device is routed by its table.
        request.attributes.push(RouteAttribute::Oif(nix::net::if_::if_nametoindex(vrf)?));
    }
    asked(request)
}

fn question(Question { from, to, came_by }: Question<'_>) -> io::Result<RouteMessage> {
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let request = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, bits).and_then(|to| to.source_prefix(from, bits));
    let mut request = request.map_err(io::Error::other)?;
    if let Some(name) = came_by {
        request = request.input_interface(nix::net::if_::if_nametoindex(name)?);
    }
    Ok(request.build())
}

fn asked(request: RouteMessage) -> io::Result<Way> {
    match netlink::ask(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) if leads_on(&route) => Ok(Way::Route(Box::new(route))),
        Ok(RouteNetlinkMessage::NewRoute(_)) => Ok(Way::None),
        Ok(_) => Ok(Way::Unknown),
        // For IPv4 each kind of refusing route is an error: none, unreachable, prohibit, blackhole.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(Way::None),
            // The reverse path filter refuses what is said to come in by this interface.
            Some(libc::EXDEV) => Ok(Way::Unknown),
            _ => Err(error),
        },
    }
}

fn leads_on(route: &RouteMessage) -> bool {
    !matches!(route.header.kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    fn packet<'a>(from: &str, to: &str, came_by: Option<&'a str>) -> Question<'a> {
        Question { from: from.parse().unwrap(), to: to.parse().unwrap(), came_by }
    }

    #[test]
    fn a_way_is_there_or_not_in_both_families() {
        let Some(netns) = fresh("a_way_is_there_or_not_in_both_families") else { return };
        ip(&netns, "link set lo up");
        for (own, near, far) in [("10.1.0.1", "10.1.0.9", "10.2.0.1"), ("fd01::1", "fd01::9", "fd02::1")] {
            let bits = if own.contains(':') { 64 } else { 24 };
            ip(&netns, &format!("address add {own}/{bits} dev lo nodad"));
            let way = |to: &str| is_way(&netns, packet(own, to, None), None).unwrap();
            assert_eq!((way(near), way(far)), (Some(true), Some(false)), "{own}");
            for kind in ["blackhole", "unreachable", "prohibit"] {
                ip(&netns, &format!("route add {kind} {far}"));
                assert_eq!(way(far), Some(false), "{kind} {far}");
                ip(&netns, &format!("route del {kind} {far}"));
            }
        }
        assert_eq!(is_way(&netns, packet("10.1.0.1", "fd01::9", None), None).unwrap(), None);
    }

    #[test]
    fn a_way_through_the_machine_is_that_of_its_rules_for_the_source() {
        let Some(netns) = fresh("a_way_through_the_machine_is_that_of_its_rules_for_the_source") else { return };
        for (one, other) in [("br0", "x0"), ("eth0", "x1"), ("tun0", "x2")] {
            ip(&netns, &format!("link add {one} type veth peer name {other}"));
            ip(&netns, &format!("link set {one} up"));
            ip(&netns, &format!("link set {other} up"));
        }
        netns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap().unwrap();
        ip(&netns, "address add 172.17.0.1/16 dev br0");
        ip(&netns, "address add 172.28.16.2/20 dev eth0");
        let way = || way_by(&netns, packet("172.17.0.2", "172.28.16.1", Some("br0")), None).unwrap();
        assert_eq!(way().as_deref(), Some("eth0"));
        ip(&netns, "route add default dev tun0 table 99");
        ip(&netns, "rule add pref 5 from 172.17.0.0/16 lookup 99");
        assert_eq!(way().as_deref(), Some("tun0"));
        assert_eq!(way_by(&netns, packet("0.0.0.0", "172.28.16.1", None), None).unwrap().as_deref(), Some("eth0"));
        ip(&netns, "route replace blackhole default table 99");
        assert_eq!(is_way(&netns, packet("172.17.0.2", "172.28.16.1", Some("br0")), None).unwrap(), Some(false));
    }

    #[test]
    fn a_hop_is_that_of_the_interface_whatever_the_better_route() {
        let Some(netns) = fresh("a_hop_is_that_of_the_interface_whatever_the_better_route") else { return };
        for (one, other) in [("near0", "near1"), ("far0", "far1")] {
            ip(&netns, &format!("link add {one} type veth peer name {other}"));
            ip(&netns, &format!("link set {one} up"));
            ip(&netns, &format!("link set {other} up"));
        }
        ip(&netns, "address add 10.1.0.1/24 dev near0");
        ip(&netns, "route add 10.1.0.9/32 dev far0");
        ip(&netns, "route add 10.2.0.0/16 via 10.1.0.2 dev near0");
        ip(&netns, "route add 10.2.0.9/32 dev far0");
        let hop = |to: &str, interface| hop_by(&netns, None, to.parse().unwrap(), interface).unwrap();
        assert_eq!(hop("10.1.0.9", "near0"), Some(Hop { gateway: None }));
        assert_eq!(hop("10.1.0.9", "far0"), Some(Hop { gateway: None }));
        assert_eq!(hop("10.2.0.9", "near0"), Some(Hop { gateway: Some("10.1.0.2".parse().unwrap()) }));
        assert_eq!(hop("10.3.0.9", "near0"), None);
        // `ip route` takes no next hop that is only reached by itself.
        ip(&netns, "route add 10.4.0.0/16 via 10.4.0.1 dev near0 onlink");
        assert_eq!(hop("10.4.0.1", "near0"), Some(Hop { gateway: None }));
        assert!(hop_by(&netns, None, "10.1.0.9".parse().unwrap(), "none").is_err());
        // Several that share the packets, by one interface and by two.
        ip(&netns, "route add 10.5.0.0/16 nexthop via 10.1.0.2 dev near0 nexthop via 10.1.0.3 dev near0");
        let chosen = hop("10.5.0.9", "near0").unwrap().gateway.unwrap();
        assert!(["10.1.0.2", "10.1.0.3"].contains(&chosen.to_string().as_str()), "{chosen}");
        ip(&netns, "address add 10.6.0.1/24 dev far0");
        ip(&netns, "route add 10.7.0.0/16 nexthop via 10.1.0.2 dev near0 nexthop via 10.6.0.2 dev far0");
        assert_eq!(hop("10.7.0.9", "far0"), Some(Hop { gateway: Some("10.6.0.2".parse().unwrap()) }));
    }
}
