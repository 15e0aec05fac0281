//! Packets that are led to where nobody is: by a rule that stands in the way of a server of this machine, by an old entry of connection
//! tracking, or because the client asks for an address that nobody has.

use std::net::IpAddr;

use super::{
    Code,
    case::{Case, Finding, endpoint},
    firewall::name,
    listener::who,
    remedy::around,
};
use crate::escape::escape;
use crate::evidence::{Lead, Listener, OwnAddress, Owner};
use crate::journey::{Conntrack, Origin, Outcome, Stage};

/// Programs that take a port only so that nobody else does, or for those whom the rules do not lead: the rule is theirs.
const FORWARDERS: [&str; 4] = ["docker-proxy", "rootlessport", "rootlesskit", "gvproxy"];

/// Where a packet was led which nobody is known to be at, and to which no route leads on: forwarding would not help it.
fn nowhere<'a>(case: &Case<'a>) -> Option<&'a Lead> {
    let lead = case.evidence.lead.as_ref().filter(|lead| !lead.owned && case.elsewhere_netns().is_none())?;
    let back = case.journey.translated.is_none() && lead.leaves_by.as_deref() == case.journey.interface.as_deref();
    (lead.leaves_by.is_none() || back && case.journey.origin == Origin::Remote).then_some(lead)
}

/// Whether a packet that is not for this machine has no way on either. One that a route refuses has one, to nowhere.
pub(super) fn is_for_nobody(case: &Case) -> bool {
    let is_refused = super::routes::refused_by_tables(case, case.journey.last_destination().0).is_some();
    nowhere(case).is_some() && !is_refused || has_moved(case).is_some()
}

/// The address that a container has on the interface by which a packet came for another of the same network, which nobody has that is seen:
/// forwarding would only send it back.
fn has_moved(case: &Case) -> Option<IpAddr> {
    case.elsewhere_netns().zip(case.journey.translated.as_ref())?;
    case.evidence.lead.as_ref().filter(|lead| !lead.owned)?;
    let destination = case.journey.last_destination().0;
    let near = |own: &&OwnAddress| Some(own.interface.as_str()) == case.interface() && own.covers(destination);
    case.evidence.addresses.iter().find(near).map(|own| own.address)
}

/// A rule that leads to an address which its container has no longer.
fn led_to_old_address(case: &Case) -> Option<Finding> {
    let own = has_moved(case).filter(|_| case.died_at(&[Stage::Routing]))?;
    let by = translator_of(case)?;
    case.by(&["IP_INADDRERRORS", "IP_INNOROUTES"], &["ip_error", "ip6_pkt_discard", "ip6_forward"])?;
    let (destination, port) = case.journey.last_destination();
    let summary = format!(
        "dropped by routing in network namespace {}: {by} sent it to {destination}, and the container that it came to has {own} instead, so the rule is most likely left over from before the container got that",
        case.journey.last_netns()
    );
    let lead = format!(
        "# let the rule lead to {}, or have it made anew: restart the container with its ports published",
        endpoint(own, port)
    );
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([lead, case.root("ip -br address show")]))
}

/// A packet for an address that this machine does not have, and that no route leads on to.
pub(super) fn for_nobody(case: &Case) -> Option<Finding> {
    if let Some(finding) = led_to_old_address(case) {
        return Some(finding);
    }
    let lead = nowhere(case).filter(|_| case.died_at(&[Stage::Routing]))?;
    let confidence = case.by(&["IP_INADDRERRORS", "IP_INNOROUTES"], &["ip_error", "ip6_pkt_discard", "ip6_forward"])?;
    let (destination, port) = case.journey.last_destination();
    let why = match &lead.leaves_by {
        Some(device) => format!("the routes lead there by {}, which it came from", escape(device)),
        None => "no route leads there".to_owned(),
    };
    let sent = translator_of(case).map(|by| format!(" ({by} sent it there)")).unwrap_or_default();
    let summary = format!("dropped by routing: it is for {destination}{sent}, which is no address of this machine, and {why}");
    // A link-local one needs the client's interface with it.
    let is_local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let usable = |own: &&OwnAddress| own.address.is_ipv4() == destination.is_ipv4() && !is_local(&own.address);
    let family = case.evidence.addresses.iter().filter(usable);
    let own = family.filter(|own| Some(own.interface.as_str()) == case.interface()).map(|own| own.address);
    let untranslated = case.journey.translated.is_none();
    let ask = own.filter(|_| untranslated).map(|own| format!("# let the client ask for {} instead", endpoint(own, port)));
    let addresses = case.root("ip -br address show");
    Some(Finding::new(confidence, summary).remedy(case.where_to_type()).remedy(ask).remedy([addresses]))
}

