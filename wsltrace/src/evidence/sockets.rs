//! Listening sockets of a namespace, by `sock_diag`, and the processes that hold them, by /proc.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use serde::{Deserialize, Serialize};

use crate::kernel::netlink;
use crate::kernel::netns::Netns;
use crate::kernel::processes::{self, is_stopped};

const INET_DIAG_MARK: u16 = 15;
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_SOCKOPT: u16 = 22;

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address it is bound to; `0.0.0.0` or `::` for all.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// For an IPv6 socket: takes no IPv4 connections.
    pub v6only: bool,
    /// The device it is bound to (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// Connections waiting to be accepted.
    pub queue: u32,
    /// How many may wait.
    pub backlog: u32,
    /// The process that holds it, when /proc shows one.
    pub pid: Option<u32>,
    /// That process's name, as the kernel has it: control characters are not yet escaped.
    pub command: Option<String>,
    /// Inode number of its network namespace.
    pub netns: u32,
}

/// The sockets that have to do with a journey's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sockets {
    /// Listeners on the port that the packet had last, in the namespace where it ended.
    pub listeners: Vec<Listener>,
}

/// A listener and the inode number of its socket, by which /proc names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The listener, its owner not yet known.
    pub listener: Listener,
    /// Inode number of its socket; 0 when no process holds it any longer.
    pub inode: u64,
    /// The kernel's number for it, never given twice.
    pub cookie: [u8; 8],
    /// How many packets it has dropped so far; `None` where the kernel does not tell.
    pub drops: Option<u32>,
    /// The number of its control group; `None` where the kernel does not tell.
    pub cgroup: Option<u64>,
    /// Whether it takes connections for addresses that are not this machine's (`IP_TRANSPARENT`); `None` where the kernel does not tell.
    pub transparent: Option<bool>,
    /// The mark that its answers have (`SO_MARK`); only root is told.
    pub mark: Option<u32>,
}

/// The listeners on a TCP port in a namespace, IPv4 first; owners are not looked for.
pub fn listeners(netns: &Netns, port: u16) -> io::Result<Vec<Found>> {
    netns.run(|| dump_here(netns.inum(), Some(port))).map_err(io::Error::other)?
}

/// All TCP listeners of a namespace, by port, IPv4 first; owners are not looked for.
pub fn all_listeners(netns: &Netns) -> io::Result<Vec<Found>> {
    netns.run(|| all_listeners_here(netns.inum())).map_err(io::Error::other)?
}

/// All TCP listeners of the calling thread's own namespace, whose inode number is `netns`; needs no rights.
pub fn all_listeners_here(netns: u32) -> io::Result<Vec<Found>> {
    let mut found = dump_here(netns, None)?;
    found.sort_by_key(|found| found.listener.port);
    Ok(found)
}

/// So many listeners whose ports are nearest to this one, each port once, the nearest first.
pub fn nearest(mut found: Vec<Found>, port: u16, count: usize) -> Vec<Found> {
    found.sort_by_key(|found| (found.listener.port.abs_diff(port), found.listener.port));
    found.dedup_by_key(|found| found.listener.port);
    found.truncate(count);
    found
}

/// The control group of the client here that connects from this port of this address; `None` also where it has given up meanwhile, or the
/// kernel does not tell.
pub fn cgroup_of_client(netns: &Netns, from: (IpAddr, u16)) -> io::Result<Option<u64>> {
    let family = if from.0.is_ipv4() { [AF_INET, AF_INET6] } else { [AF_INET6, AF_INET6] };
    let look = || {
        for family in family {
            let answers = dump(family, IPPROTO_TCP, Some(from.1), StateFlags::SYN_SENT)?;
            let is_it = |answer: &&InetResponse| {
                let id = &answer.header.socket_id;
                (id.source_address.to_canonical(), id.source_port) == from
            };
            if let Some(found) = answers.iter().find(is_it) {
                return Ok(cgroup(found));
            }
        }
        Ok(None)
    };
    netns.run(look).map_err(io::Error::other)?
}

fn dump_here(netns: u32, port: Option<u16>) -> io::Result<Vec<Found>> {
    let mut answers = dump(AF_INET, IPPROTO_TCP, port, StateFlags::LISTEN)?;
    answers.extend(dump(AF_INET6, IPPROTO_TCP, port, StateFlags::LISTEN)?);
    let wanted = answers.iter().filter(|answer| port.is_none_or(|port| answer.header.socket_id.source_port == port));
    Ok(wanted.map(|answer| found(answer, netns)).collect())
}

