//! A journey: the way of one SYN through the kernel, and how it ended. Facts of the kernel only; who is to blame is found
//! by `evidence` and said by `diagnosis`.

mod aside;
mod assemble;
#[cfg(test)]
mod assemble_tests;
mod decode;
mod end;
#[cfg(test)]
mod end_tests;
mod interface;
mod lent;
#[cfg(test)]
mod made;
mod outcome;
pub mod overdue;
mod reasons;
mod stage;
mod way;

pub use aside::Aside;
pub use assemble::{Names, assemble, source};
pub use decode::{DecodeError, decode, is_for_another};
pub use interface::InterfaceName;
pub use outcome::Outcome;
pub use reasons::{DataDrop, FREES_IN_ROUTING, FREES_UNRESOLVED, REFUSED_BY_CLIENT, symbol};
use reasons::{is_decision, keeps_from_being_made};
pub use stage::Stage;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where the connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It came in through a device.
    Remote,
    /// A program in this machine connects.
    Local,
    /// WSL's own relay connects on behalf of a program on Windows (`localhost` in NAT mode).
    WslLocalhostRelay,
}

/// Address family of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// Addresses and ports, as first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// The family of both addresses.
    pub family: Family,
    /// The client's address.
    pub source: IpAddr,
    /// The client's port.
    pub source_port: u16,
    /// The address that the client asked for.
    pub destination: IpAddr,
    /// The port that the client asked for.
    pub destination_port: u16,
    /// The SYN's initial sequence number.
    pub sequence: u32,
}

/// What conntrack thinks of the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "conntrack's own words")]
pub enum Conntrack {
    New,
    Established,
    Related,
    Reply,
    Invalid,
    Untracked,
}

/// The addresses that the packet had last, when they are not those of the flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Translated {
    /// Source address as last seen.
    pub source: IpAddr,
    /// Source port as last seen.
    pub source_port: u16,
    /// Destination address as last seen.
    pub destination: IpAddr,
    /// Destination port as last seen.
    pub destination_port: u16,
    /// The rule that rewrote them, when known.
    pub rule: Option<crate::evidence::Rule>,
}

/// A stage entered, with its time and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageVisit {
    /// Which stage.
    pub stage: Stage,
    /// Nanoseconds since the journey's first stage; strictly increasing along the journey.
    pub ns: u64,
    /// The interface: where the packet came in, or for OUTPUT, FORWARD and POSTROUTING where it goes out.
    pub interface: Option<InterfaceName>,
    /// Inode number of the network namespace.
    pub netns: u32,
}

/// Where a packet died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeathPlace {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The interface of the last stage.
    pub interface: Option<InterfaceName>,
}

/// The way of one SYN.
#[derive(Clone, Debug, PartialEq)]
pub struct Journey {
    /// Counts the journeys of this run, from 1.
    pub id: u64,
    /// When the SYN was first seen.
    pub time: jiff::Timestamp,
    /// Where the connection came from.
    pub origin: Origin,
    /// The interface of the first sight.
    pub interface: Option<InterfaceName>,
    /// The network namespace of the first sight.
    pub netns: u32,
    /// Addresses and ports as first seen.
    pub flow: Flow,
    /// Counts the SYNs of one flow and initial sequence number, from 1.
    pub attempt: u32,
    /// conntrack's state of the SYN; `None` where conntrack is not known to be on.
    pub conntrack: Option<Conntrack>,
    /// The addresses as last seen, when something rewrote them.
    pub translated: Option<Translated>,
    /// The stages entered, in order; `ns` strictly increases.
    pub stages: Vec<StageVisit>,
    /// Which of the stages is the answer's first; those behind it are the answer's, too.
    pub answer: Option<usize>,
    /// How it ended.
    pub outcome: Outcome,
    /// The last stage entered before the death.
    pub died_at: Option<Stage>,
    /// Where it died; of an answered journey, where what the client sent to confirm the answer died, when no connection came of it. So
    /// are `reason` and `location`.
    pub death: Option<DeathPlace>,
    /// The kernel's drop reason without its `SKB_DROP_REASON_` prefix, such as `NETFILTER_DROP`.
    pub reason: Option<String>,
    /// Where in the kernel it was freed: `symbol+0xoffset`.
    pub location: Option<String>,
    /// False when any record that belongs to the journey may have been lost.
    pub complete: bool,
    /// The facts behind `outcome`, for the diagnosis.
    pub facts: Facts,
}

impl Journey {
    /// Whether an event that was missed could have been its end.
    pub fn lacks_its_end(&self) -> bool {
        match self.outcome {
            Outcome::Unfinished => true,
            Outcome::Answered => self.facts.not_accepted,
            _ => false,
        }
    }

    /// Whether a firewall refused the SYN by a reset, and that died here on its way to the client.
    pub fn has_lost_a_firewalls_reset(&self) -> bool {
        let Facts { reset, syn_ack, kernel_reset, .. } = self.facts;
        self.outcome == Outcome::AnswerDropped && reset && !syn_ack && !kernel_reset
    }

