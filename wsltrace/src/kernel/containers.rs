//! The network namespaces of containers, and which interface of ours leads to each.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::addresses::list_addresses;
use super::links::{Link, list_links};
use super::netlink;
use super::netns::Netns;

/// A namespace that packets reach through one of our interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The namespace.
    pub netns: Netns,
    /// The interface on our side.
    pub through: String,
}

/// The namespaces behind interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Those that could be opened.
    pub joined: Vec<Joined>,
    /// Interfaces whose other end is in a namespace that nothing here shows, such as another distro's container.
    pub hidden: Vec<String>,
}
/// The namespaces of containers: those behind a veth that is a port of a bridge. Never the one behind an interface that is
/// no port: in a lab, that is the client's.
pub fn container_namespaces(host: &Netns) -> io::Result<Behind> {
    let links = list_links(host)?;
    behind(host, &bridge_ports(&links))
}

/// The namespaces behind a veth that leads to one of `targets` (to which DNAT rules send), bridge or not, unless the default
/// route leads through it too; and those that have one of them at the other end of a veth which was taken out of its bridge.
pub fn namespaces_toward(host: &Netns, targets: &[IpAddr]) -> io::Result<Behind> {
    let links = list_links(host)?;
    let (ways, defaults) = host.try_run(|| {
        let ways: io::Result<Vec<Option<u32>>> = targets.iter().map(|target| way_to(*target)).collect();
        Ok((ways?, default_interfaces()?))
    })?;
    let leads = |index: u32| ways.contains(&Some(index)) && !defaults.contains(&index);
    let chosen: Vec<&Link> = links.iter().filter(|link| is_foreign_veth(link) && leads(link.index)).collect();
    let mut toward = behind(host, &chosen)?;
    let loose =
        |link: &&Link| is_foreign_veth(link) && link.master.is_none() && !leads(link.index) && !defaults.contains(&link.index);
    let loose: Vec<&Link> = links.iter().filter(loose).collect();
    for joined in behind(host, &loose)?.joined {
        match list_addresses(&joined.netns) {
            Ok(own) if own.iter().any(|own| targets.contains(&own.address)) => toward.joined.push(joined),
            Ok(_) => {}
            // It may have ended just now.
            Err(error) => log::debug!("cannot list the addresses of network namespace {}: {error}", joined.netns.label()),
        }
    }
    Ok(toward)
}

/// The namespaces with a macvlan or ipvlan that stands on one of the host's interfaces, as those of containers of such a network do.
/// The host's own list does not show them.
pub fn namespaces_upon(host: &Netns) -> io::Result<Vec<Joined>> {
    let links = list_links(host)?;
    let mut joined = Vec::new();
    for netns in Netns::visible().into_values().filter(|netns| netns != host) {
        // A listing has the kernel give the host a number there, so that comes second.
        let look = || Ok::<_, io::Error>((list_links(&netns)?, netns.try_run(|| nsid(host))?));
        match look() {
            Ok((theirs, Some(number))) => {
                joined.extend(lower(&theirs, number, &links).map(|through| Joined { netns, through: through.name.clone() }));
            }
            Ok((_, None)) => {}
            // It may have ended just now.
            Err(error) => log::debug!("cannot list the interfaces of network namespace {}: {error}", netns.label()),
        }
    }
    Ok(joined)
}

/// The host's interface that one of these, of a namespace which gives the host this number, stands on.
fn lower<'a>(links: &[Link], number: i32, of_host: &'a [Link]) -> Option<&'a Link> {
    let stands = |link: &&Link| link.is_stacked() && link.peer_nsid == Some(number);
    links.iter().filter(stands).find_map(|link| of_host.iter().find(|lower| Some(lower.index) == link.peer_index))
}

/// The names of the interfaces that lead to these addresses, where any does.
pub fn interfaces_toward(netns: &Netns, targets: &[IpAddr]) -> io::Result<Vec<(IpAddr, String)>> {
    let ways = netns.try_run(|| targets.iter().map(|target| Ok((*target, way_to(*target)?))).collect::<io::Result<Vec<_>>>())?;
    let links = list_links(netns)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    Ok(ways.into_iter().filter_map(|(target, index)| Some((target, name(index?)?))).collect())
}

