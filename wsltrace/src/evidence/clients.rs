//! Whose connections to a server of this machine rules of `ip rule` and routes refuse, asked before anybody connects: of clients that
//! there may be, and of those that the rules and routes themselves ask for.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::route::RouteMessage;
use serde::{Deserialize, Serialize};

use super::policy::{Packet, Refusal, Rules};
use super::routes::{all, bits, network, refusal_of};
use super::way::MADE_HERE;
use crate::kernel::netns::Netns;

/// A port that clients take by themselves.
const CLIENT_PORT: u16 = 49_152;

/// Clients that are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusedClient {
    /// One of them, as an example.
    pub client: IpAddr,
    /// Whether every client is refused, whatever its address.
    pub everybody: bool,
    /// Whether it is the answer to them that is refused, and not what they send.
    pub answer: bool,
    /// What refuses.
    pub by: Refusal,
}

/// A server that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// An address of this machine.
    pub address: IpAddr,
    /// The interface that has it.
    pub interface: &'a str,
    /// Its port.
    pub port: u16,
}

/// Whom the rules and routes of a namespace refuse, each of them once, with the first client that it refuses; and whether every SYN for
/// an own address gets there. `clients` are looked at before those that rules and routes ask for.
pub fn refused_clients(netns: &Netns, server: Server<'_>, clients: &[IpAddr]) -> io::Result<(Vec<RefusedClient>, bool)> {
    let rules = Rules::read(netns, server.address)?;
    let routes = netns.run(|| all(server.address)).map_err(io::Error::other)??;
    Ok((refused(&rules, &routes, server, clients), rules.begin_with_local()))
}

fn refused(rules: &Rules, routes: &[RouteMessage], server: Server<'_>, clients: &[IpAddr]) -> Vec<RefusedClient> {
    let of_route =
        |route: &RouteMessage| refusal_of(route, server.address).map(|_| (network(route, server.address), bits(route)));
    let asked_for = rules.refused_networks().chain(routes.iter().filter_map(of_route));
    let named = asked_for.filter_map(|(network, bits)| somebody_of(network, bits, server.address));
    let own_family = |client: &IpAddr| client.is_ipv4() == server.address.is_ipv4() && *client != server.address;
    let mut found: Vec<RefusedClient> = Vec::new();
    let mut seen = BTreeSet::new();
    // Where nobody names a client of the family, one beside this machine.
    let is_named = clients.iter().any(own_family);
    let beside = after(server.address, 1).filter(|_| !is_named);
    for client in clients.iter().copied().chain(beside).chain(named).filter(own_family) {
        if !seen.insert(client) {
            continue;
        }
        let ports = (CLIENT_PORT, server.port);
        let syn = Packet { from: client, to: server.address, came_by: server.interface, ports };
        let answer = Packet { from: server.address, to: client, came_by: MADE_HERE, ports: (ports.1, ports.0) };
        let of_syn = rules.refusal(&syn, routes).map(|by| (false, by));
        let Some((answer, by)) = of_syn.or_else(|| rules.refusal(&answer, routes).map(|by| (true, by))) else { continue };
        if found.iter().any(|known| (known.answer, &known.by) == (answer, &by)) {
            continue;
        }
        let everybody = match &by {
            Refusal::Rule(rule) => !rule.marked && rules.refuses_everybody(rule, answer),
            Refusal::Route(_) => false,
        };
        found.push(RefusedClient { client, everybody, answer, by });
    }
    found
}

/// A client in a network that a rule or route asks for; of all networks none of this machine's own.
fn somebody_of(network: IpAddr, bits: u8, own: IpAddr) -> Option<IpAddr> {
    // From the networks for examples, which nobody has.
    const ELSEWHERE: (&str, &str) = ("198.51.100.1", "2001:db8::1");
    if bits == 0 {
        return if own.is_ipv4() { ELSEWHERE.0 } else { ELSEWHERE.1 }.parse().ok();
    }
    let whole = bits == if network.is_ipv4() { 32 } else { 128 };
    if whole { Some(network) } else { after(network, 1).filter(|first| *first != own).or_else(|| after(network, 2)) }
}

