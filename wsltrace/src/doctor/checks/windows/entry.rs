//! Where an entry of `netsh interface portproxy` leads: what the findings say of it, and what the table of ways does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::relay::{Holder, holder};
use super::{is_portproxy, own_addresses, process, to_windows};
use crate::doctor::Facts;
use crate::windows::{Portproxy, WindowsFacts, WindowsListener};
use crate::wsl::Proxied;

/// An end of an entry, as far as it is understood; only such become words of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// `*`.
    All,
    /// `localhost`.
    Localhost,
    /// An address.
    Address(IpAddr),
}

impl End {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::All),
            _ if text.eq_ignore_ascii_case("localhost") => Some(Self::Localhost),
            _ => text.parse().ok().map(Self::Address),
        }
    }

    /// As netsh takes it.
    pub(super) fn word(self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Localhost => "localhost".to_owned(),
            Self::Address(address) => address.to_string(),
        }
    }

    pub(super) fn is_loopback(self) -> bool {
        match self {
            Self::All => false,
            Self::Localhost => true,
            Self::Address(address) => address.is_loopback(),
        }
    }

    /// Whether a socket on it takes connections to `localhost`.
    pub(super) fn covers_loopback(self) -> bool {
        match self {
            Self::All | Self::Localhost => true,
            Self::Address(address) => address.is_unspecified() || [loopback(true), loopback(false)].contains(&address),
        }
    }

    /// The address that it is in a family.
    fn address(self, v4: bool) -> IpAddr {
        match self {
            Self::All if v4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::All => Ipv6Addr::UNSPECIFIED.into(),
            Self::Localhost => loopback(v4),
            Self::Address(address) => address,
        }
    }
}

/// The loopback address of a family.
pub(super) fn loopback(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Whether an entry connects to what it takes connections from.
pub(super) fn leads_to_itself(entry: &Portproxy) -> bool {
    let ends = End::parse(&entry.listen_address).zip(End::parse(&entry.connect_address));
    let v4 = entry.families.connects_v4();
    entry.listen_port == entry.connect_port
        && entry.families.listens_v4() == v4
        && ends.is_some_and(|(listen, connect)| listen.covers_loopback() && connect.address(v4) == loopback(v4))
}

/// Where an entry leads that does its work.
pub(super) fn leads_of(facts: &Facts, entry: &Portproxy) -> Proxied {
    let port = entry.connect_port;
    let told = |to: &dyn std::fmt::Display| format!("a portproxy entry leads it to {to}");
    let Some(connect) = End::parse(&entry.connect_address).filter(|connect| *connect != End::All) else {
        return Proxied::NotKnown(told(&format!("{} port {port}", entry.connect_address)));
    };
    let v4 = entry.families.connects_v4();
    let address = connect.address(v4);
    let end = SocketAddr::new(address, port);
    if leads_to_itself(entry) {
        return Proxied::Nowhere(told(&"itself"));
    }
    if address == loopback(v4) {
        return if port == facts.port { Proxied::Localhost { v4 } } else { Proxied::NotKnown(told(&format!("Windows' {end}"))) };
    }
    let mut own = own_addresses(facts).peekable();
    if address.is_loopback() || own.peek().is_none() {
        return Proxied::NotKnown(told(&end));
    }
    if !own.any(|own| own == address) {
        return Proxied::Nowhere(told(&format!("{end}, which is not an address of this Linux")));
    }
    match to_windows(facts).filter(|interface| interface.addresses.iter().any(|own| own.address == address)) {
        Some(interface) if port == facts.port => Proxied::Here(address, interface.name.clone()),
        _ => Proxied::NotKnown(told(&end)),
    }
}

/// Where the entries lead whose socket is at this address of Windows and the port; `None` where none is known.
pub(super) fn leads(facts: &Facts, at: IpAddr) -> Option<Proxied> {
    let entries = facts.windows.facts()?.portproxy.known()?;
    let is_at = |entry: &&Portproxy| {
        let v4 = entry.families.listens_v4();
        let listen = End::parse(&entry.listen_address).map(|listen| listen.address(v4));
        entry.listen_port == facts.port && v4 == at.is_ipv4() && listen == Some(at)
    };
    let mut all = entries.iter().filter(is_at).map(|entry| leads_of(facts, entry));
    let first = all.next()?;
    // `*` and `0.0.0.0` are two entries for one socket.
    Some(if all.all(|other| other == first) {
        first
    } else {
        Proxied::NotKnown("several portproxy entries have this address and port on Windows".to_owned())
    })
}

/// The entries that other machines' connections to Windows' port of the same number may come by.
pub(super) fn from_outside<'a>(facts: &Facts, windows: &'a WindowsFacts) -> Option<Vec<&'a Portproxy>> {
    let is_outer =
        |entry: &&Portproxy| entry.listen_port == facts.port && !End::parse(&entry.listen_address).is_some_and(End::is_loopback);
    Some(windows.portproxy.known()?.iter().filter(is_outer).collect())
}

/// Where they lead; `None` where the entries are not known.
pub(super) fn leads_from_outside(facts: &Facts) -> Option<Vec<Proxied>> {
    let windows = facts.windows.facts()?;
    let led = |entry: &Portproxy| match at_work(facts, windows, entry) {
        Work::Done | Work::NotKnown => leads_of(facts, entry),
        Work::Stopped => Proxied::Nowhere("IP Helper (iphlpsvc), which does portproxy's work, does not run".to_owned()),
        Work::Unheard => Proxied::Nowhere("a portproxy entry is there, and no program of Windows listens for it".to_owned()),
        Work::Taken(holder) => Proxied::Nowhere(format!("{} has the port on Windows, not portproxy", process(holder))),
    };
    Some(from_outside(facts, windows)?.into_iter().map(led).collect())
}

/// Whether an entry does its work.
pub(super) enum Work<'a> {
    /// IP Helper listens for it.
    Done,
    /// IP Helper does not run.
    Stopped,
    /// Nobody listens for it.
    Unheard,
    /// Another program has its place.
    Taken(&'a WindowsListener),
    /// It is not known.
    NotKnown,
}

/// The same of an entry for the port, by who listens.
pub(super) fn at_work<'a>(facts: &Facts, windows: &'a WindowsFacts, entry: &Portproxy) -> Work<'a> {
    if windows.iphlpsvc.known().is_some_and(|service| !service.running) {
        return Work::Stopped;
    }
    let listen = End::parse(&entry.listen_address).filter(|_| entry.listen_port == facts.port);
    let (Some(listen), Some(listeners)) = (listen, windows.listeners.known()) else { return Work::NotKnown };
    match holder(listeners, listen.address(entry.families.listens_v4())) {
        Holder::Nobody => Work::Unheard,
        Holder::Other(listener) if is_portproxy(listener) => Work::Done,
        // Without its services a host of services may be IP Helper.
        Holder::Other(listener) if listener.process.is_none() || listener.services.is_empty() && is_host(listener) => {
            Work::NotKnown
        }
        Holder::Other(listener) => Work::Taken(listener),
        // Where the relay has localhost, portproxy does not.
        Holder::Relay => Work::NotKnown,
    }
}

fn is_host(listener: &WindowsListener) -> bool {
    listener.process.as_deref().is_some_and(|name| super::named(name, &["svchost"]))
}
