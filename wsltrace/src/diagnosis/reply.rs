//! Judges of journeys whose SYN was answered: what became of the answer.
#![expect(clippy::unnecessary_wraps, reason = "judges share one signature")]

use super::{
    Confidence,
    case::{Case, Finding},
    remedy::mend,
    routing::route_back_by_entrance,
};
use crate::journey::{FREES_UNRESOLVED, Facts, Outcome, Stage};

pub(super) fn healthy(case: &Case) -> Option<Finding> {
    let Facts { acknowledged, established, answer_from_outside, .. } = case.journey.facts;
    let by = if answer_from_outside { "answered from beyond this machine" } else { "answered" };
    Some(if established || acknowledged {
        Finding::proved(format!("{by}, and the client completed the connection"))
    } else {
        Finding::inferred(format!("{by}; whether the client got the answer was not seen"))
    })
}

pub(super) fn unanswered(case: &Case) -> Option<Finding> {
    let Facts { syn_ack_again, acknowledged, established, .. } = case.journey.facts;
    if !syn_ack_again || acknowledged || established {
        return None;
    }
    let source = case.journey.flow.source;
    let summary = format!(
        "answered, but {source} never confirmed: the SYN-ACK was sent again and no ACK came in, so the answer is lost on the way back"
    );
    let look = [
        case.root(&format!("ip route get {source}")),
        "# then look behind this machine: a VPN or a firewall on Windows may take the answers".to_owned(),
    ];
    Some(Finding::proved(summary).remedy(look))
}

pub(super) fn wrong_interface(case: &Case) -> Option<Finding> {
    let Facts { answer_elsewhere, answer_left, .. } = case.journey.facts;
    let entered = case.journey.interface.as_deref();
    let source = case.journey.flow.source;
    let mend = route_back_by_entrance(case).unwrap_or_default();
    let look =
        [case.root(&format!("ip route get {source} from {}", case.journey.last_destination().0)), case.root("ip rule show")];
    // It never left: nobody has the client's address on the other interface.
    if case.died_at(&[Stage::Neighbour])
        && case.elsewhere_netns().is_none()
        && let Some((entered, other)) = entered.zip(case.interface()).filter(|(entered, other)| entered != other)
    {
        let summary = format!(
            "answered by the wrong way: the SYN came in by {entered} and the answer was routed to {other}, where no next hop towards {source} answers"
        );
        return Some(Finding::proved(summary).remedy(mend).remedy(look));
    }
    if !answer_elsewhere || answer_left {
        return None;
    }
    let left = case
        .journey
        .stages
        .iter()
        .rev()
        .find(|visit| visit.stage == Stage::TcEgress)
        .and_then(|visit| visit.interface.as_deref());
    let summary = format!(
        "answered by the wrong way: the SYN came in by {} and the answer left by {}, so the client never gets it",
        entered.unwrap_or("one interface"),
        left.unwrap_or("another")
    );
    Some(Finding::proved(summary).remedy(mend).remedy(look))
}

pub(super) fn dropped(case: &Case) -> Option<Finding> {
    let refused = case.journey.facts.reset && !case.journey.facts.syn_ack;
    let by = match (&case.evidence.rule, case.reason()) {
        (Some(_), _) | (None, Some("NETFILTER_DROP")) => " by a firewall",
        _ => "",
    };
    let answer = match (refused, case.journey.facts.kernel_reset) {
        (true, true) => format!("nothing took {}, and the reset that says so", case.destination()),
        // A firewall's, or one of a kernel that does not tell.
        (true, false) => "refused by a reset, which itself".to_owned(),
        (false, _) => "the listener answered, but its SYN-ACK".to_owned(),
    };
    let mut summary = format!("{answer} was dropped{by} in {}", case.place());
    let detail = match (&case.evidence.rule, case.reason()) {
        (Some(rule), _) => {
            let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            format!(" ({} {} {}{text})", rule.family, rule.table, rule.chain)
        }
        (None, Some("NETFILTER_DROP")) => "; which rule is not known".to_owned(),
        (None, Some(reason)) => format!(" ({reason}){}", super::various::named_at_tc(case)),
        (None, None) => String::new(),
    };
    summary.push_str(&detail);
    let confidence =
        if case.reason().is_some() || case.evidence.rule.is_some() { Confidence::Proved } else { Confidence::Inferred };
    let look = match (&case.evidence.rule, case.reason()) {
        (Some(rule), _) => mend(case, rule),
        _ if !by.is_empty() => vec![case.root("nft -a list ruleset")],
        (None, Some(reason)) if reason == "TC_EGRESS" || reason.starts_with("QDISC_") => {
            super::various::detach(case).into_iter().chain(super::various::show_tc(case)).collect()
        }
        _ => vec![case.root(&format!("ip route get {}", case.journey.flow.source))],
    };
    // Without the rule the client would only be refused sooner.
    let server = (refused && case.journey.facts.kernel_reset)
        .then(|| [case.root("ss -ltnp"), "# start the server, or find its port; then:".to_owned()]);
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(server.into_iter().flatten()).remedy(look))
}