/// A socket of the calling thread's namespace, whose inode number is `netns`.
pub(super) fn found(answer: &InetResponse, netns: u32) -> Found {
    let id = &answer.header.socket_id;
    Found {
        listener: Listener {
            address: id.source_address,
            port: id.source_port,
            v6only: v6only(answer),
            device: (id.interface_id != 0).then(|| device_name(id.interface_id)),
            queue: answer.header.recv_queue,
            backlog: answer.header.send_queue,
            pid: None,
            command: None,
            netns,
        },
        inode: u64::from(answer.header.inode),
        cookie: id.cookie,
        drops: drops(answer),
        cgroup: cgroup(answer),
        transparent: transparent(answer),
        mark: value(answer, INET_DIAG_MARK).map(u32::from_ne_bytes),
    }
}

/// An interface's name in the calling thread's namespace, or its number when it has just gone.
fn device_name(index: u32) -> String {
    nix::net::if_::if_indextoname(index).map_or_else(|_| format!("if{index}"), |name| name.to_string_lossy().into_owned())
}

/// How many packets each listener of a namespace has dropped so far, by its cookie.
pub fn listener_drops(netns: &Netns) -> io::Result<HashMap<[u8; 8], u32>> {
    let found = all_listeners(netns)?;
    Ok(found.into_iter().filter_map(|found| Some((found.cookie, found.drops?))).collect())
}

fn drops(answer: &InetResponse) -> Option<u32> {
    answer.nlas.iter().find_map(|attribute| if let Nla::MemInfo(memory) = attribute { Some(memory.drops) } else { None })
}

fn cgroup(answer: &InetResponse) -> Option<u64> {
    value(answer, INET_DIAG_CGROUP_ID).map(u64::from_ne_bytes)
}

/// A bit of `struct inet_diag_sockopt`, which is told since Linux 5.10. Bits of a field are counted from its low end on little-endian
/// machines and from its high end on others.
fn transparent(answer: &InetResponse) -> Option<bool> {
    const BIT: u8 = if cfg!(target_endian = "little") { 1 << 5 } else { 1 << 2 };
    let [first, _] = value::<2>(answer, INET_DIAG_SOCKOPT)?;
    Some(first & BIT != 0)
}

/// The value of an attribute that has so many bytes, in the order of this machine.
fn value<const N: usize>(answer: &InetResponse, number: u16) -> Option<[u8; N]> {
    let attribute = answer.nlas.iter().find(|attribute| attribute.kind() == number)?;
    let mut value = [0; N];
    if attribute.value_len() != N {
        return None;
    }
    attribute.emit_value(&mut value);
    Some(value)
}

fn v6only(answer: &InetResponse) -> bool {
    matches!(answer.header.socket_id.source_address, IpAddr::V6(_))
        && answer.nlas.iter().any(|attribute| matches!(attribute, Nla::SkV6Only(true)))
}

/// The sockets of a family and protocol in these states, by their own port where one is given.
pub(super) fn dump(family: u8, protocol: u8, port: Option<u16>, states: StateFlags) -> io::Result<Vec<InetResponse>> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    // 0 asks for every port.
    socket_id.source_port = port.unwrap_or(0);
    let request =
        SockDiagMessage::InetRequest(InetRequest { family, protocol, extensions: ExtensionFlags::SKMEMINFO, states, socket_id });
    let answers = netlink::dump(NETLINK_SOCK_DIAG, &request)?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            SockDiagMessage::InetResponse(response) => Some(*response),
            _ => None,
        })
        .collect())
}

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Process number.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub command: String,
}

/// The listeners with their owners, as far as /proc shows them and the time allows.
pub fn with_owners(found: Vec<Found>, limit: Duration) -> Vec<Listener> {
    let mut inodes: Vec<u64> = found.iter().map(|found| found.inode).filter(|inode| *inode != 0).collect();
    inodes.sort_unstable();
    inodes.dedup();
    let owners = owners(&inodes, limit);
    let named = |found: Found| {
        let owner = owners.get(&found.inode);
        Listener { pid: owner.map(|owner| owner.pid), command: owner.map(|owner| owner.command.clone()), ..found.listener }
    };
    found.into_iter().map(named).collect()
}

