//! Judges of what a server does with the connections that it gets: its queues are full, it does not accept, it resets.

use super::{
    Confidence,
    case::{Case, Finding},
    hindered::relieved,
    listener::{takers, who, who_of},
};
use crate::{
    evidence::{Listener, Proxied},
    journey::{Facts, Outcome, Stage},
    units::duration,
};

pub(super) fn accept_queue(case: &Case) -> Option<Finding> {
    let takers = takers(case);
    let full = takers.iter().copied().find(|listener| is_full(listener));
    // Of several the one that is full; without such a one it cannot be told.
    let listener = full.or(if let [one] = takers[..] { Some(one) } else { None });
    let silence = case.evidence.silence;
    let overflows = silence.map(|silence| silence.overflows);
    let confidence = if case.reason() == Some("TCP_LISTEN_OVERFLOW") {
        Confidence::Proved
    } else if !swallowed(case) || case.reason().is_some() {
        return None;
    } else if silence.is_some_and(|silence| silence.is_all(silence.overflows)) {
        Confidence::Proved
    } else if full.is_some() || overflows.is_none_or(|rise| rise > 0) {
        Confidence::Inferred
    } else {
        return None;
    };
    // Of servers that share the port another may have been full at that moment.
    let told = if takers.len() > 1 { Confidence::Inferred } else { confidence };
    let who = listener.map_or_else(|| who_of(&takers), who);
    let queue = listener.map(|l| format!(" ({} wait, limit {})", l.queue, l.backlog)).unwrap_or_default();
    let summary = match (confidence, overflows) {
        (Confidence::Proved, _) if full.is_some() || takers.is_empty() => {
            format!("ignored: the accept queue of {who} is full{queue}: it does not accept its connections fast enough")
        }
        (Confidence::Proved, _) => {
            format!("ignored: the accept queue of {who} was full; now it is not{queue}: it accepts too slowly for such bursts")
        }
        (_, Some(rise)) if rise > 0 => format!(
            "ignored by {who}, most likely for a full accept queue{queue}: such queues overflowed {rise} times here meanwhile, but that this attempt was among them is not certain"
        ),
        _ if full.is_some() => format!("ignored by {who}, most likely because its accept queue is full now{queue}"),
        _ => format!("ignored: {who} took the SYN and made no answer, most likely for a full accept queue{queue}"),
    };
    Some(relieved(case, listener, Finding::new(told, summary)))
}

pub(super) fn syn_queue(case: &Case) -> Option<Finding> {
    if !swallowed(case) || case.reason().is_some() || case.sysctl("net.ipv4.tcp_syncookies") != Some("0") {
        return None;
    }
    let silence = case.evidence.silence.unwrap_or_default();
    let counted = silence.syn_queue_full;
    let who = who_of(&takers(case));
    let summary = if silence.is_all(counted) {
        format!("ignored: the queue of half-open connections of {who} is full, and SYN cookies are off")
    } else if counted > 0 {
        format!(
            "ignored by {who}, most likely for a full queue of half-open connections: that dropped {counted} SYNs here meanwhile, but that this attempt was among them is not certain; SYN cookies are off"
        )
    } else {
        format!(
            "ignored by {who}, whose accept queue has not overflowed; SYN cookies are off, so half-open connections may have filled its SYN queue"
        )
    };
    let confidence = if silence.is_all(counted) { Confidence::Proved } else { Confidence::Inferred };
    Some(Finding::new(confidence, summary).remedy([case.root("sysctl -w net.ipv4.tcp_syncookies=1")]))
}

/// Whether an accept queue takes no more: it holds one more than its limit, which may be 0.
pub(super) fn is_full(listener: &Listener) -> bool {
    listener.queue > listener.backlog
}

/// Whether a listener took the SYN and made no answer.
pub(super) fn swallowed(case: &Case) -> bool {
    case.journey.outcome == Outcome::Ignored || case.died_at(&[Stage::Listener])
}

