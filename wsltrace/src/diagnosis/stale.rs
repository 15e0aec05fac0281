//! Judge of SYNs that met what is left of an older connection.

use super::{
    Confidence,
    case::{Case, Finding, TCP_RECEIVES},
};
use crate::journey::Outcome;

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
    // Without a reason: TCP took the packet and looked for no listener. So does a frame that was not meant for this machine end, in
    // the same function; elsewhere in TCP a connection of these ends took it.
    let met_one =
        case.evidence.older_connection == Some(true) || case.symbol().is_some_and(|symbol| !TCP_RECEIVES.contains(&symbol));
    let took_it = case.taken_without_lookup() && met_one;
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
