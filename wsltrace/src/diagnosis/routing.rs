//! Judges of what routing refused: reverse path filter, martians, forwarding, routes.

use std::iter;
use std::net::IpAddr;

use super::{
    Confidence,
    case::{Case, Finding},
    firewall::name,
    led,
    remedy::iptables,
    routes::{is_led_astray, mend_way_back, refused_by_tables},
};
use crate::escape::{escape, shell_word};
use crate::evidence::{Backend, Rule};
use crate::journey::{Origin, Outcome, Stage};

/// Where the kernel frees a packet whose source or destination the input route refuses.
const ROUTE_INPUT: [&str; 6] = [
    "ip_rcv_finish_core",
    "ip_rcv_finish",
    "ip_route_input_noref",
    "ip_route_input_slow",
    "fib_validate_source",
    "__fib_validate_source",
];

/// Whether the input route refused the packet.
pub(super) fn at_route(case: &Case) -> bool {
    case.died_at(&[Stage::Routing]) && case.symbol().is_some_and(|symbol| ROUTE_INPUT.contains(&symbol))
}

pub(super) fn reverse_path(case: &Case) -> Option<Finding> {
    let confidence = match case.by(&["IP_RPFILTER"], &ROUTE_INPUT)? {
        Confidence::Inferred if martian_by_address(case) || !strict(case) => return None,
        confidence => confidence,
    };
    let interface = case.interface().unwrap_or("its interface");
    let there = case.elsewhere_netns().map(|netns| format!(" of network namespace {netns}")).unwrap_or_default();
    // In a container it may be this machine's address that the packet comes from (masquerade).
    let source = case.journey.last_source();
    let refusal = refused_by_tables(case, source).filter(|_| case.reason().is_some());
    let because = refusal.as_ref().map(|refusal| format!("; {}", refusal.what)).unwrap_or_default();
    let summary = format!(
        "dropped by the reverse path filter on {interface}{there}: the kernel would not answer {source} by {interface}, so it takes the source for forged{because}"
    );
    // Switched off, the filter would let in what is then answered by the wrong way, or not at all.
    let mend = match refusal {
        Some(refusal) => case.where_to_type().into_iter().chain(refusal.mend).collect(),
        None => mend_way_back(case).unwrap_or_else(|| let_in(case)),
    };
    let look = case.root(&format!("ip route get {source}"));
    Some(Finding::new(confidence, summary).remedy(mend).remedy([look]))
}

/// Commands that let in what the filter refuses. Its answer goes another way, where the routes lead it elsewhere.
fn let_in(case: &Case) -> Vec<String> {
    let loosen = case.set_for_interface("rp_filter", 0, true);
    let (source, entrance) = (case.journey.flow.source, case.journey.entrance());
    let Some((way, entrance)) = case.evidence.way_back.as_deref().zip(entrance).filter(|(way, entrance)| way != entrance) else {
        return loosen;
    };
    let back = case.root(&format!("ip route add {source} via GATEWAY dev {}", shell_word(entrance)));
    let head = [
        format!(
            "# lead the answers back by the way that the SYN came, where its gateway is known; the filter lets that in: {back}"
        ),
        format!("# or, where answers that leave by {} reach the client:", escape(way)),
    ];
    head.into_iter().chain(loosen).collect()
}

