//! Judges of connections that the client has confirmed, and that were not made here all the same.

use super::{
    case::{Case, Finding},
    hindered::relieved,
    listener::{Mismatch, first, takers, who_of},
    queue::is_full,
};
use crate::evidence::sysctls::{ABORTS_ON_OVERFLOW, TAKES_UP_IN_THE_MIDDLE};
use crate::journey::Facts;

/// Its listener is gone, or there was none and a firewall's SYN proxy answered.
pub(super) fn no_longer_there(case: &Case) -> Option<Finding> {
    let Facts { established, answer_from_outside, .. } = case.journey.facts;
    if established || answer_from_outside || case.evidence.sockets.is_none() || first(case, Mismatch::Nothing).is_some() {
        return None;
    }
    let port = case.journey.last_destination().1;
    let summary = if case.journey.is_answered_by_syn_proxy() {
        format!(
            "connected as the client sees it, but most likely with a firewall's SYN proxy (synproxy) only: nothing listens on port {port}"
        )
    } else {
        format!("connected as the client sees it, but no connection came of it here: nothing listens on port {port} any longer")
    };
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root("ss -ltnp")]))
}

/// The server's kernel answered the confirmation by a reset.
pub(super) fn reset(case: &Case) -> Option<Finding> {
    if !case.journey.facts.confirmation_reset {
        return None;
    }
    let takers = takers(case);
    let who = who_of(&takers);
    if case.journey.is_answered_by_syn_proxy() {
        return Some(not_led_on(case, &who));
    }
    if case.sysctl(ABORTS_ON_OVERFLOW) == Some("1") {
        let listener = takers.iter().copied().find(|listener| is_full(listener));
        let queue = listener.map(|l| format!(" ({} wait, limit {})", l.queue, l.backlog)).unwrap_or_default();
        let summary = format!(
            "connected as the client sees it, then reset by the kernel, most likely because the accept queue of {who} was full{queue}: then {ABORTS_ON_OVERFLOW}=1 has it reset what it cannot queue"
        );
        return Some(relieved(case, listener, Finding::inferred(summary)));
    }
    let summary = format!(
        "connected as the client sees it, then reset: the kernel did not take what confirms the connection for one of {who}"
    );
    let look = case.root("nstat -az TcpExtListenOverflows TcpExtSyncookiesFailed TcpExtEmbryonicRsts");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([look]))
}

/// The proxy did not see the confirmation, so that it never asked the server for a connection.
fn not_led_on(case: &Case, who: &str) -> Finding {
    let what = format!(
        "connected as the client sees it, but most likely with a firewall's SYN proxy (synproxy) only: it did not lead the connection on to {who}, and what confirms it was reset"
    );
    let finding = if case.sysctl(TAKES_UP_IN_THE_MIDDLE) == Some("1") {
        let why = "connection tracking takes connections up in the middle";
        let why = format!("{why} ({TAKES_UP_IN_THE_MIDDLE}=1), so the proxy's rule most likely did not match");
        Finding::inferred(format!("{what}: {why}"))
            .remedy(case.where_to_type())
            .remedy([case.root(&format!("sysctl -w {TAKES_UP_IN_THE_MIDDLE}=0"))])
    } else {
        Finding::inferred(what)
            .remedy(case.where_to_type())
            .remedy(["# its rule must match the confirmation, too: ct state invalid,untracked".to_owned()])
    };
    finding.remedy([case.root("nft -a list ruleset | grep -i synproxy")])
}
