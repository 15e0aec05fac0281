//! Judges of packets and answers that waited for a neighbour's hardware address in vain.

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding},
    firewall,
    remedy::allow_neighbours,
};
use crate::evidence::Rule;
use crate::journey::{FREES_UNRESOLVED, Journey, Origin, Outcome, Stage};

pub(super) fn neighbour(case: &Case) -> Option<Finding> {
    if case.journey.outcome == Outcome::Forwarded {
        return super::hardware::sent_to_nobody(case);
    }
    // It would not have to be asked for.
    if super::routes::is_sought_outside(case) {
        return None;
    }
    let reasons = ["NEIGH_FAILED", "NEIGH_CREATEFAIL", "NEIGH_QUEUEFULL", "NEIGH_DEAD"];
    let waiting = case.journey.outcome == Outcome::Unfinished;
    let at_neighbour = case.journey.stages.iter().rfind(|visit| visit.stage == Stage::Neighbour);
    let removed = case.reason() == Some("QUEUE_PURGE") && case.symbol().is_some_and(|symbol| FREES_UNRESOLVED.contains(&symbol));
    let confidence = if waiting {
        at_neighbour.map(|_| Confidence::Inferred)
    } else if removed {
        Some(Confidence::Proved)
    } else {
        case.by(&reasons, &FREES_UNRESOLVED)
    }?;
    let of_answer = case.journey.outcome == Outcome::AnswerDropped || waiting && case.journey.facts.syn_ack;
    let whom = if of_answer { case.journey.answer_destination() } else { case.journey.last_destination().0 };
    let gateway = case.evidence.gateway;
    let asked = gateway.map_or_else(|| whom.to_string(), |gateway| format!("{gateway}, the gateway to {whom},"));
    let asks = if whom.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let device = if waiting { at_neighbour.and_then(|visit| visit.interface.as_deref()) } else { case.interface() };
    let device = device.map(|name| format!(" on {name}")).unwrap_or_default();
    let summary = if waiting {
        let what = if of_answer { "the answer" } else { "it" };
        let when = if gateway.is_none() { ", as when a container is stopped" } else { "" };
        format!("unfinished: {what} still waits for {asked} to answer {asks}{device}{when}")
    } else if removed {
        let what = if of_answer { "the answer" } else { "it" };
        format!(
            "dropped: {what} waited for {asked} to answer {asks}{device}, and meanwhile the kernel forgot that neighbour, as when its network or container is taken down"
        )
    } else if let Some(gateway) = gateway {
        let what = if of_answer { "the answer was dropped on the way" } else { "dropped on the way" };
        format!("{what} to {whom}: the gateway to it, {gateway}, does not answer {asks}{device}")
    } else if of_answer && whom != case.journey.flow.source {
        format!(
            "the answer was dropped: it went to {whom}, which a rule here (SNAT) has put in the place of {}, and nobody answers {asks} for {whom}{device}",
            case.journey.flow.source
        )
    } else if of_answer {
        format!(
            "the answer to {whom} was dropped: it was sought as a neighbour, without a gateway, and does not answer {asks}{device}"
        )
    } else if turns_back(case) {
        format!(
            "dropped: it is for {whom}, which this machine does not have (any longer), and which does not answer {asks}{device} either, where it came from"
        )
    } else {
        format!("dropped on the way to {whom}: it does not answer {asks}{device}, as when a container is stopped")
    };
    let neighbour = gateway.unwrap_or(whom);
    if let Some(rule) = &case.evidence.unheard {
        return Some(unheard(case, neighbour, rule));
    }
    if let Some(there) = &case.evidence.deaf {
        return Some(super::hardware::deaf(case, neighbour, there));
    }
    if let Some(resident) = case.evidence.resident.as_ref().filter(|_| !removed) {
        return Some(super::resident::has_another(case, confidence, resident));
    }
    let own = case.journey.last_destination().0;
    let from = if of_answer && case.evidence.has_address(own) { format!(" from {own}") } else { String::new() };
    let look = [case.root(&format!("ip route get {whom}{from}")), case.root(&format!("ip neighbour show {neighbour}"))];
    let start = match gateway {
        Some(gateway) => Some(format!("# then see why the gateway {gateway} is not there, or let the route lead to one that is")),
        None if turns_back(case) => {
            Some("# then let the client ask for an address that this machine has: ip -br address show".to_owned())
        }
        None => (!of_answer).then(|| format!("# then start what had {whom}: `docker ps -a` lists containers that have stopped")),
    };
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(look).remedy(start))
}

/// A neighbour that may well answer, and a rule here that keeps the question or the answer from getting through.
fn unheard(case: &Case, neighbour: IpAddr, rule: &Rule) -> Finding {
    let what =
        if case.journey.outcome == Outcome::AnswerDropped || case.journey.facts.syn_ack { "the answer" } else { "the packet" };
    let search = if neighbour.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let summary = format!(
        "{what} waited for the hardware address of {neighbour} in vain: {} here drops this machine's question for it, or what comes back ({search})",
        firewall::name(rule)
    );
    let allow = allow_neighbours(rule, neighbour.is_ipv6());
    Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root(&allow)])
}

/// Whether a client's SYN is for a machine that would be found where the SYN came from, and nothing here has led it there: mostly the
/// client asks for an address that was this machine's, as WSL's is another after each start.
fn turns_back(case: &Case) -> bool {
    let came_by = case.journey.interface.as_deref();
    let Journey { translated, origin, outcome, death, .. } = case.journey;
    let died_at = death.as_ref().and_then(|death| death.interface.as_deref());
    translated.is_none()
        && *origin == Origin::Remote
        && *outcome == Outcome::Dropped
        && came_by.is_some()
        && died_at == came_by
        && case.elsewhere_netns().is_none()
}