/// The processes that hold these sockets (inode numbers, each once), as far as /proc shows them and the time allows; of several the first
/// found that nobody has stopped, or else the last.
pub fn owners(inodes: &[u64], limit: Duration) -> HashMap<u64, SocketOwner> {
    let (mut owners, mut stopped) = (HashMap::new(), HashSet::new());
    let all = processes::each(limit, |process| {
        // Of several that hold a socket one that is not stopped can serve it.
        if owners.len() == inodes.len() && stopped.is_empty() {
            return ControlFlow::Break(());
        }
        for inode in processes::sockets(&process).filter(|inode| inodes.contains(inode)) {
            if (!owners.contains_key(&inode) || stopped.contains(&inode))
                && let Some((pid, command)) = processes::named(&process)
            {
                let is_first = owners.insert(inode, SocketOwner { pid, command }).is_none();
                if is_stopped(pid) {
                    stopped.insert(inode);
                } else if !is_first {
                    stopped.remove(&inode);
                }
            }
        }
        ControlFlow::Continue(())
    });
    if !all {
        log::warn!(
            "not all processes could be looked at within {} ms: a server may be told without its process",
            limit.as_millis()
        );
    }
    owners
}

/// The processes of these listeners that somebody has stopped.
pub fn stopped(listeners: &[Listener]) -> Vec<u32> {
    listeners.iter().filter_map(|listener| listener.pid).filter(|pid| is_stopped(*pid)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::kernel::netns::tests::{fresh, ip};

    fn listen(address: &str, device: Option<&str>, v6only: bool) -> Socket {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(v6only).unwrap();
        }
        socket.bind_device(device.map(str::as_bytes)).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(7).unwrap();
        socket
    }

    #[test]
    fn a_transparent_socket_is_told() {
        let Some(netns) = fresh("a_transparent_socket_is_told") else { return };
        ip(&netns, "link set lo up");
        let _sockets = netns
            .run(|| {
                let plain = listen("127.0.0.1:8081", None, false);
                let proxy = listen("0.0.0.0:8080", None, false);
                proxy.set_ip_transparent_v4(true).unwrap();
                [plain, proxy]
            })
            .unwrap();
        let of = |port| listeners(&netns, port).unwrap()[0].transparent;
        assert_eq!([of(8080), of(8081)], [Some(true), Some(false)]);
    }

    #[test]
    fn listeners_are_found_with_all_that_sets_them_apart() {
        let Some(netns) = fresh("listeners_are_found_with_all_that_sets_them_apart") else { return };
        ip(&netns, "link set lo up");
        let sockets = netns
            .run(|| {
                [
                    listen("127.0.0.1:8080", None, false),
                    listen("0.0.0.0:8081", Some("lo"), false),
                    listen("[::]:8080", None, true),
                    listen("[::]:8082", None, false),
                ]
            })
            .unwrap();
        let found = listeners(&netns, 8080).unwrap();
        assert_eq!(found.len(), 2);
        let first = &found[0].listener;
        assert_eq!((first.address, first.port, first.v6only), (Ipv4Addr::LOCALHOST.into(), 8080, false));
        assert_eq!((first.queue, first.backlog, first.netns), (0, 7, netns.inum()));
        assert!(found[1].listener.v6only && found[1].listener.address.is_ipv6());
        assert_eq!(listeners(&netns, 8081).unwrap()[0].listener.device.as_deref(), Some("lo"));
        assert!(!listeners(&netns, 8082).unwrap()[0].listener.v6only);
        assert!(listeners(&netns, 9).unwrap().is_empty());
        let all = all_listeners(&netns).unwrap();
        assert_eq!(all.iter().map(|found| found.listener.port).collect::<Vec<_>>(), [8080, 8080, 8081, 8082]);

        let inodes: Vec<u64> = found.iter().map(|found| found.inode).collect();
        let owners = owners(&inodes, Duration::from_secs(5));
        assert_eq!(owners.len(), 2);
        assert!(owners.values().all(|owner| owner.pid == std::process::id() && !owner.command.is_empty()));
        drop(sockets);
    }
}
