//! How one connection is doing, by `sock_diag`: whether an application has accepted it, and whether what its socket sends arrives.

use std::io;
use std::net::SocketAddr;

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;

use crate::kernel::netlink;
use crate::kernel::netns::Netns;

/// The ends of a connection: its own side's, and the other's.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// How a connection's socket is doing: the kernel's `struct tcp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// How often in a row it has sent the same data again without an answer.
    pub retransmissions: u32,
    /// How often in a row it has asked in vain whether the other side takes data again.
    pub probes: u32,
    /// Segments under way that the other side has not confirmed.
    pub unconfirmed: u32,
    /// Of those, the segments that arrived behind one that did not.
    pub arrived_behind: u32,
    /// Bytes under way that are not confirmed.
    pub unconfirmed_bytes: u64,
    /// Bytes that the other side has confirmed, some few for its SYN and FIN included.
    pub confirmed_bytes: u64,
    /// Bytes that came in from the other side.
    pub received_bytes: u64,
    /// Bytes that came in and the server has not read.
    pub unread_bytes: u32,
    /// Bytes that wait to be sent.
    pub waiting_bytes: u32,
    /// How much more the other side has said that it takes, bytes.
    pub window_bytes: u32,
    /// The most data that goes into a segment, bytes.
    pub segment_bytes: u32,
    /// The size of the largest packet that the path is taken to carry, bytes.
    pub path_mtu: u32,
    /// How long ago the last acknowledgement came in, milliseconds.
    pub silent_ms: u32,
}

impl Connection {
    fn of(info: &TcpInfo, unread_bytes: u32) -> Self {
        Self {
            unread_bytes,
            retransmissions: info.retransmits.into(),
            // `tcpi_probes` begins anew with every acknowledgement, though it opens no window; the time-out that doubles does not.
            probes: if info.unacked == 0 { info.backoff.into() } else { 0 },
            unconfirmed: info.unacked,
            arrived_behind: info.sacked,
            unconfirmed_bytes: info.bytes_sent.saturating_sub(info.bytes_retrans).saturating_sub(info.bytes_acked),
            confirmed_bytes: info.bytes_acked,
            received_bytes: info.bytes_received,
            waiting_bytes: info.notsent_bytes,
            window_bytes: info.snd_wnd,
            segment_bytes: info.snd_mss,
            path_mtu: info.pmtu,
            silent_ms: info.last_ack_recv,
        }
    }
}

/// How each of these connections is doing; `None` for one that is gone.
pub(super) fn connections(netns: &Netns, ends: &[Ends]) -> io::Result<Vec<Option<Connection>>> {
    let look = |ends: &Ends| {
        let Some(found) = ask(*ends, ExtensionFlags::INFO)? else { return Ok(None) };
        let unread = found.header.recv_queue;
        Ok(found
            .nlas
            .iter()
            .find_map(|fact| if let Nla::TcpInfo(info) = fact { Some(Connection::of(info, unread)) } else { None }))
    };
    netns.run(|| ends.iter().map(look).collect()).map_err(io::Error::other)?
}

/// Whether a connection stands that no application has accepted: its socket has no inode until then.
pub(super) fn is_unaccepted(netns: &Netns, ends: Ends) -> io::Result<bool> {
    let found = netns.run(|| ask(ends, ExtensionFlags::empty())).map_err(io::Error::other)??;
    Ok(found.is_some_and(|found| [ESTABLISHED, CLOSE_WAIT].contains(&found.header.state) && found.header.inode == 0))
}

/// Whether the kernel has something of a connection between these ends, in whatever state: established, half open, or closed a moment ago.
pub(super) fn is_there(netns: &Netns, ends: Ends) -> io::Result<bool> {
    let found = netns.run(|| look_up(ends, ExtensionFlags::empty())).map_err(io::Error::other)??;
    Ok(found.is_some())
}

/// States of sockets: `enum` in the kernel's `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;

/// The socket of a connection that is made and not yet over, in the calling thread's namespace.
fn ask(ends: Ends, extensions: ExtensionFlags) -> io::Result<Option<InetResponse>> {
    let found = look_up(ends, extensions)?;
    Ok(found.filter(|found| ![TIME_WAIT, NEW_SYN_RECV].contains(&found.header.state)))
}

/// What the kernel has between these ends.
fn look_up((own, other): Ends, extensions: ExtensionFlags) -> io::Result<Option<InetResponse>> {
    let socket_id = SocketId {
        source_port: own.port(),
        destination_port: other.port(),
        source_address: own.ip(),
        destination_address: other.ip(),
        interface_id: 0,
        cookie: [u8::MAX; 8],
    };
    let request = SockDiagMessage::InetRequest(InetRequest {
        family: if own.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions,
        states: StateFlags::all(),
        socket_id,
    });
    match netlink::ask(NETLINK_SOCK_DIAG, request) {
        // Where there is no such connection, a listener on the port is the answer.
        Ok(SockDiagMessage::InetResponse(found)) => Ok(Some(*found).filter(|found| found.header.state != LISTEN)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    #[test]
    fn a_connection_is_unaccepted_until_it_is_accepted() {
        let Some(netns) = fresh("a_connection_is_unaccepted_until_it_is_accepted") else { return };
        ip(&netns, "link set lo up");
        for address in ["127.0.0.1:8080", "[::1]:8080"] {
            let (server, client) = netns
                .run(|| {
                    let server = std::net::TcpListener::bind(address).unwrap();
                    let client = std::net::TcpStream::connect(address).unwrap();
                    (server, client)
                })
                .unwrap();
            let (own, other): (std::net::SocketAddr, _) = (address.parse().unwrap(), client.local_addr().unwrap());
            let unaccepted = |other| is_unaccepted(&netns, (own, other)).unwrap();
            assert!(is_there(&netns, (own, other)).unwrap(), "{address}");
            let nobody = std::net::SocketAddr::new(own.ip(), 9);
            assert!(!is_there(&netns, (own, nobody)).unwrap(), "{address}: only a listener");
            assert!(unaccepted(other), "{address}");
            drop(client);
            assert!(unaccepted(other), "{address}: the client has closed");
            let accepted = server.accept().unwrap();
            assert!(!unaccepted(other), "{address}");
            assert!(!unaccepted(nobody), "{address}: nobody's connection");
            drop(accepted);
        }
    }

    #[test]
    fn data_that_nobody_reads_is_seen_to_wait() {
        let Some(netns) = fresh("data_that_nobody_reads_is_seen_to_wait") else { return };
        ip(&netns, "link set lo up");
        let (mut server, client) = netns
            .run(|| {
                let listener = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
                let client = std::net::TcpStream::connect("127.0.0.1:8080").unwrap();
                (listener.accept().unwrap().0, client)
            })
            .unwrap();
        let ends = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let look = || connections(&netns, &[ends, ("127.0.0.1:9".parse().unwrap(), ends.1)]).unwrap();
        server.write_all(b"hello").unwrap();
        let [Some(quiet), None] = look()[..] else { panic!("{:?}", look()) };
        assert_eq!((quiet.retransmissions, quiet.probes, quiet.unconfirmed, quiet.waiting_bytes), (0, 0, 0, 0));
        assert!(quiet.confirmed_bytes >= 5 && quiet.segment_bytes > 1000, "{quiet:?}");

        server.set_nonblocking(true).unwrap();
        let much = vec![0; 65536];
        while server.write(&much).is_ok() {}
        let [Some(full), None] = look()[..] else { panic!("{:?}", look()) };
        assert!(full.waiting_bytes > 0, "{full:?}");
        drop(client);
    }
}
