//! The same over IPv6: the faults of other files that do not depend on the family, played with the client's IPv6 address.

use std::net::SocketAddr;

use nix::errno::Errno;

use super::{Expect, Scenario};
use crate::lab::Seen;
use crate::lab::sides::{over_v6, twin};

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
    ("drop-interface-nft", "drop-interface-nft-v6", "nftables drops a range of ports on eth0 over IPv6"),
    ("reject-reset-nft", "reject-reset-nft-v6", "nftables rejects IPv6 with a TCP reset"),
    ("reject-icmp-nft", "reject-icmp-nft-v6", "nftables rejects IPv6 as administratively prohibited"),
    ("reject-reset-iptables-nft", "reject-reset-ip6tables-nft", "ip6tables (nft) rejects with a TCP reset"),
    ("reject-icmp-iptables-nft", "reject-icmp-ip6tables-nft", "ip6tables (nft) rejects as port unreachable"),
    ("reject-icmp-iptables-legacy", "reject-icmp-ip6tables-legacy", "ip6tables (legacy) rejects as address unreachable"),
    ("ingress-drop-nft", "ingress-drop-nft-v6", "nftables drops IPv6 in the ingress chain of the device"),
    ("reply-drop-tc", "reply-drop-tc-v6", "somebody's BPF program at tc drops the answers over IPv6"),
    ("reply-drop-reject", "reply-drop-reject-v6", "a rule rejects IPv6 with a TCP reset, and the OUTPUT chain drops that"),
    ("reply-drop-reset", "reply-drop-reset-v6", "nothing listens, and the OUTPUT chain drops the reset over IPv6"),
    ("reply-drop-output", "reply-drop-output-v6", "the OUTPUT chain drops the server's answers over IPv6"),
    ("queue-no-reader", "queue-no-reader-v6", "a rule queues IPv6 to a program (NFQUEUE) that does not run"),
    ("queue-no-verdict", "queue-no-verdict-v6", "a rule queues IPv6 to a program (NFQUEUE) that gives no verdict"),
    ("untracked", "untracked-v6", "nothing is broken: the port is exempt from connection tracking over IPv6"),
    ("untracked-drop-nft", "untracked-drop-nft-v6", "a rule lets tracked connections in over IPv6, and another exempts the port"),
    (
        "untracked-drop-iptables-legacy",
        "untracked-drop-ip6tables-legacy",
        "ip6tables (legacy) lets tracked connections in, and exempts the port from tracking",
    ),
    ("conntrack-invalid", "conntrack-invalid-v6", "a rule drops what connection tracking calls invalid, over IPv6"),
    ("accept-queue-full", "accept-queue-full-v6", "the server's queue is full, asked over IPv6"),
    ("drop-before-full-queue", "drop-before-full-queue-v6", "a firewall drops IPv6, and the accept queue is full besides"),
    (
        "accept-queue-drained",
        "accept-queue-drained-v6",
        "the accept queue is full when the SYN comes over IPv6, and empty when it is looked at",
    ),
    ("reset-at-once", "reset-at-once-v6", "the server accepts, and resets the connection at once, over IPv6"),
    ("confirmation-drop-nft", "confirmation-drop-nft-v6", "over IPv6, nftables lets in new connections only"),
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
    ("dnat-container", "dnat-container-v6", "nothing is broken: the port is published from a container over IPv6"),
    (
        "balanced-no-listener",
        "balanced-no-listener-v6",
        "a port published over IPv6 to two servers by chance, and neither listens",
    ),
    ("dnat-no-listener", "dnat-no-listener-v6", "a port published over IPv6, but nothing listens in the container"),
    ("dnat-routed", "dnat-routed-v6", "nothing is broken: the port is published over IPv6 from a namespace without a bridge"),
    (
        "docker-policy-iptables-nft",
        "docker-policy-ip6tables-nft",
        "a container's port that Docker's chains do not let through over IPv6",
    ),
    (
        "docker-policy-iptables-legacy",
        "docker-policy-ip6tables-legacy",
        "a container's port that Docker's chains do not let through over IPv6 (ip6tables-legacy)",
    ),
    ("forward-drop", "forward-drop-v6", "a port published over IPv6, but the FORWARD chain drops"),
    ("masquerade", "masquerade-v6", "nothing is broken: WSL forwards IPv6 to another machine under its own address"),
    ("masquerade-missing", "masquerade-missing-v6", "a container connects to another machine over IPv6 under its own address"),
    ("forwarded-beyond", "forwarded-beyond-v6", "WSL forwards IPv6 to another machine, which does not answer"),
    ("input-snat", "input-snat-v6", "nothing is broken: a rule in INPUT gives the client another IPv6 address"),
    ("input-snat-no-listener", "input-snat-no-listener-v6", "the same, and nothing listens"),
    ("ip-forward-off", "forwarding-off-v6", "DNAT to another machine over IPv6 while forwarding is off"),
    ("drop-before-no-listener", "drop-before-no-listener-v6", "nftables drops the port over IPv6, and nothing listens on it"),
    (
        "reject-before-no-listener",
        "reject-before-no-listener-v6",
        "nftables rejects the port over IPv6, and nothing listens on it",
    ),
    (
        "drop-untraced-nft",
        "drop-untraced-nft-v6",
        "nftables drops IPv6, behind a rule that takes the kernel's mark for tracing off the packet",
    ),
    ("drop-both-directions", "drop-both-directions-v6", "a kill switch drops IPv6 in INPUT and rejects it in OUTPUT"),
    ("ip-forward-off-before-drop", "forwarding-off-before-drop-v6", "IPv6 forwarding is off, and the FORWARD chain drops"),
    ("blackhole-route", "blackhole-route-v6", "a blackhole route to the IPv6 destination"),
    ("reply-drop-forward", "reply-drop-forward-v6", "the FORWARD chain drops a container's answers over IPv6"),
    ("reply-drop-lo", "reply-drop-lo-v6", "the INPUT chain drops answers that come back over lo, to ::1"),
    ("no-route-back", "no-route-back-v6", "WSL has no route to the IPv6 client"),
    (
        "dnat-past-server-unforwarded",
        "dnat-past-server-unforwarded-v6",
        "a rule left over leads IPv6 past the server, unforwarded",
    ),
    ("neighbour-stopped", "neighbour-stopped-v6", "a port published over IPv6 whose container has stopped"),
    ("reply-wrong-interface", "reply-wrong-interface-v6", "WSL's route to the IPv6 client leads by another interface"),
    (
        "syn-sent-again",
        "syn-sent-again-v6",
        "nothing is broken here: the first SYN-ACK is lost at the IPv6 client, who sends again",
    ),
    (
        "neighbour-cold-container",
        "neighbour-cold-container-v6",
        "nothing is broken: SYN and answer wait for neighbour discovery on the container's bridge",
    ),
    ("rule-blackhole", "rule-blackhole-v6", "a rule of `ip -6 rule` refuses what comes in by eth0"),
    (
        "rule-mark-blackhole",
        "rule-mark-blackhole-v6",
        "a firewall marks the SYN, and the IPv6 routing table for its mark refuses all",
    ),
    ("route-local-missing", "route-local-missing-v6", "WSL's own IPv6 address is missing in the routing table `local`"),
    ("reply-mark-refused", "reply-mark-refused-v6", "a firewall marks the IPv6 answers, and the rule for the mark refuses them"),
    ("rule-prohibit-back", "rule-prohibit-back-v6", "a rule of `ip -6 rule` prohibits what goes to the client"),
    ("route-blackhole-back", "route-blackhole-back-v6", "a blackhole route to the IPv6 client"),
    ("reply-mark-elsewhere", "reply-mark-elsewhere-v6", "a firewall marks the answers, and an IPv6 rule takes them elsewhere"),
    ("redirect-no-listener", "redirect-no-listener-v6", "a rule redirects the port over IPv6 to one without a server"),
    ("redirect-past-server", "redirect-past-server-v6", "a rule redirects the port over IPv6 past the server that listens on it"),
    (
        "redirect-loopback-server",
        "redirect-loopback-server-v6",
        "a rule redirects the port over IPv6 to one whose server listens on [::1] only",
    ),
    (
        "redirect-no-listener-legacy",
        "redirect-no-listener-ip6tables-legacy",
        "ip6tables (legacy) redirects to a port without a server",
    ),
    ("ttl-used-up", "hop-limit-used-up", "the SYN comes with a hop limit of 1 and is for a container"),
    ("ingress-redirect-nft", "ingress-redirect-nft-v6", "nftables at the device sends the IPv6 SYN out by another one (fwd)"),
    ("reply-redirect-nft", "reply-redirect-nft-v6", "nftables at the device sends answers over IPv6 out by another one (fwd)"),
    ("reply-redirect-tc", "reply-redirect-tc-v6", "a BPF program at tc sends answers over IPv6 out by another interface"),
    ("ingress-drop-inet", "ingress-drop-inet-v6", "nftables drops IPv6 in an ingress chain of the family inet"),
    ("ingress-reject-nft", "ingress-reject-nft-v6", "nftables rejects IPv6 in the ingress chain of the device"),
    ("reply-drop-egress", "reply-drop-egress-v6", "nftables drops the answers over IPv6 in the egress chain of the device"),
    ("reply-drop-qdisc", "reply-drop-qdisc-v6", "the queueing discipline has no room for answers over IPv6"),
    (
        "bridge-drop-arp-nft",
        "bridge-drop-discovery-nft-v6",
        "nftables drops on the bridge the question for a container's IPv6 neighbour",
    ),
    (
        "container-gateway-by-hand",
        "container-gateway-by-hand-v6",
        "somebody has set a wrong hardware address for the container's IPv6 gateway, in the container",
    ),
    ("reply-held-back", "reply-held-back-v6", "a queueing discipline of the device holds answers over IPv6 back"),
    ("drop-first-nft", "drop-first-nft-v6", "nftables drops IPv6 at the very beginning of PREROUTING"),
    (
        "untracked-published",
        "untracked-published-v6",
        "a container's IPv6 port is published, and exempt from connection tracking",
    ),
    ("listener-udp", "listener-udp-v6", "the server has the port for UDP alone, asked over IPv6"),
    ("no-listener-near", "no-listener-near-v6", "the server listens on the next port, asked over IPv6"),
    ("accept-queue-of-one", "accept-queue-of-one-v6", "the queue has room for one (backlog 0), asked over IPv6"),
    ("limit-rate-nft", "limit-rate-nft-v6", "nftables lets every IPv6 address connect once an hour, and it has done so"),
    (
        "limit-connections-iptables-nft",
        "limit-connections-ip6tables-nft",
        "ip6tables (nft) rejects an address that has a connection already (connlimit)",
    ),
    (
        "limit-rate-iptables-legacy",
        "limit-rate-ip6tables-legacy",
        "ip6tables (legacy) lets every address connect once an hour (hashlimit)",
    ),
    ("lo-down-own-address", "lo-down-own-address-v6", "`lo` is down, and a client in WSL connects to WSL's own IPv6 address"),
    ("ipsec-block-in", "ipsec-block-in-v6", "an IPsec policy blocks what comes from the IPv6 client"),
    ("ipsec-no-key-out", "ipsec-no-key-out-v6", "an IPsec policy wants the answers over IPv6 encrypted, and there is no key"),
    ("ipsec-block-forward", "ipsec-block-forward-v6", "an IPsec policy blocks IPv6 that goes on to another machine"),
    ("closed-before-confirmed", "closed-before-confirmed-v6", "the server ends before the client's ACK comes, over IPv6"),
    (
        "synproxy-iptables-nft",
        "synproxy-ip6tables-nft",
        "nothing is broken: a SYN proxy of ip6tables (nft) stands before the server",
    ),
    ("drop-deep-nft", "drop-deep-nft-v6", "nftables drops IPv6 five chains deep, behind verdict maps"),
    (
        "drop-second-table-nft",
        "drop-second-table-nft-v6",
        "one table lets the port in over IPv6, and the policy of another drops it",
    ),
    (
        "drop-reverse-path-nft",
        "drop-reverse-path-nft-v6",
        "nftables drops IPv6 that would be answered by another interface (fib)",
    ),
    (
        "drop-reverse-path-iptables-legacy",
        "drop-reverse-path-ip6tables-legacy",
        "ip6tables (legacy) drops what would be answered by another interface (-m rpfilter)",
    ),
    ("frame-to-many", "frame-to-many-v6", "the client has the broadcast hardware address for WSL's IPv6 address"),
    ("header-too-long", "header-too-long-v6", "the IPv6 SYN's TCP header claims to be longer than the packet"),
    (
        "masquerade-port-taken",
        "masquerade-port-taken-v6",
        "a rule gives all IPv6 that it masquerades one port, which a connection has",
    ),
    ("reply-reset-by-client", "reply-reset-by-client-v6", "the client's own firewall refuses the answers over IPv6 by a reset"),
    ("syn-other-source", "syn-other-source-v6", "a rule of WSL writes another source into the SYNs over IPv6"),
    ("reply-other-port", "reply-other-port-v6", "a rule of WSL writes another source port into the answers over IPv6"),
    ("container-no-gateway", "container-no-gateway-v6", "a port published over IPv6, and the container has no default route"),
    (
        "container-rule-elsewhere",
        "container-rule-elsewhere-v6",
        "a rule of `ip -6 rule` leads what comes from the container to a VPN, its answers too",
    ),
    (
        "container-blackhole-back",
        "container-blackhole-back-v6",
        "a blackhole route takes a container's answers over IPv6, behind a bridge that calls netfilter",
    ),
    ("container-vpn", "container-vpn-v6", "a port published over IPv6, and a VPN inside the container takes its answers"),
    ("foreign-lookup-drops", "foreign-lookup-drops-v6", "somebody's BPF program (sk_lookup) refuses every connection over IPv6"),
];

