//! Judges of what the listeners did: none there, bound elsewhere, full, or too picky.
#![expect(clippy::unnecessary_wraps, reason = "judges share one signature")]

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding, endpoint},
};
use crate::{
    escape::escape,
    evidence::Listener,
    journey::{Facts, Outcome, Stage},
    units::duration,
};

/// What stands between a listener and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mismatch {
    Address,
    Family,
    Device,
    Nothing,
}

pub(super) fn bound_elsewhere(case: &Case) -> Option<Finding> {
    let listener = nearest(case, Mismatch::Address)?;
    let (address, port) = case.journey.last_destination();
    let all = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    let bound = endpoint(listener.address, listener.port);
    let gone = !case.evidence.addresses.is_empty() && !case.evidence.has_address(listener.address.to_canonical());
    let gone_now = if gone { ", which is no address of this machine (any longer)" } else { "" };
    let summary =
        format!("refused: {} listens on {bound} only{gone_now}, and the client asked for {}", who(listener), asked(case));
    let advice = format!(
        "# stop {} and start it again so that it listens on {all}, not {}: its option is often called --host, --bind or --listen",
        who(listener),
        listener.address
    );
    let bridge = format!(
        "# until then, if socat is installed:\nsocat TCP{0}-LISTEN:{port},bind={1},fork,reuseaddr TCP{0}:{bound}",
        if address.is_ipv4() { "4" } else { "6" },
        bracketed(address),
    );
    let bridge = bridge.lines().map(str::to_owned).collect::<Vec<_>>();
    // A socat in another namespace would listen in the wrong one; a loopback destination cannot be another address of ours.
    let bridge = if case.elsewhere_netns().is_none() && !address.is_loopback() && !gone { bridge } else { Vec::new() };
    Some(certain(case, summary).remedy([advice]).remedy(bridge))
}

pub(super) fn other_family(case: &Case) -> Option<Finding> {
    let listener = nearest(case, Mismatch::Family)?;
    let wants_v4 = case.journey.last_destination().0.is_ipv4();
    let (has, wants, start) = if wants_v4 {
        ("IPv6 only", "IPv4", "0.0.0.0 or with its IPv6-only option off")
    } else {
        ("IPv4 only", "IPv6", ":: (all IPv6 addresses)")
    };
    let summary = format!(
        "refused: {} listens on {} for {has}, and the client came by {wants}",
        who(listener),
        endpoint(listener.address, listener.port)
    );
    let advice = format!("# stop {} and start it again on {start}", who(listener));
    let only = case.sysctl("net.ipv6.bindv6only").filter(|value| *value == "1" && wants_v4);
    let sysctl = only.map(|_| case.root("sysctl -w net.ipv6.bindv6only=0"));
    Some(certain(case, summary).remedy(sysctl).remedy([advice]))
}

pub(super) fn policy(case: &Case) -> Option<Finding> {
    if case.journey.outcome == Outcome::Refused {
        return refused_by_device(case).or_else(|| refused_by_program(case));
    }
    if case.reason().is_none() {
        return refused_by_ipsec(case);
    }
    let refusal = match case.reason()? {
        "SOCKET_FILTER" => "a filter that a program attached to the listening socket refused it",
        "TCP_MD5NOTFOUND" => "the listener wants an MD5 signature and the SYN has none",
        "TCP_MD5UNEXPECTED" | "TCP_MD5FAILURE" => "its MD5 signature does not fit the listener's keys",
        "TCP_AONOTFOUND" => "the listener wants a TCP-AO signature and the SYN has none",
        "TCP_AUTH_HDR" | "TCP_AOUNEXPECTED" | "TCP_AOKEYNOTFOUND" | "TCP_AOFAILURE" => {
            "its TCP-AO signature does not fit the listener's keys"
        }
        "TCP_MINTTL" => "its TTL is below the least that the listener takes (IP_MINTTL)",
        "SECURITY_HOOK" => "a security module (SELinux, AppArmor) refused it",
        "XFRM_POLICY" => "an IPsec policy refused it",
        _ => return None,
    };
    let port = case.journey.last_destination().1;
    let look = match case.reason() {
        Some("XFRM_POLICY") => "ip xfrm policy".to_owned(),
        _ => format!("ss -ltnpe 'sport = :{port}'"),
    };
    Some(
        Finding::proved(format!("dropped in {}: {refusal}", case.place()))
            .remedy(case.where_to_type())
            .remedy([case.root(&look)]),
    )
}

