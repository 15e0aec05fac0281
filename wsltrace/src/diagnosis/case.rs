//! What the judges ask of a journey and its evidence, and what they answer.

use std::net::IpAddr;

use super::{Confidence, stages::stage_page};
use crate::{
    escape::shell_word,
    evidence::Evidence,
    journey::{Facts, Family, Journey, Stage, symbol},
};

/// Where TCP takes a packet in and looks what it belongs to.
pub(super) const TCP_RECEIVES: [&str; 2] = ["tcp_v4_rcv", "tcp_v6_rcv"];

/// A journey with its evidence.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    /// What was seen.
    pub(super) journey: &'a Journey,
    /// What was found out.
    pub(super) evidence: &'a Evidence,
}

/// A judge's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How sure it is.
    pub(super) confidence: Confidence,
    /// One sentence without its full stop.
    pub(super) summary: String,
    /// See [`super::Diagnosis::remedy`].
    pub(super) remedy: Vec<String>,
}

impl Finding {
    /// The finding where the SYN was answered and somebody drops what the client sends next.
    pub(super) fn unconfirmed(by: &str) -> Self {
        Self::proved(format!(
            "answered, and then the client's next packet, which confirms the answer, was dropped by {by}: the client sees itself connected and waits in vain"
        ))
    }

    /// The same where nobody refused it: what the kernel has against it.
    pub(super) fn misfit(confidence: Confidence, why: &str) -> Self {
        let summary = format!(
            "answered, and then the client's next packet, which confirms the answer, was dropped: {why}; no connection was made, though the client may see itself connected"
        );
        Self::new(confidence, summary)
    }

    pub(super) fn proved(summary: impl Into<String>) -> Self {
        Self::new(Confidence::Proved, summary)
    }

    pub(super) fn inferred(summary: impl Into<String>) -> Self {
        Self::new(Confidence::Inferred, summary)
    }

    pub(super) fn new(confidence: Confidence, summary: impl Into<String>) -> Self {
        Self { confidence, summary: summary.into(), remedy: Vec::new() }
    }

    pub(super) fn remedy(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.remedy.extend(lines);
        self
    }
}

impl Case<'_> {
    /// The drop reason, unless the kernel said nothing by it.
    pub(super) fn reason(&self) -> Option<&str> {
        self.journey.reason.as_deref().filter(|reason| !matches!(*reason, "" | "NOT_SPECIFIED" | "SKB_CONSUMED" | "CONSUMED"))
    }

    /// The function that freed the packet, without offset and compiler suffixes such as `.isra.0`.
    pub(super) fn symbol(&self) -> Option<&str> {
        self.journey.location.as_deref().map(symbol)
    }

    /// Proved by one of these reasons, or, where the kernel gave no reason, inferred from one of these functions.
    pub(super) fn by(&self, reasons: &[&str], symbols: &[&str]) -> Option<Confidence> {
        match self.reason() {
            Some(reason) => reasons.contains(&reason).then_some(Confidence::Proved),
            None => self.symbol().filter(|symbol| symbols.contains(symbol)).map(|_| Confidence::Inferred),
        }
    }

    pub(super) fn died_at(&self, stages: &[Stage]) -> bool {
        self.journey.died_at.is_some_and(|stage| stages.contains(&stage))
    }

    /// Where it died, in the words of the stage table; "an unknown place" without a stage.
    pub(super) fn place(&self) -> String {
        let place = self.journey.died_at.map_or("an unknown place", |stage| stage_page(stage).place);
        match (self.interface(), self.elsewhere_netns()) {
            (Some(interface), None) => format!("{place} on {interface}"),
            (Some(interface), Some(netns)) => format!("{place} on {interface} of network namespace {netns}"),
            (None, Some(netns)) => format!("{place} of network namespace {netns}"),
            (None, None) => place.to_owned(),
        }
    }

    /// The interface of the death, or the one that the SYN came in by.
    pub(super) fn interface(&self) -> Option<&str> {
        match &self.journey.death {
            Some(death) => death.interface.as_deref(),
            None => self.journey.interface.as_deref(),
        }
    }

    /// The same, in words.
    pub(super) fn on_interface(&self) -> String {
        self.interface().map(|name| format!(" on {name}")).unwrap_or_default()
    }

    /// The namespace of the end when it is not the one where the journey began.
    pub(super) fn elsewhere_netns(&self) -> Option<u32> {
        Some(self.journey.last_netns()).filter(|netns| *netns != self.journey.netns)
    }

    /// Whether the SYN left what is watched and its answer came from there: nothing here refused it.
    pub(super) fn was_answered_beyond(&self) -> bool {
        let Facts { answer_from_outside, socket_lookup, .. } = self.journey.facts;
        let mut syn = self.journey.stages.iter().take(self.journey.answer.unwrap_or(usize::MAX));
        answer_from_outside || !socket_lookup && syn.next_back().is_some_and(|visit| visit.stage == Stage::TcEgress)
    }

    /// Whether TCP took the SYN and freed it before it looked for a listener, and the kernel gives no reason.
    pub(super) fn taken_without_lookup(&self) -> bool {
        let own = self.evidence.addresses.is_empty() || self.evidence.has_address(self.journey.last_destination().0);
        self.reason().is_none()
            && own
            && self.died_at(&[Stage::SocketLookup])
            && !self.journey.facts.socket_lookup
            && self.symbol().is_some_and(|symbol| symbol.starts_with("tcp_"))
    }

    pub(super) fn is_v6(&self) -> bool {
        self.journey.flow.family == Family::Ipv6
    }

    /// `ADDRESS:PORT` of what the client asked for.
    pub(super) fn destination(&self) -> String {
        endpoint(self.journey.flow.destination, self.journey.flow.destination_port)
    }

    pub(super) fn sysctl(&self, name: &str) -> Option<&str> {
        self.evidence.sysctls.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim())
    }

    /// A command for root, to be run where the packet died, be that a container's namespace.
    pub(super) fn root(&self, command: &str) -> String {
        match &self.evidence.entrance {
            Some(entrance) => format!("sudo {entrance} {command}"),
            None => format!("sudo {command}"),
        }
    }

    /// Says that commands belong into another namespace when it is not known how to enter that.
    pub(super) fn where_to_type(&self) -> Option<String> {
        let netns = self.elsewhere_netns().filter(|_| self.evidence.entrance.is_none())?;
        Some(format!(
            "# in the network namespace with inode {netns} (lsns -t net shows its processes; enter it with nsenter -n):"
        ))
    }

    /// `sysctl -w` for the interface of the death, or nothing when it has no name.
    pub(super) fn set_for_interface(&self, key: &str, value: u32, also_all: bool) -> Vec<String> {
        let Some(interface) = self.interface() else { return Vec::new() };
        // sysctl reads a dot in a name as a slash and the reverse.
        let of_interface = shell_word(&format!("net.ipv4.conf.{}.{key}={value}", interface.replace('.', "/")));
        let of_all = if also_all { format!("net.ipv4.conf.all.{key}={value} ") } else { String::new() };
        self.where_to_type().into_iter().chain([self.root(&format!("sysctl -w {of_all}{of_interface}"))]).collect()
    }
}

/// `ADDRESS:PORT`, with brackets around an IPv6 address.
pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
