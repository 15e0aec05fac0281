//! Which tables of the old iptables there are, without making any: looking with its own programs would.

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use crate::journey::Family;
use crate::kernel::netns::Netns;

/// A table's name, its number of rules and its size in bytes: what changes with nearly every change of its rules.
pub(super) type Shape = (String, u32, u32);

/// Names of the old tables that are loaded in a namespace; looking makes none.
pub(crate) fn tables(netns: &Netns, family: Family) -> io::Result<Vec<String>> {
    names_in(
        netns,
        match family {
            Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
            Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
        },
    )
}

/// The same of arptables.
pub(crate) fn arp_tables(netns: &Netns) -> io::Result<Vec<String>> {
    names_in(netns, "/proc/thread-self/net/arp_tables_names")
}

fn names_in(netns: &Netns, path: &str) -> io::Result<Vec<String>> {
    let read = || match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        // The old tables' module is not loaded.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    netns.run(read).map_err(io::Error::other)?
}

/// The shapes of the old tables of a namespace.
pub(super) fn shapes(netns: &Netns, family: Family) -> io::Result<Vec<Shape>> {
    let names = tables(netns, family)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let look = || names.into_iter().map(|name| info(&name, family).map(|(rules, bytes)| (name, rules, bytes))).collect();
    netns.run(look).map_err(io::Error::other)?
}

/// `struct ipt_getinfo`, which `ip6t_getinfo` is like.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entries: [u32; 5],
    underflows: [u32; 5],
    entries: u32,
    size: u32,
}

/// The number of rules and bytes of a table that is there, in the calling thread's namespace.
fn info(table: &str, family: Family) -> io::Result<(u32, u32)> {
    /// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
    const GET_INFO: libc::c_int = 64;
    let (domain, level) = if family == Family::Ipv4 { (Domain::IPV4, libc::SOL_IP) } else { (Domain::IPV6, libc::SOL_IPV6) };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let mut info = Info { name: [0; 32], valid_hooks: 0, hook_entries: [0; 5], underflows: [0; 5], entries: 0, size: 0 };
    // The last byte stays zero.
    for (to, from) in info.name[..31].iter_mut().zip(table.bytes()) {
        *to = from;
    }
    let mut length = libc::socklen_t::try_from(size_of::<Info>()).map_err(io::Error::other)?;
    // SAFETY: the pointers are to our own values, of which the kernel writes as many bytes as `length` says.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((info.entries, info.size)) }
}
