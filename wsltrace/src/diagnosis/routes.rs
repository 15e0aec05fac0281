//! Judges of what the routes and the rules between their tables refused, there and back, and the commands that mend them.

use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding},
    listener::who,
    refusers::{of_table, refuser, removal},
};
use crate::escape::{escape, shell_word};
use crate::evidence::{self, Astray, Listener, OwnAddress, Unready};
use crate::journey::{FREES_IN_ROUTING, Outcome, Stage};

/// What refuses a packet, in words, and the commands that take it away.
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) mend: Vec<String>,
}

/// Whether a packet that the kernel did not take for this machine's is one of its own, or is refused by a rule.
pub(super) fn is_led_astray(case: &Case) -> bool {
    let destination = case.journey.last_destination().0;
    let own = !destination.is_loopback() && case.evidence.has_address(destination);
    own || bound_to(case, destination).is_some() || case.evidence.refusing_rule.as_ref().is_some_and(|rule| !rule.marked)
}

pub(super) fn route(case: &Case) -> Option<Finding> {
    if case.reason() == Some("IPV6DISABLED") {
        return Some(ipv6_is_off(case));
    }
    if let Some(finding) = super::refusing_device::of_syn(case) {
        return Some(finding);
    }
    if let Some(finding) = no_ipv6(case).or_else(|| own_address_sought(case)).or_else(|| link_local_of_another(case)) {
        return Some(finding);
    }
    if case.journey.outcome == Outcome::Unfinished {
        return None;
    }
    if case.journey.outcome == Outcome::Dropped
        && case.died_at(&[Stage::Routing])
        && let Some(finding) = super::transparent::not_led(case, super::Code::NoRoute)
    {
        return Some(finding);
    }
    if let Some(finding) = super::led::for_nobody(case)
        .filter(|_| !is_led_astray(case) && refusal(case, case.journey.last_destination().0).is_none())
    {
        return Some(finding);
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
    if let Some((elsewhere, mend)) = super::whereabouts::elsewhere(case).filter(|_| refusal.is_none() && !astray) {
        return Some(Finding::inferred(format!("dropped by routing: {elsewhere}")).remedy(mend));
    }
    let look = [
        case.root(&format!("{ip} route get {destination} from {source}{}", incoming(case))),
        case.root(&format!("{ip} rule show")),
        case.root(&format!("{ip} route show table all")),
    ];
    // Which of several rules and routes the kernel took, only its own look-up knows.
    let confidence = if refusal.is_some() { Confidence::Inferred } else { confidence };
    let mend = refusal.map(|refusal| refusal.mend);
    let summary = format!("dropped by routing: {why}");
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(mend.into_iter().flatten()).remedy(look))
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
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(refusal.mend).remedy([look]))
}

/// A link-local address is its interface's alone, whatever the routes say.
fn link_local_of_another(case: &Case) -> Option<Finding> {
    let (destination, port) = case.journey.last_destination();
    let IpAddr::V6(address) = destination else { return None };
    if !address.is_unicast_link_local() || !case.died_at(&[Stage::Routing]) || case.journey.outcome != Outcome::Dropped {
        return None;
    }
    let came_by = case.journey.entrance()?;
    let all = || case.evidence.addresses.iter();
    let holder = all().find(|own| own.address == destination)?;
    if all().any(|own| own.address == destination && own.interface == came_by) {
        return None;
    }
    let by = escape(came_by);
    let summary = format!(
        "dropped by routing: {destination} is the link-local address of {} here, which counts there only, and the packet came by {by}",
        escape(&holder.interface)
    );
    let fits = |own: &&OwnAddress| own.address.is_ipv6() && own.interface == came_by && own.unready.is_none();
    let ask = all()
        .find(fits)
        .map(|own| format!("# let the client ask for {}, which {by} has", super::case::endpoint(own.address, port)));
    let look = case.root(&format!("ip -6 -br address show dev {}", shell_word(came_by)));
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(ask).remedy([look]))
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
    refused_by_tables(case, to).or_else(|| lost_address(case, to)).or_else(|| gone_address(case, to))
}

/// The rule or route that refuses packets to an address.
pub(super) fn refused_by_tables(case: &Case, to: IpAddr) -> Option<Refusal> {
    let rule = case.evidence.refusing_rule.clone().map(evidence::Refusal::Rule);
    let by = rule.or_else(|| case.evidence.refusing_route.clone().map(evidence::Refusal::Route))?;
    Some(Refusal { what: refuser(&by, to), mend: vec![case.root(&removal(&by, to))] })
}

