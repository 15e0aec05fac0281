//! Judges of what routing refused: reverse path filter, martians, forwarding, routes.

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding},
    firewall::name,
};
use crate::escape::shell_word;
use crate::evidence::{Backend, Rule};
use crate::journey::{Origin, Stage};

/// Where the kernel frees a packet whose source or destination the input route refuses.
const ROUTE_INPUT: [&str; 6] = [
    "ip_rcv_finish_core",
    "ip_rcv_finish",
    "ip_route_input_noref",
    "ip_route_input_slow",
    "fib_validate_source",
    "__fib_validate_source",
];

/// The table that routes stand in unless told otherwise.
const MAIN_TABLE: u32 = 254;

pub(super) fn reverse_path(case: &Case) -> Option<Finding> {
    let confidence = match case.by(&["IP_RPFILTER"], &ROUTE_INPUT)? {
        Confidence::Inferred if martian_by_address(case) || !strict(case) => return None,
        confidence => confidence,
    };
    let interface = case.interface().unwrap_or("its interface");
    let source = case.journey.flow.source;
    let summary = format!(
        "dropped by the reverse path filter on {interface}: the kernel would not answer {source} by {interface}, so it takes the source for forged"
    );
    // Switched off, the filter would let in what is then answered by the wrong way.
    let mend = route_back_by_entrance(case).unwrap_or_else(|| case.set_for_interface("rp_filter", 0, true));
    let look = case.root(&format!("ip route get {source}"));
    Some(Finding::new(confidence, summary).remedy(mend).remedy([look]))
}

/// The command that leads answers back by the interface that the SYN came in by, where another route takes them elsewhere.
pub(super) fn route_back_by_entrance(case: &Case) -> Option<Vec<String>> {
    let hop = case.evidence.hop_back?;
    let interface = case.journey.interface.as_deref().filter(|_| case.elsewhere_netns().is_none())?;
    let source = case.journey.flow.source;
    let via = hop.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let ip = if source.is_ipv4() { "ip" } else { "ip -6" };
    Some(vec![case.root(&format!("{ip} route replace {source}{via} dev {}", shell_word(interface)))])
}

pub(super) fn martian(case: &Case) -> Option<Finding> {
    let interface = case.interface().unwrap_or("its interface");
    let flow = &case.journey.flow;
    let (source, destination) = (flow.source, case.journey.last_destination().0);
    if let Some(finding) = loopback_beyond(case) {
        return Some(finding);
    }
    let localnet = || case.set_for_interface("route_localnet", 1, false);
    let local_source = || case.set_for_interface("accept_local", 1, false);
    let (confidence, why, remedy) = match case.reason() {
        Some("IP_LOCALNET") => {
            (Confidence::Proved, format!("a 127.x address on {interface} is not allowed there (route_localnet is 0)"), localnet())
        }
        Some("IP_LOCAL_SOURCE") => {
            (Confidence::Proved, format!("its source {source} is an address of this machine (accept_local is 0)"), local_source())
        }
        Some("IP_INVALID_SOURCE") => (Confidence::Proved, format!("{source} cannot be a source address"), Vec::new()),
        Some("IP_INVALID_DEST") => (Confidence::Proved, format!("{destination} cannot be a destination here"), Vec::new()),
        Some(_) => return None,
        None if source.is_ipv6() => {
            let early = matches!(case.symbol()?, "ip6_rcv_core" | "ipv6_rcv" | "ip6_rcv_finish_core");
            let loopback = source.is_loopback() || destination.is_loopback();
            if !early || !loopback {
                return None;
            }
            (Confidence::Inferred, format!("::1 came in by {interface}, and the kernel takes it from lo only"), Vec::new())
        }
        None => {
            let at_route = case.symbol().is_some_and(|symbol| ROUTE_INPUT.contains(&symbol));
            if !at_route || !case.died_at(&[Stage::Routing]) {
                return None;
            }
            let remedy = if source == destination {
                local_source()
            } else if loopback(case) {
                localnet()
            } else {
                Vec::new()
            };
            (
                Confidence::Inferred,
                "this kernel gives no reason, but frees packets with unfit addresses at this place".to_owned(),
                remedy,
            )
        }
    };
    let summary = format!("dropped by routing as a martian ({source} to {destination}): {why}");
    Some(Finding::new(confidence, summary).remedy(remedy))
}

/// A packet from 127.x whose destination was rewritten to a container's: no other network namespace takes such a source. Where
/// that shall work, a rule gives it another source on its way out (masquerade), or leaves it to a proxy of this machine.
fn loopback_beyond(case: &Case) -> Option<Finding> {
    case.elsewhere_netns()?;
    let confidence = case.by(&["IP_LOCALNET"], &ROUTE_INPUT)?;
    let translated = case.journey.translated.as_ref()?;
    let (source, destination) = (case.journey.last_source(), case.journey.last_destination().0);
    if !source.is_loopback() || destination == case.journey.flow.destination {
        return None;
    }
    let dropped = format!("dropped as a martian in {}: it came there from {source}", case.place());
    if let Some(marker) = &case.evidence.marked_by_wsl {
        let summary = format!(
            "{dropped}, most likely because the mark by which another rule would have given it this machine's address (masquerade) was overwritten by {}",
            name(marker)
        );
        let [table, chain] = [&marker.table, &marker.chain].map(|word| shell_word(word));
        let keep = format!("sudo nft insert rule {} {table} {chain} meta mark != 0 return", marker.family);
        return Some(Finding::inferred(summary).remedy([keep]));
    }
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name);
    let summary = format!("{dropped}, for {by} sent it to {destination} and nothing gave it this machine's address");
    let entrance = case.journey.interface.as_deref().map(shell_word).filter(|_| case.journey.origin == Origin::Remote);
    let leave = entrance.map(|entrance| match &translated.rule {
        Some(Rule { backend: Backend::Nft, family, table, chain, handle: Some(handle), .. }) => {
            let [table, chain] = [table, chain].map(|word| shell_word(word));
            format!("sudo nft insert rule {family} {table} {chain} handle {handle} iifname {entrance} accept")
        }
        _ => format!("sudo iptables -t nat -I PREROUTING -i {entrance} -j ACCEPT"),
    });
    Some(Finding::new(confidence, summary).remedy(leave))
}

