//! Judges of what the routes and the rules between their tables refused, there and back, and the commands that mend them.

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding},
};
use crate::escape::{escape, shell_word};
use crate::evidence::Astray;
use crate::journey::{Outcome, Stage};

/// The table that routes stand in unless told otherwise.
const MAIN_TABLE: u32 = 254;

/// What refuses a packet, in words, and the command that takes it away.
struct Refusal {
    what: String,
    mend: String,
}

/// Whether a packet that the kernel did not take for this machine's is one of its own, or is refused by a rule.
pub(super) fn is_led_astray(case: &Case) -> bool {
    let destination = case.journey.last_destination().0;
    let own = !destination.is_loopback() && case.evidence.has_address(destination);
    own || case.evidence.refusing_rule.as_ref().is_some_and(|rule| !rule.marked)
}

pub(super) fn route(case: &Case) -> Option<Finding> {
    if case.reason() == Some("IPV6DISABLED") {
        return Some(ipv6_is_off(case));
    }
    if let Some(finding) = no_ipv6(case).or_else(|| own_address_sought(case)) {
        return Some(finding);
    }
    if case.journey.outcome == Outcome::Unfinished {
        return None;
    }
    let astray = is_led_astray(case) && matches!(case.reason(), Some("IP_INADDRERRORS"));
    let symbols = ["ip_error", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit", "dst_discard", "dst_discard_out"];
    let confidence = if astray { Confidence::Inferred } else { case.by(&["IP_INNOROUTES", "IP_OUTNOROUTES"], &symbols)? };
    let destination = case.journey.last_destination().0;
    let (ip, source) = (ip(case), case.journey.flow.source);
    let refusal = refusal(case, destination);
    let why = match (&refusal, confidence) {
        (Some(refusal), _) => refusal.what.clone(),
        (None, Confidence::Proved) => format!("there is no route to {destination}"),
        (None, Confidence::Inferred) if astray => format!(
            "{destination} is an address of this machine, but a rule of `ip rule` leads the packet to a table that does not say so"
        ),
        (None, Confidence::Inferred) => {
            format!("the route to {destination} refuses packets (blackhole, prohibit or unreachable), or there is none")
        }
    };
    let look = [
        case.root(&format!("{ip} route get {destination} from {source}{}", incoming(case))),
        case.root(&format!("{ip} rule show")),
        case.root(&format!("{ip} route show table all")),
    ];
    // Which of several rules and routes the kernel took, only its own look-up knows.
    let confidence = if refusal.is_some() { Confidence::Inferred } else { confidence };
    let mend = refusal.map(|refusal| refusal.mend);
    Some(Finding::new(confidence, format!("dropped by routing: {why}")).remedy(case.where_to_type()).remedy(mend).remedy(look))
}

/// The smallest packet that every device with IPv6 has to take, bytes.
const LEAST_MTU_V6: u32 = 1280;

/// A device that takes too small packets only has no IPv6 at all.
fn no_ipv6(case: &Case) -> Option<Finding> {
    let mtu = case.evidence.mtu.filter(|mtu| *mtu < LEAST_MTU_V6 && case.is_v6() && case.reason().is_none())?;
    let interface = case.interface()?;
    let summary = format!(
        "dropped in {}: most likely there is no IPv6 on {interface}, which takes packets of at most {mtu} bytes (its MTU), and IPv6 needs {LEAST_MTU_V6}",
        case.place()
    );
    let raise = case.root(&format!("ip link set dev {} mtu 1500", shell_word(interface)));
    let again = format!("# then give {interface} its IPv6 addresses again: the kernel took them away");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([raise, again]))
}

/// Whether a packet for an own address that the table `local` has lost was sent out in search of it.
pub(super) fn is_sought_outside(case: &Case) -> bool {
    case.evidence.astray.is_some() && (case.died_at(&[Stage::Neighbour]) || case.journey.outcome == Outcome::Unfinished)
}

fn own_address_sought(case: &Case) -> Option<Finding> {
    let destination = case.journey.last_destination().0;
    let refusal = lost_address(case, destination).filter(|_| is_sought_outside(case))?;
    let device = case.journey.stages.iter().rfind(|visit| visit.stage == Stage::Neighbour)?.interface.as_deref();
    let on = device.map(|name| format!(" on {name}")).unwrap_or_default();
    let summary = format!("not taken by this machine: {}, so it was sent out{on}, where nobody answers for it", refusal.what);
    let look = case.root(&format!("{} route get {destination}", ip(case)));
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([refusal.mend, look]))
}

fn ipv6_is_off(case: &Case) -> Finding {
    let interface = case.interface().unwrap_or("its interface");
    let summary = format!("dropped in {}: IPv6 is switched off on {interface} (disable_ipv6 is 1)", case.place());
    let written = case.interface().map(|name| shell_word(&name.replace('.', "/")));
    let on = written.map(|name| case.root(&format!("sysctl -w net.ipv6.conf.{name}.disable_ipv6=0")));
    let again = format!("# then give {interface} its IPv6 addresses again: the kernel took them away");
    Finding::proved(summary).remedy(case.where_to_type()).remedy(on).remedy([again])
}