    /// Whether the client was answered for nothing: the application did not take the connection, or reset it at once.
    pub fn came_to_nothing(&self) -> bool {
        self.facts.not_accepted || self.facts.server_reset_ns.is_some()
    }

    /// Whether no socket took the SYN: then the kernel refuses it, and where the refusal could not be sent it is dropped.
    pub fn met_no_socket(&self) -> bool {
        self.outcome == Outcome::Refused || self.is_refused_in_vain()
    }

    /// Whether a program that a rule hands packets to (NFQUEUE) dropped it, or ended while it held it.
    pub fn was_dropped_by_reader(&self) -> bool {
        // The kernel's function for it has had both names.
        self.location.as_deref().is_some_and(|place| ["nfqnl_reinject", "nf_reinject"].contains(&symbol(place)))
    }

    /// Whether no socket took the SYN, and no refusal left.
    pub fn is_refused_in_vain(&self) -> bool {
        self.outcome == Outcome::Dropped && self.reason.as_deref() == Some("NO_SOCKET")
    }

    /// The destination as the packet last had it: what a listener had to be bound to.
    pub fn last_destination(&self) -> (IpAddr, u16) {
        self.translated
            .as_ref()
            .map_or((self.flow.destination, self.flow.destination_port), |t| (t.destination, t.destination_port))
    }

    /// Whether it was answered, and no connection came of it because what the client sent to confirm the answer was dropped.
    pub fn is_unconfirmed(&self) -> bool {
        self.outcome == Outcome::Answered && keeps_from_being_made(self.reason.as_deref(), self.location.as_deref())
    }

    /// The same, where nobody refused it: it was unfit itself, or led nowhere.
    pub fn is_misfit(&self) -> bool {
        self.is_unconfirmed() && !self.reason.as_deref().is_some_and(is_decision)
    }

    /// Whether no socket made its SYN-ACK: it was answered before it came to one. Of one that was sent again that is not known.
    pub fn is_answered_by_syn_proxy(&self) -> bool {
        let Facts { syn_ack, socket_lookup, answer_from_outside, .. } = self.facts;
        syn_ack && !socket_lookup && !answer_from_outside && self.attempt == 1
    }

    /// Whether what confirms the answer came in, and the server's kernel asked for it again all the same: it did not get there.
    pub fn is_confirmed_in_vain(&self) -> bool {
        let Facts { acknowledged, established, syn_ack_again, answer_from_outside, asked_again, confirmation_taken, .. } =
            self.facts;
        let in_vain = acknowledged && syn_ack_again && !established && !confirmation_taken;
        // What confirms one of two answers to the same SYN may be seen with the other.
        self.outcome == Outcome::Answered && in_vain && !answer_from_outside && !asked_again
    }

    /// The same, where netfilter dropped it.
    pub fn is_unconfirmed_by_firewall(&self) -> bool {
        self.is_unconfirmed() && self.reason.as_deref() == Some("NETFILTER_DROP")
    }

    /// Whether the packet left by the interface that it came in by.
    pub fn is_turned_back(&self) -> bool {
        let left = self.stages.iter().rfind(|visit| visit.stage == Stage::TcEgress).and_then(|visit| visit.interface.as_ref());
        self.origin == Origin::Remote && left.is_some() && left == self.interface.as_ref()
    }

    /// Whether the packet was given another destination, or port there.
    pub fn is_led_elsewhere(&self) -> bool {
        self.last_destination() != (self.flow.destination, self.flow.destination_port)
    }

    /// The source as the packet last had it: where its answer had to go.
    pub fn last_source(&self) -> IpAddr {
        self.translated.as_ref().map_or(self.flow.source, |t| t.source)
    }

    /// The interface by which the packet came into the namespace of its last stage, as routing sees it.
    pub fn entrance(&self) -> Option<&str> {
        let netns = self.last_netns();
        let syn = self.stages.iter().take(self.answer.unwrap_or(usize::MAX)).filter(|visit| visit.netns == netns);
        let first = || {
            if netns == self.netns { self.interface.as_deref() } else { syn.clone().find_map(|visit| visit.interface.as_deref()) }
        };
        routed_interface(syn.clone()).or_else(first)
    }

    /// The interface by which an answer that was made elsewhere came back into the namespace of the first sight, as routing sees it.
    pub fn answer_entrance(&self) -> Option<&str> {
        let answer = self.stages.get(self.answer?..)?.iter().filter(|visit| visit.netns == self.netns);
        let first = answer.clone().next().filter(|visit| matches!(visit.stage, Stage::TcIngress | Stage::Prerouting))?;
        routed_interface(answer).or(first.interface.as_deref())
    }

    /// Where its answer had to go, as routing in the namespace of its end has it: what NAT did to the source is undone by the time that an
    /// answer has come back.
    pub fn answer_destination(&self) -> IpAddr {
        let back = self.last_netns() == self.netns && self.answer_entrance().is_some();
        if back { self.flow.source } else { self.last_source() }
    }

