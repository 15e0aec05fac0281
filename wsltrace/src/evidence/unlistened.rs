//! Who has a port on which nothing listens for TCP: a server of UDP, or a socket of TCP that was bound and does not listen (yet).

use std::io;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::StateFlags;
use serde::{Deserialize, Serialize};

use super::Listener;
use super::gather::Gatherer;
use super::sockets::{Found, dump, found};
use super::told::OrTold as _;
use crate::kernel::netns::Netns;

/// `TCP_BOUND_INACTIVE` of `net/tcp_states.h`, since Linux 6.8 (source; seen on 6.18): a socket with a port that is neither connected nor
/// listens. Older kernels do not know the bit, and tell of none.
const BOUND: u32 = 1 << 13;

/// A socket that has the port and takes no connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Unlistened {
    /// It is one of UDP, and not connected: mostly a server's.
    Udp {
        /// The socket; its queue and backlog say nothing.
        socket: Listener,
    },
    /// It is one of TCP that was bound to the port and does not listen.
    Bound {
        /// The socket; its queue and backlog say nothing.
        socket: Listener,
    },
}

/// Sockets that have a port and take no connection of TCP.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    bound: Vec<Found>,
    udp: Vec<Found>,
}

impl Gatherer {
    /// Who has a port of a namespace otherwise than by listening, where nothing listens on it.
    pub(super) fn unlistened(&mut self, inum: u32, port: u16) -> Option<Unlistened> {
        let watched = self.watched.get_mut(&inum)?;
        let netns = &watched.netns;
        // Many may be refused at once.
        let found =
            watched.unlistened.entry(port).or_default().get(|| Ok(Idle { bound: bound(netns, port)?, udp: udp(netns, port)? }));
        let Idle { bound, udp } = found.or_told(inum, "list the sockets that do not listen")?.clone();
        // Of TCP first: that one is about to listen, or was meant to.
        if let Some(socket) = self.all_with_owners(bound).into_iter().next() {
            return Some(Unlistened::Bound { socket });
        }
        let socket = self.all_with_owners(udp).into_iter().next()?;
        Some(Unlistened::Udp { socket })
    }
}

/// The sockets of TCP that are bound to a port and neither connected nor listen.
fn bound(netns: &Netns, port: u16) -> io::Result<Vec<Found>> {
    // Only those: an older kernel takes the unknown bit for no state at all.
    on_port(netns, port, IPPROTO_TCP, &StateFlags::from_bits_retain(BOUND))
}

/// The sockets of UDP that are bound to a port and not connected.
fn udp(netns: &Netns, port: u16) -> io::Result<Vec<Found>> {
    on_port(netns, port, IPPROTO_UDP, &StateFlags::CLOSE)
}

fn on_port(netns: &Netns, port: u16, protocol: u8, states: &StateFlags) -> io::Result<Vec<Found>> {
    let look = || {
        let mut sockets = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let answers = match dump(family, protocol, Some(port), states.clone()) {
                // The kernel was built without what tells of UDP (INET_UDP_DIAG).
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Vec::new(),
                answers => answers?,
            };
            let there = answers.iter().filter(|answer| answer.header.socket_id.source_port == port);
            sockets.extend(there.map(|answer| found(answer, netns.inum())));
        }
        Ok(sockets)
    };
    netns.run(look).map_err(io::Error::other)?
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

    use socket2::{Domain, Socket, Type};

    use super::{bound, udp};
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn sockets_that_take_no_connections_are_found_and_listeners_are_not_among_them() {
        let name = "sockets_that_take_no_connections_are_found_and_listeners_are_not_among_them";
        let Some(netns) = fresh(name) else { return };
        ip(&netns, "link set lo up");
        let sockets = netns
            .run(|| {
                let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                idle.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)).into()).unwrap();
                let listens = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).unwrap();
                let server = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap();
                let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 8082)).unwrap();
                client.connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
                (idle, listens, server, client)
            })
            .unwrap();
        let at = |found: Vec<super::Found>| found.into_iter().map(|found| found.listener.address).collect::<Vec<_>>();
        assert_eq!(at(udp(&netns, 8080).unwrap()), [Ipv6Addr::UNSPECIFIED]);
        assert_eq!([8081, 8082].map(|port| udp(&netns, port).unwrap().len()), [0, 0], "one of TCP, one that is connected");
        assert!(bound(&netns, 8080).unwrap().is_empty(), "it listens");
        let told = at(bound(&netns, 8081).unwrap());
        // Kernels before 6.8 do not tell.
        assert!(told.is_empty() || told == [Ipv4Addr::LOCALHOST], "{told:?}");
        drop(sockets);
    }
}
