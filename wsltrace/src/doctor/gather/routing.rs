//! Asks for the routes and rules that bear on the clients of other machines.

use std::net::{IpAddr, Ipv4Addr};

use super::Asked;
use crate::evidence::{RefusedClient, Server, own_routing, refused_clients};
use crate::kernel::addresses::Address;
use crate::kernel::containers::interfaces_toward;
use crate::kernel::netns::Netns;

/// What bears on other machines, of the addresses of both families by which they reach this one.
pub(super) struct Routing {
    pub(super) own: [Option<String>; 2],
    pub(super) refused: Vec<RefusedClient>,
    /// Addresses of this machine to whose table of own addresses the first rule leads all that comes.
    pub(super) arrives: Vec<IpAddr>,
    pub(super) toward_clients: Vec<(IpAddr, String)>,
    /// Addresses that stand for those that other machines may have.
    pub(super) clients: Vec<IpAddr>,
}

/// Asks for both addresses, of which the second is of IPv6.
pub(super) fn routing(
    netns: &Netns,
    (outer, port): ([&Option<(IpAddr, String)>; 2], u16),
    gateway: Option<&(IpAddr, String)>,
    addresses: &[Address],
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
    // Where a route refuses them, that is told of the routes.
    let toward_clients = interfaces_toward(netns, &clients).unwrap_or_default();
    Routing { own, refused, arrives, toward_clients, clients }
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
}
