//! What routes there are: read from the tables, and asked of the kernel ([`lookup`]).

mod lookup;

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use crate::kernel::addresses::covers;
use crate::kernel::netlink;
use crate::kernel::netns::Netns;

pub use lookup::{Hop, Question, hop_by, is_way, is_wrapped, way_by};
pub(super) use lookup::{answered_by, is_taken, led_by};

/// `RT_TABLE_MAIN`.
pub(super) const MAIN_TABLE: u8 = 254;

/// A route that takes packets only to throw them away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Refusing {
    /// As `ip route` calls it: `blackhole`, `unreachable`, `prohibit` or `throw`.
    pub kind: Cow<'static, str>,
    /// Where it leads, and for how many bits of that.
    pub destination: (IpAddr, u8),
    /// Of which sources it takes packets, and for how many bits of that; none where it takes all. Only IPv6 has such routes.
    #[serde(default)]
    pub source: Option<(IpAddr, u8)>,
    /// The number of its table.
    pub table: u32,
    /// Whether only packets with a mark come to that table; what mark the packet had is not known.
    #[serde(default)]
    pub marked: bool,
    /// The number of the nexthop object (`ip nexthop`) that throws them away; to `ip route` the route is then one of no such kind.
    #[serde(default)]
    pub nexthop: Option<u32>,
}

/// Whether some table has this address as one of the machine's own.
pub fn is_local(netns: &Netns, to: IpAddr) -> io::Result<bool> {
    let routes = netns.run(|| all(to)).map_err(io::Error::other)??;
    Ok(routes.iter().any(|route| route.header.kind == RouteType::Local && covers(network(route, to), bits(route), to)))
}

/// The next hop of the IPv4 default route and its interface; of several the one that the kernel prefers.
pub fn default_gateway(netns: &Netns) -> io::Result<Option<(IpAddr, String)>> {
    netns
        .run(|| {
            let mut all = RouteMessage::default();
            all.header.address_family = AddressFamily::Inet;
            let routes = netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetRoute(all))?;
            let defaults = routes.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => default(route),
                _ => None,
            });
            let Some((_, gateway, index)) = defaults.min_by_key(|(metric, ..)| *metric) else { return Ok(None) };
            let name = nix::net::if_::if_indextoname(index)?;
            Ok(Some((gateway, name.to_string_lossy().into_owned())))
        })
        .map_err(io::Error::other)?
}

/// The interface of the IPv4 default route of the main table, which may name no next hop, as those of tunnels do.
pub fn default_interface(netns: &Netns) -> io::Result<Option<String>> {
    let unspecified = Ipv4Addr::UNSPECIFIED.into();
    netns
        .run(|| {
            let routes = all(unspecified)?;
            let leads = |route: &&RouteMessage| {
                bits(route) == 0 && table(route) == u32::from(MAIN_TABLE) && route.header.kind == RouteType::Unicast
            };
            let Some(route) = routes.iter().filter(leads).min_by_key(|route| metric(route)) else { return Ok(None) };
            // Where several next hops are reached by several interfaces there is no one.
            let hops = hops(route);
            let Some(index) = hops.first().map(|(index, _)| *index).filter(|first| hops.iter().all(|(index, _)| index == first))
            else {
                return Ok(None);
            };
            Ok(Some(nix::net::if_::if_indextoname(index)?.to_string_lossy().into_owned()))
        })
        .map_err(io::Error::other)?
}

/// The metric, next hop and interface of a default route of the main table; of several next hops the first that is named.
fn default(route: &RouteMessage) -> Option<(u32, IpAddr, u32)> {
    let (index, gateway) = hops(route).into_iter().find_map(|(index, gateway)| Some((index, gateway?)))?;
    let is_default = route.header.destination_prefix_length == 0 && route.header.table == MAIN_TABLE;
    is_default.then_some((metric(route), gateway, index))
}

/// The interfaces by which a route leads, and the next machine there where it names one. Several hops that share the packets are not
/// told as one is.
fn hops(route: &RouteMessage) -> Vec<(u32, Option<IpAddr>)> {
    let several = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    if let Some(several) = several {
        return several.iter().map(|hop| (hop.interface_index, gateway(&hop.attributes))).collect();
    }
    let oif = |attribute: &RouteAttribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None };
    route.attributes.iter().find_map(oif).map(|index| (index, gateway(&route.attributes))).into_iter().collect()
}

/// The next machine that attributes name; that of a route of IPv4 may have an address of IPv6.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => address(gateway),
        RouteAttribute::Via(RouteVia::Inet(gateway)) => Some((*gateway).into()),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => Some((*gateway).into()),
        _ => None,
    })
}

