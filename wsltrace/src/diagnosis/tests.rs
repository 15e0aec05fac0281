//! Judgements on hand-made journeys, one a row of measured signatures.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use super::{Code, Confidence, Diagnosis, ROWS, diagnose, row};
use crate::{
    evidence::{Backend, Evidence, Listener, Proxied, Rule, Silence},
    journey::{Family, Journey, Origin, Outcome, Stage, StageVisit, Translated},
    output::samples::{
        self, CONTAINER, OVERFLOWED, PREROUTING, after_prerouting, ip, journey, listener, to_socket, with_listeners,
    },
};

use Confidence::{Inferred, Proved};

pub(super) fn dropped(stages: &[Stage], reason: &str, location: &str) -> Journey {
    journey(stages, Outcome::Dropped, stages.last().copied(), Some((reason, location)))
}

fn refused() -> Journey {
    samples::bound_elsewhere().journey
}

#[track_caller]
pub(super) fn expect(journey: &Journey, evidence: &Evidence, code: Code, confidence: Confidence) -> Diagnosis {
    let found = diagnose(journey, evidence);
    assert_eq!((found.code, found.confidence), (code, confidence), "{}", found.summary);
    assert!(row(code).unwrap().outcomes.contains(&journey.outcome));
    assert!(found.remedy.iter().all(|line| !line.contains('\n') && !line.contains('<')), "{:?}", found.remedy);
    found
}

#[test]
fn every_code_has_one_row_and_every_outcome_some() {
    for code in Code::ALL {
        assert_eq!(ROWS.iter().filter(|row| row.code == code).count(), 1, "{code}");
    }
    for outcome in Outcome::ALL {
        assert!(ROWS.iter().any(|row| row.outcomes.contains(&outcome)));
    }
}