pub(super) fn scenarios(own: &[Scenario]) -> Vec<Scenario> {
    own.iter().filter_map(|base| Some(asked_over_v6(*OVER_V6.iter().find(|row| row.0 == base.name)?, base.clone()))).collect()
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
    let options: &[_] = if base.options == ["NFT_FIB_IPV4"] { &["NFT_FIB_IPV6"] } else { base.options };
    // IPv6 has counters of its own.
    let witness = base.witness.filter(|(group, _)| !matches!(*group, "Ip" | "Icmp"));
    Scenario {
        name,
        title,
        client,
        witness,
        tools,
        options,
        group: "over IPv6",
        v6: true,
        target: twin(base.target),
        expect: over_v6_expected(base.name, base.expect),
        ..base
    }
}

/// What differs in what is reported.
fn over_v6_expected(name: &str, expect: Expect) -> Expect {
    let translated = expect.translated.map(|(source, to)| (twin(source), SocketAddr::new(twin(to.ip()), to.port())));
    let expect = Expect { translated, ..expect };
    match name {
        // Who is given up here gives no reason, and neither does what is not sent on.
        "neighbour-stopped" | "bridge-drop-arp-nft" | "ipsec-block-forward" => {
            Expect { reason: Some(("NOT_SPECIFIED", (5, 18))), proved: false, inferred: true, ..expect }
        }
        // Here the reason is that of other refusals too, and only the setting tells.
        "ip-forward-off" | "ip-forward-off-before-drop" => {
            Expect { reason: Some(("IP_INADDRERRORS", (6, 18))), proved: false, inferred: true, ..expect }
        }
        // The kernel has a route that says so, instead of none.
        "rule-blackhole" | "rule-mark-blackhole" => Expect { reason: Some(("NOT_SPECIFIED", (5, 18))), ..expect },
        "redirect-no-listener-legacy" => Expect { says: "by rule 1 of ip6", ..expect },
        _ => expect,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_has_its_scenario() {
        assert_eq!(super::scenarios(&super::super::own()).len(), super::OVER_V6.len());
    }
}
