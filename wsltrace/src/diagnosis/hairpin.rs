//! A bridge sends nothing back by the port that it came by, unless that is allowed there (hairpin). It is asked to where a container
//! connects to its own published port at an address of this machine, and this machine's rules rewrite what passes its bridges.

use super::case::{Case, Finding};
use super::remedy::iptables;
use crate::escape::shell_word;
use crate::evidence::Backend;

/// Where a bridge frees what it may not send.
const BRIDGE_FREES: [&str; 5] = ["br_handle_frame_finish", "br_forward", "__br_forward", "br_dev_xmit", "br_dev_queue_push_xmit"];

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
