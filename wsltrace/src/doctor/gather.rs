//! Asks Linux. What cannot be asked is noted with its reason, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::firewall::{Firewalls, LOCAL_PORTS};
use super::inside::{Elsewhere, elsewhere};
use super::linux::{Address, Interface, Linux, Managers, Names, Unseen};
use super::proxy::proxies;
use crate::causes::with_causes;
use crate::evidence::cgroups::{self, Cgroup, Direction};
use crate::evidence::rules::{held_tables, published_as};
use crate::evidence::{routes, sockets, sysctls};
use crate::journey::Family;
use crate::kernel::addresses::{OwnAddress, list_addresses};
use crate::kernel::check::Machine;
use crate::kernel::command::output_within;
use crate::kernel::containers::interfaces_toward;
use crate::kernel::links::{ARPHRD_ETHER, Link, filtered_interfaces, list_links};
use crate::kernel::netns::Netns;
use crate::kernel::vlans::{apart, bridge_vlans};
use crate::probe::{is_own_program, lookup_programs, netfilter_programs, tc_programs};
use crate::simulate::read;
use ends::{Ends, ends};
use local::{gone, loopback_gone, loopback_strayed};
use routing::Routing;

mod ends;
mod local;
mod routing;

/// What is said not to be seen when the sockets cannot be listed.
pub(super) const LISTENERS: &str = "the listening sockets";
/// Longest time that the search for the owners of sockets may take.
pub(super) const OWNERS_LIMIT: Duration = Duration::from_secs(1);
/// Longest time that another program may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(2);
/// The table by which mirrored mode sends answers to Windows' localhost.
const LOOPBACK_TABLE: u32 = 127;
/// Settings that bear on a connection whatever its interface.
const SETTINGS: [&str; 7] = [
    "net.core.somaxconn",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ip_forward",
    LOCAL_PORTS,
    "net.ipv6.bindv6only",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
];

/// Collects answers, and what gave none.
#[derive(Default)]
pub(super) struct Asked {
    unseen: Vec<Unseen>,
}

impl Asked {
    /// The answer, or what stands for none.
    pub(super) fn take<T: Default>(&mut self, what: &str, answer: io::Result<T>) -> T {
        answer.unwrap_or_else(|error| {
            let unseen = Unseen { what: what.to_owned(), why: with_causes(&error) };
            // The same is asked of every socket and in both directions.
            if !self.unseen.contains(&unseen) {
                self.unseen.push(unseen);
            }
            T::default()
        })
    }

    /// Whether nothing of this kind stayed unseen.
    fn saw(&self, what: &str) -> bool {
        self.unseen.iter().all(|unseen| unseen.what != what)
    }
}

/// Reads the rulesets of a network namespace.
pub fn firewalls(netns: &Netns) -> Firewalls {
    match read(netns) {
        Ok(rulesets) => Firewalls::Read(Box::new(rulesets)),
        Err(error) => Firewalls::Unread(with_causes(&error)),
    }
}

