//! What the kernel's drop reasons and the functions that free packets say.

use super::{Journey, Outcome, Stage};

/// Functions that free packets which waited in vain for a neighbour. IPv6's gives no reason of its own (`NOT_SPECIFIED` on 6.18), and
/// those that take the whole entry away, as when its device goes down, give `QUEUE_PURGE`.
pub const FREES_UNRESOLVED: [&str; 8] = [
    "neigh_invalidate",
    "neigh_timer_handler",
    "__neigh_event_send",
    "arp_error_report",
    "ndisc_error_report",
    "neigh_destroy",
    "neigh_flush_dev",
    "neigh_flush_one",
];

/// Functions that free packets which routing refused. A packet that a bridge has shown to netfilter (`br_netfilter`) comes to routing
/// straight from the bridge's tc ingress: no hook is passed again between the two.
pub const FREES_IN_ROUTING: [&str; 12] = [
    "ip_error",
    "ip_rcv_finish",
    "ip_rcv_finish_core",
    "ip_route_input_noref",
    "ip_forward",
    "ip6_forward",
    "ip6_pkt_discard",
    "ip6_pkt_drop",
    "ip6_pkt_prohibit",
    "ip6_rcv_finish",
    "dst_discard",
    "dst_discard_out",
];

/// The function in a place such as `ndisc_error_report+0x52` or `function.isra.0+0x1`.
pub fn symbol(location: &str) -> &str {
    location.split(['+', '.']).next().unwrap_or(location)
}

/// Drop reasons that say that somebody refused a packet. The kernel frees confirmations for others as well, and takes the next one: where
/// an accept queue is full, or a server asked to be woken by data only (`TCP_DEFER_ACCEPT`).
const DECISIONS: [&str; 6] = ["NETFILTER_DROP", "TC_INGRESS", "XFRM_POLICY", "SOCKET_FILTER", "TCP_MD5NOTFOUND", "SECURITY_HOOK"];

/// Whether a drop reason says that somebody refused the packet.
pub(super) fn is_decision(reason: &str) -> bool {
    DECISIONS.contains(&reason)
}

/// Drop reasons that say that a packet is unfit, leads nowhere, or is refused behind this machine's last hook: sent again as it is, it
/// fails again.
const MISFITS: [&str; 28] = [
    "TCP_CSUM",
    "SKB_CSUM",
    "IP_CSUM",
    "IP_INHDR",
    "PKT_TOO_SMALL",
    "HDR_TRUNC",
    "IPV6_BAD_EXTHDR",
    "DEV_HDR",
    "TCP_FLAGS",
    "TCP_INVALID_SEQUENCE",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_ACK_UNSENT_DATA",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_TSECR",
    "TCP_MINTTL",
    "IP_INNOROUTES",
    "IP_OUTNOROUTES",
    "IP_INADDRERRORS",
    "IP_RPFILTER",
    "IP_LOCALNET",
    "IP_LOCAL_SOURCE",
    "IP_INVALID_SOURCE",
    "IP_INVALID_DEST",
    "IPV6DISABLED",
    "BPF_CGROUP_EGRESS",
    "TC_EGRESS",
    "NEIGH_FAILED",
    "NEIGH_CREATEFAIL",
];

/// What dropped the first data that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDrop {
    /// Netfilter.
    Firewall,
    /// Traffic control, or a program there, where it came in.
    TcIngress,
    /// The same, where it was to be sent on.
    TcEgress,
    /// The kernel, as it was too large for the device by which it was to be sent on.
    TooLarge,
}

impl DataDrop {
    /// By the drop reason; `None` for those that say nothing about whether the next will get through.
    pub(super) fn of(reason: &str) -> Option<Self> {
        Some(match reason {
            "NETFILTER_DROP" => Self::Firewall,
            "TC_INGRESS" => Self::TcIngress,
            "TC_EGRESS" => Self::TcEgress,
            "PKT_TOO_BIG" => Self::TooLarge,
            _ => return None,
        })
    }
}

/// Drop reasons of an answer at the socket of a client in this machine.
pub const REFUSED_BY_CLIENT: [&str; 5] =
    ["SOCKET_FILTER", "TCP_MINTTL", "TCP_MD5NOTFOUND", "TCP_MD5UNEXPECTED", "TCP_MD5FAILURE"];

/// Whether what ended a client's confirmation keeps the connection from being made, where none was made. The kernel frees confirmations
/// for other reasons as well, and takes the next one.
pub(super) fn keeps_from_being_made(reason: Option<&str>, location: Option<&str>) -> bool {
    match reason {
        // Routes that refuse give no reason.
        None | Some("NOT_SPECIFIED") => location.is_some_and(|place| FREES_IN_ROUTING.contains(&symbol(place))),
        Some(reason) => is_decision(reason) || MISFITS.contains(&reason),
    }
}

/// Whether what was freed so had come to the server's kernel, which takes the next one.
pub(super) fn is_taken(reason: Option<&str>, location: Option<&str>) -> bool {
    let for_later = reason.is_none_or(|reason| ["NOT_SPECIFIED", "TCP_LISTEN_OVERFLOW"].contains(&reason));
    for_later && !keeps_from_being_made(reason, location)
}

impl Journey {
    /// Whether the hook itself dropped an answer, before any filter of OUTPUT: as a rule does, and as it does when the way of what a rule
    /// has marked was looked for anew, and there is none.
    pub fn is_answer_dropped_by_hook(&self) -> bool {
        let before_filters =
            [Stage::Output, Stage::OutputRaw, Stage::OutputConntrack, Stage::OutputMangle, Stage::OutputNat].map(Some);
        self.outcome == Outcome::AnswerDropped
            && self.reason.as_deref() == Some("NETFILTER_DROP")
            && self.location.as_deref().map(symbol) == Some("nf_hook_slow")
            && before_filters.contains(&self.died_at)
    }
}