fn is_foreign_veth(link: &Link) -> bool {
    link.is_of_pair() && link.peer_nsid.is_some()
}

fn bridge_ports(links: &[Link]) -> Vec<&Link> {
    let is_bridge = |index| links.iter().any(|link| link.index == index && link.kind.as_deref() == Some("bridge"));
    links.iter().filter(|link| is_foreign_veth(link) && link.master.is_some_and(is_bridge)).collect()
}

/// Finds the namespaces that `host` numbers as these links do.
fn behind(host: &Netns, links: &[&Link]) -> io::Result<Behind> {
    let mut behind = Behind::default();
    if links.is_empty() {
        return Ok(behind);
    }
    let numbered = host.try_run(|| {
        let mut numbered = BTreeMap::new();
        for netns in Netns::visible().into_values().filter(|netns| netns != host) {
            if let Some(id) = nsid(&netns)? {
                numbered.insert(id, netns);
            }
        }
        Ok(numbered)
    })?;
    for link in links {
        match link.peer_nsid.and_then(|id| numbered.get(&id)) {
            Some(netns) if behind.joined.iter().any(|joined| joined.netns == *netns) => {}
            Some(netns) => behind.joined.push(Joined { netns: netns.clone(), through: link.name.clone() }),
            None => behind.hidden.push(link.name.clone()),
        }
    }
    Ok(behind)
}

/// The calling thread's namespace's number for another one, if it has given one.
fn nsid(netns: &Netns) -> io::Result<Option<i32>> {
    let mut message = NsidMessage::default();
    let fd = u32::try_from(netns.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    message.attributes.push(NsidAttribute::Fd(fd));
    match netlink::ask(NETLINK_ROUTE, RouteNetlinkMessage::GetNsId(message))? {
        RouteNetlinkMessage::NewNsId(answer) => Ok(answer.attributes.into_iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) => (id >= 0).then_some(id),
            _ => None,
        })),
        _ => Ok(None),
    }
}