/// Looks at one port of a network namespace with these firewalls; takes up to a second, and more only where a program hangs.
pub fn linux(netns: &Netns, port: u16, machine: &Machine, firewalls: &Firewalls) -> Linux {
    let mut asked = Asked::default();
    let all = asked.take(LISTENERS, sockets::all_listeners(netns));
    let mut other_ports: Vec<u16> = all.iter().map(|found| found.listener.port).filter(|other| *other != port).collect();
    other_ports.dedup();
    let on_port = all.iter().filter(|found| found.listener.port == port);
    let handed_to = proxies(&all);
    let cgroups: BTreeSet<u64> = on_port.filter_map(|found| found.cgroup).collect();
    let marks = marks_of(&all);
    // Rules may lead connections to a server on another port.
    let all = sockets::with_owners(all, OWNERS_LIMIT);
    let (mut stopped, proxied) = (sockets::stopped(&all), crate::evidence::proxied(&all));
    let (listeners, other_listeners): (Vec<_>, Vec<_>) = all.into_iter().partition(|listener| listener.port == port);
    let free = listeners.is_empty() && asked.unseen.is_empty();
    let links = asked.take("the interfaces", list_links(netns));
    let addresses = asked.take("the addresses", list_addresses(netns));
    let default_by = asked.take("the default route", routes::default_interface(netns));
    let Ends { outer, outer6, bridge } = ends(&links, &addresses, default_by.as_deref());
    let gateway = asked.take("the default route", routes::default_gateway(netns));
    let translated_by_way_of = asked.take("where DNAT leads", toward_targets(netns, firewalls));
    let marks = routing::Marks { firewalls, of_sockets: marks, ways: &translated_by_way_of, proxies: &handed_to };
    let routed = (gateway.as_ref(), marks);
    let Routing { own: [own_routing, own_routing6], refused: refused_clients, arrives, toward_clients, back, through, clients } =
        routing::routing(netns, ([&outer, &outer6], port), routed, &addresses, &mut asked);
    let Elsewhere { listeners: elsewhere, stopped: stopped_inside, guarded, inside } = elsewhere(netns, &clients, &mut asked);
    stopped.extend(stopped_inside);
    let mut settings = settings(netns, outer.as_ref().map(|(_, interface)| interface.as_str()), &links, &mut asked);
    // What is led on comes by one of these, or its answer does.
    let entrances = outer.iter().chain(&bridge).chain(&translated_by_way_of).map(|(_, interface)| interface.clone());
    let entrances: BTreeSet<String> = entrances.collect();
    let entrances: Vec<String> = entrances.into_iter().collect();
    settings.extend(asked.take("the settings of forwarding", sysctls::of_forwarding(netns, &entrances)));
    settings.extend(asked.take("the settings of ARP", sysctls::of_arp(netns, &entrances)));
    Linux {
        kernel: machine.release.clone(),
        silent: silent(&links),
        tracked_by_first: asked.take("the settings", sysctls::is_sealed(netns, sysctls::MOST_TRACKED)),
        root: machine.root,
        stopped,
        gone: asked.take("the local addresses", gone(netns, &listeners)),
        loopback_strayed: asked.take("the local addresses", loopback_strayed(netns)),
        loopback_gone: asked.take("the local addresses", loopback_gone(netns)),
        default_by,
        proxied,
        inside,
        listeners,
        other_listeners,
        elsewhere,
        guarded,
        // Only root is told.
        held: if machine.root { asked.take("whose the tables of nftables are", held_tables(netns)) } else { Vec::new() },
        other_ports,
        interfaces: interfaces(netns, &links, &addresses, &mut asked),
        bridge,
        gateway,
        loopback_rules: links
            .iter()
            .any(|link| link.name == "loopback0")
            .then(|| asked.take("the routing rules", routes::has_rule_for(netns, LOOPBACK_TABLE))),
        settings,
        refused: if free { refused(netns, port) } else { None },
        toward_clients,
        own_routing,
        own_routing6,
        refused_clients,
        arrives,
        back,
        through,
        proxies: asked.saw(LISTENERS).then_some(handed_to),
        translated_by_way_of,
        published_as: match firewalls {
            Firewalls::Read(_) => asked.take("what leads to the port", published_as(netns, port)),
            Firewalls::NotAsked | Firewalls::Unread(_) => Vec::new(),
        },
        lookup_programs: others(asked.take("the BPF programs that choose sockets", lookup_programs(netns))),
        netfilter_programs: others(asked.take("the BPF programs at netfilter", netfilter_programs())),
        cgroups: deciding(&cgroups, &mut asked),
        names: names(&mut asked),
        managers: managers(netns, outer.as_ref().map(|(_, interface)| interface.as_str())),
        outer,
        outer6,
        unseen: asked.unseen,
    }
}

/// The marks that answers of listeners have; `None` where that is not told.
fn marks_of(all: &[sockets::Found]) -> Option<Vec<u32>> {
    let mut marks = all.iter().map(|found| found.mark).collect::<Option<Vec<u32>>>()?;
    marks.sort_unstable();
    marks.dedup();
    Some(marks)
}

/// The interfaces that answer no ARP though others ask for their hardware addresses.
fn silent(links: &[Link]) -> Vec<String> {
    // Others of Ethernet's kind have no need of it, such as ipvlan.
    let asked_for = |link: &&Link| link.arphrd == ARPHRD_ETHER && matches!(link.kind.as_deref(), None | Some("veth" | "bridge"));
    links.iter().filter(asked_for).filter(|link| link.no_arp).map(|link| link.name.clone()).collect()
}

/// What the kernel says to a server that wants the port, which is free here as far as its sockets tell: in some modes of WSL Windows
/// is asked too. The socket listens to nobody and is closed at once. An address that is not there is no refusal.
fn refused(netns: &Netns, port: u16) -> Option<String> {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // As servers do: old connections do not keep the port.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
    };
    let answer = netns.run(bind).map_err(io::Error::other).and_then(|answer| answer);
    // Somebody who is no root may not have low ports, which says nothing of the server.
    let refusal = answer.err().filter(|error| error.kind() != io::ErrorKind::PermissionDenied)?;
    Some(refusal.raw_os_error().map_or_else(|| refusal.to_string(), |number| Errno::from_raw(number).desc().to_owned()))
}

/// Those of the control groups that have programs for what comes in or goes out.
fn deciding(cgroups: &BTreeSet<u64>, asked: &mut Asked) -> Vec<Cgroup> {
    let each = |id: &u64| {
        let mut of = |direction| asked.take("the BPF programs of the server's control group", cgroups::deciding(*id, direction));
        [of(Direction::Ingress), of(Direction::Egress)].into_iter().flatten().collect::<Vec<_>>()
    };
    cgroups.iter().flat_map(each).collect()
}

/// Without the programs of a tracer that runs: they let every packet pass.
fn others(names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| !is_own_program(name)).collect()
}

/// The interfaces toward the targets of DNAT rules.
fn toward_targets(netns: &Netns, firewalls: &Firewalls) -> io::Result<Vec<(IpAddr, String)>> {
    match firewalls {
        Firewalls::Read(rulesets) => interfaces_toward(netns, &rulesets.targets().into_iter().collect::<Vec<_>>()),
        Firewalls::NotAsked | Firewalls::Unread(_) => Ok(Vec::new()),
    }
}