pub(super) fn forwarding(case: &Case) -> Option<Finding> {
    let (name, setting) = if case.is_v6() { ("IPv6", "net.ipv6.conf.all.forwarding") } else { ("IPv4", "net.ipv4.ip_forward") };
    let off = case.sysctl(setting) == Some("0");
    let confidence = match (case.reason(), case.symbol()?) {
        (Some("IP_INADDRERRORS"), "ip_error") => Confidence::Proved,
        // For IPv6 the reason is that of several refusals.
        (Some("IP_INADDRERRORS"), "ip6_forward") | (None, "ip_error" | "ip_forward" | "ip6_forward") if off => {
            Confidence::Inferred
        }
        _ => return None,
    };
    let destination = case.journey.last_destination().0;
    let because = if case.journey.translated.is_some() { " (a DNAT rule sent it there)" } else { "" };
    let summary =
        format!("dropped by routing: it is for {destination}{because}, not for this machine, and {name} forwarding is off");
    let turn_on = case.root(&format!("sysctl -w {setting}=1"));
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy([turn_on]))
}

pub(super) fn route(case: &Case) -> Option<Finding> {
    let reasons = ["IP_INNOROUTES", "IP_OUTNOROUTES"];
    let confidence = case
        .by(&reasons, &["ip_error", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit", "dst_discard", "dst_discard_out"])?;
    let destination = case.journey.last_destination().0;
    let refusing = case.evidence.refusing_route.as_ref();
    let named = refusing.map(|route| format!("{} {}/{}", route.kind, route.destination.0, route.destination.1));
    let why = match (confidence, &named) {
        (_, Some(named)) => format!("the route \"{named}\" refuses packets to {destination}"),
        (Confidence::Proved, None) => format!("there is no route to {destination}"),
        (Confidence::Inferred, None) => {
            format!("the route to {destination} refuses packets (blackhole, prohibit or unreachable), or there is none")
        }
    };
    let family = if case.is_v6() { "ip -6" } else { "ip" };
    let look = [
        case.root(&format!("{family} route get {destination} from {}{}", case.journey.flow.source, incoming(case))),
        case.root(&format!("{family} route show table all")),
    ];
    // Which of several tables' routes the kernel took, only its own look-up knows.
    let confidence = if named.is_some() { Confidence::Inferred } else { confidence };
    let table = refusing.map(|route| route.table).filter(|table| *table != MAIN_TABLE);
    let table = table.map(|table| format!(" table {table}")).unwrap_or_default();
    let mend = named.map(|named| case.root(&format!("{family} route del {named}{table}")));
    Some(Finding::new(confidence, format!("dropped by routing: {why}")).remedy(case.where_to_type()).remedy(mend).remedy(look))
}

pub(super) fn route_back(case: &Case) -> Option<Finding> {
    let silence = case.evidence.silence?;
    let at_listener = case.died_at(&[Stage::Listener]) || case.journey.died_at.is_none();
    if silence.proves_a_full_queue() || case.reason().is_some() || !at_listener {
        return None;
    }
    let source = case.journey.last_source();
    let summary = match case.evidence.route_back {
        Some(false) => format!("ignored by its listener: there is no route back to {source}, so it could make no answer"),
        _ if silence.overflows > 0 || silence.syn_queue_full > 0 => return None,
        // Without cookies the kernel swallows SYNs of strangers already when the SYN queue is filled by three quarters, uncounted.
        Some(true) if case.sysctl("net.ipv4.tcp_syncookies") == Some("0") => return None,
        _ => format!(
            "ignored by its listener though none of its queues overflowed, most likely because there was no route back to {source}"
        ),
    };
    let look = case.root(&format!("ip route get {source} from {}", case.journey.last_destination().0));
    let add = if case.evidence.route_back == Some(false) { route_by_entrance(case, source) } else { Vec::new() };
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(add).remedy([look]))
}

/// Adds a route to a client by the interface that its SYN came in by; nothing where that is not known.
fn route_by_entrance(case: &Case, source: IpAddr) -> Vec<String> {
    let Some(entered) = case.journey.interface.as_deref().map(shell_word) else { return Vec::new() };
    let add = |via: &str| case.root(&format!("ip route add {source}{via} dev {entered}"));
    vec![add(""), format!("# if it is behind a router: {}", add(" via ROUTER"))]
}

fn strict(case: &Case) -> bool {
    case.evidence.sysctls.iter().any(|(name, value)| name.ends_with(".rp_filter") && value.trim() != "0")
}

fn martian_by_address(case: &Case) -> bool {
    loopback(case) || case.journey.flow.source == case.journey.last_destination().0
}

fn loopback(case: &Case) -> bool {
    let ends: [IpAddr; 2] = [case.journey.flow.source, case.journey.last_destination().0];
    ends.iter().any(IpAddr::is_loopback)
}

/// ` iif NAME` for `ip route get`; nothing for a connection made in this machine.
fn incoming(case: &Case) -> String {
    case.journey.interface.as_deref().map(|name| format!(" iif {}", shell_word(name))).unwrap_or_default()
}
