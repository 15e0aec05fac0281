//! What a tunnel has refused before anything here saw it. `WireGuard` counts a packet whose source is not among the allowed addresses of the
//! peer that sent it as a frame error, and one that is no IP packet too (`wg_packet_consume_data_done`; seen on 7.2).

use super::super::{Facts, Finding, Severity};
use crate::escape::{escape, shell_word};

/// Tunnels that have refused packets of their peers.
pub(super) fn refused(facts: &Facts) -> Vec<Finding> {
    let tunnels = facts.linux.interfaces.iter().filter(|interface| interface.disallowed > 0);
    let told = tunnels.map(|tunnel| {
        let name = escape(&tunnel.name);
        let packets = if tunnel.disallowed == 1 { "1 packet".to_owned() } else { format!("{} packets", tunnel.disallowed) };
        let word = shell_word(&tunnel.name);
        let summary = format!(
            "the WireGuard tunnel {name} has refused {packets} of its peers since it was made, most likely for their source (AllowedIPs)"
        );
        Finding::new(Severity::Warns, summary)
            .because(format!("nothing behind {name} sees what it refuses: the addresses that a peer may have are set for the tunnel"))
            .linux(format!("sudo wg show {word} allowed-ips"))
            .linux("# add the client's address to AllowedIPs of its peer, in the tunnel's configuration, and start the tunnel again")
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::super::tests::{facts, wrong};
    use super::refused;

    #[test]
    fn what_a_tunnel_refused_is_told_and_nothing_where_it_took_all() {
        let mut facts = facts(None, "0.0.0.0");
        assert!(refused(&facts).is_empty());
        facts.linux.interfaces[1].disallowed = 3;
        assert_eq!(wrong(&facts), [("tunnel".to_owned(), Severity::Warns)]);
        let found = refused(&facts);
        assert!(found[0].summary.contains("has refused 3 packets"), "{}", found[0].summary);
    }
}