/// A remark where nothing that is seen has the address to which a packet was to be sent on.
pub(super) fn if_it_is_there(case: &Case) -> Option<String> {
    case.evidence.lead.as_ref().filter(|lead| !lead.owned)?;
    let destination = case.journey.last_destination().0;
    Some(format!("# nothing that is seen from here has {destination}: this helps only if a machine or container there does"))
}

/// What led the packet away from the destination that the client asked for, in words.
pub(super) fn translator_of(case: &Case) -> Option<String> {
    let translated = case.journey.translated.as_ref()?;
    Some(translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name))
}

/// The finding, and who led the packet astray, where that can be told.
pub(super) fn with_leader(case: &Case, code: Code, finding: Finding) -> Finding {
    let Some(lead) = &case.evidence.lead else { return finding };
    if case.journey.translated.is_none() || case.journey.outcome == Outcome::Answered {
        return finding;
    }
    let is_tracked = case.journey.conntrack.is_some_and(|state| state != Conntrack::Untracked);
    if lead.sent_by_rule == Some(false) && case.journey.translated.as_ref().is_some_and(|now| now.rule.is_none()) {
        return if is_tracked { by_old_entry(case, finding) } else { by_no_nat(case, finding) };
    }
    let dead_end = matches!(code, Code::NoNeighbour | Code::NoForwarding | Code::NoRoute | Code::NoListener);
    let server = lead.passed_by.iter().find(|listener| !is_forwarder(listener)).filter(|_| dead_end);
    match server {
        Some(server) => past_a_server(case, lead, server, code, finding),
        None if lead.otherwise.is_some() && dead_end => before_another(case, lead, finding),
        None if is_port_here(case, code) => to_a_port_of_nobody(case, lead, finding),
        None => finding,
    }
}

/// Whether a listener is none that rules would lead past.
pub(crate) fn is_forwarder(listener: &Listener) -> bool {
    // Whose server it is must be known: a forwarder of another distro is none to be left out.
    listener.command.as_deref().is_none_or(|command| FORWARDERS.contains(&command))
}

/// Whether a rule led it to a port of this very machine on which nobody listens, as a proxy's rules do.
fn is_port_here(case: &Case, code: Code) -> bool {
    code == Code::NoListener && case.elsewhere_netns().is_none()
}

/// A rule leads to a port that nobody listens on, and nobody that can be told has the one that was asked for.
fn to_a_port_of_nobody(case: &Case, lead: &Lead, mut finding: Finding) -> Finding {
    let Some(rule) = case.journey.translated.as_ref().and_then(|translated| translated.rule.as_ref()) else { return finding };
    let (asked_for, led_to) = (case.journey.flow.destination_port, case.journey.last_destination().1);
    let commands: Vec<String> = around(rule, asked_for, case.is_v6()).into_iter().map(|line| case.root(&line)).collect();
    if commands.is_empty() {
        return finding;
    }
    let then = match lead.passed_by.first() {
        Some(listener) => format!("{} gets what asks for port {asked_for}", who(listener)),
        None => format!("start the server on port {asked_for}, if it is not there yet"),
    };
    finding.remedy = [format!("# if that rule is left over, as of a proxy that is gone, take it out of the way, and {then}:")]
        .into_iter()
        .chain(commands)
        .chain([
            format!("# or else start what it leads to, on port {led_to}; who listens now:"),
            case.root(&format!("ss -ltnp 'sport = :{led_to}'")),
        ])
        .collect();
    finding
}

/// A rule leads to where nobody is, in front of one that leads to a server: as after a crash of what makes such rules.
fn before_another(case: &Case, lead: &Lead, mut finding: Finding) -> Finding {
    let rule = case.journey.translated.as_ref().and_then(|translated| translated.rule.as_ref());
    let Some((rule, (to, server))) = rule.zip(lead.otherwise.as_ref()) else { return finding };
    let commands: Vec<String> = around(rule, case.journey.flow.destination_port, case.is_v6());
    if commands.is_empty() {
        return finding;
    }
    finding.summary = format!(
        "{}; behind {}, which sent it there, another rule leads to {to}, where {} listens",
        finding.summary,
        name(rule),
        who(server)
    );
    let head = "# most likely that rule is left over from a container that is gone: take it out of the way".to_owned();
    let or_else = "# or else start what it leads to".to_owned();
    let commands = commands.into_iter().map(|line| case.root(&line));
    finding.remedy = [head].into_iter().chain(commands).chain([or_else]).collect();
    finding
}

