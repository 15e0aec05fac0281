//! The ways by which a connection can come to a server: which of them lead to it, on what, and why the others do not. A pure
//! function of what is known; what is not known makes an answer "cannot know", never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::way::{Answer, Carrier, Entry, Gate, Row, Setting, Way};
use super::{NetworkingMode, Wsl};
use crate::evidence::Listener;

mod windows;

/// The listeners that the kernel chooses among for a connection to `address` by `interface`, several only when servers share the port
/// (`SO_REUSEPORT`): those with the address itself come before a wildcard, those of the address' own family before sockets of both.
pub fn takers<'a>(
    listeners: impl IntoIterator<Item = &'a Listener>,
    address: IpAddr,
    interface: Option<&str>,
) -> Vec<&'a Listener> {
    let rank = |listener: &Listener| {
        // A socket of IPv6 at ::ffff:0.0.0.0 or ::ffff:127.0.0.1 takes what one of IPv4 would at that address.
        let own = listener.address.to_canonical();
        if listener.device.is_some() && listener.device.as_deref() != interface {
            return None;
        }
        let bound = listener.device.is_none();
        if own == address {
            Some((0, bound))
        } else if own.is_unspecified() && own.is_ipv4() == address.is_ipv4() {
            Some((1, bound))
        } else if listener.address == Ipv6Addr::UNSPECIFIED && !listener.v6only && address.is_ipv4() {
            Some((2, bound))
        } else {
            None
        }
    };
    let mut fitting: Vec<_> = listeners.into_iter().filter_map(|listener| Some((rank(listener)?, listener))).collect();
    let best = fitting.iter().map(|(rank, _)| *rank).min();
    fitting.retain(|(rank, _)| Some(*rank) == best);
    fitting.into_iter().map(|(_, listener)| listener).collect()
}

/// The first of the [`takers`].
pub fn taker<'a>(listeners: &'a [Listener], address: IpAddr, interface: &str) -> Option<&'a Listener> {
    takers(listeners, address, Some(interface)).into_iter().next()
}

/// Whether WSL's relay opens a family's loopback address on Windows: it looks for sockets of the family itself, on every address or
/// on loopback. One IPv6 socket for both families counts as IPv6 only.
pub fn is_relayed(listeners: &[Listener], v4: bool) -> bool {
    let (any, loopback): (IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into())
    };
    listeners.iter().any(|listener| listener.address == any || listener.address == loopback)
}

/// The table: a row for each way that there is.
pub fn ways(setting: &Setting) -> Vec<Row> {
    let mut rows = Vec::new();
    if setting.wsl != Wsl::No {
        rows.extend(setting.windows());
        rows.push(setting.lan_to_windows());
    }
    if setting.wsl == Wsl::No || setting.mode == Some(NetworkingMode::Bridged) {
        rows.push(setting.to_own_address(Way::LanToAddress));
    }
    rows.extend(setting.lan6());
    rows.push(setting.inside(Ipv4Addr::LOCALHOST.into()));
    rows.push(setting.inside(Ipv6Addr::LOCALHOST.into()));
    rows.push(setting.container());
    rows
}