/// Whether a rule leads TCP to a routing table, for IPv4.
pub fn has_rule_for(netns: &Netns, table: u32) -> io::Result<bool> {
    let mut all = RuleMessage::default();
    all.header.family = AddressFamily::Inet;
    let rules = netns.run(|| netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetRule(all))).map_err(io::Error::other)??;
    let leads = |rule: &RuleMessage| {
        u32::from(rule.header.table) == table
            || rule.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::Table(of) if *of == table))
    };
    // WSL has one for UDP beside it.
    let is_for_others =
        |attribute: &RuleAttribute| matches!(attribute, RuleAttribute::IpProtocol(protocol) if *protocol != IpProtocol::Tcp);
    Ok(rules.iter().any(|message| match message {
        RouteNetlinkMessage::NewRule(rule) => leads(rule) && !rule.attributes.iter().any(is_for_others),
        _ => false,
    }))
}

/// All routes of an address's family, in the calling thread's namespace.
pub(super) fn all(like: IpAddr) -> io::Result<Vec<RouteMessage>> {
    let mut all = RouteMessage::default();
    all.header.address_family = if like.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let answers = netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetRoute(all))?;
    let route = |message| if let RouteNetlinkMessage::NewRoute(route) = message { Some(route) } else { None };
    Ok(answers.into_iter().filter_map(route).collect())
}

pub(super) fn bits(route: &RouteMessage) -> u8 {
    route.header.destination_prefix_length
}

/// Where a route leads.
pub(super) fn network(route: &RouteMessage, like: IpAddr) -> IpAddr {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => address(to),
        _ => None,
    });
    let unspecified = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    destination.unwrap_or(unspecified)
}

/// Of which sources a route takes packets; none where it takes all.
pub(super) fn source(route: &RouteMessage) -> Option<(IpAddr, u8)> {
    let source = |attribute: &RouteAttribute| if let RouteAttribute::Source(from) = attribute { address(from) } else { None };
    Some((route.attributes.iter().find_map(source)?, route.header.source_prefix_length))
}

/// The number of a route's table.
pub(super) fn table(route: &RouteMessage) -> u32 {
    let number = |attribute: &RouteAttribute| if let RouteAttribute::Table(number) = attribute { Some(*number) } else { None };
    route.attributes.iter().find_map(number).unwrap_or_else(|| u32::from(route.header.table))
}

/// Of routes to one network the kernel takes that of the smallest metric.
pub(super) fn metric(route: &RouteMessage) -> u32 {
    let metric = |attribute: &RouteAttribute| if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None };
    route.attributes.iter().find_map(metric).unwrap_or(0)
}

/// The route, when it throws packets away by somebody's will.
pub(super) fn refusal_of(route: &RouteMessage, to: IpAddr) -> Option<Refusing> {
    let kind = match route.header.kind {
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        _ => return None,
    };
    // The kernel's own last resort stands for "there is none".
    let own = route.header.protocol == RouteProtocol::Kernel && bits(route) == 0;
    let destination = (network(route, to), bits(route));
    let nexthop = |attribute: &RouteAttribute| if let RouteAttribute::NhId(id) = attribute { Some(*id) } else { None };
    let nexthop = route.attributes.iter().find_map(nexthop);
    (!own).then(|| Refusing {
        kind: kind.into(),
        destination,
        source: source(route),
        table: table(route),
        marked: false,
        nexthop,
    })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn the_default_route_and_the_rules_are_read() {
        let Some(netns) = fresh("the_default_route_and_the_rules_are_read") else { return };
        ip(&netns, "link add eth0 type veth peer name eth1");
        ip(&netns, "link set eth0 up");
        ip(&netns, "link set eth1 up");
        ip(&netns, "address add 172.28.20.5/20 dev eth0");
        assert_eq!(default_gateway(&netns).unwrap(), None);
        ip(&netns, "route add default via 172.28.16.9 metric 50");
        ip(&netns, "route add default via 172.28.16.1 metric 5");
        assert_eq!(default_gateway(&netns).unwrap(), Some(("172.28.16.1".parse().unwrap(), "eth0".to_owned())));
        assert_eq!(default_interface(&netns).unwrap().as_deref(), Some("eth0"));
        ip(&netns, "route add default metric 1 nexthop via 172.28.16.1 dev eth0 nexthop via 172.28.16.2 dev eth0");
        assert_eq!(default_gateway(&netns).unwrap(), Some(("172.28.16.1".parse().unwrap(), "eth0".to_owned())));
        assert_eq!(default_interface(&netns).unwrap().as_deref(), Some("eth0"));
        assert!(!has_rule_for(&netns, 127).unwrap());
        ip(&netns, "rule add from all ipproto tcp lookup 127 priority 1");
        assert!(has_rule_for(&netns, 127).unwrap());
    }
}
