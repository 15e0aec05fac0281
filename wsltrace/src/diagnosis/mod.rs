//! From what was seen to what it means: a pure function from a journey and its evidence to a named finding.

use serde::{Deserialize, Serialize};

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
    /// Commands that mend it; empty when there is nothing to mend or no command can.
    pub remedy: Vec<String>,
}
