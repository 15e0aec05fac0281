//! From what was seen to what it means: a pure function from a journey and its evidence to a named finding. A new finding is
//! a [`Code`], a row in `table.rs` and the row's `judge` function.

mod aside;
mod bad_packet;
mod bridge_vlan;
mod case;
mod cgroup;
mod confirmation;
mod conntrack;
mod deaf;
mod firewall;
#[cfg(test)]
mod firewall_tests;
mod forwarded;
mod hairpin;
mod handed;
mod hardware;
mod held_back;
mod hindered;
mod icmp;
mod ipsec;
mod led;
mod listener;
mod managers;
mod misaddressed;
mod neighbour;
mod next;
#[cfg(test)]
mod next_tests;
mod nfqueue;
mod overlap;
mod published;
mod queue;
mod reasons;
mod rebind;
mod refusers;
mod refusing_device;
mod remedy;
mod reply;
#[cfg(test)]
mod reply_tests;
mod rerouted;
mod resident;
mod routes;
mod routing;
#[cfg(test)]
mod routing_tests;
mod scope;
#[cfg(test)]
mod server_tests;
mod shut_port;
mod socket;
#[cfg(test)]
mod socket_tests;
mod stages;
mod stale;
mod stall;
mod stall_page;
#[cfg(test)]
mod stray_tests;
mod table;
mod tc;
#[cfg(test)]
mod tests;
mod to_many;
mod transparent;
mod unanswered;
mod unexplained;
mod unlistened;
mod unmade;
mod unmasked;
mod vpn;
mod whereabouts;

pub(crate) use conntrack::{in_first_namespace, set_most_tracked};
pub use firewall::name as rule_name;
pub(crate) use forwarded::add_loopback_route;
pub(crate) use led::is_forwarder;
pub(crate) use overlap::{another_range, overlapping};
pub use reasons::{ReasonPage, reason_page, reason_pages};
pub(crate) use refusers::{refuser, removal};
pub(crate) use remedy::{Obstacle, allow_neighbours, around};
pub(crate) use shut_port::{join_vlan, kept_apart};
pub use stages::{StagePage, stage_page};
pub use stall::{Cause, Lately, Stall, stall};
pub use stall_page::{STALL, StallPage};
pub use table::{ROWS, Row, row};

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::journey::Journey;
use case::Case;

/// The finding's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`wsltrace explain CODE` describes each")]
pub enum Code {
    Healthy,
    NotAccepted,
    FirewallDrop,
    FirewallReject,
    NoListener,
    ListenerBoundElsewhere,
    ListenerOtherFamily,
    ListenerOtherNetns,
    AcceptQueueFull,
    SynQueueFull,
    SocketPolicy,
    ReversePathFilter,
    MartianAddress,
    NoForwarding,
    NoRoute,
    StaleConnection,
    Forwarded,
    ReplyDropped,
    ReplyUnanswered,
    ReplyWrongInterface,
    NoRouteBack,
    NoNeighbour,
    ConntrackDrop,
    BadPacket,
    TcDrop,
    QueuedToUserspace,
    UnexplainedDrop,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 27] = [
        Self::Healthy,
        Self::NotAccepted,
        Self::FirewallDrop,
        Self::FirewallReject,
        Self::NoListener,
        Self::ListenerBoundElsewhere,
        Self::ListenerOtherFamily,
        Self::ListenerOtherNetns,
        Self::AcceptQueueFull,
        Self::SynQueueFull,
        Self::SocketPolicy,
        Self::ReversePathFilter,
        Self::MartianAddress,
        Self::NoForwarding,
        Self::NoRoute,
        Self::StaleConnection,
        Self::Forwarded,
        Self::ReplyDropped,
        Self::ReplyUnanswered,
        Self::ReplyWrongInterface,
        Self::NoRouteBack,
        Self::NoNeighbour,
        Self::ConntrackDrop,
        Self::BadPacket,
        Self::TcDrop,
        Self::QueuedToUserspace,
        Self::UnexplainedDrop,
    ];

    /// The name in the JSON contract and in `explain`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::NotAccepted => "not_accepted",
            Self::FirewallDrop => "firewall_drop",
            Self::FirewallReject => "firewall_reject",
            Self::NoListener => "no_listener",
            Self::ListenerBoundElsewhere => "listener_bound_elsewhere",
            Self::ListenerOtherFamily => "listener_other_family",
            Self::ListenerOtherNetns => "listener_other_netns",
            Self::AcceptQueueFull => "accept_queue_full",
            Self::SynQueueFull => "syn_queue_full",
            Self::SocketPolicy => "socket_policy",
            Self::ReversePathFilter => "reverse_path_filter",
            Self::MartianAddress => "martian_address",
            Self::NoForwarding => "no_forwarding",
            Self::NoRoute => "no_route",
            Self::StaleConnection => "stale_connection",
            Self::Forwarded => "forwarded",
            Self::ReplyDropped => "reply_dropped",
            Self::ReplyUnanswered => "reply_unanswered",
            Self::ReplyWrongInterface => "reply_wrong_interface",
            Self::NoRouteBack => "no_route_back",
            Self::NoNeighbour => "no_neighbour",
            Self::ConntrackDrop => "conntrack_drop",
            Self::BadPacket => "bad_packet",
            Self::TcDrop => "tc_drop",
            Self::QueuedToUserspace => "queued_to_userspace",
            Self::UnexplainedDrop => "unexplained_drop",
        }
    }
}

const _: () = assert!(Code::UnexplainedDrop as usize + 1 == Code::ALL.len());

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// An event of this very packet names it.
    Proved,
    /// It follows from evidence that the summary tells.
    Inferred,
}

/// A named finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Diagnosis {
    /// Its name.
    pub code: Code,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence for somebody who has never read a kernel source.
    pub summary: String,
    /// What to type, ready for a shell; lines that begin with `#` say what no command can do. Empty when nothing is to be mended.
    pub remedy: Vec<String>,
}

/// Names what happened to a journey: the first row of the table that goes with the outcome and whose judge agrees.
pub fn diagnose(journey: &Journey, evidence: &Evidence) -> Diagnosis {
    let case = Case { journey, evidence };
    let found = ROWS
        .iter()
        .filter(|row| row.outcomes.contains(&journey.outcome))
        .find_map(|row| (row.judge)(&case).map(|finding| (row.code, finding)));
    let (code, mut finding) = found.unwrap_or_else(|| (Code::UnexplainedDrop, unexplained::unexplained(&case)));
    finding = led::with_leader(&case, code, finding);
    finding = next::with_next(&case, code, finding);
    if journey.is_refused_in_vain() {
        finding = routes::without_way_for_refusal(&case, finding);
    }
    if let Some(holder) = &evidence.table_holder {
        let held = format!("; its table belongs to {}, and nobody else may change it", remedy::who_holds(holder));
        finding.summary.push_str(&held);
    }
    if let Some(rule) = &evidence.exempted_by {
        let exempted = format!("; connection tracking leaves it out (notrack), by {}", firewall::name(rule));
        finding.summary.push_str(&exempted);
    }
    if !journey.complete {
        finding.confidence = Confidence::Inferred;
        finding.summary.push_str("; records of this journey were lost, so a later event may be missing here");
    }
    Diagnosis { code, confidence: finding.confidence, summary: finding.summary, remedy: finding.remedy }
}
