//! Rules that hand connections to a transparent proxy of this Linux (TPROXY): whether its socket takes them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::Facts;
use super::firewall::stopped;
use crate::diagnosis::rule_name;
use crate::evidence::Rule;
use crate::evidence::sockets::Found;
use crate::simulate::{End, Goes, Part};
use crate::wsl::{Entry, Gate};

/// Of the ports that have a listener, for IPv4 and IPv6: whether a rule can hand connections to it, where that is known. The kernel looks
/// for the listener by an address that the rule or the interface names: it is known where any address leads to the same answer.
pub(super) fn proxies(all: &[Found]) -> [BTreeMap<u16, Option<bool>>; 2] {
    [true, false].map(|v4| {
        let of_family = |found: &&Found| {
            let listener = &found.listener;
            let both = listener.address.is_unspecified() && !listener.v6only;
            listener.address.to_canonical().is_ipv4() == v4 || v4 && both
        };
        let mut by_port: BTreeMap<u16, Option<bool>> = BTreeMap::new();
        for found in all.iter().filter(of_family) {
            let listener = &found.listener;
            let takes_all = listener.address.to_canonical().is_unspecified() && listener.device.is_none();
            let takes = found.transparent.filter(|transparent| takes_all || !transparent);
            by_port.entry(listener.port).and_modify(|known| *known = known.filter(|_| *known == takes)).or_insert(takes);
        }
        by_port
    })
}

impl Facts {
    /// The ports of proxies for packets to an address.
    pub(super) fn proxies_of(&self, destination: IpAddr) -> Option<BTreeMap<u16, Option<bool>>> {
        let [v4, v6] = self.linux.proxies.as_ref()?;
        Some(if destination.is_ipv4() { v4 } else { v6 }.clone())
    }

    /// The proxy's port to which a rule hands a SYN if a transparent socket is there, and the rule.
    pub(super) fn handed_to(&self, entry: &Entry) -> Option<(u16, Rule)> {
        let possible = match self.predicted_whatever_proxies(entry)?.end {
            End::Maybe { possible, .. } => possible,
            end => vec![end],
        };
        possible.into_iter().find_map(|end| match end {
            End::Passes { port: Some(port), translated_by: Some(rule), goes: Goes::Proxy, .. } => Some((port, rule)),
            _ => None,
        })
    }

    /// Whether a socket is there that gets what a rule hands to this port.
    pub(super) fn gets_handed(&self, entry: &Entry, port: u16) -> Option<bool> {
        self.linux.proxies.as_ref()?[usize::from(entry.destination.is_ipv6())].get(&port).copied().unwrap_or(Some(false))
    }

    /// What is said of a SYN that a rule hands to a proxy of which it is not known whether its socket is transparent.
    pub(super) fn proxy(&self, entry: &Entry) -> Option<Gate> {
        let (port, rule) = self.handed_to(entry)?;
        if self.gets_handed(entry, port).is_some() {
            return None;
        }
        let taker = self.taker_at(SocketAddr::new(entry.destination, port), &entry.interface);
        let there = taker.map_or_else(
            || "where no socket is known".to_owned(),
            |listener| format!("where a socket on {} takes it if it is transparent", listener.address),
        );
        Some(Gate::Unknown(format!("handed to the proxy's port {port} by {}, {there}", rule_name(&rule))))
    }

    /// What becomes of a SYN that the transparent socket of a proxy takes. It answers from the address and port that were asked for.
    pub(super) fn taken_by_proxy(&self, entry: &Entry, port: u16, rule: Option<&Rule>) -> Gate {
        let by = rule.map(|rule| format!(" by {}", rule_name(rule))).unwrap_or_default();
        let handed = format!("handed to the proxy's port {port}{by}");
        let Some(listener) = self.taker_at(SocketAddr::new(entry.destination, port), &entry.interface) else {
            return Gate::Unknown(handed);
        };
        if listener.queue > listener.backlog {
            return Gate::Shut(format!("{handed}, which does not accept: its queue is full"));
        }
        if let Some(why) = self.unserved(listener) {
            return Gate::Shut(format!("{handed}, where {why}"));
        }
        let stop = |part, what| self.predicted(entry, part).and_then(|packet| stopped(&packet, what));
        stop(Part::Answer, "its answer is ")
            .or_else(|| stop(Part::Confirmation, "what the client sends next (its ACK) is "))
            .unwrap_or_else(|| Gate::Led {
                works: true,
                why: format!("{handed}, taken by the transparent socket on {}", listener.address),
            })
    }
}
