//! What Windows says of a port: who listens on it, what forwards it, what reserves it, which firewall stands before it. One
//! `PowerShell` is asked once, and nothing is changed by it. Each question has an answer of its own, so that one that fails
//! spoils no other. Every string in here is foreign text: it is escaped where it is printed, and never becomes a part of a command.

mod interop;
mod netsh;
mod parse;
mod script;

pub use interop::{Interop, InteropError, WindowsInterop};
pub use parse::parse;
pub(crate) use script::encoded;
pub use script::{WSL_VM_CREATOR, script};

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest time that Windows is given to answer. A cold `PowerShell` takes seconds to start, and each question up to one more.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What is known of Windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// Nobody asked: this is no WSL 2, or it was not wanted.
    #[default]
    NotAsked,
    /// It could not be asked.
    Unavailable(InteropError),
    /// It answered.
    Facts(Box<WindowsFacts>),
}

impl Windows {
    /// Asks Windows about a port; takes seconds.
    pub fn ask(interop: &dyn Interop, port: u16, limit: Duration) -> Self {
        match interop.powershell(&script(port), limit).and_then(|answer| parse(&answer)) {
            Ok(facts) => Self::Facts(Box::new(facts)),
            Err(InteropError::NotWsl) => Self::NotAsked,
            Err(error) => Self::Unavailable(error),
        }
    }

    /// The answers, when there are any.
    pub fn facts(&self) -> Option<&WindowsFacts> {
        match self {
            Self::Facts(facts) => Some(facts),
            Self::NotAsked | Self::Unavailable(_) => None,
        }
    }
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Told<T> {
    /// It was answered.
    Known(T),
    /// It was not, and why, in Windows' own words where it gave any.
    Unknown(String),
}

impl<T> Told<T> {
    /// The answer, when there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(answer) => Some(answer),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self::Unknown("it was not asked".to_owned())
    }
}

/// What Windows answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WindowsFacts {
    /// Which Windows this is.
    pub version: Told<WindowsVersion>,
    /// All entries of `netsh interface portproxy`.
    pub portproxy: Told<Vec<Portproxy>>,
    /// The sockets of Windows that listen on the port.
    pub listeners: Told<Vec<WindowsListener>>,
    /// Ranges of TCP ports that Windows keeps from programs, for IPv4.
    pub excluded_v4: Told<Vec<ExcludedRange>>,
    /// The same for IPv6.
    pub excluded_v6: Told<Vec<ExcludedRange>>,
    /// The ports that Windows gives to connections of its own, from which Hyper-V takes what it reserves.
    pub dynamic_ports: Told<DynamicPorts>,
    /// The service IP Helper, which does the work of portproxy.
    pub iphlpsvc: Told<Service>,
    /// The profiles of Windows' firewall.
    pub firewall_profiles: Told<Vec<FirewallProfile>>,
    /// Hyper-V's firewall for WSL; `None` where this Windows has none (before Windows 11 22H2).
    pub hyperv_firewall: Told<Option<HypervFirewall>>,
    /// Its rules for incoming TCP, those of the host's firewall not among them.
    pub hyperv_rules: Told<Vec<HypervRule>>,
    /// The addresses of Windows' side of WSL's network, `vEthernet (WSL ...)`; empty when there is none.
    pub vethernet: Told<Vec<WindowsAddress>>,
    /// The text of the user's `.wslconfig`; `None` when there is none.
    pub wslconfig: Told<Option<String>>,
    /// Whether there is a file `.wslconfig.txt` beside it, as Notepad likes to save it.
    pub wslconfig_txt: Told<bool>,
}

impl WindowsFacts {
    /// The questions that were not answered, and why: `("portproxy", "Access is denied")`.
    pub fn unanswered(&self) -> Vec<(&'static str, &str)> {
        fn why<T>(answer: &Told<T>) -> Option<&str> {
            match answer {
                Told::Known(_) => None,
                Told::Unknown(why) => Some(why),
            }
        }
        [
            ("which Windows this is", why(&self.version)),
            ("portproxy", why(&self.portproxy)),
            ("listeners", why(&self.listeners)),
            ("excluded port ranges for IPv4", why(&self.excluded_v4)),
            ("excluded port ranges for IPv6", why(&self.excluded_v6)),
            ("dynamic ports", why(&self.dynamic_ports)),
            ("the service IP Helper", why(&self.iphlpsvc)),
            ("Windows' firewall", why(&self.firewall_profiles)),
            ("Hyper-V's firewall", why(&self.hyperv_firewall)),
            ("the rules of Hyper-V's firewall", why(&self.hyperv_rules)),
            ("the adapter vEthernet (WSL)", why(&self.vethernet)),
            (".wslconfig", why(&self.wslconfig)),
            (".wslconfig.txt", why(&self.wslconfig_txt)),
        ]
        .into_iter()
        .filter_map(|(question, why)| why.map(|why| (question, why)))
        .collect()
    }
}

