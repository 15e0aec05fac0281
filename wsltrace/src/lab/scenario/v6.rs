//! The same over IPv6: the faults of other files that do not depend on the family, played with the client's IPv6 address.

use nix::errno::Errno;

use super::{Scenario, conntrack, firewall, foreign, handshake, ingress, listener, overflow, policy, queue, reader, reply};
use crate::lab::sides::over_v6;
use crate::lab::{Lab, Seen};

/// A scenario of another file, its name and its title here.
type OverV6 = (&'static str, &'static str, &'static str);

const OVER_V6: &[OverV6] = &[
    ("drop-filter-iptables-nft", "drop-filter-ip6tables-nft", "ip6tables (nft) drops in filter INPUT"),
    ("drop-mangle-iptables-nft", "drop-mangle-ip6tables-nft", "ip6tables (nft) drops in mangle PREROUTING"),
    ("drop-raw-iptables-nft", "drop-raw-ip6tables-nft", "ip6tables (nft) drops in raw PREROUTING"),
    ("drop-filter-iptables-legacy", "drop-filter-ip6tables-legacy", "ip6tables (legacy) drops in filter INPUT"),
    ("drop-mangle-iptables-legacy", "drop-mangle-ip6tables-legacy", "ip6tables (legacy) drops in mangle PREROUTING"),
    ("drop-raw-iptables-legacy", "drop-raw-ip6tables-legacy", "ip6tables (legacy) drops in raw PREROUTING"),
    ("drop-filter-nft", "drop-filter-nft-v6", "nftables drops IPv6 in an input chain"),
    ("drop-mangle-nft", "drop-mangle-nft-v6", "nftables drops IPv6 in a prerouting chain at priority mangle"),
    ("drop-raw-nft", "drop-raw-nft-v6", "nftables drops IPv6 in a prerouting chain at priority raw"),
    ("reject-reset-nft", "reject-reset-nft-v6", "nftables rejects IPv6 with a TCP reset"),
    ("reject-icmp-nft", "reject-icmp-nft-v6", "nftables rejects IPv6 as administratively prohibited"),
    ("reject-reset-iptables-nft", "reject-reset-ip6tables-nft", "ip6tables (nft) rejects with a TCP reset"),
    ("reject-icmp-iptables-nft", "reject-icmp-ip6tables-nft", "ip6tables (nft) rejects as port unreachable"),
    ("reject-icmp-iptables-legacy", "reject-icmp-ip6tables-legacy", "ip6tables (legacy) rejects as address unreachable"),
    ("ingress-drop-nft", "ingress-drop-nft-v6", "nftables drops IPv6 in the ingress chain of the device"),
    ("reply-drop-output", "reply-drop-output-v6", "the OUTPUT chain drops the server's answers over IPv6"),
    ("queue-no-reader", "queue-no-reader-v6", "a rule queues IPv6 to a program (NFQUEUE) that does not run"),
    ("queue-no-verdict", "queue-no-verdict-v6", "a rule queues IPv6 to a program (NFQUEUE) that gives no verdict"),
    ("untracked", "untracked-v6", "nothing is broken: the port is exempt from connection tracking over IPv6"),
    ("conntrack-invalid", "conntrack-invalid-v6", "a rule drops what connection tracking calls invalid, over IPv6"),
    ("accept-queue-full", "accept-queue-full-v6", "the server's queue is full, asked over IPv6"),
    ("drop-before-full-queue", "drop-before-full-queue-v6", "a firewall drops IPv6, and the accept queue is full besides"),
    (
        "accept-queue-drained",
        "accept-queue-drained-v6",
        "the accept queue is full when the SYN comes over IPv6, and empty when it is looked at",
    ),
    ("not-accepted", "not-accepted-v6", "the server never accepts, but its queue has room; over IPv6"),
    ("syn-queue-full", "syn-queue-full-v6", "the queue of half-open connections is full over IPv6, and SYN cookies are off"),
    (
        "syn-cookies",
        "syn-cookies-v6",
        "nothing is broken: the queue of half-open connections is full, and SYN cookies help over IPv6",
    ),
    (
        "defer-accept",
        "defer-accept-v6",
        "nothing is broken: the server wants data first (TCP_DEFER_ACCEPT) over IPv6, and gets it",
    ),
    ("fast-open", "fast-open-v6", "nothing is broken: the SYN carries data (TCP Fast Open) over IPv6"),
    ("listener-filter", "listener-filter-v6", "a filter on the server's socket refuses IPv6"),
    (
        "listener-other-device",
        "listener-other-device-v6",
        "the server takes connections from another device only, asked over IPv6",
    ),
    ("listener-in-container", "listener-in-container-v6", "the server listens in a container, not published, asked over IPv6"),
    ("read-healthy", "read-healthy-v6", "nothing is broken: IPv6 packets are read on eth0 and on all devices"),
    ("read-drop", "read-drop-v6", "nftables drops IPv6 in an input chain while packets are read"),
    ("foreign-lookup-drops", "foreign-lookup-drops-v6", "somebody's BPF program (sk_lookup) refuses every connection over IPv6"),
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let all = [
        firewall::scenarios(),
        ingress::scenarios(),
        reply::scenarios(),
        queue::scenarios(),
        conntrack::scenarios(),
        listener::scenarios(),
        overflow::scenarios(),
        handshake::scenarios(),
        policy::scenarios(),
        reader::scenarios(),
        foreign::scenarios(),
    ]
    .concat();
    all.into_iter().filter_map(|base| Some(asked_over_v6(*OVER_V6.iter().find(|row| row.0 == base.name)?, base))).collect()
}

fn asked_over_v6((_, name, title): OverV6, base: Scenario) -> Scenario {
    // An administrative prohibition has an error of its own there.
    let client = match (base.name, base.client) {
        ("reject-icmp-nft", _) => Seen::Failed(Errno::EACCES),
        (_, client) => client,
    };
    let tools = match base.tools {
        [tool] => match over_v6(tool) {
            "ip6tables-nft" => &["ip6tables-nft"],
            "ip6tables-legacy" => &["ip6tables-legacy"],
            _ => base.tools,
        },
        tools => tools,
    };
    Scenario { name, title, client, tools, group: "over IPv6", v6: true, target: Lab::wsl_address(true), ..base }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_has_its_scenario() {
        assert_eq!(super::scenarios().len(), super::OVER_V6.len());
    }
}