/// A listener that could make no answer though there is a route for it, where `IPsec` has refused packets of this machine.
fn refused_by_ipsec(case: &Case) -> Option<Finding> {
    let refused = case.evidence.ipsec_refused;
    let silent = swallowed(case) && case.evidence.route_back == Some(true);
    let overflowed = case.evidence.silence.is_none_or(|silence| silence.overflows > 0 || silence.syn_queue_full > 0);
    if !silent || overflowed || refused == 0 {
        return None;
    }
    let client = case.journey.last_source();
    let summary = format!(
        "ignored: its listener could make no answer, most likely because an IPsec policy refuses packets to {client} ({refused} were refused here so far)"
    );
    let look = [case.root("ip xfrm policy"), case.root("cat /proc/net/xfrm_stat")];
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(look))
}

fn refused_by_device(case: &Case) -> Option<Finding> {
    let listener = nearest(case, Mismatch::Device)?;
    let device = escape(listener.device.as_deref().unwrap_or_default());
    let came_by = case.interface().unwrap_or("another interface");
    let summary = format!("refused: {} takes connections from {device} only, and this one came by {came_by}", who(listener));
    let advice = format!("# start {} without binding it to the device {device} (SO_BINDTODEVICE)", who(listener));
    Some(certain(case, summary).remedy([advice]))
}

/// A listener that fits got nothing, and somebody's program decides who gets connections.
fn refused_by_program(case: &Case) -> Option<Finding> {
    let listener = first(case, Mismatch::Nothing)?;
    let [first, more @ ..] = case.evidence.lookup_programs.as_slice() else { return None };
    let names = more.iter().fold(escape(first), |names, name| format!("{names}, {}", escape(name)));
    let summary = format!(
        "refused, though {} listens: a BPF program at the socket lookup (sk_lookup: {names}) most likely gave the connection to nobody",
        who(listener)
    );
    Some(
        Finding::inferred(summary)
            .remedy(case.where_to_type())
            .remedy([case.root("bpftool net show"), case.root("bpftool link show")]),
    )
}

pub(super) fn other_netns(case: &Case) -> Option<Finding> {
    let listener = case.evidence.elsewhere.first().filter(|_| case.evidence.sockets.is_some())?;
    let port = listener.port;
    let summary = format!(
        "refused: nothing takes port {port} in this network namespace, but {} listens on it in network namespace {} (a container?)",
        who(listener),
        listener.netns
    );
    let look = match listener.pid {
        Some(pid) => format!("sudo nsenter -t {pid} -n ip -br address"),
        None => "lsns -t net".to_owned(),
    };
    let publish =
        format!("# publish the port when the container is started: docker run -p {port}:{port} (podman takes the same option)");
    Some(certain(case, summary).remedy([look, publish]))
}

pub(super) fn none(case: &Case) -> Option<Finding> {
    let port = case.journey.last_destination().1;
    let look = case.root(&format!("ss -ltnp 'sport = :{port}'"));
    let asked = asked(case);
    let Some(sockets) = &case.evidence.sockets else {
        let summary = format!(
            "refused: no listener takes connections to {asked}; the sockets could not be listed, so one may listen on another address"
        );
        return Some(Finding::inferred(summary).remedy([look]));
    };
    if let Some(listener) = first(case, Mismatch::Nothing) {
        let summary = format!(
            "refused: no listener took connections to {asked} at that moment; {} does now, so it was started later",
            who(listener)
        );
        return Some(Finding::inferred(summary).remedy([look]));
    }
    debug_assert!(sockets.listeners.iter().all(|listener| mismatch(listener, case) != Mismatch::Nothing));
    let start = "# start the server, or find the port that it really listens on:".to_owned();
    let nearest: Vec<String> = case.evidence.nearest.iter().map(|near| format!("{} ({})", near.port, owner_of(near))).collect();
    let nearest = match nearest.as_slice() {
        [] => String::new(),
        [one] => format!("; the only port that does is {one}"),
        several => format!("; the nearest ports that do are {}", several.join(", ")),
    };
    let translator = case.journey.translated.as_ref().and_then(|translated| translated.rule.as_ref());
    let by = translator.map(|rule| format!(" by {}", super::firewall::name(rule))).unwrap_or_default();
    Some(
        certain(case, format!("refused: nothing listens on port {port} (asked for {asked}{by}){nearest}"))
            .remedy(case.where_to_type())
            .remedy([start, case.root("ss -ltnp")]),
    )
}

