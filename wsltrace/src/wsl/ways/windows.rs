//! The ways from Windows, and those by which other machines come through Windows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::NetworkingMode;
use super::super::way::{Answer, Carrier, Entry, Held, Proxied, Row, Setting, Way};
use super::{fails, is_relayed, nobody, taker, unknown};

impl Setting<'_> {
    pub(super) fn windows(&self) -> [Row; 4] {
        use NetworkingMode as M;
        let ways = [Way::WindowsLocalhost, Way::WindowsLoopback4, Way::WindowsLoopback6, Way::WindowsToAddress];
        match self.mode {
            None => ways.map(|way| unknown(way, "the networking mode is not known")),
            Some(M::None) => ways.map(|way| fails(way, "networkingMode is none: there is no network")),
            Some(M::Nat | M::Bridged) => {
                let (v4, v6) = (self.relay(Way::WindowsLoopback4), self.relay(Way::WindowsLoopback6));
                [self.localhost(&v4, &v6), v4, v6, self.to_own_address(Way::WindowsToAddress)]
            }
            Some(mode @ (M::Mirrored | M::Consomme)) => {
                let v4 = self.by_loopback0();
                let v6 = self.loopback6(mode);
                [self.localhost(&v4, &v6), v4, v6, self.shared_address(mode)]
            }
        }
    }

    /// `localhost` on Windows is both addresses, `::1` tried first, the other one where that refuses.
    fn localhost(&self, v4: &Row, v6: &Row) -> Row {
        let way = Way::WindowsLocalhost;
        let best = |answer| [v6, v4].into_iter().find(|row| row.answer == answer);
        let Some(row) = best(Answer::Works).or_else(|| best(Answer::Unknown)) else { return Row { way, ..v4.clone() } };
        // Whoever takes the connection there does not refuse it.
        let first = match &self.outside.at6 {
            Held::Program(who) | Held::Unnamed(who) => Some(who.as_str()),
            Held::Portproxy(_) => Some("a portproxy entry"),
            Held::NotAsked | Held::NotKnown | Held::Relay | Held::Nobody => None,
        };
        if let Some(who) = first.filter(|_| row.way == Way::WindowsLoopback4) {
            return unknown(way, format!("{who} has [::1] on Windows, which localhost means before 127.0.0.1"));
        }
        let by = if row.way == Way::WindowsLoopback4 { "127.0.0.1" } else { "[::1]" };
        let why = if row.why.is_empty() { format!("by {by}") } else { row.why.clone() };
        Row { way, why, ..row.clone() }
    }

    /// Through WSL's relay, which connects anew over `lo` in the family of the socket that it saw; or through who has its place.
    fn relay(&self, way: Way) -> Row {
        let v4 = way == Way::WindowsLoopback4;
        let (own, held, other): (IpAddr, _, _) = if v4 {
            (Ipv4Addr::LOCALHOST.into(), &self.outside.at4, "[::1]")
        } else {
            (Ipv6Addr::LOCALHOST.into(), &self.outside.at6, "127.0.0.1")
        };
        match held {
            Held::Program(program) => return fails(way, format!("{program} has this address and port on Windows")),
            Held::Unnamed(who) => return unknown(way, format!("{who} has this address and port on Windows")),
            Held::Portproxy(to) => return self.by_portproxy(way, to),
            Held::NotAsked | Held::NotKnown | Held::Relay | Held::Nobody => {}
        }
        // Where it is seen to listen, what it should do does not matter.
        if *held != Held::Relay {
            match (self.outside.forwarding, held) {
                (Some(false), Held::NotKnown) => {
                    let why = "localhostForwarding is false in .wslconfig: once that is in force WSL's relay is off";
                    return unknown(way, why);
                }
                (Some(false), _) => return fails(way, "localhostForwarding is false: WSL's relay is off"),
                _ => {}
            }
            if !is_relayed(self.listeners, v4) {
                let why = match (self.listeners.is_empty(), is_relayed(self.listeners, !v4)) {
                    (true, _) => nobody(self.port),
                    (false, true) => format!("the relay opens only {other} for this socket"),
                    (false, false) => "the relay serves only sockets on 0.0.0.0, 127.0.0.1, :: and ::1".to_owned(),
                };
                return fails(way, why);
            }
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

    /// Through a portproxy entry: what becomes of the connection that it makes.
    pub(crate) fn by_portproxy(&self, way: Way, to: &Proxied) -> Row {
        let row = match to {
            Proxied::Here(address, interface) => self.to_address(way, &(*address, interface.clone())),
            Proxied::Localhost { v4 } => {
                let (next, held) =
                    if *v4 { (Way::WindowsLoopback4, &self.outside.at4) } else { (Way::WindowsLoopback6, &self.outside.at6) };
                match held {
                    Held::Portproxy(Proxied::Localhost { .. }) => unknown(way, "one portproxy entry leads to the next"),
                    _ => self.relay(next),
                }
            }
            Proxied::Nowhere(why) => fails(way, why.as_str()),
            Proxied::NotKnown(why) => unknown(way, why.as_str()),
        };
        Row { way, carrier: Some(Carrier::Portproxy), ..row }
    }

    /// Windows' localhost by the interface of its own that mirrored mode and consomme have.
    fn by_loopback0(&self) -> Row {
        let own = IpAddr::from(Ipv4Addr::LOCALHOST);
        let entry = Entry { interface: "loopback0".to_owned(), source: Some(own), destination: own, local: false };
        let row = self.arrives(Way::WindowsLoopback4, &Carrier::Interface(entry.interface.clone()), &entry);
        self.unless_held(row, &self.outside.at4)
    }

    /// In the modes in which Windows and Linux share addresses and ports: a way that leads to the server, unless Windows keeps it.
    /// Where both have the port nothing that is known says who gets a connection.
    pub(super) fn unless_held(&self, row: Row, held: &Held) -> Row {
        let who = match held {
            Held::Program(who) | Held::Unnamed(who) => Some(format!("{who} has this port on Windows")),
            Held::Portproxy(_) => Some("a portproxy entry has this port on Windows".to_owned()),
            Held::NotAsked | Held::NotKnown | Held::Relay | Held::Nobody => None,
        };
        match (who, row.answer) {
            (Some(why), Answer::Fails) if self.listeners.is_empty() => Row { why, ..row },
            (Some(why), Answer::Works) => Row { answer: Answer::Unknown, why, ..row },
            (None, Answer::Works) if self.outside.ignored => {
                let why = "ignoredPorts in .wslconfig lists the port: once that is in force Windows does not lead it to Linux";
                Row { answer: Answer::Unknown, why: why.to_owned(), ..row }
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
        let row = self.unless_held(self.to_own_address(way), &self.outside.at_own);
        match (mode, self.outside.address_loopback) {
            (NetworkingMode::Consomme, _) | (_, Some(true)) => row,
            (_, Some(false)) => fails(way, "the address is Windows' own too: use 127.0.0.1, or set hostAddressLoopback"),
            (_, None) if row.answer == Answer::Works => {
                unknown(way, "only with hostAddressLoopback=true in .wslconfig, which could not be read; use 127.0.0.1")
            }
            (_, None) => row,
        }
    }

    pub(super) fn lan_to_windows(&self) -> Row {
        use NetworkingMode as M;
        let way = Way::LanToWindows;
        match self.mode {
            None => unknown(way, "the networking mode is not known"),
            Some(M::None) => fails(way, "networkingMode is none: there is no network"),
            Some(M::Bridged) if self.outside.portproxy.as_ref().is_none_or(Vec::is_empty) => {
                fails(way, "this Linux has an address of its own in the LAN: use that")
            }
            Some(M::Nat | M::Bridged) => self.by_some_portproxy(),
            Some(M::Mirrored | M::Consomme) => {
                self.past_windows_firewall(self.unless_held(self.to_own_address(way), &self.outside.at_own))
            }
        }
    }

    /// From another machine to Windows' own address: only a portproxy entry takes its connections.
    fn by_some_portproxy(&self) -> Row {
        let way = Way::LanToWindows;
        let Some(entries) = &self.outside.portproxy else {
            let there = self.to_own_address(way);
            return if self.listeners.is_empty() && there.answer == Answer::Fails {
                fails(way, there.why)
            } else {
                unknown(way, "in nat mode only through a portproxy entry on Windows, which could not be looked at")
            };
        };
        let rows: Vec<Row> = entries.iter().map(|to| self.by_portproxy(way, to)).collect();
        match rows.as_slice() {
            [] if self.listeners.is_empty() && self.to_own_address(way).answer == Answer::Fails => fails(way, nobody(self.port)),
            [] => fails(way, "in nat mode only through a portproxy entry on Windows, and none leads here"),
            [first, others @ ..] if others.iter().all(|other| other.answer == first.answer) => {
                self.past_windows_firewall(first.clone())
            }
            _ => Row {
                carrier: Some(Carrier::Portproxy),
                ..unknown(way, "of several portproxy entries for the port some lead to the server, and others may not")
            },
        }
    }

    /// What is left of a way from the LAN when Windows' firewall has decided.
    pub(super) fn past_windows_firewall(&self, row: Row) -> Row {
        if row.answer != Answer::Works {
            return row;
        }
        let (lets, of) = if self.mode == Some(NetworkingMode::Mirrored) {
            (self.outside.hyper_v, "the Hyper-V firewall of Windows")
        } else {
            (self.outside.host_firewall, "Windows' firewall")
        };
        match lets {
            Some(true) => row,
            Some(false) => fails(row.way, format!("{of} blocks this port")),
            None => Row { why: format!("{of} decides, and what it does is not known"), answer: Answer::Unknown, ..row },
        }
    }
}
