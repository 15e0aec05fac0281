//! The ways by which a connection can come to a server: which of them lead to it, on what, and why the others do not. A pure
//! function of what is known; what is not known makes an answer "cannot know", never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NetworkingMode, Wsl};
use crate::evidence::Listener;

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A browser on Windows opens `localhost`, which is `::1` and 127.0.0.1 there.
    WindowsLocalhost,
    /// A program on Windows connects to 127.0.0.1.
    WindowsLoopback4,
    /// A program on Windows connects to `::1`.
    WindowsLoopback6,
    /// A program on Windows connects to this Linux' own address.
    WindowsToAddress,
    /// Another machine connects to an address of Windows.
    LanToWindows,
    /// Another machine connects to this Linux' own address.
    LanToAddress,
    /// A program in this Linux connects to 127.0.0.1.
    Inside4,
    /// A program in this Linux connects to `::1`.
    Inside6,
    /// A container connects to this Linux' address on its bridge.
    Container,
}

impl Way {
    /// In words, as the row of a table begins.
    pub fn words(self) -> &'static str {
        match self {
            Self::WindowsLocalhost => "Windows: localhost",
            Self::WindowsLoopback4 => "Windows: 127.0.0.1",
            Self::WindowsLoopback6 => "Windows: [::1]",
            Self::WindowsToAddress => "Windows: WSL's address",
            Self::LanToWindows => "LAN: Windows' address",
            Self::LanToAddress => "LAN: this machine",
            Self::Inside4 => "here: 127.0.0.1",
            Self::Inside6 => "here: [::1]",
            Self::Container => "a container",
        }
    }
}

/// Whether a way leads to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It does.
    Works,
    /// It does not.
    Fails,
    /// What decides it is not known.
    Unknown,
}

/// What carries a connection to Linux.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// WSL's localhost relay, which connects anew over `lo`.
    Relay,
    /// A portproxy entry of Windows, which connects anew.
    Portproxy,
    /// Windows' own network, by this interface.
    Interface(String),
}

impl Carrier {
    /// In words.
    pub fn words(&self) -> &str {
        match self {
            Self::Relay => "relay, lo",
            Self::Portproxy => "portproxy",
            Self::Interface(name) => name,
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The way.
    pub way: Way,
    /// Whether it leads to the server.
    pub answer: Answer,
    /// What carries it, where anything does.
    pub carrier: Option<Carrier>,
    /// The address of the listener that takes it, when one does.
    pub listener: Option<IpAddr>,
    /// Why, in a few words.
    pub why: String,
}

/// What the firewalls of this Linux do with a SYN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They let it pass.
    Open,
    /// They let it pass, and lead it to another address (DNAT): no listener of this namespace takes it.
    Led {
        /// Whether a socket is known that takes it there.
        works: bool,
        /// Where it goes, and by what.
        why: String,
    },
    /// They stop it; by what.
    Shut(String),
    /// Not known; why.
    Unknown(String),
}

/// A SYN on its way into Linux.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The interface by which it comes.
    pub interface: String,
    /// Where it is from, where that is known.
    pub source: Option<IpAddr>,
    /// Where it goes.
    pub destination: IpAddr,
    /// It is made in this Linux: the relay's and local programs'.
    pub local: bool,
}

/// Who has an address of Windows at the port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Not known.
    #[default]
    NotKnown,
    /// WSL's relay.
    Relay,
    /// Nobody.
    Nobody,
    /// A portproxy entry.
    Portproxy,
    /// Another program, as it is to be told.
    Program(String),
}

/// What Windows does around this Linux; `None` is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// WSL's relay serves localhost (`localhostForwarding`).
    pub forwarding: Option<bool>,
    /// Who has Windows' 127.0.0.1 at this port.
    pub at4: Held,
    /// Who has `::1`.
    pub at6: Held,
    /// In mirrored mode Windows reaches its own addresses in WSL (`hostAddressLoopback`).
    pub address_loopback: Option<bool>,
    /// A portproxy entry leads from an outer address of Windows at this port to here.
    pub portproxy: Option<bool>,
    /// The Hyper-V firewall lets others in at this port.
    pub hyper_v: Option<bool>,
}