pub(super) fn martian(case: &Case) -> Option<Finding> {
    let interface = case.interface().unwrap_or("its interface");
    let flow = &case.journey.flow;
    let (source, destination) = (flow.source, case.journey.last_destination().0);
    if case.journey.outcome == Outcome::Ignored {
        return super::to_many::found(case);
    }
    if let Some(finding) = loopback_beyond(case)
        .or_else(|| to_itself(case))
        .or_else(|| loopback_out(case))
        .or_else(|| loopback_v6(case))
        .or_else(|| super::to_many::found(case))
    {
        return Some(finding);
    }
    let (confidence, why, remedy) = match case.reason() {
        Some("IP_LOCALNET") => (
            Confidence::Proved,
            format!("a 127.x address on {interface} is not allowed there (route_localnet is 0)"),
            mend_localnet(case),
        ),
        Some("IP_LOCAL_SOURCE") => (
            Confidence::Proved,
            format!("its source {source} is an address of this machine (accept_local is 0)"),
            mend_local_source(case),
        ),
        Some("IP_INVALID_SOURCE") => (Confidence::Proved, format!("{source} cannot be a source address"), Vec::new()),
        Some("IP_INVALID_DEST") => (Confidence::Proved, format!("{destination} cannot be a destination here"), Vec::new()),
        // For IPv6 the reason is that of several faults; these addresses are one of them.
        Some("IP_INHDR") if source.is_ipv6() && (source.is_multicast() || source.is_loopback() || destination.is_loopback()) => {
            let what = if source.is_multicast() {
                "no packet may come from a multicast address".to_owned()
            } else {
                format!("::1 came in by {interface}, and the kernel takes it from lo only")
            };
            (Confidence::Inferred, what, Vec::new())
        }
        Some(_) => return None,
        None if source.is_ipv6() => {
            let early = matches!(case.symbol()?, "ip6_rcv_core" | "ipv6_rcv" | "ip6_rcv_finish_core");
            let loopback = source.is_loopback() || destination.is_loopback();
            if !early || !loopback {
                return None;
            }
            (Confidence::Inferred, format!("::1 came in by {interface}, and the kernel takes it from lo only"), Vec::new())
        }
        None if at_route(case) && !source.is_loopback() && case.evidence.has_address(source) => {
            (Confidence::Inferred, format!("its source {source} is an address of this machine"), mend_local_source(case))
        }
        None => {
            if !at_route(case) || !martian_by_address(case) && !is_unfit(case, source) {
                return None;
            }
            let remedy = if source == destination {
                mend_local_source(case)
            } else if loopback(case) {
                mend_localnet(case)
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

fn mend_localnet(case: &Case) -> Vec<String> {
    let source = case.journey.flow.source;
    // Nobody but Windows' mirror sends these: allowed, they would let every neighbour pass for this machine.
    if source.is_loopback() && case.journey.origin == Origin::Remote && case.journey.entrance() != Some("loopback0") {
        return vec![format!(
            "# {source} is no address of another machine: whoever sent this has forged it, and nothing is to be mended"
        )];
    }
    case.set_for_interface("route_localnet", 1, false)
}

fn mend_local_source(case: &Case) -> Vec<String> {
    let (source, destination) = (case.journey.flow.source, case.journey.last_destination().0);
    if source == destination || case.journey.entrance() == Some("loopback0") {
        // Without its mirror nobody honest sends these, and whoever does may pass for this machine once they are let in.
        let mirror = "# only in WSL's mirrored mode, where Windows has this machine's address; elsewhere the source is forged:";
        return iter::once(mirror.to_owned()).chain(case.set_for_interface("accept_local", 1, false)).collect();
    }
    // Let in, it would be answered to this machine itself. By a route of the type `local` an address is this machine's as well.
    let is_set = case.evidence.addresses.is_empty() || case.evidence.addresses.iter().any(|own| own.address == source);
    let show = if is_set { format!("ip address show to {source}") } else { format!("ip route get {source}") };
    vec![case.root(&show), format!("# {source} is the client's address and this machine's: one of the two needs another")]
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
    if let Some(finding) = mark_overwritten(case, &dropped) {
        return Some(finding);
    }
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name);
    let summary = format!("{dropped}, for {by} sent it to {destination} and nothing gave it this machine's address");
    Some(Finding::new(confidence, summary).remedy(let_pass_by_entrance(case)))
}

/// A rule of WSL's gives what leaves a mark of its own, and takes away the one by which another rule would have known it.
pub(super) fn mark_overwritten(case: &Case, dropped: &str) -> Option<Finding> {
    let marker = case.evidence.marked_by_wsl.as_ref()?;
    let summary = format!(
        "{dropped}, most likely because the mark by which another rule would have given it this machine's address (masquerade) was overwritten by {}",
        name(marker)
    );
    let [table, chain] = [&marker.table, &marker.chain].map(|word| shell_word(word));
    let keep = format!("sudo nft insert rule {} {table} {chain} meta mark != 0 return", marker.family);
    Some(Finding::inferred(summary).remedy([keep]))
}

/// The command that keeps a DNAT rule from what comes from outside by an interface with a source of 127.x, as Windows' localhost does in
/// mirrored mode: a proxy of this machine, such as docker-proxy, takes it then. No other source can be given to it on its way out, for its
/// answer would not find back.
pub(super) fn let_pass_by_entrance(case: &Case) -> Option<String> {
    let entrance = case.journey.interface.as_deref().map(shell_word).filter(|_| case.journey.origin == Origin::Remote)?;
    let rule = case.journey.translated.as_ref().and_then(|translated| translated.rule.as_ref());
    Some(match rule {
        Some(Rule { backend: Backend::Nft, family, table, chain, handle: Some(handle), .. }) => {
            let [table, chain] = [table, chain].map(|word| shell_word(word));
            format!("sudo nft insert rule {family} {table} {chain} handle {handle} iifname {entrance} accept")
        }
        rule => {
            let backend = rule.map_or(Backend::IptablesNft, |rule| rule.backend);
            format!("sudo {} -t nat -I PREROUTING -i {entrance} -j ACCEPT", iptables(backend, false))
        }
    })
}

/// A container that asks for a port that is published from itself: DNAT sends its packet back to it, and it comes from its own address
/// unless a rule gives it another on the way (masquerade).
fn to_itself(case: &Case) -> Option<Finding> {
    case.elsewhere_netns()?;
    let confidence = case.by(&["IP_LOCAL_SOURCE"], &ROUTE_INPUT)?;
    let translated = case.journey.translated.as_ref()?;
    let ((destination, port), source) = (case.journey.last_destination(), case.journey.last_source());
    if source != destination || destination == case.journey.flow.destination {
        return None;
    }
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name);
    let summary = format!(
        "dropped as a martian in {}: {source} asked for a port that is its own, {by} sent the SYN back to it, and nothing gave it this machine's address on the way (masquerade)",
        case.place()
    );
    let backend = translated.rule.as_ref().map_or(Backend::IptablesNft, |rule| rule.backend);
    let masquerade = format!(
        "sudo {} -t nat -A POSTROUTING -s {source} -d {source} -p tcp --dport {port} -j MASQUERADE",
        iptables(backend, case.is_v6())
    );
    Some(Finding::new(confidence, summary).remedy([masquerade]))
}

/// A packet of this machine's own from 127.x that DNAT sends out by another interface than `lo`: the kernel finds no way for it
/// there, and the rule's hook drops it.
fn loopback_out(case: &Case) -> Option<Finding> {
    let translated = case.journey.translated.as_ref().filter(|_| case.died_at(&[Stage::OutputNat]))?;
    let (source, destination) = (translated.source, translated.destination);
    let left_to_the_hook = case.symbol() == Some("nf_hook_slow") && case.evidence.rule.is_none();
    if !left_to_the_hook || !source.is_loopback() || destination.is_loopback() {
        return None;
    }
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name);
    let device = case.evidence.way_on.as_deref();
    let leaves = device.map(|device| format!(" by {device}")).unwrap_or_default();
    let summary = format!(
        "dropped after {by} sent it to {destination}: it would leave{leaves} with the source {source}, most likely not allowed there (route_localnet is 0)"
    );
    let written = device.map(|device| shell_word(&device.replace('.', "/")));
    let allow = written.map(|device| case.root(&format!("sysctl -w net.ipv4.conf.{device}.route_localnet=1")));
    let masquerade = device.map(|device| {
        let masquerade = format!("iptables -t nat -A POSTROUTING -s {source} -o {} -j MASQUERADE", shell_word(device));
        format!("# unless a rule already gives it this machine's address there: {}", case.root(&masquerade))
    });
    Some(Finding::inferred(summary).remedy(allow).remedy(masquerade))
}

/// A DNAT rule that leads from outside to `::1`.
fn loopback_v6(case: &Case) -> Option<Finding> {
    let (destination, port) = case.journey.last_destination();
    let unrouted = matches!(case.symbol(), Some("ip6_forward" | "ip6_pkt_discard" | "ip6_pkt_drop"));
    let astray = destination.is_ipv6() && destination.is_loopback() && unrouted;
    let translated = case.journey.translated.as_ref().filter(|_| astray)?;
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name);
    let summary = format!(
        "dropped by routing: {by} sent it to {destination}, and the kernel takes packets for ::1 from lo only (IPv6 has no route_localnet)"
    );
    let advice = format!(
        "# let the rule lead to an address of this machine instead, and the server on port {port} listen there (or on ::)"
    );
    Some(Finding::inferred(summary).remedy([advice]))
}

