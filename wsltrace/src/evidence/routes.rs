//! Whether the kernel knows a way to somewhere.

use std::io;
use std::net::IpAddr;

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteType};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::kernel::netlink;
use crate::kernel::netns::Netns;

/// Whether a packet of this machine's address `from` has a way to `to` by the routes as they are now; `None` when the kernel
/// does not say.
pub fn is_way(netns: &Netns, from: IpAddr, to: IpAddr) -> io::Result<Option<bool>> {
    netns.run(|| ask(from, to)).map_err(io::Error::other)?
}

fn ask(from: IpAddr, to: IpAddr) -> io::Result<Option<bool>> {
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let Ok(request) =
        RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, bits).and_then(|to| to.source_prefix(from, bits))
    else {
        // Of two families.
        return Ok(None);
    };
    match netlink::ask(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(request.build())) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(Some(leads_on(&route))),
        Ok(_) => Ok(None),
        // For IPv4 each kind of refusing route is an error: none, unreachable, prohibit, blackhole.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(Some(false)),
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

    #[test]
    fn a_way_is_there_or_not_in_both_families() {
        let Some(netns) = fresh("a_way_is_there_or_not_in_both_families") else { return };
        ip(&netns, "link set lo up");
        for (own, near, far) in [("10.1.0.1", "10.1.0.9", "10.2.0.1"), ("fd01::1", "fd01::9", "fd02::1")] {
            let bits = if own.contains(':') { 64 } else { 24 };
            ip(&netns, &format!("address add {own}/{bits} dev lo nodad"));
            let way = |to: &str| is_way(&netns, own.parse().unwrap(), to.parse().unwrap()).unwrap();
            assert_eq!((way(near), way(far)), (Some(true), Some(false)), "{own}");
            for kind in ["blackhole", "unreachable", "prohibit"] {
                ip(&netns, &format!("route add {kind} {far}"));
                assert_eq!(way(far), Some(false), "{kind} {far}");
                ip(&netns, &format!("route del {kind} {far}"));
            }
        }
        assert_eq!(is_way(&netns, "10.1.0.1".parse().unwrap(), "fd01::9".parse().unwrap()).unwrap(), None);
    }
}