pub(super) fn accept_queue(case: &Case) -> Option<Finding> {
    let listener = listeners(case).find(|listener| mismatch(listener, case) == Mismatch::Nothing);
    let full = listener.filter(|listener| is_full(listener));
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
    let who = listener.map_or_else(|| "the server".to_owned(), who);
    let queue = listener.map(|l| format!(" ({} wait, limit {})", l.queue, l.backlog)).unwrap_or_default();
    let summary = match (confidence, overflows) {
        (Confidence::Proved, _) if full.is_some() || listener.is_none() => {
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
    Some(Finding::new(confidence, summary).remedy(relieve(case, listener)))
}

pub(super) fn syn_queue(case: &Case) -> Option<Finding> {
    if !swallowed(case) || case.reason().is_some() || case.sysctl("net.ipv4.tcp_syncookies") != Some("0") {
        return None;
    }
    let silence = case.evidence.silence.unwrap_or_default();
    let counted = silence.syn_queue_full;
    let listener = listeners(case).find(|listener| mismatch(listener, case) == Mismatch::Nothing);
    let who = listener.map_or_else(|| "the server".to_owned(), who);
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
fn is_full(listener: &Listener) -> bool {
    listener.queue > listener.backlog
}

/// Whether a listener took the SYN and made no answer.
fn swallowed(case: &Case) -> bool {
    case.journey.outcome == Outcome::Ignored || case.died_at(&[Stage::Listener])
}

pub(super) fn not_accepted(case: &Case) -> Option<Finding> {
    let Facts { established, acknowledged, not_accepted, .. } = case.journey.facts;
    if let Some(after_ns) = case.journey.facts.server_reset_ns {
        return Some(reset_at_once(case, after_ns));
    }
    let accepted = case.journey.stages.iter().any(|visit| visit.stage == Stage::Accepted);
    if accepted || !(established || acknowledged) {
        return None;
    }
    if let Some(finding) = no_longer_there(case) {
        return Some(finding);
    }
    let mut listeners = listeners(case).filter(|listener| mismatch(listener, case) == Mismatch::Nothing);
    let listener = if not_accepted { listeners.next() } else { listeners.find(|listener| is_full(listener)) };
    let summary = match listener {
        Some(l) if not_accepted => {
            let who = who(l);
            format!("connected, but {who} had not accepted it a second later: its queue holds {} of {}", l.queue, l.backlog)
        }
        Some(l) => {
            format!("connected, but {} does not accept: {} connections wait in its queue of {}", who(l), l.queue, l.backlog)
        }
        None if not_accepted => "connected, but the application had not accepted it a second later".to_owned(),
        None => return None,
    };
    Some(Finding::inferred(summary).remedy(relieve(case, listener)))
}

/// The application took the connection and gave it up, or went away while the connection waited for it.
fn reset_at_once(case: &Case, after_ns: u64) -> Finding {
    let port = case.journey.last_destination().1;
    let after = duration(after_ns);
    let look = case.root(&format!("ss -ltnp 'sport = :{port}'"));
    let Some(listener) = first(case, Mismatch::Nothing) else {
        let known = case.evidence.sockets.is_some();
        let gone = if known { format!(": nothing listens on port {port} any longer") } else { String::new() };
        let summary = format!("connected, and the server's side reset the connection {after} later, before it sent a byte{gone}");
        return Finding::proved(summary).remedy([look]);
    };
    let who = who(listener);
    let summary = format!("connected, and {who} reset the connection {after} later, before it sent a byte");
    let watch = listener.pid.map(|pid| format!("sudo strace -f -e trace=network,close -p {pid}"));
    let advice = format!("# see in the log of {who} why it gives up its connections: here it may crash, or refuse this client");
    Finding::proved(summary).remedy([look].into_iter().chain(watch).chain([advice]))
}

/// The client has confirmed, and no connection came of it here: its listener is gone, or there was none and a firewall's SYN proxy
/// answered.
fn no_longer_there(case: &Case) -> Option<Finding> {
    let Facts { established, socket_lookup, answer_from_outside, .. } = case.journey.facts;
    if established || answer_from_outside || case.evidence.sockets.is_none() || first(case, Mismatch::Nothing).is_some() {
        return None;
    }
    let port = case.journey.last_destination().1;
    let summary = if socket_lookup || case.journey.attempt > 1 {
        format!("connected as the client sees it, but no connection came of it here: nothing listens on port {port} any longer")
    } else {
        format!(
            "connected as the client sees it, but most likely with a firewall's SYN proxy (synproxy) only: nothing listens on port {port}"
        )
    };
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root("ss -ltnp")]))
}

