//! Asks for the routes and rules that bear on the clients of other machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::super::firewall::Firewalls;
use super::Asked;
use crate::evidence::{Back, RefusedClient, Server, is_way_through, own_routing, refused_clients, sysctls, way_back};
use crate::kernel::addresses::OwnAddress;
use crate::kernel::containers::interfaces_toward;
use crate::kernel::netns::Netns;
use crate::simulate::{Machine, Packet, Way, marks_back, marks_through};

/// What bears on other machines, of the addresses of both families by which they reach this one.
pub(super) struct Routing {
    pub(super) own: [Option<String>; 2],
    pub(super) refused: Vec<RefusedClient>,
    /// Addresses of this machine to whose table of own addresses the first rule leads all that comes.
    pub(super) arrives: Vec<IpAddr>,
    pub(super) toward_clients: Vec<(IpAddr, String)>,
    /// Of those of the two addresses whose packets may be led otherwise than usual: whom answers reach by the address' own interface.
    pub(super) back: Vec<(IpAddr, Back)>,
    /// Those of the two addresses, and where rules lead what comes to them: the way there and back is there.
    pub(super) through: Vec<(IpAddr, IpAddr)>,
    /// Addresses that stand for those that other machines may have.
    pub(super) clients: Vec<IpAddr>,
}

/// What tells the marks of answers.
pub(super) struct Marks<'a> {
    pub(super) firewalls: &'a Firewalls,
    /// Those of the listeners' sockets; `None` where they are not told.
    pub(super) of_sockets: Option<Vec<u32>>,
    pub(super) ways: &'a [(IpAddr, String)],
    /// The proxies of both families.
    pub(super) proxies: &'a [BTreeMap<u16, Option<bool>>; 2],
}

impl Marks<'_> {
    /// The marks that decide about a server's answers; `None` where they are not known.
    fn back(&self, netns: &Netns, server: Server<'_>, addresses: &[OwnAddress], asked: &mut Asked) -> Option<Vec<u32>> {
        let Firewalls::Read(rulesets) = self.firewalls else { return None };
        let (syn, machine) = (syn(server), self.machine(server.address, addresses));
        let by_syn = asked.take("the settings of marks", sysctls::go_by_marks_of_syns(netns, server.interface));
        let marks = marks_back(rulesets, &syn, &machine, self.of_sockets.as_deref()?, by_syn)?;
        Some(marks.into_iter().collect())
    }

    /// The marks that decide about the way of what is led on to a target, and of what comes back from there.
    fn through(&self, server: Server<'_>, target: IpAddr, addresses: &[OwnAddress]) -> Option<Vec<u32>> {
        let Firewalls::Read(rulesets) = self.firewalls else { return None };
        let machine = self.machine(server.address, addresses);
        let marks = marks_through(rulesets, &syn(server), &machine, target)?;
        Some(marks.into_iter().collect())
    }

    fn machine(&self, own: IpAddr, addresses: &[OwnAddress]) -> Machine {
        Machine {
            addresses: addresses.iter().map(|own| (own.interface.clone(), own.address)).collect(),
            ways: self.ways.iter().cloned().collect(),
            proxies: Some(self.proxies[usize::from(own.is_ipv6())].clone()),
        }
    }
}

fn syn(server: Server<'_>) -> Packet {
    Packet {
        way: Way::Outside { device: Some(server.interface.to_owned()), bridged: false },
        source: None,
        source_port: None,
        destination: server.address,
        destination_port: server.port,
        ecn: None,
    }
}