/// Which Windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WindowsVersion {
    /// Its build, such as 22631; Windows 11 begins with 22000.
    pub build: u32,
    /// The update of that build, where it is known.
    pub update: Option<u32>,
    /// What Windows calls the release, such as `23H2`.
    pub release: Option<String>,
}

/// Which families a portproxy entry joins: of the listening side, and of the connection that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are netsh's own")]
pub enum Families {
    V4tov4,
    V4tov6,
    V6tov4,
    V6tov6,
}

impl Families {
    /// The name in netsh's commands and in the registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4tov4 => "v4tov4",
            Self::V4tov6 => "v4tov6",
            Self::V6tov4 => "v6tov4",
            Self::V6tov6 => "v6tov6",
        }
    }

    /// Whether the listening side is IPv4.
    pub fn listens_v4(self) -> bool {
        matches!(self, Self::V4tov4 | Self::V4tov6)
    }

    /// Whether the connection that it makes is IPv4.
    pub fn connects_v4(self) -> bool {
        matches!(self, Self::V4tov4 | Self::V6tov4)
    }
}

/// An entry of `netsh interface portproxy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Portproxy {
    /// Its table.
    pub families: Families,
    /// Where Windows listens: an address, `*` or a name.
    pub listen_address: String,
    /// On which port.
    pub listen_port: u16,
    /// Where it connects to: an address or a name.
    pub connect_address: String,
    /// On which port.
    pub connect_port: u16,
}

/// A socket of Windows that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WindowsListener {
    /// The address that it is bound to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The process that holds it.
    pub pid: u32,
    /// That process's name without `.exe`, when Windows told it.
    pub process: Option<String>,
    /// The services in that process.
    pub services: Vec<String>,
}

/// Ports that Windows keeps from programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExcludedRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// An administrator reserved them: a program that asks for one of them by number gets it.
    pub administered: bool,
}

/// Ports that Windows gives away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DynamicPorts {
    /// The first.
    pub start: u16,
    /// How many.
    pub count: u32,
}

/// A service of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// It runs.
    pub running: bool,
    /// It is disabled, so that nothing can start it.
    pub disabled: bool,
}

/// What a firewall does with what no rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Lets it in.
    Allow,
    /// Keeps it out.
    Block,
    /// It is not set here, so that another place decides.
    NotConfigured,
}

/// A profile of Windows' firewall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FirewallProfile {
    /// `Domain`, `Private` or `Public`.
    pub name: String,
    /// Whether it filters; `None` when that is not set here.
    pub enabled: Option<bool>,
    /// What becomes of incoming connections that no rule is for.
    pub inbound: Action,
}

/// Hyper-V's firewall for WSL's machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HypervFirewall {
    /// Whether it filters; `None` when that is not set here.
    pub enabled: Option<bool>,
    /// What becomes of incoming connections that no rule is for.
    pub inbound: Action,
    /// Whether port rules of Windows' firewall count here too.
    pub merges_host_rules: Option<bool>,
}

/// A rule of Hyper-V's firewall for incoming connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HypervRule {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// `TCP`, a number, or `Any`.
    pub protocol: String,
    /// The ports that it is for, such as `8080` and `8000-8100`; empty for all.
    pub local_ports: Vec<String>,
}

impl HypervRule {
    /// Whether it is for TCP connections to this port.
    pub fn covers(&self, port: u16) -> bool {
        let tcp = ["TCP", "6", "Any", "*"].iter().any(|name| self.protocol.eq_ignore_ascii_case(name));
        let one = |ports: &String| {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            matches!((first.trim().parse::<u16>(), last.trim().parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
                || ports.eq_ignore_ascii_case("Any")
                || ports == "*"
        };
        tcp && (self.local_ports.is_empty() || self.local_ports.iter().any(one))
    }
}

/// An address of one of Windows' adapters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WindowsAddress {
    /// The adapter's name.
    pub adapter: String,
    /// The address.
    pub address: IpAddr,
    /// The bits of it that its network has.
    pub prefix: u8,
}

#[cfg(test)]
mod tests;
