//! What a bridge does not send. Nothing goes from one isolated port to another, as hypervisors and some networks of containers have it.
//! And a bridge sends nothing back by the port that it came by, unless that is allowed there (hairpin). It is asked to where a container
//! connects to its own published port at an address of this machine, and this machine's rules rewrite what passes its bridges.

use super::case::{Case, Finding};
use super::remedy::iptables;
use crate::escape::{escape, shell_word};
use crate::evidence::{BRIDGE_FREES, Backend, Isolated};

/// A packet from one isolated port of a bridge to another.
pub(super) fn isolated(case: &Case) -> Option<Finding> {
    let freed = case.reason().is_none() && case.symbol().is_some_and(|symbol| BRIDGE_FREES.contains(&symbol));
    let Isolated { bridge, from, to } = case.evidence.isolated.as_ref().filter(|_| freed)?;
    let summary = format!(
        "dropped by the bridge {}: it came by {} and goes by {}, and both are isolated there, so the bridge sends nothing from one to the other",
        escape(bridge),
        escape(from),
        escape(to)
    );
    // One that is not is enough; the destination's keeps from its neighbours what it was kept from.
    let open = case.root(&format!("ip link set dev {} type bridge_slave isolated off", shell_word(from)));
    Some(Finding::inferred(summary).remedy([open]))
}

/// A packet that a DNAT rule leads back to the container where it comes from.
pub(super) fn sent_back(case: &Case) -> Option<Finding> {
    let freed = case.reason().is_none() && case.symbol().is_some_and(|symbol| BRIDGE_FREES.contains(&symbol));
    let translated = case.journey.translated.as_ref().filter(|_| freed)?;
    let (client, port) = (case.journey.flow.source, translated.destination_port);
    if translated.destination != client {
        return None;
    }
    let entered = case.journey.interface.as_deref()?;
    let bridge = case.interface().map(|name| format!(" {name}")).unwrap_or_default();
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), super::firewall::name);
    let summary = format!(
        "dropped by the bridge{bridge}: {by} leads it to {client}, the container that it comes from, and the bridge sends nothing back by {entered}, where it came in (hairpin is off there)"
    );
    let ask = format!(
        "# the container itself best asks for 127.0.0.1:{port}, or for its own address; to let it come back all the same:"
    );
    let hairpin = case.root(&format!("ip link set dev {} type bridge_slave hairpin on", shell_word(entered)));
    let masquerade = case.root(&format!(
        "{} -t nat -A POSTROUTING -s {client} -d {client} -p tcp --dport {port} -j MASQUERADE",
        iptables(Backend::IptablesNft, case.is_v6())
    ));
    Some(Finding::inferred(summary).remedy([ask, hairpin, masquerade]))
}
