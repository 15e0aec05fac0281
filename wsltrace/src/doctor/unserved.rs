//! Sockets that take a connection of which nothing comes: their process is stopped, or it leads connections on to a container where nobody
//! takes them.

use std::net::{IpAddr, SocketAddr};

use super::Facts;
use crate::evidence::Listener;
use crate::wsl::takers;

/// A container's network, seen from this Linux.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// The interface of this Linux behind which it is.
    pub through: String,
    /// Its addresses, but for those of loopback.
    pub addresses: Vec<IpAddr>,
    /// Rules of its own lead packets on, or may: its sockets do not tell who takes them.
    pub leads_on: bool,
    /// Its addresses with what is known of each.
    pub ends: Vec<End>,
}

/// An address of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The container's interface that has it.
    pub interface: String,
    /// That interface is switched on.
    pub up: bool,
    /// It is switched on, and nothing is at its other end.
    pub no_carrier: bool,
    /// `rp_filter` refuses what comes by it and would be answered by another.
    pub strict: bool,
    /// Clients of the outer network, and by which interface of the container answers to them leave; `None` where it has no way.
    pub back: Vec<(IpAddr, Option<String>)>,
}

impl Inside {
    /// What is known of an address of it.
    pub(super) fn end(&self, address: IpAddr) -> Option<&End> {
        self.ends.iter().find(|end| end.address == address)
    }
}

impl Facts {
    /// Why nothing comes of the connections that a socket takes; `None` where nothing speaks against it.
    pub(super) fn unserved(&self, listener: &Listener) -> Option<String> {
        if self.is_stopped(listener) {
            return Some("connections are made, and nobody answers: the server is stopped (Ctrl-Z)".to_owned());
        }
        let (to, nobody) = self.proxied_to_nobody(listener)?;
        Some(format!("docker-proxy takes it and leads it on to {to}, {nobody}"))
    }

    /// Whether somebody has stopped the process that has a socket.
    pub(super) fn is_stopped(&self, listener: &Listener) -> bool {
        listener.pid.is_some_and(|pid| self.linux.stopped.contains(&pid))
    }

    /// Where docker-proxy leads the connections of its socket, and how it is that nobody takes them there.
    pub(super) fn proxied_to_nobody(&self, listener: &Listener) -> Option<(SocketAddr, String)> {
        let (_, to) = self.linux.proxied.iter().find(|(pid, _)| listener.pid == Some(*pid))?;
        Some((*to, self.nobody_inside(*to)?))
    }

    /// What is done about it that no socket of a container takes what is led there.
    pub(super) fn mend_inside(&self, to: SocketAddr) -> &'static str {
        let listens = self.linux.elsewhere.iter().any(|listener| {
            listener.port == to.port()
                && self.linux.inside.iter().any(|inside| inside.netns == listener.netns && inside.addresses.contains(&to.ip()))
        });
        if listens {
            "# let the server in the container listen on 0.0.0.0: its option is often called --host, --bind or --listen"
        } else {
            "# start the server in the container on that port, or publish the port that it has"
        }
    }

    /// How it is that no socket of the container with this address takes connections to its port; `None` where one does, or it is not known.
    pub(super) fn nobody_inside(&self, to: SocketAddr) -> Option<String> {
        let mut inside = self.linux.inside.iter().filter(|inside| inside.addresses.contains(&to.ip()));
        // Networks of several containers may have the same addresses.
        let (Some(inside), None) = (inside.next(), inside.next()) else { return None };
        let there: Vec<&Listener> =
            self.linux.elsewhere.iter().filter(|listener| (listener.netns, listener.port) == (inside.netns, to.port())).collect();
        // By which device a packet comes there is not known here.
        let is_any = there.iter().any(|listener| listener.device.is_some());
        if inside.leads_on || is_any || !takers(there.iter().copied(), to.ip(), None).is_empty() {
            return None;
        }
        let bound: Vec<String> = there.iter().map(|listener| listener.address.to_string()).collect();
        Some(if bound.is_empty() {
            "where nothing listens in the container".to_owned()
        } else {
            format!("where the container's server listens only on {}", bound.join(" and "))
        })
    }
}