/// No rule sends packets there, and this one was sent there: connection tracking remembers one that did.
fn by_old_entry(case: &Case, mut finding: Finding) -> Finding {
    let (to, to_port) = case.journey.last_destination();
    let flow = &case.journey.flow;
    finding.summary = format!(
        "{}; no rule sends packets to {to} now, so most likely an old entry of connection tracking led it there, from when one did (the client uses its port {} again)",
        finding.summary, flow.source_port
    );
    finding.confidence = super::Confidence::Inferred;
    let delete = format!(
        "sudo conntrack -D -p tcp --orig-dst {} --orig-port-dst {} --reply-src {to} --reply-port-src {to_port}",
        flow.destination, flow.destination_port
    );
    let wait = if case.journey.conntrack == Some(Conntrack::New) {
        "120 s after its last attempt from this one (net.netfilter.nf_conntrack_tcp_timeout_syn_sent)"
    } else {
        "some time after its last packet (/proc/net/nf_conntrack, where the kernel has it, says how long)"
    };
    let without = format!("# without conntrack(8): let the client connect from another port; the entry is gone {wait}");
    finding.remedy = vec![delete, without];
    finding
}

/// No rule sends packets there, and connection tracking, without which NAT does nothing, did not see this one.
fn by_no_nat(case: &Case, mut finding: Finding) -> Finding {
    finding.summary = format!(
        "{}; no rule sends packets there, and connection tracking did not see this one, so most likely a filter or a BPF program at tc has changed its destination",
        finding.summary
    );
    finding.confidence = super::Confidence::Inferred;
    finding.remedy = vec![
        case.root("bpftool net show"),
        "# and for each device that it came by: tc filter show dev DEVICE ingress".to_owned(),
    ];
    finding
}