/// An address of this machine that its own tables do not know.
fn lost_address(case: &Case, to: IpAddr) -> Option<Refusal> {
    let own = case.evidence.addresses.iter().find(|own| own.address == to)?;
    let (ip, device) = (ip(case), shell_word(&own.interface));
    let known = format!("{to} is an address of this machine ({}), but", escape(&own.interface));
    let refusal = |why: &str, mend| Refusal { what: format!("{known} {why}"), mend };
    let address = |does: &str| case.root(&format!("{ip} address {does} {to}/{} dev {device}", own.prefix));
    Some(match (own.unready, case.evidence.astray?) {
        (Some(Unready::Duplicate), _) => refusal(
            "another machine on that network had it when it was added (duplicate address detection failed), so the kernel does not use it",
            vec![
                "# give one of the two machines another address; when no other has it, let the kernel check again (a few seconds):".to_owned(),
                address("del"),
                address("add"),
            ],
        ),
        (Some(Unready::Tentative), _) => refusal(
            "the kernel does not use it yet: it is still being checked whether another machine has it (tentative)",
            vec![
                "# try again in a few seconds; where it stays so, the interface has no carrier:".to_owned(),
                case.root(&format!("{ip} address show dev {device}")),
            ],
        ),
        (None, Astray::NoRule) => refusal(
            "no rule of `ip rule` leads such packets to the table `local`, where that stands",
            vec![case.root(&format!("{ip} rule add pref 0 lookup local"))],
        ),
        (None, Astray::NoVrfRule) => refusal(
            "its interface belongs to a VRF, and the rule of `ip rule` is missing that leads what comes by VRFs to their tables (l3mdev)",
            vec![case.root(&format!("{ip} rule add pref 1000 l3mdev"))],
        ),
        (None, Astray::NoRoute) => refusal(
            "the table `local` does not have it",
            vec![case.root(&format!("{ip} route add local {to} dev {device} table local"))],
        ),
    })
}

/// An address that a server listens on, and this machine has no longer.
fn gone_address(case: &Case, to: IpAddr) -> Option<Refusal> {
    let listener = bound_to(case, to)?;
    let what = format!("{} listens on {to}, which is no address of this machine any longer", who(listener));
    let Some(device) = case.journey.entrance().map(shell_word) else { return Some(Refusal { what, mend: Vec::new() }) };
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let add = case.root(&format!("{} address add {to}/{bits} dev {device}", ip(case)));
    let mut mend = vec![
        format!("# give the address back, with the prefix length of its network if you know it (/{bits} is the address alone):"),
        add,
    ];
    if case.evidence.route_back == Some(false) {
        mend.extend(route_by_entrance(case, case.journey.last_source()));
    }
    Some(Refusal { what, mend })
}

/// The listener that is bound to this very address, though the machine does not have it.
fn bound_to<'a>(case: &Case<'a>, address: IpAddr) -> Option<&'a Listener> {
    let known = !case.evidence.addresses.is_empty() && !case.evidence.has_address(address) && case.journey.translated.is_none();
    let mut listeners = case.evidence.sockets.iter().flat_map(|sockets| &sockets.listeners).filter(|_| known);
    listeners.find(|listener| listener.address == address)
}

/// What refused an answer that routing ended.
pub(super) fn refused_answer(case: &Case) -> Option<Refusal> {
    let unreasoned = ["IP_INNOROUTES", "IP_OUTNOROUTES", "IP_INADDRERRORS"];
    if !case.died_at(&[Stage::Routing]) || case.by(&unreasoned, &FREES_IN_ROUTING).is_none() {
        return None;
    }
    let to = case.journey.answer_destination();
    if let Some(refusal) = refusal(case, to) {
        return Some(refusal);
    }
    let interface = case.interface()?;
    let forwards = format!("net.ipv4.conf.{}.forwarding", interface.replace('.', "/"));
    if !case.is_v6() && case.reason() == Some("IP_INADDRERRORS") && case.symbol() == Some("ip_error") {
        let mend = vec![case.root(&format!("sysctl -w {}=1", shell_word(&forwards)))];
        return Some(Refusal { what: format!("IPv4 forwarding is off for what comes in by {interface}"), mend });
    }
    let no_way = case.evidence.route_back == Some(false);
    no_way.then(|| Refusal { what: format!("there is no route to {to}"), mend: route_by_entrance(case, to) })
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
        (None, Some(false)) => format!("ignored by its listener: {}, so it could make no answer", no_way_to(case, source)),
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
    let look =
        case.root(&format!("{} route get {source} from {}{}", ip(case), case.journey.last_destination().0, within_vrf(case)));
    let mend = match refusal {
        Some(refusal) => refusal.mend,
        None if no_way => route_by_entrance(case, source),
        None => Vec::new(),
    };
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend).remedy([look]))
}