impl Setting<'_> {
    /// Another machine over IPv6, where this Linux has such an address beside one of IPv4.
    fn lan6(&self) -> Option<Row> {
        use NetworkingMode as M;
        let row = self.to_address(Way::Lan6, self.address6.as_ref()?);
        match (self.wsl, self.mode) {
            (Wsl::No, _) | (_, Some(M::Bridged)) => Some(row),
            (_, Some(M::Mirrored | M::Consomme)) => {
                Some(self.past_windows_firewall(self.unless_held(row, &self.outside.at_own6)))
            }
            // The network behind Windows has no IPv6.
            _ => None,
        }
    }

    /// To this Linux' own address, by the interface that has it.
    fn to_own_address(&self, way: Way) -> Row {
        match &self.address {
            Some(own) => self.to_address(way, own),
            None => fails(way, "this Linux has no address that others reach"),
        }
    }

    fn to_address(&self, way: Way, (address, interface): &(IpAddr, String)) -> Row {
        let carrier = Carrier::Interface(interface.clone());
        // What other machines send comes from Windows too, by portproxy.
        let source = self.gateway.filter(|_| self.mode == Some(NetworkingMode::Nat));
        let entry = Entry { interface: interface.clone(), source, destination: *address, local: false };
        self.arrives(way, &carrier, &entry)
    }

    fn inside(&self, own: IpAddr) -> Row {
        let way = if own.is_ipv4() { Way::Inside4 } else { Way::Inside6 };
        let around = own.is_ipv4() && self.around;
        let interface = if around { "loopback0" } else { "lo" };
        let entry = Entry { interface: interface.to_owned(), source: Some(own), destination: own, local: !around };
        let row = self.arrives(way, &Carrier::Interface(interface.to_owned()), &entry);
        if around { self.unless_held(row, &self.outside.at4) } else { row }
    }

    fn container(&self) -> Row {
        let Some((address, interface)) = &self.bridge else {
            return unknown(Way::Container, "no bridge with containers is here");
        };
        let carrier = Carrier::Interface(interface.clone());
        let entry = Entry { interface: interface.clone(), source: None, destination: *address, local: false };
        self.arrives(Way::Container, &carrier, &entry)
    }

    /// What becomes of a SYN that is in Linux: the firewalls first, then a socket.
    fn arrives(&self, way: Way, by: &Carrier, entry: &Entry) -> Row {
        let row = |answer, listener: Option<&Listener>, why: String| Row {
            way,
            answer,
            carrier: Some(by.clone()),
            listener: listener.map(|listener| listener.address),
            why,
        };
        let takers = takers(self.listeners, entry.destination, Some(&entry.interface));
        let taker = takers.first().copied();
        let unserved = |listener: &&Listener| {
            let full = listener.queue > listener.backlog;
            (self.unserved)(listener).or_else(|| full.then(|| "the server does not accept: its queue is full".to_owned()))
        };
        let unserved: Vec<String> = takers.iter().filter_map(unserved).collect();
        match (self.gate)(entry) {
            Gate::Shut(stopped) => row(Answer::Fails, None, stopped),
            Gate::Unknown(why) => row(Answer::Unknown, taker, why),
            Gate::Led { works, why } => row(if works { Answer::Works } else { Answer::Unknown }, None, why),
            Gate::Open => match taker {
                Some(listener) => match unserved.first() {
                    None => row(Answer::Works, Some(listener), String::new()),
                    Some(why) if unserved.len() == takers.len() => row(Answer::Fails, Some(listener), why.clone()),
                    Some(why) => {
                        let (some, all) = (unserved.len(), takers.len());
                        row(Answer::Unknown, Some(listener), format!("of {all} servers that share the port {some} fail: {why}"))
                    }
                },
                None if self.listeners.is_empty() => row(Answer::Fails, None, nobody(self.port)),
                None => {
                    let bound: Vec<String> = self.listeners.iter().map(bound).collect();
                    row(Answer::Fails, None, format!("the server listens only on {}", bound.join(" and ")))
                }
            },
        }
    }
}

fn bound(listener: &Listener) -> String {
    match &listener.device {
        Some(device) => format!("{}%{device}", listener.address),
        None if listener.v6only => format!("{} (IPv6 only)", listener.address),
        None => listener.address.to_string(),
    }
}

fn nobody(port: u16) -> String {
    format!("nothing listens on port {port}")
}

fn fails(way: Way, why: impl Into<String>) -> Row {
    Row { way, answer: Answer::Fails, carrier: None, listener: None, why: why.into() }
}

fn unknown(way: Way, why: impl Into<String>) -> Row {
    Row { answer: Answer::Unknown, ..fails(way, why) }
}

#[cfg(test)]
mod tests;
