//! The words of the table of ways: a way, an answer, and what they depend on.

use std::net::IpAddr;

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
    /// Another machine connects by IPv6, where the ways before this one go by IPv4: to this Linux' own address or, in the modes
    /// mirrored and consomme, to the same of Windows.
    Lan6,
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
            Self::Lan6 => "LAN: over IPv6",
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
    /// Nobody asked: it is taken to be as WSL makes it.
    #[default]
    NotAsked,
    /// Windows was asked, and gave no answer.
    NotKnown,
    /// WSL's own program: its relay, or what carries connections into Linux in the modes without one.
    Relay,
    /// Nobody.
    Nobody,
    /// A portproxy entry, which leads there.
    Portproxy(Proxied),
    /// Another program, as it is to be told.
    Program(String),
    /// A process whose name is not known, as it is to be told: it may be WSL's own.
    Unnamed(String),
}

/// Where an entry of Windows' portproxy leads what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// To the port at this address of this Linux, by this interface.
    Here(IpAddr, String),
    /// To the port at Windows' own `localhost`, over IPv4 or else IPv6.
    Localhost {
        /// Over IPv4.
        v4: bool,
    },
    /// Not to this Linux, or nowhere at all; why.
    Nowhere(String),
    /// It cannot be said whether it leads to the server; why.
    NotKnown(String),
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
    /// In the modes that share Windows' addresses: who has that of IPv4 at this port on Windows.
    pub at_own: Held,
    /// The same of IPv6.
    pub at_own6: Held,
    /// In mirrored mode Windows reaches its own addresses in WSL (`hostAddressLoopback`).
    pub address_loopback: Option<bool>,
    /// `.wslconfig` says that Windows is not to be told of servers at this port (`ignoredPorts`).
    pub ignored: bool,
    /// Where the portproxy entries for an outer address of Windows at this port lead; empty when there is none.
    pub portproxy: Option<Vec<Proxied>>,
    /// The Hyper-V firewall lets others in at this port.
    pub hyper_v: Option<bool>,
    /// Windows' own firewall does.
    pub host_firewall: Option<bool>,
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
    /// Its IPv6 address for others, and its interface, where the other one is of IPv4.
    pub address6: Option<(IpAddr, String)>,
    /// In the modes mirrored and consomme: connections to 127.0.0.1 go out to Windows and come back by `loopback0`.
    pub around: bool,
    /// The next hop of the default route: in nat mode Windows itself, from whose address its programs come.
    pub gateway: Option<IpAddr>,
    /// The address of a bridge that containers hang on, and its name.
    pub bridge: Option<(IpAddr, String)>,
    /// What Windows does.
    pub outside: Outside,
    /// Why nothing comes of the connections that a listener takes, where that is so.
    pub unserved: &'a dyn Fn(&Listener) -> Option<String>,
    /// What the firewalls do.
    pub gate: &'a dyn Fn(&Entry) -> Gate,
}