#[test]
fn a_firewall_is_proved_by_its_drop_but_not_where_conntrack_acts() {
    let none = Evidence::default();
    let filter = after_prerouting(&[Stage::Input, Stage::InputFilter]);
    let found = expect(&dropped(&filter, "NETFILTER_DROP", "nft_do_chain+0x3e8"), &none, Code::FirewallDrop, Proved);
    assert!(found.summary.contains("which rule is not known"));
    assert_eq!(found.remedy, ["sudo nft -a list ruleset"]);
    expect(&dropped(&filter, "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Proved);
    expect(&dropped(&filter, "NOT_SPECIFIED", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Inferred);
    expect(&dropped(&PREROUTING[..4], "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::ConntrackDrop, Inferred);
    expect(&dropped(&PREROUTING[..4], "NETFILTER_DROP", "nft_do_chain+0x3e8"), &none, Code::FirewallDrop, Proved);
    // Of the bridge's and the device's hooks the kernel before 6.7 tells no more than that a hook refused the packet.
    let found = expect(&dropped(&[Stage::TcIngress], "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Proved);
    assert!(
        found
            .summary
            .contains("at the very beginning of PREROUTING, on eth0; ebtables or a BPF program did it (before Linux 6.7"),
        "{}",
        found.summary
    );
    let at_input = after_prerouting(&[Stage::Input]);
    expect(&dropped(&at_input, "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Inferred);
    let legacy = Evidence { backend: Some(Backend::IptablesLegacy), ..Evidence::default() };
    let found = expect(&dropped(&PREROUTING[..3], "NETFILTER_DROP", "nf_hook_slow+0xa1"), &legacy, Code::FirewallDrop, Proved);
    assert_eq!(found.remedy, ["sudo iptables-legacy-save -c -t raw"]);
    expect(&dropped(&[Stage::TcIngress], "NETFILTER_DROP", "nft_do_chain+0x3e8"), &none, Code::FirewallDrop, Proved);
}

#[test]
fn a_limit_is_told_as_one_and_what_is_dropped_at_a_limited_rate_is_not() {
    let journey = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    let found = |text: &str| {
        let rule = Rule { text: Some(text.into()), ..samples::rule() };
        expect(&journey, &Evidence { rule: Some(rule), ..Evidence::default() }, Code::FirewallDrop, Proved)
    };
    for limit in [
        "tcp dport 8080 ct count over 4 drop",
        "add @came { ip saddr limit rate over 1/minute } drop",
        "tcp dport 8080 quota over 10 mbytes drop",
        "-A INPUT -p tcp --dport 8080 -m connlimit --connlimit-above 4 --connlimit-mask 32 --connlimit-saddr -j DROP",
        "tcp dport 8080 xt match hashlimit counter drop",
    ] {
        let found = found(limit);
        assert!(found.summary.contains("it is a limit"), "{}", found.summary);
        assert!(found.remedy[0].starts_with("# wait") && found.remedy.len() == 2, "{:?}", found.remedy);
    }
    for asks in ["-A INPUT -m recent --update --seconds 60 --hitcount 3 --name x -j DROP", "xt match recent counter drop"] {
        assert!(found(asks).summary.contains("came before"), "{asks}");
    }
    for chance in
        ["-A INPUT -m statistic --mode nth --every 2 --packet 0 -j DROP", "numgen inc mod 2 0 drop", "meta random < 9 drop"]
    {
        assert!(found(chance).summary.contains("leaves others alike"), "{chance}");
    }
    for other in ["limit rate 1/second drop", "-A INPUT -m recent --set --name x -j DROP", "counter name \"quota\" drop"] {
        let found = found(other);
        assert!(!found.summary.contains("may pass") && found.remedy.len() == 1, "{}", found.summary);
    }
}

#[test]
fn a_reject_whose_answer_was_suppressed_is_told_by_its_rule() {
    let stages = after_prerouting(&[Stage::InputFilter]);
    let mut rule = samples::rule();
    rule.verdict = "reject".into();
    let evidence = Evidence { rule: Some(rule), ..Evidence::default() };
    expect(&dropped(&stages, "NETFILTER_DROP", "nft_do_chain+0x3e8"), &evidence, Code::FirewallReject, Proved);
    expect(&samples::other(Outcome::Rejected).journey, &Evidence::default(), Code::FirewallReject, Proved);
}

#[test]
fn a_reject_whose_answer_came_back_to_a_client_here_did_leave() {
    let mut rule = samples::rule();
    rule.verdict = "reject".into();
    let evidence = Evidence { rule: Some(rule), icmp_suppressed: Some(0), ..Evidence::default() };
    let answer = [Stage::Output, Stage::TcEgress, Stage::Input];
    let mut journey =
        dropped(&after_prerouting(&[&[Stage::InputFilter], &answer[..]].concat()), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    journey.died_at = Some(Stage::InputFilter);
    journey.answer = Some(journey.stages.len() - answer.len());
    let found = expect(&journey, &evidence, Code::FirewallReject, Proved);
    assert!(found.summary.contains("this rule or another drops that, too"), "{}", found.summary);
    journey.stages.pop();
    let found = expect(&journey, &evidence, Code::FirewallReject, Proved);
    assert!(found.summary.contains("its answer did not leave"), "{}", found.summary);
}

#[test]
fn a_reject_whose_answer_was_suppressed_is_inferred_from_the_counter() {
    let journey = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    let held_back = Evidence { icmp_suppressed: Some(2), dropped_by_netfilter: 2, ..Evidence::default() };
    expect(&journey, &held_back, Code::FirewallReject, Inferred);
    let some = Evidence { icmp_suppressed: Some(1), ..held_back.clone() };
    expect(&journey, &some, Code::FirewallDrop, Proved);
    let by_a_drop = Evidence { rule: Some(samples::rule()), ..held_back };
    expect(&journey, &by_a_drop, Code::FirewallDrop, Proved);
}

#[test]
fn refused_is_told_apart_by_the_listeners() {
    let j = refused();
    let found = expect(&j, &with_listeners(vec![listener("127.0.0.1")]), Code::ListenerBoundElsewhere, Proved);
    assert!(found.summary.contains("server (pid 412) listens on 127.0.0.1:8080 only"));
    expect(&j, &with_listeners(vec![listener("::1")]), Code::ListenerOtherFamily, Proved);
    let only = crate::evidence::Listener { v6only: true, ..listener("::") };
    expect(&j, &with_listeners(vec![only.clone()]), Code::ListenerOtherFamily, Proved);
    expect(&j, &with_listeners(vec![only, listener("127.0.0.1")]), Code::ListenerBoundElsewhere, Proved);
    let device = crate::evidence::Listener { device: Some("lo".into()), ..listener("0.0.0.0") };
    expect(&j, &with_listeners(vec![device]), Code::SocketPolicy, Proved);
    let there = crate::evidence::Listener { netns: CONTAINER, ..listener("0.0.0.0") };
    let elsewhere = Evidence { elsewhere: vec![there], ..with_listeners(Vec::new()) };
    let found = expect(&j, &elsewhere, Code::ListenerOtherNetns, Proved);
    assert!(found.remedy[1].contains("docker run -p 8080:8080"), "{found:?}");
    // A macvlan network publishes no ports.
    let beside = Evidence { elsewhere_at: Some(ip("172.28.16.9")), ..elsewhere.clone() };
    let found = expect(&j, &beside, Code::ListenerOtherNetns, Proved);
    assert!(found.remedy[1].contains("let the client ask 172.28.16.9:8080"), "{found:?}");
    // Led to a container's port by a rule: another container's server on that port has nothing to do with it.
    let mut published = j.clone();
    let now = Translated {
        source: j.flow.source,
        source_port: j.flow.source_port,
        destination: ip("172.17.0.2"),
        destination_port: 80,
        rule: None,
    };
    published.translated = Some(now);
    expect(&published, &elsewhere, Code::NoListener, Proved);
    // A rule of PREROUTING takes none of this machine's own.
    let led = Evidence { led_on_to: Some(ip("172.17.0.2")), ..with_listeners(Vec::new()) };
    let found = expect(&j, &led, Code::NoListener, Proved);
    assert!(found.summary.contains("leads this port on to 172.17.0.2, but did not take this connection"), "{}", found.summary);
    let found = expect(&Journey { origin: Origin::Local, ..j.clone() }, &led, Code::NoListener, Proved);
    assert!(found.summary.contains("meet no rule of PREROUTING") && found.remedy[0].contains("nat OUTPUT"), "{found:?}");
    let by = Evidence { led_on_by: Some(ip("172.28.16.3")), ..led.clone() };
    let found = expect(&j, &by, Code::NoListener, Proved);
    assert!(
        found.summary.contains("but only for those who ask 172.28.16.3") && found.remedy[0].contains("ask for 172.28.16.3"),
        "{found:?}"
    );
    let except = |name: &str| Evidence { led_on_except: Some(name.to_owned()), ..led.clone() };
    let found = expect(&j, &except("eth0"), Code::NoListener, Proved);
    assert!(found.summary.contains("it leaves alone what comes in by eth0"), "{}", found.summary);
    assert!(found.remedy[0].contains("ask 172.17.0.2 itself"), "{found:?}");
    let found = expect(&j, &except("docker0"), Code::NoListener, Proved);
    assert!(!found.summary.contains("leaves alone"), "{}", found.summary);
    let v6 = Evidence { led_on_to: Some(ip("fd00::2")), ..with_listeners(Vec::new()) };
    assert!(expect(&j, &v6, Code::NoListener, Proved).summary.contains("it is for IPv6, and the client came by IPv4"));
    expect(&j, &with_listeners(Vec::new()), Code::NoListener, Proved);
    expect(&j, &Evidence::default(), Code::NoListener, Inferred);
    // A dual-stack listener takes IPv4: it can only have been started later.
    expect(&j, &with_listeners(vec![listener("::")]), Code::NoListener, Inferred);
}

#[test]
fn a_refusal_beside_a_fitting_listener_is_put_down_to_a_program_that_chooses_listeners() {
    let j = refused();
    let programs = vec!["first".to_owned(), "second".to_owned()];
    let evidence = Evidence { lookup_programs: programs.clone(), ..with_listeners(vec![listener("0.0.0.0")]) };
    assert!(expect(&j, &evidence, Code::SocketPolicy, Inferred).summary.contains("(sk_lookup: first, second)"));
    let nobody = Evidence { lookup_programs: programs, ..with_listeners(Vec::new()) };
    expect(&j, &nobody, Code::NoListener, Proved);
}

#[test]
fn a_refusal_beside_a_fitting_listener_is_put_down_to_a_program_of_its_shared_port() {
    let j = refused();
    let choosing = vec!["chooser".to_owned()];
    let evidence = Evidence { choosing_programs: choosing.clone(), ..with_listeners(vec![listener("0.0.0.0")]) };
    assert!(expect(&j, &evidence, Code::SocketPolicy, Inferred).summary.contains("(SO_REUSEPORT: chooser)"));
    let elsewhere = Evidence { choosing_programs: choosing, ..with_listeners(vec![listener("127.0.0.1")]) };
    expect(&j, &elsewhere, Code::ListenerBoundElsewhere, Proved);
}

#[test]
fn a_listener_of_no_vrf_gets_nothing_that_comes_by_one() {
    let j = refused();
    let setting = |value: &str| vec![("net.ipv4.tcp_l3mdev_accept".to_owned(), value.to_owned())];
    let by_red =
        |value| Evidence { vrf: Some("red".into()), sysctls: setting(value), ..with_listeners(vec![listener("0.0.0.0")]) };
    let found = expect(&j, &by_red("0"), Code::SocketPolicy, Proved);
    assert_eq!(found.remedy[0], "sudo sysctl -w net.ipv4.tcp_l3mdev_accept=1");
    expect(&j, &by_red("1"), Code::NoListener, Inferred);
}

#[test]
fn a_full_queue_is_proved_by_the_counter_only() {
    let ignored = samples::ignored();
    expect(&ignored.journey, &ignored.evidence, Code::AcceptQueueFull, Proved);
    let with = |silence: Silence| Evidence { silence: Some(silence), ..Evidence::clone(&ignored.evidence) };
    // Somebody else's overflow, with this SYN swallowed for another reason, or not counted at all.
    for doubtful in
        [Silence { drops: 2, ..OVERFLOWED }, Silence { own_drops: 0, ..OVERFLOWED }, Silence { journeys: 3, ..OVERFLOWED }]
    {
        expect(&ignored.journey, &with(doubtful), Code::AcceptQueueFull, Inferred);
        let no_way = Evidence { route_back: Some(false), ..with(doubtful) };
        expect(&ignored.journey, &no_way, Code::NoRouteBack, Inferred);
    }
    let no_way = Evidence { route_back: Some(false), ..with(OVERFLOWED) };
    expect(&ignored.journey, &no_way, Code::AcceptQueueFull, Proved);
    let drained = Evidence { silence: Some(OVERFLOWED), ..with_listeners(vec![listener("0.0.0.0")]) };
    assert!(expect(&ignored.journey, &drained, Code::AcceptQueueFull, Proved).summary.contains("was full; now it is not"));
    let unknown = Evidence { silence: None, ..Evidence::clone(&ignored.evidence) };
    expect(&ignored.journey, &unknown, Code::AcceptQueueFull, Inferred);
    let free = Evidence { silence: Some(Silence::default()), ..with_listeners(vec![listener("0.0.0.0")]) };
    expect(&ignored.journey, &free, Code::NoRouteBack, Inferred);
    let no_cookies = vec![("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned())];
    let half_open = Silence { overflows: 0, syn_queue_full: 1, ..OVERFLOWED };
    let evidence = Evidence { sysctls: no_cookies, silence: Some(half_open), ..free };
    expect(&ignored.journey, &evidence, Code::SynQueueFull, Proved);
    let doubtful = Evidence { silence: Some(Silence { drops: 2, ..half_open }), ..evidence };
    expect(&ignored.journey, &doubtful, Code::SynQueueFull, Inferred);
    let filter = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    expect(&filter, &ignored.evidence, Code::FirewallDrop, Proved);
}

#[test]
fn an_application_that_does_not_accept_is_told_of_by_the_probe_or_by_its_overfull_queue() {
    let mut journey = samples::healthy().journey;
    let idle = Listener { queue: 1, backlog: 8, ..listener("0.0.0.0") };
    let overfull = Listener { queue: 9, ..idle.clone() };
    expect(&journey, &with_listeners(vec![idle.clone()]), Code::Healthy, Proved);
    expect(&journey, &with_listeners(vec![overfull]), Code::NotAccepted, Inferred);
    journey.facts.not_accepted = true;
    let found = expect(&journey, &with_listeners(vec![idle.clone()]), Code::NotAccepted, Inferred);
    assert!(found.summary.ends_with("had not accepted it a second later: its queue holds 1 of 8"), "{}", found.summary);
    let pid = idle.pid.into_iter().collect();
    let stopped = Evidence { stopped: pid, ..with_listeners(vec![idle.clone()]) };
    let found = expect(&journey, &stopped, Code::NotAccepted, Inferred);
    assert!(found.summary.ends_with("is stopped, as Ctrl-Z does it"), "{}", found.summary);
    assert!(found.remedy.iter().any(|line| line.starts_with("sudo kill -CONT ")), "{:?}", found.remedy);
    expect(&journey, &Evidence::default(), Code::NotAccepted, Inferred);
    journey.stages.extend(journey.stages.last().cloned().map(|visit| StageVisit { stage: Stage::Accepted, ..visit }));
    expect(&journey, &with_listeners(vec![idle]), Code::Healthy, Proved);
}

#[test]
fn a_refusal_that_cannot_be_sent_is_still_one_of_the_sockets() {
    let journey = dropped(&after_prerouting(&[Stage::SocketLookup]), "NO_SOCKET", "tcp_v4_rcv+0x99");
    let alone = Evidence { route_back: Some(false), ..with_listeners(Vec::new()) };
    let found = expect(&journey, &alone, Code::NoListener, Proved);
    assert!(
        found.summary.contains("there is no route back to 172.28.16.1, so the kernel's refusal was not sent"),
        "{}",
        found.summary
    );
    assert!(found.remedy.iter().any(|line| line.contains("route add 172.28.16.1")), "{:?}", found.remedy);
    let elsewhere = Evidence { route_back: Some(false), ..with_listeners(vec![listener("127.0.0.1")]) };
    expect(&journey, &elsewhere, Code::ListenerBoundElsewhere, Proved);
}

#[test]
fn a_reset_by_the_server_is_told_with_its_time_and_with_who_it_was() {
    let mut journey = samples::healthy().journey;
    journey.facts.server_reset_ns = Some(340_000);
    let found = expect(&journey, &with_listeners(vec![listener("0.0.0.0")]), Code::NotAccepted, Proved);
    assert!(found.summary.contains("reset the connection 340 \u{b5}s later, before it sent a byte"), "{}", found.summary);
    let gone = expect(&journey, &with_listeners(Vec::new()), Code::NotAccepted, Proved);
    assert!(gone.summary.ends_with("nothing listens on port 8080 any longer"), "{}", gone.summary);
    let proxy = Listener { pid: Some(7), command: Some("docker-proxy".to_owned()), ..listener("0.0.0.0") };
    let proxied = |there| Proxied { pid: 7, to: (Ipv4Addr::new(172, 17, 0, 2), 80).into(), there };
    let by_proxy = |there| Evidence { proxied: vec![proxied(there)], ..with_listeners(vec![proxy.clone()]) };
    let inner = |address| Some(vec![Listener { port: 80, ..listener(address) }]);
    for (there, said) in [
        (Some(Vec::new()), "to 172.17.0.2:80 in a container, where nothing listens"),
        (inner("127.0.0.1"), "where the container's server listens only on 127.0.0.1"),
        (inner("0.0.0.0"), "to 172.17.0.2:80 in a container"),
        (None, "where most likely nobody takes them"),
    ] {
        let found = expect(&journey, &by_proxy(there), Code::NotAccepted, Proved);
        assert!(found.summary.ends_with(said), "{}", found.summary);
    }
    // Who listens is not known: nothing is said of it.
    let unknown = expect(&journey, &Evidence::default(), Code::NotAccepted, Proved);
    assert!(unknown.summary.ends_with("before it sent a byte"), "{}", unknown.summary);
}

#[test]
fn routing_is_judged_by_reason_and_else_by_place() {
    let none = Evidence::default();
    let at = "ip_rcv_finish_core+0x18c";
    let found = expect(&dropped(&PREROUTING, "IP_RPFILTER", at), &none, Code::ReversePathFilter, Proved);
    assert_eq!(found.remedy[0], "sudo sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0");
    let found = expect(&dropped(&PREROUTING, "IP_LOCALNET", at), &none, Code::MartianAddress, Proved);
    assert_eq!(found.remedy, ["sudo sysctl -w net.ipv4.conf.eth0.route_localnet=1"]);
    let mut own = dropped(&PREROUTING, "IP_LOCAL_SOURCE", at);
    let found = expect(&own, &none, Code::MartianAddress, Proved);
    assert!(found.remedy[1].ends_with("one of the two needs another"), "{:?}", found.remedy);
    own.flow.source = own.flow.destination;
    let found = expect(&own, &none, Code::MartianAddress, Proved);
    assert!(found.remedy[0].contains("mirrored mode") && found.remedy[0].contains("forged"), "{:?}", found.remedy);
    assert_eq!(found.remedy[1], "sudo sysctl -w net.ipv4.conf.eth0.accept_local=1");
    let mut old = dropped(&PREROUTING, "NOT_SPECIFIED", at);
    old.flow.destination = ip("127.0.0.1");
    expect(&old, &none, Code::MartianAddress, Inferred);
    let options = expect(&dropped(&PREROUTING, "NOT_SPECIFIED", at), &none, Code::BadPacket, Inferred);
    assert!(options.summary.contains("source routing"), "{}", options.summary);
    expect(&dropped(&PREROUTING, "IP_INADDRERRORS", "ip_error+0x8a"), &none, Code::NoForwarding, Proved);
    expect(&dropped(&PREROUTING, "IP_INNOROUTES", "ip6_pkt_drop+0x8a"), &none, Code::NoRoute, Proved);
    expect(&dropped(&PREROUTING, "NOT_SPECIFIED", "ip_error+0x8a"), &none, Code::NoRoute, Inferred);
    let mut prohibit = dropped(&PREROUTING, "NOT_SPECIFIED", "ip_error+0x8a");
    prohibit.outcome = Outcome::Rejected;
    expect(&prohibit, &none, Code::NoRoute, Inferred);
}

#[test]
fn a_syn_that_met_a_connection_is_told_by_its_reason_and_else_by_the_missing_lookup() {
    let none = Evidence::default();
    let delivered = after_prerouting(&[Stage::Input, Stage::SocketLookup]);
    for reason in ["TCP_INVALID_SYN", "TCP_OVERWINDOW"] {
        expect(&dropped(&delivered, reason, "tcp_v4_rcv+0x1"), &none, Code::StaleConnection, Proved);
    }
    let by_socket = dropped(&delivered, "NOT_SPECIFIED", "tcp_validate_incoming+0x1");
    expect(&by_socket, &none, Code::StaleConnection, Inferred);
    let mut unnamed = dropped(&delivered, "NOT_SPECIFIED", "tcp_v4_rcv+0x1");
    let met = |older_connection| Evidence { older_connection, ..Evidence::default() };
    expect(&unnamed, &met(Some(true)), Code::StaleConnection, Inferred);
    let to_many = expect(&unnamed, &met(Some(false)), Code::BadPacket, Inferred);
    assert!(to_many.summary.contains("broadcast or multicast") && !to_many.summary.contains("older connection"));
    assert_eq!(to_many.remedy.last().map(String::as_str), Some("sudo ip -br link show dev eth0"));
    assert!(expect(&unnamed, &none, Code::BadPacket, Inferred).summary.contains("or it met an older connection"));
    unnamed.facts.socket_lookup = true;
    expect(&unnamed, &met(Some(false)), Code::UnexplainedDrop, Inferred);
}

#[test]
fn other_drops_are_named_by_their_reasons() {
    let none = Evidence::default();
    for (reason, code) in [
        ("TC_INGRESS", Code::TcDrop),
        ("TCP_CSUM", Code::BadPacket),
        ("NEIGH_FAILED", Code::NoNeighbour),
        ("TCP_MD5NOTFOUND", Code::SocketPolicy),
        ("TCP_INVALID_SYN", Code::StaleConnection),
        ("OTHERHOST", Code::UnexplainedDrop),
        ("SOME_NEW_REASON", Code::UnexplainedDrop),
    ] {
        expect(&dropped(&[Stage::TcIngress], reason, "somewhere+0x1"), &none, code, Proved);
    }
    expect(&dropped(&[Stage::TcIngress], "NOT_SPECIFIED", "somewhere+0x1"), &none, Code::UnexplainedDrop, Inferred);
}

#[test]
fn answers_are_healthy_unless_something_speaks_against_it() {
    let healthy = samples::healthy();
    expect(&healthy.journey, &healthy.evidence, Code::Healthy, Proved);
    // Freed without a reason after its answer was made: a retransmission that met a request socket.
    let mut freed = healthy.journey.clone();
    (freed.reason, freed.location) = (Some("NOT_SPECIFIED".into()), Some("tcp_v4_rcv+0x91".into()));
    expect(&freed, &healthy.evidence, Code::Healthy, Proved);
    expect(&samples::other(Outcome::Answered).journey, &Evidence::default(), Code::ReplyUnanswered, Proved);
    let mut wrong = healthy.journey;
    (wrong.facts.answer_left, wrong.facts.answer_elsewhere) = (false, true);
    (wrong.facts.acknowledged, wrong.facts.established) = (false, false);
    expect(&wrong, &Evidence::default(), Code::ReplyWrongInterface, Proved);
    expect(&samples::other(Outcome::AnswerDropped).journey, &Evidence::default(), Code::ReplyDropped, Proved);
}

#[test]
fn an_answer_without_a_neighbour_is_told_apart_by_its_interface() {
    let mut unheard = samples::other(Outcome::AnswerDropped).journey;
    (unheard.died_at, unheard.reason) = (Some(Stage::Neighbour), Some("NEIGH_FAILED".into()));
    expect(&unheard, &Evidence::default(), Code::NoNeighbour, Proved);
    let elsewhere = crate::journey::DeathPlace { netns: unheard.netns, interface: Some("eth1".into()) };
    unheard.death = Some(elsewhere);
    expect(&unheard, &Evidence::default(), Code::ReplyWrongInterface, Proved);
}

#[test]
fn silence_in_a_hook_is_a_queue_and_elsewhere_unexplained() {
    let mut held = samples::other(Outcome::Unfinished).journey;
    held.stages.truncate(9);
    expect(&held, &Evidence::default(), Code::QueuedToUserspace, Inferred);
    held.stages = journey(&to_socket(&[]), Outcome::Unfinished, None, None).stages;
    expect(&held, &Evidence::default(), Code::UnexplainedDrop, Inferred);
}

#[test]
fn loss_takes_the_proof_away() {
    let mut j = refused();
    j.complete = false;
    let found = expect(&j, &with_listeners(Vec::new()), Code::NoListener, Inferred);
    assert!(found.summary.contains("were lost"));
}

#[test]
fn commands_for_a_container_enter_its_namespace() {
    let there = crate::evidence::Listener { netns: CONTAINER, port: 80, ..listener("127.0.0.1") };
    let found = expect(&samples::container().journey, &with_listeners(vec![there]), Code::ListenerBoundElsewhere, Proved);
    assert!(found.summary.contains("172.28.16.2:8080, translated to 172.17.0.2:80"));
    let mut drop = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    drop.death = Some(crate::journey::DeathPlace { netns: CONTAINER, interface: Some("eth0".into()) });
    let found = expect(&drop, &Evidence::default(), Code::FirewallDrop, Proved);
    assert!(found.remedy[0].starts_with("# in the network namespace"));
}

#[test]
fn ipv6_gets_its_own_tools() {
    let mut j = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nf_hook_slow+0x1");
    j.flow.family = Family::Ipv6;
    (j.flow.source, j.flow.destination) = (ip("fe80::1"), ip("fe80::2"));
    let found = expect(&j, &Evidence::default(), Code::FirewallDrop, Proved);
    assert_eq!(found.remedy[0], "sudo ip6tables-legacy-save -c -t filter");
}

#[test]
fn a_rule_that_was_named_for_a_twin_proves_nothing() {
    let report = samples::firewall(Some(samples::rule()));
    let proved = diagnose(&report.journey, &report.evidence);
    let evidence = Evidence { named_by: crate::evidence::NamedBy::Twin, ..Evidence::clone(&report.evidence) };
    let inferred = diagnose(&report.journey, &evidence);
    assert_eq!((proved.code, proved.confidence), (Code::FirewallDrop, Confidence::Proved));
    assert_eq!((inferred.code, inferred.confidence), (Code::FirewallDrop, Confidence::Inferred));
    assert!(inferred.summary.contains("another attempt"), "{}", inferred.summary);
}

#[test]
fn a_policy_is_met_at_its_chain_s_end_where_everything_comes_there() {
    let journey = samples::firewall(None).journey;
    let mend = |rule: Rule| {
        let evidence = Evidence { rule: Some(rule), ..Evidence::default() };
        expect(&journey, &evidence, Code::FirewallDrop, Proved).remedy.concat()
    };
    let policy = Rule { handle: None, text: Some("policy drop".into()), at_chains_end: true, ..samples::rule() };
    assert_eq!(mend(policy.clone()), "sudo iptables-nft -t filter -A INPUT -p tcp --dport 8080 -j ACCEPT");
    let nft = Rule { backend: Backend::Nft, ..policy.clone() };
    assert_eq!(mend(nft.clone()), "sudo nft add rule ip filter INPUT tcp dport 8080 accept");
    assert_eq!(mend(Rule { at_chains_end: false, ..nft }), "sudo nft insert rule ip filter INPUT tcp dport 8080 accept");
    let returns = Rule { at_chains_end: false, ..policy };
    assert_eq!(mend(returns), "sudo iptables-nft -t filter -I INPUT -p tcp --dport 8080 -j ACCEPT");
}