pub(super) fn forwarding(case: &Case) -> Option<Finding> {
    if let Some(finding) =
        super::hairpin::sent_back(case).or_else(|| super::hairpin::isolated(case)).or_else(|| super::bridge_vlan::of_syn(case))
    {
        return Some(finding);
    }
    // What is for this machine need not be forwarded.
    if is_led_astray(case) || led::is_for_nobody(case) || case.evidence.unled.is_some() {
        return None;
    }
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
    let because = led::translator_of(case).map(|by| format!(" ({by} sent it there)")).unwrap_or_default();
    let summary =
        format!("dropped by routing: it is for {destination}{because}, not for this machine, and {name} forwarding is off");
    let of_interface = case.interface().map(|name| format!("net.ipv4.conf.{}.forwarding", name.replace('.', "/")));
    // The setting of all turns it on for each.
    let on_elsewhere = case.sysctl(setting).is_some() && !off && !case.is_v6();
    let setting = match of_interface.filter(|_| on_elsewhere) {
        Some(of_interface) => shell_word(&of_interface),
        None => setting.to_owned(),
    };
    let turn_on = case.root(&format!("sysctl -w {setting}=1"));
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(led::if_it_is_there(case)).remedy([turn_on]))
}

fn strict(case: &Case) -> bool {
    case.evidence.sysctls.iter().any(|(name, value)| name.ends_with(".rp_filter") && value.trim() != "0")
}

fn martian_by_address(case: &Case) -> bool {
    loopback(case) || case.journey.flow.source == case.journey.last_destination().0
}

/// Whether it is the broadcast address of a network that this machine is in.
pub(super) fn is_of_whole_network(case: &Case, address: IpAddr) -> bool {
    case.evidence.addresses.iter().any(|own| own.broadcast().is_some_and(|all| IpAddr::V4(all) == address))
}

/// Whether no packet may come from an address.
fn is_unfit(case: &Case, source: IpAddr) -> bool {
    if is_of_whole_network(case, source) {
        return true;
    }
    match source {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.is_multicast() || address.is_unspecified(),
    }
}

fn loopback(case: &Case) -> bool {
    let ends: [IpAddr; 2] = [case.journey.flow.source, case.journey.last_destination().0];
    ends.iter().any(IpAddr::is_loopback)
}
