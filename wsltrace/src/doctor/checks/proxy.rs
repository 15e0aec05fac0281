//! A rule that hands connections to a transparent proxy of this Linux (TPROXY).

use std::net::SocketAddr;

use super::super::firewall::described;
use super::super::{Facts, Finding, Severity};
use super::listener::socket;

/// A proxy to which rules hand connections (TPROXY), whoever listens on the port itself.
pub(super) fn handed(facts: &Facts) -> Option<Finding> {
    let (to, rule, entry) = facts.entries().into_iter().find_map(|entry| {
        let (to, rule) = facts.handed_to(&entry)?;
        Some((to, rule, entry))
    })?;
    let taker = facts.taker_at(SocketAddr::new(entry.destination, to), &entry.interface);
    let beside = if facts.linux.listeners.is_empty() { "" } else { ", and not to this server" };
    let summary = format!("a rule of the firewall (TPROXY) hands connections to a proxy on port {to} of this Linux{beside}");
    let (gets, alone) = (facts.gets_handed(&entry, to), facts.linux.listeners.is_empty());
    let severity = match (gets, taker) {
        (Some(true), Some(_)) if alone => Severity::Fine,
        (Some(false), _) | (_, None) if alone => Severity::Fails,
        _ => Severity::Warns,
    };
    let finding = Finding::new(severity, summary).because(described(&rule));
    Some(match taker {
        Some(listener) if gets == Some(true) => {
            let finding = finding.because(format!("a transparent socket on {} listens there", socket(listener)));
            if alone {
                finding
            } else {
                finding.linux(format!("# what the proxy makes of them: sudo wsltrace --port {}", facts.port))
            }
        }
        Some(listener) if gets == Some(false) => finding
            .because(format!("the socket on {} there is not transparent, so it gets none of them", socket(listener)))
            .linux("# have the proxy open its socket with IP_TRANSPARENT, or take out the rule"),
        Some(listener) => finding
            .because(format!(
                "a socket on {} listens there; it gets them only if it is transparent (IP_TRANSPARENT)",
                socket(listener)
            ))
            .linux(format!(
                "# look at the proxy's own log; what becomes of a connection here: sudo wsltrace --port {}",
                facts.port
            )),
        None => finding
            .because("nothing listens there")
            .linux(format!("# start the proxy on port {to}, or take out the rule; what listens:"))
            .linux("ss -ltnp"),
    })
}