pub(super) fn not_accepted(case: &Case) -> Option<Finding> {
    let Facts { established, acknowledged, not_accepted, .. } = case.journey.facts;
    if let Some(after_ns) = case.journey.facts.server_reset_ns {
        return Some(reset_at_once(case, after_ns));
    }
    if case.journey.is_unconfirmed() {
        return None;
    }
    let accepted = case.journey.stages.iter().any(|visit| visit.stage == Stage::Accepted);
    if accepted || !(established || acknowledged) {
        return None;
    }
    if let Some(finding) = super::unmade::no_longer_there(case).or_else(|| super::unmade::reset(case)) {
        return Some(finding);
    }
    let takers = takers(case);
    if let Some(finding) = super::published::with_keeper(case, &takers) {
        return Some(finding);
    }
    let listener = if not_accepted { only_with_waiting(&takers) } else { takers.iter().copied().find(|one| is_full(one)) };
    let summary = match listener {
        Some(l) if not_accepted => {
            let who = who(l);
            format!("connected, but {who} had not accepted it a second later: its queue holds {} of {}", l.queue, l.backlog)
        }
        Some(l) => {
            format!("connected, but {} does not accept: {} connections wait in its queue of {}", who(l), l.queue, l.backlog)
        }
        None if not_accepted && takers.len() > 1 => {
            format!("connected, but {} had not accepted it a second later", who_of(&takers))
        }
        None if not_accepted => "connected, but the application had not accepted it a second later".to_owned(),
        None => return None,
    };
    Some(relieved(case, listener, Finding::inferred(summary)))
}

/// The server whose queue the connection waits in, where only one can be meant.
fn only_with_waiting<'a>(takers: &[&'a Listener]) -> Option<&'a Listener> {
    if let [one] = takers {
        return Some(one);
    }
    let mut waiting = takers.iter().copied().filter(|listener| listener.queue > 0);
    waiting.next().filter(|_| waiting.next().is_none())
}

/// The application took the connection and gave it up, or went away while the connection waited for it.
fn reset_at_once(case: &Case, after_ns: u64) -> Finding {
    let port = case.journey.last_destination().1;
    let after = duration(after_ns);
    let look = case.root(&format!("ss -ltnp 'sport = :{port}'"));
    let takers = takers(case);
    if takers.is_empty() {
        let known = case.evidence.sockets.is_some();
        let gone = if known { format!(": nothing listens on port {port} any longer") } else { String::new() };
        let summary = format!("connected, and the server's side reset the connection {after} later, before it sent a byte{gone}");
        return Finding::proved(summary).remedy([look]);
    }
    let who = who_of(&takers);
    let summary = format!("connected, and {who} reset the connection {after} later, before it sent a byte");
    if let ([taker], Some(proxied)) = (takers.as_slice(), case.evidence.proxied.iter().find(|one| takers[0].pid == Some(one.pid)))
    {
        return reset_by_proxy(case, taker, proxied, &summary);
    }
    let watch =
        takers.iter().filter_map(|listener| listener.pid).map(|pid| format!("sudo strace -f -e trace=network,close -p {pid}"));
    let advice = format!("# see in the log of {who} why it gives up its connections: here it may crash, or refuse this client");
    Finding::proved(summary).remedy([look].into_iter().chain(watch).chain([advice]))
}

/// docker-proxy gave it up: it could not connect into the container.
fn reset_by_proxy(case: &Case, proxy: &Listener, proxied: &Proxied, summary: &str) -> Finding {
    let Proxied { to, there, .. } = proxied;
    let beyond = match (there, proxied.is_to_nobody()) {
        (Some(there), Some(true)) if there.is_empty() => ", where nothing listens".to_owned(),
        (Some(there), Some(true)) => {
            let bound: Vec<String> = there.iter().map(|listener| listener.address.to_string()).collect();
            format!(", where the container's server listens only on {}", bound.join(" and "))
        }
        (_, Some(false)) => String::new(),
        _ => ", where most likely nobody takes them".to_owned(),
    };
    let mend = if proxied.is_to_nobody() == Some(false) {
        format!("# see why the container's server does not take them, in its log or by asking it from here: curl -v http://{to}/")
    } else if there.as_ref().is_some_and(|there| !there.is_empty()) {
        format!("# have the container's server listen on 0.0.0.0, port {}", to.port())
    } else {
        format!("# start the container's server, or publish the port that it has: docker run -p {}:INNER", proxy.port)
    };
    let look = case.root(&format!("ss -ltnp 'sport = :{}'", proxy.port));
    Finding::proved(format!("{summary}: it leads connections on to {to} in a container{beyond}")).remedy([look, mend])
}
