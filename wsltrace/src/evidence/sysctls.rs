//! Settings of a namespace that make routing or a listener refuse a packet.

use std::io;

use crate::journey::Family;
use crate::kernel::netns::Netns;

/// How many entries the table of connection tracking of a namespace may have.
pub const MOST_TRACKED: &str = "net.netfilter.nf_conntrack_max";

/// Whether listeners of no VRF take what comes by one.
pub const ACCEPTS_FROM_VRF: &str = "net.ipv4.tcp_l3mdev_accept";

/// Whether connection tracking takes up a connection whose beginning it did not see.
pub const TAKES_UP_IN_THE_MIDDLE: &str = "net.netfilter.nf_conntrack_tcp_loose";

/// Whether the kernel resets a connection that its listener's queue has no room for.
pub const ABORTS_ON_OVERFLOW: &str = "net.ipv4.tcp_abort_on_overflow";

/// The settings that bear on a death in routing, as `sysctl` names them, with their values; those that are not there are left out.
pub fn of_routing(netns: &Netns, family: Family, interface: Option<&str>) -> io::Result<Vec<(String, String)>> {
    read(netns, names(family, interface))
}

/// Whether IPv4 forwards what comes by these interfaces.
pub fn of_forwarding(netns: &Netns, interfaces: &[String]) -> io::Result<Vec<(String, String)>> {
    let fitting = interfaces.iter().filter(|name| !name.contains('/') && *name != "..");
    let of = |name: &String| {
        let written = name.replace('.', "/");
        (format!("/proc/sys/net/ipv4/conf/{name}/forwarding"), format!("net.ipv4.conf.{written}.forwarding"))
    };
    read(netns, fitting.map(of).collect::<Vec<_>>())
}

/// Whom these interfaces answer that asks for an IPv4 address' hardware address.
pub fn of_arp(netns: &Netns, interfaces: &[String]) -> io::Result<Vec<(String, String)>> {
    let fitting = interfaces.iter().map(String::as_str).filter(|name| !name.contains('/') && *name != "..");
    let of = |name: &str| (format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore"), arp_ignore(name));
    read(netns, std::iter::once("all").chain(fitting).map(of).collect::<Vec<_>>())
}

/// The name of an interface's setting of that.
pub fn arp_ignore(interface: &str) -> String {
    format!("net.ipv4.conf.{}.arp_ignore", interface.replace('.', "/"))
}

/// The settings that bear on a listener's silence.
pub fn of_listeners(netns: &Netns) -> io::Result<Vec<(String, String)>> {
    by_name(netns, ["net.ipv4.tcp_syncookies", "net.core.somaxconn"])
}

/// The settings that make listeners refuse: those of IPv6 what is IPv4, where it is on; those of no VRF what comes by one, where it is off.
pub fn of_refusals(netns: &Netns) -> io::Result<Vec<(String, String)>> {
    let mut settings = by_name(netns, ["net.ipv6.bindv6only", ACCEPTS_FROM_VRF])?;
    settings.retain(|(name, value)| value == if name == ACCEPTS_FROM_VRF { "0" } else { "1" });
    Ok(settings)
}

/// How full the table of connection tracking is, and how full it may be.
pub fn of_conntrack(netns: &Netns) -> io::Result<Vec<(String, String)>> {
    by_name(netns, ["net.netfilter.nf_conntrack_count", MOST_TRACKED])
}

/// Whether this namespace may read a setting and not write it, as those that count for all namespaces are in every one but the first. `false`
/// where it is not there.
pub fn is_sealed(netns: &Netns, name: &str) -> io::Result<bool> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    match netns.run(move || std::fs::metadata(path)).map_err(io::Error::other)? {
        Ok(metadata) => Ok(metadata.permissions().readonly()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Settings by their names.
pub fn by_name<const N: usize>(netns: &Netns, names: [&str; N]) -> io::Result<Vec<(String, String)>> {
    read(netns, names.map(|name| (format!("/proc/sys/{}", name.replace('.', "/")), name.to_owned())))
}

/// Whether the mark of a SYN decides about the way of its answer: the answer gets it too, or the search for the way back to the client
/// goes by it (`fib_validate_source`; a table of marked packets that has own addresses or refuses then drops the SYN, seen on 6.18).
pub fn go_by_marks_of_syns(netns: &Netns, interface: &str) -> io::Result<bool> {
    let of = |of: &str| (format!("/proc/sys/net/ipv4/conf/{of}/src_valid_mark"), of.to_owned());
    let accept = ("/proc/sys/net/ipv4/tcp_fwmark_accept".to_owned(), "tcp_fwmark_accept".to_owned());
    Ok(read(netns, [of("all"), of(interface), accept])?.iter().any(|(_, value)| value != "0"))
}

/// Reads settings by path and name.
fn read(netns: &Netns, names: impl IntoIterator<Item = (String, String)> + Send) -> io::Result<Vec<(String, String)>> {
    let values = netns.run(|| {
        let read = |(path, name): (String, String)| match std::fs::read_to_string(path) {
            Ok(value) => Some(Ok((name, value.trim().to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        };
        names.into_iter().filter_map(read).collect()
    });
    values.map_err(io::Error::other)?
}

/// Paths and names. In a name a dot within the interface's own name is written as a slash, as sysctl(8) has it.
fn names(family: Family, interface: Option<&str>) -> Vec<(String, String)> {
    let (version, general, each): (_, &[&str], &[&str]) = match family {
        Family::Ipv4 => ("ipv4", &["ip_forward"], &["rp_filter", "accept_local", "route_localnet"]),
        Family::Ipv6 => ("ipv6", &[], &["forwarding", "disable_ipv6"]),
    };
    let mut names: Vec<(String, String)> =
        general.iter().map(|key| (format!("/proc/sys/net/{version}/{key}"), format!("net.{version}.{key}"))).collect();
    // A name with a slash cannot be an interface's, and must not lead out of the folder.
    for place in std::iter::once("all").chain(interface.filter(|name| !name.contains('/') && *name != "..")) {
        let written = place.replace('.', "/");
        names.extend(
            each.iter().map(|key| {
                (format!("/proc/sys/net/{version}/conf/{place}/{key}"), format!("net.{version}.conf.{written}.{key}"))
            }),
        );
    }
    names
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn dots_in_interfaces_are_written_as_slashes() {
        let names = names(Family::Ipv6, Some("eth0.7"));
        assert!(
            names.contains(&(
                "/proc/sys/net/ipv6/conf/eth0.7/forwarding".to_owned(),
                "net.ipv6.conf.eth0/7.forwarding".to_owned()
            ))
        );
        assert_eq!(super::names(Family::Ipv4, Some("../x")).len(), 4);
    }

    #[test]
    fn values_are_those_of_the_namespace() {
        let Some(netns) = fresh("values_are_those_of_the_namespace") else { return };
        ip(&netns, "link add eth0 type veth peer name eth1");
        netns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "1").unwrap()).unwrap();
        let values = of_routing(&netns, Family::Ipv4, Some("eth0")).unwrap();
        assert!(values.contains(&("net.ipv4.conf.eth0.rp_filter".to_owned(), "1".to_owned())), "{values:?}");
        assert!(values.iter().any(|(name, _)| name == "net.ipv4.conf.all.route_localnet"));
    }
}
