//! What Linux says about a port: listeners, interfaces, routes, settings.

use std::net::IpAddr;

use crate::evidence::Listener;

/// What Linux says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Linux {
    /// The kernel's release.
    pub kernel: String,
    /// The listeners on the port, with their owners where /proc shows them.
    pub listeners: Vec<Listener>,
    /// The interfaces of this namespace, by their numbers.
    pub interfaces: Vec<Interface>,
    /// The next hop of the IPv4 default route, and its interface.
    pub gateway: Option<(IpAddr, String)>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name, as the kernel has it.
    pub name: String,
    /// It is switched on.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Whether an XDP program takes its packets first.
    pub xdp: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The bits of it that its network has.
    pub prefix: u8,
}