/// The address so many behind another.
fn after(address: IpAddr, count: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(count.into()).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(count.into()).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn clients_that_rules_and_routes_ask_for_are_found() {
        let Some(netns) = fresh("clients_that_rules_and_routes_ask_for_are_found") else { return };
        ip(&netns, "link add eth0 type veth peer name eth1");
        ip(&netns, "link set eth1 up");
        for (family, own, host, bits, around) in
            [("", "10.77.0.1", "10.77.0.2", 32, "10.77.0.0/24"), ("-6 ", "fd77::1", "fd77::2", 128, "fd77::/64")]
        {
            ip(&netns, &format!("{family}address add {own}/{} dev eth0 {}", bits - 8, if bits == 32 { "" } else { "nodad" }));
            ip(&netns, "link set eth0 up");
            let server = Server { address: own.parse().unwrap(), interface: "eth0", port: 8080 };
            let told = || {
                let (found, arrives) = refused_clients(&netns, server, &[]).unwrap();
                let by = |by: &Refusal| match by {
                    Refusal::Rule(rule) => rule.text.to_string(),
                    Refusal::Route(route) => format!("{} {}/{}", route.kind, route.destination.0, route.destination.1),
                };
                let told = found
                    .iter()
                    .map(|one| format!("{} {}: {}", one.client, if one.everybody { "and all" } else { "" }, by(&one.by)));
                (told.collect::<Vec<_>>(), arrives)
            };
            assert_eq!(told(), (vec![], true), "{own}");
            for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
                ip(&netns, &format!("{family}route add {kind} {host}/{bits}"));
                assert_eq!(told(), (vec![format!("{host} : {kind} {host}/{bits}")], true));
                ip(&netns, &format!("{family}route del {kind} {host}/{bits}"));
            }
            for (rule, said) in [
                (format!("from {own}/{bits} to {host}/{bits} blackhole"), format!("{host} : ")),
                (format!("from all ipproto tcp sport 8080-8080 to {around} prohibit"), format!("{host} : ")),
            ] {
                ip(&netns, &format!("{family}rule add pref 9 {rule}"));
                let (found, arrives) = told();
                assert!(arrives && found.len() == 1 && found[0].starts_with(&said), "{rule}: {found:?}");
                ip(&netns, &format!("{family}rule del pref 9"));
            }
            // Nobody names a client, so one beside this machine is looked at.
            ip(&netns, &format!("{family}rule add pref 9 from {own}/{bits} unreachable"));
            let beside = if bits == 32 { "10.77.0.2" } else { "fd77::2" };
            assert_eq!(told(), (vec![format!("{beside} and all: from {own}/{bits} unreachable")], true));
            ip(&netns, &format!("{family}rule del pref 9"));
            // It stands behind the table of own addresses, so it refuses no SYN.
            ip(&netns, &format!("{family}rule add pref 9 from all iif eth0 prohibit"));
            assert_eq!(told(), (vec![], true));
            ip(&netns, &format!("{family}rule del pref 9"));
        }
    }

    #[test]
    fn everybody_is_refused_only_where_nothing_asks_for_the_client() {
        let Some(netns) = fresh("everybody_is_refused_only_where_nothing_asks_for_the_client") else { return };
        ip(&netns, "link add eth0 type veth peer name eth1");
        ip(&netns, "link set eth1 up");
        ip(&netns, "address add 10.77.0.1/24 dev eth0");
        ip(&netns, "link set eth0 up");
        let server = Server { address: "10.77.0.1".parse().unwrap(), interface: "eth0", port: 8080 };
        let clients = ["10.77.0.2".parse().unwrap()];
        for (rules, everybody) in [
            (&["pref 9 from 10.77.0.1 blackhole"][..], true),
            (&["pref 9 ipproto tcp sport 8080 prohibit"], true),
            (&["pref 9 from 10.77.0.1 to 10.77.0.0/24 blackhole"], false),
            (&["pref 9 from 10.77.0.1 fwmark 0 prohibit", "pref 8 to 10.77.0.7 lookup main"], false),
            (&["pref 9 not fwmark 7 prohibit"], false),
            (&["pref 9 dport 40000-50000 prohibit"], false),
            (&["pref 9 from 10.77.0.1 prohibit", "pref 8 to 10.77.0.7 prohibit"], true),
        ] {
            for rule in rules {
                ip(&netns, &format!("rule add {rule}"));
            }
            let (found, _) = refused_clients(&netns, server, &clients).unwrap();
            assert_eq!(found.first().map(|one| (one.everybody, one.answer)), Some((everybody, true)), "{rules:?}");
            for rule in rules {
                ip(&netns, &format!("rule del {rule}"));
            }
        }
        // Before the table of own addresses it refuses what clients send.
        ip(&netns, "rule add pref 20 lookup local");
        ip(&netns, "rule del pref 0");
        ip(&netns, "rule add pref 10 iif eth0 unreachable");
        let (found, arrives) = refused_clients(&netns, server, &clients).unwrap();
        assert!(!arrives && found[0].everybody && !found[0].answer, "{found:?}");
    }
}