/// Asks for both addresses, of which the second is of IPv6.
pub(super) fn routing(
    netns: &Netns,
    (outer, port): ([&Option<(IpAddr, String)>; 2], u16),
    (gateway, marks): (Option<&(IpAddr, String)>, Marks<'_>),
    addresses: &[OwnAddress],
    asked: &mut Asked,
) -> Routing {
    const WHAT: &str = "the routing rules";
    let network = outer[0].as_ref().and_then(|(own, _)| addresses.iter().find(|address| address.address == *own));
    let clients = network.map(|own| clients_of(own.address, own.prefix)).unwrap_or_default();
    let both = gateway.map(|(gateway, _)| *gateway).into_iter().chain(clients.iter().copied()).collect::<Vec<_>>();
    let own = outer.map(|outer| outer.as_ref().and_then(|(own, _)| asked.take(WHAT, own_routing(netns, *own))));
    let (mut refused, mut arrives) = (Vec::new(), Vec::new());
    for (address, interface) in outer.into_iter().flatten() {
        let server = Server { address: *address, interface, port };
        let (found, straight) = asked.take(WHAT, refused_clients(netns, server, &both));
        refused.extend(found);
        arrives.extend(straight.then_some(*address));
    }
    let mut back = Vec::new();
    for ((address, interface), what) in outer.into_iter().zip(&own).filter_map(|(outer, what)| outer.as_ref().zip(what.as_ref()))
    {
        let server = Server { address: *address, interface, port };
        let prefix = addresses.iter().find(|own| own.address == *address).map(|own| own.prefix);
        let Some(prefix) = prefix else { continue };
        let marks = marks.back(netns, server, addresses, asked);
        // An error is no way.
        let reached = way_back(netns, server, prefix, marks.as_deref()).map(Some);
        back.extend(asked.take(&format!("whom answers reach, which depends on {what}"), reached).map(|back| (*address, back)));
    }
    let mut through = Vec::new();
    for (address, interface) in
        outer.into_iter().zip(&own).filter(|(_, what)| what.is_some()).filter_map(|(outer, _)| outer.as_ref())
    {
        let prefix = addresses.iter().find(|own| own.address == *address).map(|own| own.prefix);
        let targets = marks.ways.iter().filter(|(target, _)| target.is_ipv4() == address.is_ipv4());
        for ((target, by), prefix) in targets.filter_map(|target| Some((target, prefix?))) {
            let server = Server { address: *address, interface, port };
            let Some(marks) = marks.through(server, *target, addresses) else { continue };
            let way = is_way_through(netns, (*address, prefix, interface), (*target, by), &marks);
            if asked.take("the ways through this Linux", way) {
                through.push((*address, *target));
            }
        }
    }
    // Where a route refuses them, that is told of the routes.
    let near = |client: &IpAddr| network.is_some_and(|own| own.covers(*client));
    let overlapping = network.map(|own| inside_of(own, addresses)).unwrap_or_default();
    let gateway = gateway.map(|(gateway, _)| *gateway).filter(near);
    let asked_for: BTreeSet<IpAddr> = clients.iter().copied().chain(gateway).chain(overlapping).collect();
    let toward_clients = interfaces_toward(netns, &asked_for.into_iter().collect::<Vec<_>>()).unwrap_or_default();
    Routing { own, refused, arrives, toward_clients, back, through, clients }
}

/// Addresses that clients in the network of an IPv4 address may have, and that smaller networks of other interfaces have too.
fn inside_of(own: &OwnAddress, addresses: &[OwnAddress]) -> Vec<IpAddr> {
    let is_inside =
        |other: &&OwnAddress| other.interface != own.interface && other.prefix > own.prefix && own.covers(other.address);
    let found = addresses.iter().filter(is_inside).flat_map(|other| clients_of(other.address, other.prefix));
    found.filter(|client| addresses.iter().all(|own| own.address != *client)).collect()
}

/// The first and the last address that a client in the network of an IPv4 address may have.
fn clients_of(own: IpAddr, prefix: u8) -> Vec<IpAddr> {
    // Smaller networks have no room for both.
    const SMALLEST: u8 = 29;
    let IpAddr::V4(own) = own else { return Vec::new() };
    if prefix == 0 || prefix > SMALLEST {
        return Vec::new();
    }
    let hosts = u32::MAX >> prefix;
    let network = own.to_bits() & !hosts;
    let of = |ends: [u32; 2]| ends.into_iter().map(|host| network | host).find(|address| *address != own.to_bits());
    [of([1, 2]), of([hosts - 1, hosts - 2])].into_iter().flatten().map(|bits| Ipv4Addr::from_bits(bits).into()).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn clients_are_looked_for_at_both_ends_of_a_network() {
        let of = |own: &str, prefix| clients_of(own.parse().unwrap(), prefix).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(of("172.28.16.2", 20), ["172.28.16.1", "172.28.31.254"]);
        assert_eq!(of("10.0.0.1", 24), ["10.0.0.2", "10.0.0.254"]);
        assert!(of("10.0.0.1", 32).is_empty() && of("fd00::1", 64).is_empty());
    }

    #[test]
    fn networks_inside_of_the_own_one_are_looked_at() {
        let at = |interface: &str, text: &str, prefix| OwnAddress {
            interface: interface.into(),
            address: text.parse().unwrap(),
            prefix,
            unready: None,
        };
        let own = at("eth0", "172.28.16.2", 20);
        let all = [own.clone(), at("br0", "172.28.17.1", 24), at("br1", "172.17.0.1", 16), at("br2", "172.28.0.1", 16)];
        let found: Vec<String> = inside_of(&own, &all).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["172.28.17.2", "172.28.17.254"]);
    }
}
