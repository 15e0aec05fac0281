//! Addresses that ought to be this machine's, and are not as packets are routed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::evidence::{Listener, routes};
use crate::kernel::netns::Netns;

/// The addresses of listeners that this Linux does not have: they went, or were never there.
pub(super) fn gone(netns: &Netns, listeners: &[Listener]) -> io::Result<Vec<IpAddr>> {
    let mut gone = Vec::new();
    for address in listeners.iter().map(|listener| listener.address.to_canonical()) {
        if !address.is_unspecified() && !address.is_loopback() && !routes::is_local(netns, address)? {
            gone.push(address);
        }
    }
    Ok(gone)
}

/// The loopback addresses that every Linux has, where this one has not.
pub(super) fn loopback_gone(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    let mut gone = Vec::new();
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        if !routes::is_local(netns, address)? {
            gone.push(address);
        }
    }
    Ok(gone)
}

/// The loopback addresses that a table has and that packets do not get to, each with the interface that they leave by instead: a rule
/// between tables comes before the one that leads to that table.
pub(super) fn loopback_strayed(netns: &Netns) -> io::Result<Vec<(IpAddr, Option<String>)>> {
    let mut strayed = Vec::new();
    for (address, any) in [
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()),
        (Ipv6Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    ] {
        let way = routes::way_by(netns, routes::Question { from: any, to: address, came_by: None }, None)?;
        if way.as_deref() != Some("lo") && routes::is_local(netns, address)? {
            strayed.push((address, way));
        }
    }
    Ok(strayed)
}