/// What is known when the table is made.
pub struct Setting<'a> {
    /// Which WSL, if any.
    pub wsl: Wsl,
    /// Its networking mode, when known.
    pub mode: Option<NetworkingMode>,
    /// The port.
    pub port: u16,
    /// The listeners on the port in this namespace.
    pub listeners: &'a [Listener],
    /// The address by which others reach this Linux, and its interface.
    pub address: Option<(IpAddr, String)>,
    /// The next hop of the default route: in nat mode Windows itself, from whose address its programs come.
    pub gateway: Option<IpAddr>,
    /// The address of a bridge that containers hang on, and its name.
    pub bridge: Option<(IpAddr, String)>,
    /// What Windows does.
    pub outside: Outside,
    /// What the firewalls do.
    pub gate: &'a dyn Fn(&Entry) -> Gate,
}

/// The listener that takes a connection to `address` by `interface`, as the kernel chooses it: the address itself before a
/// wildcard, the address' own family before a socket of both.
pub fn taker<'a>(listeners: &'a [Listener], address: IpAddr, interface: &str) -> Option<&'a Listener> {
    let rank = |listener: &Listener| {
        if listener.device.as_deref().is_some_and(|device| device != interface) {
            return None;
        }
        let bound = listener.device.is_none();
        let mapped = matches!((listener.address, address), (IpAddr::V6(v6), IpAddr::V4(v4)) if v6.to_ipv4_mapped() == Some(v4));
        if listener.address == address || mapped {
            Some((0, bound))
        } else if listener.address.is_unspecified() && listener.address.is_ipv4() == address.is_ipv4() {
            Some((1, bound))
        } else if listener.address == Ipv6Addr::UNSPECIFIED && !listener.v6only && address.is_ipv4() {
            Some((2, bound))
        } else {
            None
        }
    };
    listeners.iter().filter_map(|listener| Some((rank(listener)?, listener))).min_by_key(|(rank, _)| *rank).map(|(_, it)| it)
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
        rows.push(setting.to_address(Way::LanToAddress));
    }
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
                [either(&v4, &v6), v4, v6, self.to_address(Way::WindowsToAddress)]
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
            Held::NotKnown | Held::Relay | Held::Nobody => {}
        }
        if !is_relayed(self.listeners, v4) {
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
        self.arrives(way, &Carrier::Relay, &entry)
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
            (NetworkingMode::Consomme, _) | (_, Some(true)) => self.to_address(way),
            (_, Some(false)) => fails(way, "the address is Windows' own too: use 127.0.0.1, or set hostAddressLoopback"),
            (_, None) => match self.to_address(way) {
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
            Some(M::Mirrored | M::Consomme) => {
                let row = self.to_address(way);
                match (row.answer, self.outside.hyper_v, self.mode) {
                    (Answer::Works, Some(true), Some(M::Mirrored)) => row,
                    (Answer::Works, Some(false), Some(M::Mirrored)) => {
                        fails(way, "the Hyper-V firewall of Windows blocks this port")
                    }
                    (Answer::Works, ..) => {
                        Row { why: "Windows' firewall decides, and is not known".to_owned(), answer: Answer::Unknown, ..row }
                    }
                    _ => row,
                }
            }
        }
    }

    /// To this Linux' own address, by the interface that has it.
    fn to_address(&self, way: Way) -> Row {
        let Some((address, interface)) = &self.address else { return fails(way, "this Linux has no address that others reach") };
        let carrier = Carrier::Interface(interface.clone());
        let is_windows = way == Way::WindowsToAddress && self.mode == Some(NetworkingMode::Nat);
        let source = self.gateway.filter(|_| is_windows);
        let entry = Entry { interface: interface.clone(), source, destination: *address, local: false };
        self.arrives(way, &carrier, &entry)
    }

    fn inside(&self, own: IpAddr) -> Row {
        let way = if own.is_ipv4() { Way::Inside4 } else { Way::Inside6 };
        let around = own.is_ipv4() && matches!(self.mode, Some(NetworkingMode::Mirrored | NetworkingMode::Consomme));
        // There what is sent to 127.0.0.1 goes out to Windows and comes back.
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
        let taker = taker(self.listeners, entry.destination, &entry.interface);
        let gate = (self.gate)(entry);
        // Without a bridge there is nothing that a rule could lead it to instead.
        if self.listeners.is_empty() && self.bridge.is_none() && matches!(gate, Gate::Unknown(_)) {
            return row(Answer::Fails, None, nobody(self.port));
        }
        match gate {
            Gate::Shut(stopped) => row(Answer::Fails, None, stopped),
            Gate::Unknown(why) => row(Answer::Unknown, taker, why),
            Gate::Led { works, why } => row(if works { Answer::Works } else { Answer::Unknown }, None, why),
            Gate::Open => match taker {
                Some(listener) if listener.queue > listener.backlog => {
                    row(Answer::Fails, Some(listener), "the server does not accept: its queue is full".to_owned())
                }
                Some(listener) => row(Answer::Works, Some(listener), String::new()),
                None if self.listeners.is_empty() => row(Answer::Fails, None, nobody(self.port)),
                None => {
                    let bound: Vec<String> = self.listeners.iter().map(bound).collect();
                    row(Answer::Fails, None, format!("the server listens on {} only", bound.join(" and ")))
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
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn listener(text: &str) -> Listener {
        let (address, v6only) = text.strip_suffix('!').map_or((text, false), |address| (address, true));
        let (address, device) = address.split_once('%').map_or((address, None), |(address, device)| (address, Some(device)));
        Listener {
            address: address.parse().unwrap(),
            port: 8080,
            v6only,
            device: device.map(str::to_owned),
            queue: 0,
            backlog: 128,
            pid: None,
            command: None,
            netns: 1,
        }
    }

    fn table(mode: Option<NetworkingMode>, listeners: &str, outside: Outside, gate: &dyn Fn(&Entry) -> Gate) -> Vec<Row> {
        let listeners: Vec<Listener> = listeners.split_whitespace().map(listener).collect();
        let wsl = if mode.is_some() { Wsl::Two } else { Wsl::No };
        let address = Some(("172.28.20.5".parse().unwrap(), "eth0".to_owned()));
        ways(&Setting { wsl, mode, port: 8080, listeners: &listeners, address, gateway: None, bridge: None, outside, gate })
    }

    fn open(_: &Entry) -> Gate {
        Gate::Open
    }

    fn letters(rows: &[Row]) -> String {
        let letter = |row: &Row| match row.answer {
            Answer::Works => 'W',
            Answer::Fails => 'F',
            Answer::Unknown => '?',
        };
        rows.iter().map(letter).collect()
    }

    /// Localhost, 127.0.0.1 and `::1` of Windows, WSL's address, the LAN, (in bridged mode WSL's address from the LAN,) 127.0.0.1 and
    /// `::1` in Linux, a container.
    #[test]
    fn every_mode_with_every_kind_of_listener() {
        use NetworkingMode as M;
        let kinds = ["0.0.0.0", "127.0.0.1", "::", "::1", "::!", "172.28.20.5", "", "0.0.0.0 ::!"];
        for (mode, expected) in [
            (M::Nat, ["WWFW?WF?", "WWFF?WF?", "WFWW?WW?", "WFWF?FW?", "WFWF?FW?", "FFFW?FF?", "FFFFFFF?", "WWWW?WW?"]),
            (M::Mirrored, ["WWF??WF?", "WWFFFWF?", "WWF??WW?", "FFFFFFW?", "FFFFFFW?", "FFF??FF?", "FFFFFFF?", "WWF??WW?"]),
            (M::Consomme, ["WWFW?WF?", "WWFFFWF?", "WW?W?WW?", "?F?FFFW?", "?F?FFFW?", "FFFW?FF?", "FFFFFFF?", "WW?W?WW?"]),
            (
                M::Bridged,
                ["WWFWFWWF?", "WWFFFFWF?", "WFWWFWWW?", "WFWFFFFW?", "WFWFFFFW?", "FFFWFWFF?", "FFFFFFFF?", "WWWWFWWW?"],
            ),
            (M::None, ["FFFFFWF?", "FFFFFWF?", "FFFFFWW?", "FFFFFFW?", "FFFFFFW?", "FFFFFFF?", "FFFFFFF?", "FFFFFWW?"]),
        ] {
            for (listeners, expected) in kinds.iter().zip(expected) {
                let rows = table(Some(mode), listeners, Outside::default(), &open);
                assert_eq!(letters(&rows), expected, "{mode:?} with listeners [{listeners}]: {rows:#?}");
            }
        }
        for (listeners, expected) in kinds.iter().zip(["WWF?", "FWF?", "WWW?", "FFW?", "FFW?", "WFF?", "FFF?", "WWW?"]) {
            assert_eq!(letters(&table(None, listeners, Outside::default(), &open)), expected, "no WSL, [{listeners}]");
        }
    }

    #[test]
    fn the_dual_stack_socket_of_go_is_told() {
        let rows = table(Some(NetworkingMode::Nat), "::", Outside::default(), &open);
        assert_eq!(rows[1].why, "the relay opens only [::1] for this socket");
        assert_eq!((rows[0].why.as_str(), rows[0].carrier.clone()), ("by [::1]", Some(Carrier::Relay)));
    }

    #[test]
    fn what_windows_does_decides_where_it_is_known() {
        let of = |mode, outside| table(Some(mode), "0.0.0.0", outside, &open);
        let nat = |outside| of(NetworkingMode::Nat, outside);
        assert_eq!(letters(&nat(Outside { forwarding: Some(false), ..Outside::default() })), "FFFW?WF?");
        assert_eq!(letters(&nat(Outside { at4: Held::Program("nginx.exe".to_owned()), ..Outside::default() })), "FFFW?WF?");
        assert_eq!(letters(&nat(Outside { at4: Held::Nobody, ..Outside::default() })), "FFFW?WF?");
        assert_eq!(letters(&nat(Outside { at4: Held::Portproxy, ..Outside::default() })), "??FW?WF?");
        assert_eq!(letters(&nat(Outside { portproxy: Some(false), ..Outside::default() })), "WWFWFWF?");
        let mirrored = |outside| of(NetworkingMode::Mirrored, outside);
        let (closed, opened) = (Some(false), Some(true));
        assert_eq!(letters(&mirrored(Outside { hyper_v: closed, address_loopback: closed, ..Outside::default() })), "WWFFFWF?");
        assert_eq!(letters(&mirrored(Outside { hyper_v: opened, address_loopback: opened, ..Outside::default() })), "WWFWWWF?");
    }

    #[test]
    fn a_firewall_that_stops_one_interface_leaves_the_others() {
        let gate = |entry: &Entry| match entry.interface.as_str() {
            "eth0" => Gate::Shut("dropped by a rule".to_owned()),
            _ => Gate::Open,
        };
        let rows = table(Some(NetworkingMode::Nat), "0.0.0.0", Outside::default(), &gate);
        assert_eq!(letters(&rows), "WWFF?WF?");
        assert_eq!(rows[3].why, "dropped by a rule");
        let gate = |_: &Entry| Gate::Unknown("limit rate is not simulated".to_owned());
        assert_eq!(letters(&table(Some(NetworkingMode::Nat), "0.0.0.0", Outside::default(), &gate)), "??F???".to_owned() + "??");
    }

    #[test]
    fn the_kernel_chooses_the_closest_socket() {
        let listeners: Vec<Listener> = ["::", "0.0.0.0", "127.0.0.1"].into_iter().map(listener).collect();
        let takes = |address: &str| taker(&listeners, address.parse().unwrap(), "lo").unwrap().address.to_string();
        assert_eq!([takes("127.0.0.1"), takes("10.0.0.1"), takes("::1")], ["127.0.0.1", "0.0.0.0", "::"]);
        let listeners = [listener("0.0.0.0%eth1")];
        assert_eq!(taker(&listeners, "10.0.0.1".parse().unwrap(), "eth0"), None);
        // The relay looks at addresses only; on `lo` nobody takes what it brings.
        let rows = table(Some(NetworkingMode::Nat), "0.0.0.0%eth0", Outside::default(), &open);
        assert_eq!((letters(&rows), rows[1].why.as_str()), ("FFFW?FF?".to_owned(), "the server listens on 0.0.0.0%eth0 only"));
    }
}