/// What refuses packets to an address, as far as it is known.
fn refusal(case: &Case, to: IpAddr) -> Option<Refusal> {
    let evidence = case.evidence;
    let ip = ip(case);
    let if_marked = |marked: bool| if marked { ", if they have the mark that leads there" } else { "" };
    if let Some(rule) = &evidence.refusing_rule {
        let (preference, text) = (rule.preference, escape(&rule.text));
        let what = format!("the rule \"{preference}: {text}\" of `ip rule` refuses packets to {to}{}", if_marked(rule.marked));
        return Some(Refusal { what, mend: case.root(&format!("{ip} rule del pref {preference} {text}")) });
    }
    if let Some(route) = &evidence.refusing_route {
        let named = format!("{} {}/{}", route.kind, route.destination.0, route.destination.1);
        let table = Some(route.table).filter(|table| *table != MAIN_TABLE);
        let table = table.map(|table| format!(" table {table}")).unwrap_or_default();
        let what = format!("the route \"{named}\"{table} refuses packets to {to}{}", if_marked(route.marked));
        return Some(Refusal { what, mend: case.root(&format!("{ip} route del {named}{table}")) });
    }
    lost_address(case, to)
}

/// An address of this machine that its own tables do not know.
fn lost_address(case: &Case, to: IpAddr) -> Option<Refusal> {
    let own = case.evidence.addresses.iter().find(|own| own.address == to)?;
    let (ip, device) = (ip(case), shell_word(&own.interface));
    let known = format!("{to} is an address of this machine ({}), but", escape(&own.interface));
    Some(match case.evidence.astray? {
        Astray::NoRule => Refusal {
            what: format!("{known} no rule of `ip rule` leads such packets to the table `local`, where that stands"),
            mend: case.root(&format!("{ip} rule add pref 0 lookup local")),
        },
        Astray::NoRoute => Refusal {
            what: format!("{known} the table `local` does not have it"),
            mend: case.root(&format!("{ip} route add local {to} dev {device} table local")),
        },
    })
}

pub(super) fn route_back(case: &Case) -> Option<Finding> {
    let silence = case.evidence.silence?;
    let at_listener = case.died_at(&[Stage::Listener]) || case.journey.died_at.is_none();
    if silence.proves_a_full_queue() || case.reason().is_some() || !at_listener {
        return None;
    }
    let source = case.journey.last_source();
    let no_way = case.evidence.route_back == Some(false);
    // The kernel was asked for the way without ports or a mark, by which rules tell packets apart.
    let (refusal, evidence) = (refusal(case, source), case.evidence);
    let if_marked = evidence
        .refusing_rule
        .as_ref()
        .map_or(evidence.refusing_route.as_ref().is_some_and(|route| route.marked), |rule| rule.marked);
    let summary = match (&refusal, evidence.route_back) {
        (Some(refusal), _) if no_way || !if_marked => {
            format!("ignored by its listener: {}, so it could make no answer", refusal.what)
        }
        (None, Some(false)) => format!("ignored by its listener: there is no route back to {source}, so it could make no answer"),
        _ if silence.overflows > 0 || silence.syn_queue_full > 0 => return None,
        // Without cookies the kernel swallows SYNs of strangers already when the SYN queue is filled by three quarters, uncounted.
        (None, Some(true)) if case.sysctl("net.ipv4.tcp_syncookies") == Some("0") => return None,
        (Some(refusal), _) => {
            format!("ignored by its listener though none of its queues overflowed, most likely because {}", refusal.what)
        }
        _ => format!(
            "ignored by its listener though none of its queues overflowed, most likely because there was no route back to {source}"
        ),
    };
    let look = case.root(&format!("{} route get {source} from {}", ip(case), case.journey.last_destination().0));
    let mend = match refusal {
        Some(refusal) => vec![refusal.mend],
        None if no_way => route_by_entrance(case, source),
        None => Vec::new(),
    };
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend).remedy([look]))
}

/// Commands that lead answers back by the interface that the SYN came in by, where no route or another one takes them; `None` where
/// the routes are right, so that something else must be.
pub(super) fn mend_way_back(case: &Case) -> Option<Vec<String>> {
    let there = case.where_to_type().into_iter();
    if case.evidence.route_back == Some(false) {
        return Some(there.chain(route_by_entrance(case, case.journey.last_source())).collect())
            .filter(|lines: &Vec<_>| !lines.is_empty());
    }
    route_back_by_entrance(case).map(|mend| there.chain(mend).collect())
}

/// The command that leads answers back by the interface that the SYN came in by, where another route takes them elsewhere.
pub(super) fn route_back_by_entrance(case: &Case) -> Option<Vec<String>> {
    let hop = case.evidence.hop_back?;
    let interface = case.journey.entrance().filter(|entrance| case.evidence.way_back.as_deref() != Some(*entrance))?;
    let source = case.journey.last_source();
    let via = hop.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    Some(vec![case.root(&format!("{} route replace {source}{via} dev {}", ip(case), shell_word(interface)))])
}

/// Adds a route to a client by the interface that its SYN came in by; nothing where that is not known.
fn route_by_entrance(case: &Case, source: IpAddr) -> Vec<String> {
    let Some(entered) = case.journey.entrance().map(shell_word) else { return Vec::new() };
    let add = |via: &str| case.root(&format!("{} route add {source}{via} dev {entered}", ip(case)));
    vec![add(""), format!("# if it is behind a router: {}", add(" via ROUTER"))]
}

fn ip(case: &Case) -> &'static str {
    if case.is_v6() { "ip -6" } else { "ip" }
}

/// ` iif NAME` for `ip route get`; nothing for a connection made in this machine.
fn incoming(case: &Case) -> String {
    case.journey.interface.as_deref().map(|name| format!(" iif {}", shell_word(name))).unwrap_or_default()
}