    /// The interface by which an answer left the namespace where it was made, and was not seen again, where its SYN came by another.
    pub fn strayed_by(&self) -> Option<&str> {
        let (syn, answer) = self.stages.split_at_checked(self.answer?)?;
        let last = answer.last().filter(|visit| visit.stage == Stage::TcEgress && visit.netns != self.netns)?;
        let came_by = |visit: &StageVisit| visit.netns == last.netns && visit.interface == last.interface;
        let astray = self.outcome == Outcome::Unfinished && !syn.iter().any(came_by);
        last.interface.as_deref().filter(|_| astray)
    }

    /// The namespace that decided: of the death, of the way on which its answer went elsewhere, of the server that its connection came to
    /// nothing at, or else of the last stage.
    pub fn last_netns(&self) -> u32 {
        if let Some(death) = &self.death {
            return death.netns;
        }
        let Facts { acknowledged, established, answer_elsewhere, answer_left, .. } = self.facts;
        // Answers that are sent again follow, and begin at the server once more.
        if answer_elsewhere && !answer_left && !acknowledged && !established {
            return self.netns;
        }
        // What confirms the answer was seen where it came in, and not at the server.
        if self.is_confirmed_in_vain() {
            return self.netns;
        }
        let at_server = self.outcome == Outcome::Answered && (self.came_to_nothing() || acknowledged && !established);
        let last = if at_server { self.server_netns() } else { self.stages.last().map(|visit| visit.netns) };
        last.unwrap_or(self.netns)
    }

    /// Which of the stages was the last of the packet that died. An answer may pass the same hook later, as a reject on `lo` does, and
    /// did not die there.
    pub fn death_index(&self) -> Option<usize> {
        let stage = self.died_at?;
        let of_syn = match self.outcome {
            Outcome::AnswerDropped | Outcome::Answered => self.stages.len(),
            _ => self.answer.unwrap_or(self.stages.len()),
        };
        let (netns, of_syn) = (self.last_netns(), self.stages.get(..of_syn)?);
        let there = of_syn.iter().rposition(|visit| visit.stage == stage && visit.netns == netns);
        there.or_else(|| of_syn.iter().rposition(|visit| visit.stage == stage))
    }

    /// The namespace of the socket that took the SYN: where the connection was made, or where the SYN was last.
    pub fn server_netns(&self) -> Option<u32> {
        let made = self.stages.iter().rfind(|visit| visit.stage == Stage::Established);
        let syn = self.stages.get(..self.answer.unwrap_or(self.stages.len())).and_then(<[_]>::last);
        made.or(syn).map(|visit| visit.netns)
    }
}

/// Where routing saw a packet come in: of a bridge's port it knows nothing, and takes it to have come by the bridge.
fn routed_interface<'a>(mut visits: impl Iterator<Item = &'a StageVisit>) -> Option<&'a str> {
    visits.find(|visit| visit.stage == Stage::Prerouting)?.interface.as_deref()
}

/// What the kernel side saw beside the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations")]
pub struct Facts {
    /// From the first sight to the last event, nanoseconds.
    pub lasted_ns: u64,
    /// A SYN-ACK was made.
    pub syn_ack: bool,
    /// A RST was made.
    pub reset: bool,
    /// The kernel's TCP answered the SYN by the RST (not a firewall).
    pub kernel_reset: bool,
    /// An ICMP error that quotes the SYN was made.
    pub icmp: bool,
    /// The answer left by the way the SYN came.
    pub answer_left: bool,
    /// The answer left by another interface.
    pub answer_elsewhere: bool,
    /// The SYN-ACK left by the way the SYN came, with another source than the SYN was for.
    pub answer_alien: bool,
    /// The answer came from outside the watched namespaces.
    pub answer_from_outside: bool,
    /// What confirms the answer was freed where the server's kernel had it, as with a full accept queue or `TCP_DEFER_ACCEPT`.
    pub confirmation_taken: bool,
    /// The server's kernel answered what confirms the SYN-ACK by a reset.
    pub confirmation_reset: bool,
    /// The client acknowledged the SYN-ACK.
    pub acknowledged: bool,
    /// The connection became established.
    pub established: bool,
    /// The connection was established, and the application had not taken it a second later. Only where that can be seen.
    pub not_accepted: bool,
    /// The server's side reset the connection before it had sent a byte, this many nanoseconds after it was established.
    pub server_reset_ns: Option<u64>,
    /// The server's side closed the connection (FIN) before it had sent a byte, this many nanoseconds after it was established.
    pub server_closed_ns: Option<u64>,
    /// The connection was made, and this dropped the first data that the client sent. It is sent again.
    pub data_dropped: Option<DataDrop>,
    /// The SYN-ACK was sent again.
    pub syn_ack_again: bool,
    /// The SYN went through the socket lookup.
    pub socket_lookup: bool,
    /// The SYN was consumed (`consume_skb`) rather than dropped.
    pub consumed: bool,
    /// The death is that of a copy: the kernel went on with one that no probe had seen.
    pub seen_as_copy: bool,
    /// A SYN-ACK was made for an earlier SYN of the same flow and number.
    pub answered_before: bool,
    /// The client sent the same SYN again before this journey had ended.
    pub asked_again: bool,
    /// Netfilter dropped the SYN behind the last position of a hook: only connection tracking stands there, which takes new connections
    /// into its table by then.
    pub at_confirmation: bool,
}