fn interfaces(netns: &Netns, links: &[Link], addresses: &[OwnAddress], asked: &mut Asked) -> Vec<Interface> {
    let names = |link: &Link, ingress| -> io::Result<Vec<String>> {
        Ok(others(tc_programs(link.index, ingress)?.into_iter().map(|(name, _)| name).collect()))
    };
    let programs: io::Result<Vec<_>> = netns
        .run(|| links.iter().map(|link| Ok((names(link, true)?, names(link, false)?))).collect())
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    let programs = asked.take("the BPF programs at tc", programs);
    let filtered = asked.take("the queueing disciplines", filtered_interfaces(netns));
    let vlans = asked.take("the VLANs of bridges", bridge_vlans(netns, links));
    let master = |link: &Link| links.iter().find(|master| Some(master.index) == link.master);
    let of = |(index, link): (usize, &Link)| Interface {
        name: link.name.clone(),
        kind: link.kind.clone(),
        master: master(link).map(|master| master.name.clone()),
        apart: master(link).and_then(|bridge| apart(&vlans, bridge, link)),
        disallowed: if link.kind.as_deref() == Some("wireguard") { link.frame_errors } else { 0 },
        up: link.up,
        // A bridge without containers has none either.
        no_carrier: link.up && !link.carrier && link.kind.as_deref() != Some("bridge"),
        addresses: addresses
            .iter()
            .filter(|address| address.interface == link.name)
            .map(|address| Address { address: address.address, prefix: address.prefix })
            .collect(),
        xdp: link.xdp,
        tc: programs.get(index).map(|(ingress, _)| ingress.clone()).unwrap_or_default(),
        tc_out: programs.get(index).map(|(_, egress)| egress.clone()).unwrap_or_default(),
        filters: filtered.contains(&link.index),
    };
    links.iter().enumerate().map(of).collect()
}

fn settings(netns: &Netns, outer: Option<&str>, links: &[Link], asked: &mut Asked) -> BTreeMap<String, String> {
    let mut all = asked.take("the settings", sysctls::by_name(netns, SETTINGS));
    let loopback0 = links.iter().find(|link| link.name == "loopback0").map(|link| link.name.as_str());
    for interface in outer.into_iter().chain(loopback0) {
        all.extend(asked.take("the settings of routing", sysctls::of_routing(netns, Family::Ipv4, Some(interface))));
    }
    all.into_iter().collect()
}

fn names(asked: &mut Asked) -> Names {
    let ahosts = output_within(PROGRAM_LIMIT, Command::new("getent").args(["ahosts", "localhost"]));
    let hosts = asked.take("/etc/hosts", fs::read_to_string("/etc/hosts"));
    // Without the file libc has its own order.
    let nsswitch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let resolv = asked.take("/etc/resolv.conf", fs::read_to_string("/etc/resolv.conf"));
    Names {
        localhost: asked.take("what localhost is", ahosts.map(|text| Some(addresses_of(&text)))),
        hosts: lines_of_localhost(&hosts),
        nsswitch: nsswitch.lines().find(|line| line.trim_start().starts_with("hosts:")).map(|line| line.trim().to_owned()),
        servers: resolv.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok()).collect(),
        resolv_conf: fs::read_link("/etc/resolv.conf").ok().map(|path| path.display().to_string()),
    }
}

/// The addresses in the answer of `getent ahosts`, each once.
fn addresses_of(text: &str) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for address in text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

fn lines_of_localhost(hosts: &str) -> Vec<String> {
    let names =
        |line: &&str| line.split('#').next().unwrap_or_default().split_whitespace().skip(1).any(|name| name == "localhost");
    hosts.lines().filter(names).map(|line| line.trim().to_owned()).collect()
}

fn managers(netns: &Netns, outer: Option<&str>) -> Managers {
    let ufw = fs::read_to_string("/etc/ufw/ufw.conf").unwrap_or_default();
    let zone = || {
        let mut command = Command::new("firewall-cmd");
        match outer {
            Some(interface) => command.arg(format!("--get-zone-of-interface={interface}")),
            None => command.arg("--get-default-zone"),
        };
        output_within(PROGRAM_LIMIT, &mut command)
            .or_else(|_| output_within(PROGRAM_LIMIT, Command::new("firewall-cmd").arg("--get-default-zone")))
    };
    // It fails where firewalld is not installed or does not run.
    let zone = netns.run(zone).ok().and_then(Result::ok).map(|zone| zone.trim().to_owned());
    Managers {
        ufw: ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")),
        firewalld: zone.filter(|zone| !zone.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_about_localhost_are_read() {
        let text = "::1             STREAM localhost\n::1             DGRAM  \n127.0.0.1       STREAM \n";
        let addresses: Vec<String> = addresses_of(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["::1", "127.0.0.1"]);
        let hosts = "127.0.0.1\tlocalhost\n# ::1 localhost\n::1 ip6-localhost\n10.0.0.1 box # localhost\n";
        assert_eq!(lines_of_localhost(hosts), ["127.0.0.1\tlocalhost"]);
    }
}