fn oif(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The interface that leads to an address from the calling thread's namespace; `None` where nothing leads there.
fn way_to(target: IpAddr) -> io::Result<Option<u32>> {
    let mut message = RouteMessage::default();
    let (family, len, address) = match target {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = len;
    message.attributes.push(RouteAttribute::Destination(address));
    match netlink::ask(NETLINK_ROUTE, RouteNetlinkMessage::GetRoute(message)) {
        Ok(RouteNetlinkMessage::NewRoute(answer)) => Ok(oif(&answer)),
        Ok(_) => Ok(None),
        // The kernel's words for "no route": unreachable, prohibited, blackholed.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The interfaces of the default routes in the calling thread's namespace.
fn default_interfaces() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        for answer in netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetRoute(message))? {
            if let RouteNetlinkMessage::NewRoute(route) = answer
                && route.header.destination_prefix_length == 0
            {
                found.extend(oif(&route));
            }
        }
    }
    Ok(found)
}
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::links::{ARPHRD_LOOPBACK, LinkEvent, LinkWatcher};
    use crate::kernel::netns::tests::{fd_path, fresh, ip};

    #[test]
    fn only_ports_of_bridges_lead_to_containers() {
        let veth = |index, master, peer_nsid| Link {
            index,
            name: format!("veth{index}"),
            master,
            peer_nsid,
            kind: Some("veth".to_owned()),
            ..Link::default()
        };
        let bridge = Link { index: 1, name: "br0".to_owned(), kind: Some("bridge".to_owned()), ..Link::default() };
        let links =
            [bridge, veth(2, None, Some(0)), veth(3, Some(1), Some(1)), veth(4, Some(1), None), veth(5, Some(9), Some(2))];
        let names: Vec<&str> = bridge_ports(&links).iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["veth3"]);
    }

    #[test]
    fn what_stands_on_an_interface_is_told_by_the_number_of_its_namespace() {
        let link = |index, kind: &str, peer_index, peer_nsid| Link {
            index,
            name: format!("link{index}"),
            kind: Some(kind.to_owned()),
            peer_index,
            peer_nsid,
            ..Link::default()
        };
        let host = [link(2, "veth", None, Some(0)), link(3, "veth", None, Some(0))];
        let found = |link: Link| lower(&[link], 7, &host).map(|lower| lower.index);
        assert_eq!(found(link(9, "macvlan", Some(3), Some(7))), Some(3));
        assert_eq!(found(link(9, "ipvlan", Some(2), Some(7))), Some(2));
        // On another namespace's interface of that number, on its own, and another kind.
        assert_eq!(found(link(9, "macvlan", Some(3), Some(6))), None);
        assert_eq!(found(link(9, "macvlan", Some(3), None)), None);
        assert_eq!(found(link(9, "veth", Some(3), Some(7))), None);
    }

    #[test]
    fn containers_are_found_and_the_client_is_not() {
        let test = "containers_are_found_and_the_client_is_not";
        let (Some(host), Some(client), Some(container), Some(routed)) = (fresh(test), fresh(test), fresh(test), fresh(test))
        else {
            return;
        };
        let watcher = LinkWatcher::new(&host).unwrap();
        // `ip` takes a descriptor's path, but cannot mount it; a process in it makes it visible in /proc.
        let waiting: Vec<_> = [&client, &container, &routed]
            .map(|netns| netns.run(|| std::process::Command::new("sleep").arg("60").spawn().unwrap()).unwrap())
            .into_iter()
            .collect();
        ip(&host, &format!("link add eth0 type veth peer name eth0 netns {}", fd_path(&client)));
        ip(&host, "link add br0 type bridge");
        ip(&host, &format!("link add vethc type veth peer name eth0 netns {}", fd_path(&container)));
        ip(&host, "link set vethc master br0");
        ip(&host, &format!("link add vethr type veth peer name eth0 netns {}", fd_path(&routed)));
        for link in ["lo", "eth0", "vethr"] {
            ip(&host, &format!("link set {link} up"));
        }
        ip(&host, "address add 192.0.2.1/24 dev eth0");
        ip(&host, "route add default via 192.0.2.2");
        ip(&host, "route add 198.51.100.7/32 dev vethr");

        let links = list_links(&host).unwrap();
        let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
        assert!(eth0.up && eth0.kind.as_deref() == Some("veth") && eth0.peer_nsid.is_some() && eth0.address.len() == 6);
        assert_eq!(links.iter().find(|link| link.name == "lo").unwrap().arphrd, ARPHRD_LOOPBACK);
        let events = watcher.read().unwrap();
        assert!(events.iter().any(|event| matches!(event, LinkEvent::Changed(link) if link.name == "vethr")), "{events:?}");

        let found = container_namespaces(&host).unwrap();
        assert_eq!(found.joined, [Joined { netns: container.clone(), through: "vethc".to_owned() }]);
        assert!(found.hidden.is_empty());
        let targets = ["198.51.100.7".parse().unwrap(), "203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let found = namespaces_toward(&host, &targets).unwrap();
        assert_eq!(found.joined, [Joined { netns: routed.clone(), through: "vethr".to_owned() }]);

        ip(&container, "address add 10.9.0.2/24 dev eth0");
        ip(&host, "link set vethc nomaster");
        let found = namespaces_toward(&host, &["10.9.0.2".parse().unwrap()]).unwrap();
        assert_eq!(found.joined, [Joined { netns: container.clone(), through: "vethc".to_owned() }]);
        assert!(namespaces_toward(&host, &["10.9.0.3".parse().unwrap()]).unwrap().joined.is_empty());

        ip(&host, "link delete vethc");
        assert!(watcher.read().unwrap().iter().any(|event| matches!(event, LinkEvent::Gone(_))));
        for mut child in waiting {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
