//! The ways by which a connection can come to a server: which of them lead to it, on what, and why the others do not. A pure
//! function of what is known; what is not known makes an answer "cannot know", never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::way::{Answer, Carrier, Entry, Gate, Held, Row, Setting, Way};
use super::{NetworkingMode, Wsl};
use crate::evidence::Listener;

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
    fn windows(&self) -> [Row; 4] {
        use NetworkingMode as M;
        let ways = [Way::WindowsLocalhost, Way::WindowsLoopback4, Way::WindowsLoopback6, Way::WindowsToAddress];
        match self.mode {
            None => ways.map(|way| unknown(way, "the networking mode is not known")),
            Some(M::None) => ways.map(|way| fails(way, "networkingMode is none: there is no network")),
            Some(M::Nat | M::Bridged) => {
                let (v4, v6) = (self.relay(Way::WindowsLoopback4), self.relay(Way::WindowsLoopback6));
                [either(&v4, &v6), v4, v6, self.to_own_address(Way::WindowsToAddress)]
            }
            Some(mode @ (M::Mirrored | M::Consomme)) => {
                let v4 = self.by_loopback0();
                let v6 = self.loopback6(mode);
                [either(&v4, &v6), v4, v6, self.shared_address(mode)]
            }
        }
    }

    /// Through WSL's relay, which connects anew over `lo` in the family of the socket that it saw.
    fn relay(&self, way: Way) -> Row {
        let v4 = way == Way::WindowsLoopback4;
        let (own, held, other): (IpAddr, _, _) = if v4 {
            (Ipv4Addr::LOCALHOST.into(), &self.outside.at4, "[::1]")
        } else {
            (Ipv6Addr::LOCALHOST.into(), &self.outside.at6, "127.0.0.1")
        };
        if self.outside.forwarding == Some(false) {
            return fails(way, "localhostForwarding is false: WSL's relay is off");
        }
        match held {
            Held::Program(program) => return fails(way, format!("{program} has this address and port on Windows")),
            Held::Portproxy => return unknown(way, "a portproxy entry has this address and port on Windows"),
            Held::NotAsked | Held::NotKnown | Held::Relay | Held::Nobody => {}
        }
        // Where it is seen to listen, what it should do does not matter.
        if *held != Held::Relay && !is_relayed(self.listeners, v4) {
            let why = match (self.listeners.is_empty(), is_relayed(self.listeners, !v4)) {
                (true, _) => nobody(self.port),
                (false, true) => format!("the relay opens only {other} for this socket"),
                (false, false) => "the relay serves only sockets on 0.0.0.0, 127.0.0.1, :: and ::1".to_owned(),
            };
            return fails(way, why);
        }
        if *held == Held::Nobody {
            return fails(way, "WSL's relay does not listen there on Windows");
        }
        let entry = Entry { interface: "lo".to_owned(), source: Some(own), destination: own, local: true };
        match self.arrives(way, &Carrier::Relay, &entry) {
            row if *held == Held::NotKnown && row.answer == Answer::Works => Row {
                answer: Answer::Unknown,
                why: "WSL's relay should listen there on Windows, which gave no answer".to_owned(),
                ..row
            },
            row => row,
        }
    }

    /// Windows' localhost by the interface of its own that mirrored mode and consomme have.
    fn by_loopback0(&self) -> Row {
        let own = IpAddr::from(Ipv4Addr::LOCALHOST);
        let entry = Entry { interface: "loopback0".to_owned(), source: Some(own), destination: own, local: false };
        let row = self.arrives(Way::WindowsLoopback4, &Carrier::Interface(entry.interface.clone()), &entry);
        match &self.outside.at4 {
            Held::Program(program) if self.listeners.is_empty() => {
                Row { why: format!("{program} has this port on Windows"), ..row }
            }
            _ => row,
        }
    }

    /// `::1` of Windows, in the modes without a relay.
    fn loopback6(&self, mode: NetworkingMode) -> Row {
        let way = Way::WindowsLoopback6;
        if mode == NetworkingMode::Mirrored {
            return fails(way, "mirrored mode carries no IPv6 localhost: use 127.0.0.1");
        }
        match taker(self.listeners, Ipv6Addr::LOCALHOST.into(), "loopback0") {
            Some(_) => unknown(way, "not known of this mode: use 127.0.0.1"),
            None if self.listeners.is_empty() => fails(way, nobody(self.port)),
            None => fails(way, "the server does not listen on IPv6"),
        }
    }

    /// Windows to an address that it shares with this Linux.
    fn shared_address(&self, mode: NetworkingMode) -> Row {
        let way = Way::WindowsToAddress;
        match (mode, self.outside.address_loopback) {
            (NetworkingMode::Consomme, _) | (_, Some(true)) => self.to_own_address(way),
            (_, Some(false)) => fails(way, "the address is Windows' own too: use 127.0.0.1, or set hostAddressLoopback"),
            (_, None) => match self.to_own_address(way) {
                row if row.answer == Answer::Works => {
                    unknown(way, "only with hostAddressLoopback=true in .wslconfig, which could not be read; use 127.0.0.1")
                }
                row => row,
            },
        }
    }

    fn lan_to_windows(&self) -> Row {
        use NetworkingMode as M;
        let way = Way::LanToWindows;
        match self.mode {
            None => unknown(way, "the networking mode is not known"),
            Some(M::None) => fails(way, "networkingMode is none: there is no network"),
            Some(M::Bridged) => fails(way, "this Linux has an address of its own in the LAN: use that"),
            Some(M::Nat) if self.listeners.is_empty() => fails(way, nobody(self.port)),
            Some(M::Nat) => match self.outside.portproxy {
                Some(true) => Row {
                    carrier: Some(Carrier::Portproxy),
                    ..unknown(way, "a portproxy entry leads here; whether Windows' firewall lets others in is not known")
                },
                Some(false) => fails(way, "in nat mode only through a portproxy entry on Windows, and none leads here"),
                None => unknown(way, "in nat mode only through a portproxy entry on Windows, which could not be looked at"),
            },
            Some(M::Mirrored | M::Consomme) => self.past_windows_firewall(self.to_own_address(way)),
        }
    }

    /// What is left of a way from the LAN when Windows' firewall has decided.
    fn past_windows_firewall(&self, row: Row) -> Row {
        let mirrored = self.mode == Some(NetworkingMode::Mirrored);
        match (row.answer, self.outside.hyper_v) {
            (Answer::Works, Some(true)) if mirrored => row,
            (Answer::Works, Some(false)) if mirrored => fails(row.way, "the Hyper-V firewall of Windows blocks this port"),
            (Answer::Works, _) => {
                Row { why: "Windows' firewall decides, and is not known".to_owned(), answer: Answer::Unknown, ..row }
            }
            _ => row,
        }
    }

    /// Another machine over IPv6, where this Linux has such an address beside one of IPv4.
    fn lan6(&self) -> Option<Row> {
        use NetworkingMode as M;
        let row = self.to_address(Way::Lan6, self.address6.as_ref()?);
        match (self.wsl, self.mode) {
            (Wsl::No, _) | (_, Some(M::Bridged)) => Some(row),
            (_, Some(M::Mirrored | M::Consomme)) => Some(self.past_windows_firewall(row)),
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
        let is_windows = way == Way::WindowsToAddress && self.mode == Some(NetworkingMode::Nat);
        let source = self.gateway.filter(|_| is_windows);
        let entry = Entry { interface: interface.clone(), source, destination: *address, local: false };
        self.arrives(way, &carrier, &entry)
    }

    fn inside(&self, own: IpAddr) -> Row {
        let way = if own.is_ipv4() { Way::Inside4 } else { Way::Inside6 };
        let around = own.is_ipv4() && self.around;
        let interface = if around { "loopback0" } else { "lo" };
        let entry = Entry { interface: interface.to_owned(), source: Some(own), destination: own, local: !around };
        self.arrives(way, &Carrier::Interface(interface.to_owned()), &entry)
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
        let full = takers.iter().filter(|listener| listener.queue > listener.backlog).count();
        match (self.gate)(entry) {
            Gate::Shut(stopped) => row(Answer::Fails, None, stopped),
            Gate::Unknown(why) => row(Answer::Unknown, taker, why),
            Gate::Led { works, why } => row(if works { Answer::Works } else { Answer::Unknown }, None, why),
            Gate::Open => match taker {
                Some(listener) if full == takers.len() => {
                    row(Answer::Fails, Some(listener), "the server does not accept: its queue is full".to_owned())
                }
                Some(listener) if full > 0 => {
                    let why =
                        format!("of {} servers that share the port {full} do not accept: their queues are full", takers.len());
                    row(Answer::Unknown, Some(listener), why)
                }
                Some(listener) => row(Answer::Works, Some(listener), String::new()),
                None if self.listeners.is_empty() => row(Answer::Fails, None, nobody(self.port)),
                None => {
                    let bound: Vec<String> = self.listeners.iter().map(bound).collect();
                    row(Answer::Fails, None, format!("the server listens only on {}", bound.join(" and ")))
                }
            },
        }
    }
}

/// `localhost` on Windows is both addresses, tried one after the other.
fn either(v4: &Row, v6: &Row) -> Row {
    let way = Way::WindowsLocalhost;
    let best = |answer| [v6, v4].into_iter().find(|row| row.answer == answer);
    match best(Answer::Works).or_else(|| best(Answer::Unknown)) {
        Some(row) => {
            let by = if row.way == Way::WindowsLoopback4 { "127.0.0.1" } else { "[::1]" };
            let why = if row.why.is_empty() { format!("by {by}") } else { row.why.clone() };
            Row { way, why, ..row.clone() }
        }
        None => Row { way, ..v4.clone() },
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