/// What helps a server that does not accept fast enough.
fn relieve(case: &Case, listener: Option<&Listener>) -> Vec<String> {
    let port = case.journey.last_destination().1;
    let look = case.root(&format!("ss -ltnp 'sport = :{port}'"));
    let stack = listener.and_then(|l| l.pid).map(|pid| format!("sudo cat /proc/{pid}/status /proc/{pid}/stack"));
    let small = case.sysctl("net.core.somaxconn").and_then(|value| value.parse::<u32>().ok());
    let raise = small.filter(|limit| *limit < 4096).map(|_| case.root("sysctl -w net.core.somaxconn=4096"));
    let advice =
        "# see why the server does not accept: it hangs, or its listen() backlog is too small for such bursts".to_owned();
    [look].into_iter().chain(stack).chain(raise).chain([advice]).collect()
}

/// A finding that both this packet's reset and the list of sockets bear out.
fn certain(case: &Case, summary: String) -> Finding {
    let refused = case.reason() == Some("NO_SOCKET") || case.journey.facts.kernel_reset;
    Finding::new(if refused { Confidence::Proved } else { Confidence::Inferred }, summary)
}

fn listeners<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Listener> {
    let port = case.journey.last_destination().1;
    case.evidence.sockets.iter().flat_map(|sockets| &sockets.listeners).filter(move |listener| listener.port == port)
}

/// A listener that this stands in the way of, where no other fits: one that does would have got the connection.
fn nearest<'a>(case: &Case<'a>, wanted: Mismatch) -> Option<&'a Listener> {
    first(case, wanted).filter(|_| first(case, Mismatch::Nothing).is_none())
}

fn first<'a>(case: &Case<'a>, wanted: Mismatch) -> Option<&'a Listener> {
    listeners(case).find(|listener| mismatch(listener, case) == wanted)
}

fn mismatch(listener: &Listener, case: &Case) -> Mismatch {
    let wanted = case.journey.last_destination().0;
    let bound = listener.address.to_canonical();
    let dual = listener.address.is_ipv6() && listener.address.is_unspecified() && !listener.v6only;
    if bound.is_ipv4() != wanted.is_ipv4() && !(dual && wanted.is_ipv4()) {
        Mismatch::Family
    } else if !bound.is_unspecified() && bound != wanted {
        Mismatch::Address
    } else if listener.device.as_deref().is_some_and(|device| case.interface() != Some(device)) {
        Mismatch::Device
    } else {
        Mismatch::Nothing
    }
}

/// What the client asked for, and what that became on the way.
fn asked(case: &Case) -> String {
    let (address, port) = case.journey.last_destination();
    let last = endpoint(address, port);
    if last == case.destination() { last } else { format!("{}, translated to {last}", case.destination()) }
}

fn bracketed(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// The same in brackets.
fn owner_of(listener: &Listener) -> String {
    match (&listener.command, listener.pid) {
        (Some(command), Some(pid)) => format!("{}, pid {pid}", escape(command)),
        _ => who(listener),
    }
}

/// The process that holds a listener: on WSL it may belong to another distro.
fn who(listener: &Listener) -> String {
    match (&listener.command, listener.pid) {
        (Some(command), Some(pid)) => format!("{} (pid {pid})", escape(command)),
        (None, Some(pid)) => format!("process {pid}"),
        (Some(command), None) => escape(command),
        (None, None) => "a server without a process in this distro (another distro or Docker Desktop)".to_owned(),
    }
}