/// The same finding of a SYN that no socket took, where the kernel's refusal did not leave either: the client is told nothing.
pub(super) fn without_way_for_refusal(case: &Case, finding: Finding) -> Finding {
    let source = case.journey.last_source();
    let refusal = refusal(case, source);
    let why = match (&refusal, case.evidence.route_back) {
        (Some(refusal), Some(false)) => refusal.what.clone(),
        (None, Some(false)) => no_way_to(case, source),
        _ => format!("the way back to {source} was not open"),
    };
    let mend = match refusal {
        Some(refusal) => refusal.mend,
        None if case.evidence.route_back == Some(false) => route_by_entrance(case, source),
        None => vec![case.root(&format!(
            "{} route get {source} from {}{}",
            ip(case),
            case.journey.last_destination().0,
            within_vrf(case)
        ))],
    };
    let what = finding.summary.strip_prefix("refused: ").unwrap_or(&finding.summary);
    let summary = format!("dropped: {what}; and {why}, so the kernel's refusal was not sent and the client waits in vain");
    Finding { summary, ..finding }.remedy(mend)
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
    let gateway = case.evidence.hop_back.map_or_else(|| case.evidence.router.map(Some), |hop| Some(hop.gateway))?;
    let interface = case.journey.entrance().filter(|entrance| case.evidence.way_back.as_deref() != Some(*entrance))?;
    let client = case.journey.answer_destination();
    let via = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    // Beside the route that takes them: in the table that a rule leads them to, no other is asked.
    let table = case.evidence.leading_rule.as_ref().map(|rule| of_table(rule.table)).unwrap_or_default();
    Some(vec![case.root(&format!("{} route replace {client}{via} dev {}{table}", ip(case), shell_word(interface)))])
}

/// Why an answer has no way, where routes and rules refuse nothing.
fn no_way_to(case: &Case, client: IpAddr) -> String {
    match &case.evidence.vrf {
        Some(vrf) if case.evidence.down_here.as_ref() == Some(vrf) => {
            format!("the VRF {}, in which its answers are routed, is switched off", escape(vrf))
        }
        Some(vrf) => format!("there is no route back to {client} in the VRF {}", escape(vrf)),
        None => format!("there is no route back to {client}"),
    }
}

/// ` vrf NAME` for commands about routes of answers that are made in a VRF.
fn within_vrf(case: &Case) -> String {
    case.evidence.vrf.as_ref().map(|vrf| format!(" vrf {}", shell_word(vrf))).unwrap_or_default()
}

/// Adds a route to a client by the interface that its SYN came in by; nothing where that is not known.
fn route_by_entrance(case: &Case, client: IpAddr) -> Vec<String> {
    let Some(entered) = case.journey.entrance().map(shell_word) else { return Vec::new() };
    let vrf = case.evidence.vrf.as_ref();
    if vrf.is_some() && vrf == case.evidence.down_here.as_ref() {
        return vrf.map(|vrf| case.root(&format!("ip link set {} up", shell_word(vrf)))).into_iter().collect();
    }
    // Without its name the route would come into the main table.
    let within = within_vrf(case);
    let route =
        |does: &str, to: &str, via: &str| case.root(&format!("{} route {does} {to}{via} dev {entered}{within}", ip(case)));
    let to = client.to_string();
    if let Some(router) = case.evidence.router {
        let via = format!(" via {router}");
        return vec![route("add", &to, &via), format!("# or for every client: {}", route("add", "default", &via))];
    }
    vec![route("add", &to, ""), format!("# if it is behind a router: {}", route("replace", &to, " via ROUTER"))]
}

/// `ip`, for the journey's family.
pub(super) fn ip(case: &Case) -> &'static str {
    if case.is_v6() { "ip -6" } else { "ip" }
}

/// Commands that show by which mark and rule of `ip rule` the packets that follow a SYN are led elsewhere.
pub(super) fn show_marks(case: &Case) -> [String; 4] {
    let ip = ip(case);
    let get = format!("{ip} route get {} from {}{}", case.journey.last_destination().0, case.journey.flow.source, incoming(case));
    [
        "# the SYN passed: what follows it may have another mark, by which a rule of `ip rule` leads it elsewhere".to_owned(),
        case.root(&format!("{ip} rule show")),
        case.root(&get),
        case.root("nft -a list ruleset | grep -iE 'mark|established'"),
    ]
}

/// ` iif NAME` for `ip route get`; nothing for a connection made in this machine.
fn incoming(case: &Case) -> String {
    let came_in = case.journey.entrance().filter(|_| case.journey.interface.is_some());
    came_in.map(|name| format!(" iif {}", shell_word(name))).unwrap_or_default()
}