/// A rule leads past a server that listens on the very port that was asked for.
fn past_a_server(case: &Case, lead: &Lead, server: &Listener, code: Code, mut finding: Finding) -> Finding {
    let port = case.journey.flow.destination_port;
    let Some(rule) = case.journey.translated.as_ref().and_then(|translated| translated.rule.as_ref()) else { return finding };
    finding.summary = format!(
        "{}; {} sends there what asks for port {port}, past {}, which listens on it here",
        finding.summary,
        name(rule),
        who(server)
    );
    let commands: Vec<String> = around(rule, port, case.is_v6()).into_iter().map(|line| format!("sudo {line}")).collect();
    let manager = match rule.owner {
        Owner::Docker => Some(format!("# Docker made it: docker ps -a --filter publish={port} shows for which container")),
        Owner::Firewalld => Some("# firewalld made it: firewall-cmd --list-forward-ports".to_owned()),
        _ => None,
    };
    // Where somebody may be at the other end, which of the two is meant only the user knows.
    let is_left_over = code != Code::NoListener && !lead.owned || is_port_here(case, code);
    let then = format!("{} gets what asks for port {port}:", who(server));
    if is_left_over && !commands.is_empty() {
        let head = format!("# if that rule is left over from before, take it out of the way, and {then}");
        let led_to = case.journey.last_destination().1;
        let start = is_port_here(case, code).then(|| format!("# or else start what it leads to, on port {led_to}"));
        finding.remedy = [head].into_iter().chain(manager).chain(commands).chain(start).collect();
    } else {
        let advice = commands.into_iter().map(|line| format!("# {line}"));
        finding.remedy.push(format!("# or, if that rule is left over from before, take it out of the way, and {then}"));
        finding.remedy.extend(manager.into_iter().chain(advice));
    }
    finding
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{
        Code,
        Confidence::Inferred,
        Confidence::Proved,
        tests::{dropped, expect},
    };
    use crate::evidence::{Backend, Evidence, Lead, Listener, OwnAddress, Owner, Refusing, Rule};
    use crate::journey::{DeathPlace, Outcome, Stage, Translated};
    use crate::output::samples::{self, CONTAINER, ip, listener, with_listeners};

    #[test]
    fn forwarding_is_not_advised_in_a_container_that_has_another_address() {
        let mut journey = samples::container().journey;
        (journey.outcome, journey.died_at) = (Outcome::Dropped, Some(Stage::Routing));
        (journey.reason, journey.location) = (Some("IP_INADDRERRORS".into()), Some("ip_error+0x94".into()));
        journey.death = Some(DeathPlace { netns: CONTAINER, interface: Some("eth0".into()) });
        let with = |address: &str, owned: bool| Evidence {
            lead: Some(Lead { owned, leaves_by: Some("docker0".into()), sent_by_rule: Some(true), ..Lead::default() }),
            addresses: vec![OwnAddress { address: ip(address), prefix: 16, interface: "eth0".into(), unready: None }],
            ..Evidence::default()
        };
        let found = expect(&journey, &with("172.17.0.7", false), Code::NoRoute, Inferred);
        assert!(found.summary.contains("the container that it came to has 172.17.0.7 instead"), "{}", found.summary);
        assert!(found.remedy.iter().all(|line| !line.contains("ip_forward")), "{:?}", found.remedy);
        // Another container has it, or it is of a network behind this one.
        expect(&journey, &with("172.17.0.7", true), Code::NoForwarding, Proved);
        expect(&journey, &with("10.244.0.1", false), Code::NoForwarding, Proved);
    }

    #[test]
    fn forwarding_comes_before_a_route_that_leads_nowhere() {
        let journey = dropped(&[Stage::TcIngress, Stage::Prerouting, Stage::Routing], "IP_INADDRERRORS", "ip_error+0x94");
        let lead = Some(Lead { sent_by_rule: Some(true), ..Lead::default() });
        let nowhere = Evidence { lead, ..Evidence::default() };
        expect(&journey, &nowhere, Code::NoRoute, Proved);
        let route = Refusing {
            kind: "blackhole".into(),
            destination: (ip("172.17.0.9"), 32),
            source: None,
            table: 254,
            marked: false,
            nexthop: None,
        };
        let found = expect(&journey, &Evidence { refusing_route: Some(route), ..nowhere }, Code::NoForwarding, Proved);
        assert!(found.remedy.iter().any(|line| line == "sudo sysctl -w net.ipv4.ip_forward=1"), "{:?}", found.remedy);
    }

    #[test]
    fn a_rule_to_nobody_in_front_of_one_to_a_server_is_taken_out_of_the_way() {
        let mut journey = dropped(&[Stage::TcIngress, Stage::Postrouting, Stage::Neighbour], "NEIGH_FAILED", "neigh_invalidate");
        let text = Some("tcp dport 8080 dnat to 172.17.0.9:80".to_owned());
        let rule = Rule { backend: Backend::Nft, table: "nat".into(), chain: "prerouting".into(), text, ..samples::rule() };
        journey.translated = Some(Translated {
            source: journey.flow.source,
            source_port: journey.flow.source_port,
            destination: ip("172.17.0.9"),
            destination_port: 80,
            rule: Some(rule),
        });
        let with = |otherwise| Evidence {
            lead: Some(Lead { sent_by_rule: Some(true), otherwise, ..Lead::default() }),
            ..Evidence::default()
        };
        let other = Some(((ip("172.17.0.2"), 80).into(), listener("0.0.0.0")));
        let found = expect(&journey, &with(other), Code::NoNeighbour, Proved);
        assert!(
            found.summary.contains("another rule leads to 172.17.0.2:80, where server (pid 412) listens"),
            "{}",
            found.summary
        );
        assert_eq!(found.remedy[1], "sudo nft delete rule ip nat prerouting handle 4");
        let found = expect(&journey, &with(None), Code::NoNeighbour, Proved);
        assert!(found.remedy.iter().all(|line| !line.contains("nft delete")), "{:?}", found.remedy);
    }

    #[test]
    fn a_rule_to_a_port_of_nobody_is_taken_out_of_the_way_first() {
        let mut journey = samples::bound_elsewhere().journey;
        let destination = journey.flow.destination;
        let translated = |rule| {
            Some(Translated {
                source: journey.flow.source,
                source_port: 51234,
                destination,
                destination_port: 3128,
                rule: Some(rule),
            })
        };
        let text = Some("tcp dport 8080 redirect to :3128".to_owned());
        let rule = Rule { backend: Backend::Nft, table: "nat".into(), chain: "prerouting".into(), text, ..samples::rule() };
        let [own, by_firewalld] = [rule.clone(), Rule { owner: Owner::Firewalld, ..rule }].map(translated);
        journey.translated = own;
        let with = |passed_by: Vec<Listener>| Evidence {
            lead: Some(Lead { owned: true, sent_by_rule: Some(true), passed_by, ..Lead::default() }),
            ..with_listeners(Vec::new())
        };
        let nobody = expect(&journey, &with(Vec::new()), Code::NoListener, Proved).remedy;
        let [condition, delete, or_else, look] = &nobody[..] else { unreachable!("{nobody:?}") };
        assert!(condition.starts_with("# if that rule is left over") && condition.contains("start the server on port 8080"));
        assert_eq!(delete, "sudo nft delete rule ip nat prerouting handle 4");
        assert!(or_else.contains("on port 3128") && look == "sudo ss -ltnp 'sport = :3128'", "{nobody:?}");
        let server = expect(&journey, &with(vec![listener("0.0.0.0")]), Code::NoListener, Proved).remedy;
        assert!(server[0].ends_with("and server (pid 412) gets what asks for port 8080:"), "{server:?}");
        assert_eq!(server[1], *delete);
        assert!(server[2].contains("on port 3128"), "{server:?}");
        // What a manager made, it would make again.
        journey.translated = by_firewalld;
        let managed = expect(&journey, &with(Vec::new()), Code::NoListener, Proved).remedy;
        assert!(managed[0].starts_with("# start the server") && managed.iter().all(|line| !line.contains("nft delete")));
    }
}