pub(super) fn neighbour(case: &Case) -> Option<Finding> {
    let reasons = ["NEIGH_FAILED", "NEIGH_CREATEFAIL", "NEIGH_QUEUEFULL", "NEIGH_DEAD"];
    let waiting = case.journey.outcome == Outcome::Unfinished;
    let at_neighbour = case.journey.stages.iter().rfind(|visit| visit.stage == Stage::Neighbour);
    let confidence = if waiting { at_neighbour.map(|_| Confidence::Inferred) } else { case.by(&reasons, &FREES_UNRESOLVED) }?;
    let of_answer = case.journey.outcome == Outcome::AnswerDropped || waiting && case.journey.facts.syn_ack;
    let whom = if of_answer { case.journey.flow.source } else { case.journey.last_destination().0 };
    let asks = if whom.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let device = if waiting { at_neighbour.and_then(|visit| visit.interface.as_deref()) } else { case.interface() };
    let device = device.map(|name| format!(" on {name}")).unwrap_or_default();
    let summary = if waiting {
        let what = if of_answer { "the answer" } else { "it" };
        format!("unfinished: {what} still waits for {whom} to answer {asks}{device}, as when a container is stopped")
    } else if of_answer {
        format!("the answer to {whom} was dropped: neither the client nor a gateway to it answers {asks}{device}")
    } else {
        format!("dropped on the way to {whom}: it does not answer {asks}{device}, as when a container is stopped")
    };
    let look = [case.root(&format!("ip route get {whom}")), case.root(&format!("ip neighbour show {whom}"))];
    let start = format!("# then start what had {whom}: `docker ps -a` lists containers that have stopped");
    let start = (!of_answer).then_some(start);
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(look).remedy(start))
}

pub(super) fn forwarded(case: &Case) -> Option<Finding> {
    let last = case.journey.stages.iter().rev().find(|visit| visit.stage == Stage::TcEgress).or(case.journey.stages.last());
    let by = last.and_then(|visit| visit.interface.as_deref()).map(|name| format!(" by {name}")).unwrap_or_default();
    let to = super::case::endpoint(case.journey.last_destination().0, case.journey.last_destination().1);
    Some(Finding::proved(format!("sent on to {to}{by}; what happens there is not seen from here")))
}

pub(super) fn stale(case: &Case) -> Option<Finding> {
    let reasons = [
        "TCP_INVALID_SYN",
        "TCP_RFC7323_PAWS",
        "TCP_RFC7323_TW_PAWS",
        "TCP_OLD_SEQUENCE",
        "TCP_INVALID_SEQUENCE",
        "TCP_INVALID_END_SEQUENCE",
        "TCP_OVERWINDOW",
        "TCP_OLD_DATA",
    ];
    let challenged = case.journey.outcome == Outcome::Challenged;
    // Where the kernel gives no reason: TCP took the packet and looked for no listener, so it had a connection of these ends.
    let took_it = case.reason().is_none()
        && case.died_at(&[Stage::SocketLookup])
        && !case.journey.facts.socket_lookup
        && case.symbol().is_some_and(|symbol| symbol.starts_with("tcp_"));
    let confidence = case.by(&reasons, &[]).or((challenged || took_it).then_some(Confidence::Inferred))?;
    let flow = &case.journey.flow;
    let client = super::case::endpoint(flow.source, flow.source_port);
    let how = if challenged { "answered by a challenge ACK" } else { "dropped" };
    let summary = format!(
        "{how}: this machine still has a connection from {client} (the client reused its port, as happens after sleep), so the SYN opens no new one"
    );
    let (port, client_port) = (case.journey.last_destination().1, flow.source_port);
    let look = case.root(&format!("ss -tnpo 'sport = :{port} and dport = :{client_port}'"));
    let advice = "# the next attempt uses another port and works; restarting the server clears what is left".to_owned();
    Some(Finding::new(confidence, summary).remedy([look, advice]))
}
