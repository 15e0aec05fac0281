//! Whether answers to clients leave by the interface that the clients come by, where rules or routes of somebody's own stand between:
//! the kernel itself is asked, of a client for each network that any rule or route tells apart from others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::route::{RouteMessage, RouteType};

use super::clients::Server;
use super::policy::Rules;
use super::routes::{Question, all, answered_by, bits, is_taken, led_by, network};
use crate::kernel::addresses::covers;
use crate::kernel::netns::Netns;

/// How many clients are asked for; where there are more to tell apart nothing is claimed.
const MOST: usize = 256;
/// Addresses from the networks for examples, which nobody has.
const FAR: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Whom the answers of a server reach by the interface that they came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Not everybody in the network of its address, or nobody can say.
    Unclear,
    /// Everybody in that network.
    Near,
    /// Those, and clients of other networks.
    Everywhere,
}

/// Whether SYNs get to a server, and whom its answers reach by its interface, in the network of so many bits that its address is in. An answer may have any
/// of these marks, or whichever.
pub fn way_back(netns: &Netns, server: Server<'_>, prefix: u8, marks: Option<&[u32]>) -> io::Result<Back> {
    let rules = Rules::read(netns, server.address)?;
    let routes = netns.run(|| all(server.address)).map_err(io::Error::other)??;
    if !rules.tell_answers_by_ends() || marks.is_none() && rules.ask_for_marks() {
        return Ok(Back::Unclear);
    }
    let marks = marks.unwrap_or(&[0]);
    let told_apart = rules
        .destinations()
        .chain(routes.iter().filter(|route| leads(route)).map(|route| (network(route, server.address), bits(route))));
    let clients = clients_of((server.address, prefix), told_apart);
    let has_default = routes.iter().any(|route| bits(route) == 0 && route.header.kind == RouteType::Unicast);
    if clients.is_empty() || clients.len() > MOST {
        return Ok(Back::Unclear);
    }
    netns
        .run(|| {
            let index = nix::net::if_::if_nametoindex(server.interface)?;
            let reaches = |client: IpAddr| -> io::Result<bool> {
                for mark in marks {
                    if answered_by(server, client, *mark)? != Some(index) {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            // The rules for what comes in may be others, and the address may be missing in the tables.
            let arrives = |client: IpAddr| -> io::Result<bool> {
                let syn = Question { from: client, to: server.address, came_by: Some(server.interface) };
                for mark in marks {
                    if !is_taken(syn, *mark)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            for client in clients {
                if !arrives(client)? || !reaches(client)? {
                    return Ok(Back::Unclear);
                }
            }
            if !has_default {
                // That nobody else gets answers is told of the default route.
                return Ok(Back::Everywhere);
            }
            let far = FAR[usize::from(server.address.is_ipv6())];
            Ok(if reaches(far)? { Back::Everywhere } else { Back::Near })
        })
        .map_err(io::Error::other)?
}

/// Whether the way through this machine is there and back for every client in the network of an address of it (with so many bits of it),
/// which they come to by this interface: to `target` by its interface, and from there. A packet may have any of these marks.
pub fn is_way_through(
    netns: &Netns,
    (own, prefix, entered): (IpAddr, u8, &str),
    (target, behind): (IpAddr, &str),
    marks: &[u32],
) -> io::Result<bool> {
    let rules = Rules::read(netns, own)?;
    let routes = netns.run(|| all(own)).map_err(io::Error::other)??;
    if !rules.tell_by_addresses() {
        return Ok(false);
    }
    let of_routes = routes.iter().filter(|route| leads(route)).map(|route| (network(route, own), bits(route)));
    let clients = clients_of((own, prefix), rules.destinations().chain(rules.sources()).chain(of_routes));
    if clients.is_empty() || clients.len() > MOST {
        return Ok(false);
    }
    netns
        .run(|| {
            let [entered_by, left_by] = [nix::net::if_::if_nametoindex(entered)?, nix::net::if_::if_nametoindex(behind)?];
            for (client, mark) in clients.iter().flat_map(|client| marks.iter().map(move |mark| (*client, *mark))) {
                let there = Question { from: client, to: target, came_by: Some(entered) };
                let back = Question { from: target, to: client, came_by: Some(behind) };
                // Whoever knows nobody's hardware address asks for the own one, which only a local address answers (ARP; IPv6 looks at
                // the interfaces).
                let asks = Question { from: client, to: own, came_by: Some(entered) };
                if own.is_ipv4() && !is_taken(asks, 0)? {
                    return Ok(false);
                }
                if led_by(there, mark)? != Some(left_by) || led_by(back, mark)? != Some(entered_by) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .map_err(io::Error::other)?
}

/// Whether a route decides where packets for other machines go.
fn leads(route: &RouteMessage) -> bool {
    !matches!(route.header.kind, RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast)
}

/// The first and the last address of a network, and of each smaller one inside of it, without this machine's own.
fn clients_of((own, prefix): (IpAddr, u8), told_apart: impl Iterator<Item = (IpAddr, u8)>) -> Vec<IpAddr> {
    let inside = told_apart.filter(|(network, bits)| *bits > prefix && covers(own, prefix, *network));
    let mut clients: Vec<IpAddr> = ends((own, prefix)).into_iter().chain(inside.flat_map(ends)).collect();
    clients.retain(|client| *client != own);
    clients.sort_unstable();
    clients.dedup();
    clients
}

/// The ends of a network: the first two and the last addresses that hosts have, as far as it has room.
fn ends((network, prefix): (IpAddr, u8)) -> Vec<IpAddr> {
    let (value, len) = match network {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let hosts = u32::from(len - prefix.min(len));
    let all = 1u128.checked_shl(hosts).map_or(u128::MAX, |many| many - 1);
    let of = |host: u128| {
        let bits = (value & !all) | host;
        match network {
            IpAddr::V4(_) => u32::try_from(bits).map_or(network, |bits| Ipv4Addr::from_bits(bits).into()),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    };
    // Up to two addresses all are a host's.
    let first = if all < 3 { vec![0, all] } else { vec![1, 2, all - 1] };
    first.into_iter().map(of).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn every_network_inside_has_its_clients() {
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        let inside = [(of("10.1.0.8"), 32), (of("10.1.0.64"), 30), (of("10.0.0.0"), 8), (of("10.2.0.1"), 32)];
        let found = clients_of((of("10.1.0.2"), 24), inside.into_iter());
        let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.1.0.1", "10.1.0.8", "10.1.0.65", "10.1.0.66", "10.1.0.254"]);
        let found = clients_of((of("fd00::2"), 64), [(of("fd00::9"), 128)].into_iter());
        assert_eq!(found.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["fd00::1", "fd00::9", "fd00::ffff:ffff:ffff:fffe"]);
        assert!(clients_of((of("10.1.0.2"), 32), std::iter::empty()).is_empty());
    }

    /// What `ip` makes, and whom answers reach without a mark, and with the mark 1 as well.
    const TABLE: [(&[&str], Back, Back); 15] = [
        (&[], Back::Everywhere, Back::Everywhere),
        // Tailscale.
        (
            &[
                "rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
                "rule add pref 5250 fwmark 0x80000/0xff0000 unreachable",
                "rule add pref 5270 lookup 52",
                "route add 100.64.0.0/10 dev tun0 table 52",
            ],
            Back::Everywhere,
            Back::Everywhere,
        ),
        // One that leads all of the rest away too.
        (&["rule add pref 5270 lookup 52", "route add default dev tun0 table 52"], Back::Unclear, Back::Unclear),
        // wg-quick.
        (
            &[
                "route add default dev tun0 table 51820",
                "rule add not fwmark 51820 table 51820",
                "rule add table main suppress_prefixlength 0",
            ],
            Back::Near,
            Back::Near,
        ),
        (&["rule add fwmark 1 blackhole"], Back::Everywhere, Back::Unclear),
        (&["rule add fwmark 1 lookup 100", "route add local default dev lo table 100"], Back::Everywhere, Back::Unclear),
        (&["rule add not fwmark 1 blackhole"], Back::Unclear, Back::Unclear),
        (&["rule add to 172.28.17.7 blackhole"], Back::Unclear, Back::Unclear),
        (&["route add 172.28.17.0/24 dev tun0"], Back::Unclear, Back::Unclear),
        (&["rule add from 10.0.0.0/8 blackhole"], Back::Everywhere, Back::Everywhere),
        // What comes in does not get here.
        (&["route del local 172.28.16.2 dev eth0 table local"], Back::Unclear, Back::Unclear),
        (&["rule del pref 0", "rule add pref 40000 lookup local"], Back::Unclear, Back::Unclear),
        (
            &["rule add pref 5 iif eth0 blackhole", "rule del pref 0", "rule add pref 9 lookup local"],
            Back::Unclear,
            Back::Unclear,
        ),
        // A client's port decides.
        (&["rule add ipproto tcp dport 50000-50001 blackhole"], Back::Unclear, Back::Unclear),
        (&["rule add ipproto tcp sport 8080 blackhole"], Back::Unclear, Back::Unclear),
    ];

    #[test]
    fn the_way_back_is_what_the_kernel_says() {
        for (lines, unmarked, marked) in TABLE {
            let Some(netns) = fresh("the_way_back_is_what_the_kernel_says") else { return };
            for name in ["eth0", "tun0"] {
                ip(&netns, &format!("link add {name} type veth peer name {name}x"));
                ip(&netns, &format!("link set {name} up"));
                ip(&netns, &format!("link set {name}x up"));
            }
            ip(&netns, "address add 172.28.16.2/20 dev eth0");
            ip(&netns, "route add default via 172.28.16.1");
            for line in lines {
                ip(&netns, line);
            }
            let server = Server { address: "172.28.16.2".parse().unwrap(), interface: "eth0", port: 8080 };
            let back = |marks: &[u32]| way_back(&netns, server, 20, Some(marks)).unwrap();
            assert_eq!((back(&[0]), back(&[0, 1])), (unmarked, marked), "{lines:?}");
            let asks = lines.iter().any(|line| line.contains("fwmark"));
            let whichever = way_back(&netns, server, 20, None).unwrap();
            assert_eq!(whichever, if asks { Back::Unclear } else { unmarked }, "{lines:?}");
        }
    }

    #[test]
    fn a_way_through_goes_there_and_back() {
        let vpn = ["rule add not fwmark 51820 table 51820", "route add default dev tun0 table 51820"];
        let main_first = "rule add table main suppress_prefixlength 0";
        let table: [(&[&str], bool); 8] = [
            (&[], true),
            (&["rule add pref 5210 fwmark 0x80000/0xff0000 lookup main", "rule add pref 5270 lookup 52"], true),
            (&vpn, false),
            (&[vpn[0], vpn[1], main_first], true),
            (&["rule add from 172.17.0.0/16 lookup 52", "route add default dev tun0 table 52"], false),
            (&["rule add from 172.28.17.0/24 blackhole"], false),
            (&["rule add iif br0 to 172.28.16.0/20 prohibit"], false),
            (&["rule add ipproto tcp sport 80 blackhole"], false),
        ];
        for (lines, expected) in table {
            let Some(netns) = fresh("a_way_through_goes_there_and_back") else { return };
            for name in ["eth0", "tun0", "br0"] {
                ip(&netns, &format!("link add {name} type veth peer name {name}x"));
                ip(&netns, &format!("link set {name} up"));
                ip(&netns, &format!("link set {name}x up"));
            }
            netns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap().unwrap();
            ip(&netns, "address add 172.28.16.2/20 dev eth0");
            ip(&netns, "address add 172.17.0.1/16 dev br0");
            for line in lines {
                ip(&netns, line);
            }
            let own: IpAddr = "172.28.16.2".parse().unwrap();
            let target = ("172.17.0.2".parse().unwrap(), "br0");
            assert_eq!(is_way_through(&netns, (own, 20, "eth0"), target, &[0]).unwrap(), expected, "{lines:?}");
        }
    }
}
