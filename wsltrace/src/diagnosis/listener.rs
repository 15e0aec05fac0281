//! The listeners of a packet's port: which of them could take it, and whose they are.

use std::net::IpAddr;

use super::case::Case;
use crate::{escape::escape, evidence::Listener, wsl};

/// What stands between a listener and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Address,
    Family,
    Device,
    Nothing,
}

pub(super) fn listeners<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Listener> {
    let port = case.journey.last_destination().1;
    case.evidence.sockets.iter().flat_map(|sockets| &sockets.listeners).filter(move |listener| listener.port == port)
}

/// A listener that this stands in the way of, where no other fits: one that does would have got the connection.
pub(super) fn nearest<'a>(case: &Case<'a>, wanted: Mismatch) -> Option<&'a Listener> {
    first(case, wanted).filter(|_| first(case, Mismatch::Nothing).is_none())
}

pub(super) fn first<'a>(case: &Case<'a>, wanted: Mismatch) -> Option<&'a Listener> {
    listeners(case).find(|listener| mismatch(listener, case) == wanted)
}

pub(super) fn mismatch(listener: &Listener, case: &Case) -> Mismatch {
    between(listener, case.journey.last_destination().0, case.interface())
}

/// What stands between a listener and a packet that comes to an address by an interface.
pub(super) fn between(listener: &Listener, wanted: IpAddr, interface: Option<&str>) -> Mismatch {
    let bound = listener.address.to_canonical();
    let dual = listener.address.is_ipv6() && listener.address.is_unspecified() && !listener.v6only;
    if bound.is_ipv4() != wanted.is_ipv4() && !(dual && wanted.is_ipv4()) {
        Mismatch::Family
    } else if !bound.is_unspecified() && bound != wanted {
        Mismatch::Address
    } else if listener.device.as_deref().is_some_and(|device| interface != Some(device)) {
        Mismatch::Device
    } else {
        Mismatch::Nothing
    }
}

/// The listeners that the kernel chooses among for this packet.
pub(super) fn takers<'a>(case: &Case<'a>) -> Vec<&'a Listener> {
    wsl::takers(listeners(case), case.journey.last_destination().0, case.interface())
}

/// Who took the packet: one of these, and which is known only where it is alone.
pub(super) fn who_of(takers: &[&Listener]) -> String {
    match takers {
        [] => "the server".to_owned(),
        [one] => who(one),
        [first, more @ ..] => {
            let names = more.iter().fold(owner_of(first), |names, one| format!("{names}; {}", owner_of(one)));
            format!("one of the {} servers that share port {} ({names})", takers.len(), first.port)
        }
    }
}

/// The same in brackets.
pub(super) fn owner_of(listener: &Listener) -> String {
    match (&listener.command, listener.pid) {
        (Some(command), Some(pid)) => format!("{}, pid {pid}", escape(command)),
        _ => who(listener),
    }
}

/// The process that holds a listener: on WSL it may belong to another distro.
pub(super) fn who(listener: &Listener) -> String {
    match (&listener.command, listener.pid) {
        (Some(command), Some(pid)) => format!("{} (pid {pid})", escape(command)),
        (None, Some(pid)) => format!("process {pid}"),
        (Some(command), None) => escape(command),
        (None, None) => "a server without a process in this distro (another distro or Docker Desktop)".to_owned(),
    }
}
