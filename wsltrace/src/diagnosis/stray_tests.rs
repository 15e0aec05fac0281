//! Judgements on answers that nobody takes, and on ends that their place alone does not explain, on hand-made journeys.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Code, Confidence, tests::expect};
use crate::{
    evidence::{Astray, Backend, Evidence, OwnAddress, Rule},
    journey::{Conntrack, DeathPlace, Facts, Journey, Outcome, Stage, StageVisit, Translated},
    output::samples::{self, CONTAINER, PREROUTING, after_prerouting, ip, journey, listener, with_listeners},
};

use Confidence::{Inferred, Proved};

/// Answered, and not confirmed.
fn answered(facts: Facts) -> Journey {
    let stages = after_prerouting(&[Stage::Input, Stage::SocketLookup, Stage::SynAck, Stage::Output, Stage::TcEgress]);
    let mut answered = journey(&stages, Outcome::Answered, None, None);
    answered.facts = Facts { syn_ack: true, answer_left: true, socket_lookup: true, ..facts };
    answered
}

#[test]
fn a_client_that_asks_again_does_not_take_the_answer_when_the_first_was_forgotten() {
    let (none, reset) = (Evidence::default(), Evidence { resets_of_half_open: 3, ..Evidence::default() });
    let first = answered(Facts { asked_again: true, ..Facts::default() });
    assert!(expect(&first, &none, Code::Healthy, Inferred).summary.contains("came late or was lost"));
    let found = expect(&first, &reset, Code::ReplyUnanswered, Inferred);
    assert!(found.summary.ends_with("by a reset (3 half-open connections were reset here meanwhile)"), "{}", found.summary);
    let mut second = answered(Facts { answered_before: true, ..Facts::default() });
    assert!(expect(&second, &none, Code::ReplyUnanswered, Inferred).summary.contains("do not reach it, or it"));
    // It met what the first one has left.
    second.facts.socket_lookup = false;
    expect(&second, &none, Code::Healthy, Inferred);
    let scan = answered(Facts::default());
    assert!(expect(&scan, &reset, Code::Healthy, Inferred).summary.contains("as a port scan does"));
    let confirmed = answered(Facts { answered_before: true, acknowledged: true, established: true, ..Facts::default() });
    expect(&confirmed, &reset, Code::Healthy, Proved);
}

#[test]
fn a_client_that_resets_what_comes_late_has_given_up() {
    let stages = [&PREROUTING[..], &[Stage::Forward, Stage::Postrouting, Stage::TcEgress, Stage::Input, Stage::SynAck]].concat();
    let mut late = journey(&stages, Outcome::Answered, None, None);
    late.facts = Facts { syn_ack: true, answer_left: true, syn_ack_again: true, ..Facts::default() };
    late.answer = Some(stages.len() - 1);
    let reset = Evidence { resets_of_half_open: 1, ..Evidence::default() };
    assert!(expect(&late, &reset, Code::ReplyUnanswered, Proved).summary.contains("lost on the way back"));
    for visit in late.stages.iter_mut().skip_while(|visit| visit.stage != Stage::TcEgress) {
        visit.ns += 2_040_000_000;
    }
    let found = expect(&late, &reset, Code::ReplyUnanswered, Inferred);
    assert!(
        found.summary.contains("waited for its neighbour's hardware address for 2.04 s behind postrouting"),
        "{}",
        found.summary
    );
    // Nobody has reset it.
    assert!(expect(&late, &Evidence::default(), Code::ReplyUnanswered, Proved).summary.contains("lost on the way back"));
}

#[test]
fn a_rule_that_changes_the_answer_is_named_wherever_the_answer_was_seen_last() {
    let rule = Rule {
        chain: "output".into(),
        text: Some("tcp sport 8080 ip daddr set 172.28.16.99".into()),
        verdict: "continue".into(),
        ..samples::rule()
    };
    let rule = Rule { backend: Backend::Nft, handle: Some(4), ..rule };
    let by_rule = Evidence { answer_rewriter: Some(rule), ..Evidence::default() };
    let mut lost = answered(Facts { syn_ack_again: true, ..Facts::default() });
    let found = expect(&lost, &by_rule, Code::ReplyUnanswered, Inferred);
    assert!(found.summary.contains("changes an address or a port of the answer"), "{}", found.summary);
    assert!(found.remedy[0].starts_with("sudo nft delete rule ") && found.remedy[0].ends_with(" handle 4"), "{:?}", found.remedy);
    lost.outcome = Outcome::Unfinished;
    lost.stages.truncate(lost.stages.len() - 1);
    expect(&lost, &by_rule, Code::ReplyUnanswered, Inferred);
    expect(&lost, &Evidence::default(), Code::QueuedToUserspace, Inferred);
    lost.outcome = Outcome::Answered;
    lost.facts.acknowledged = true;
    // It was seen to come in, and the server asked for it again.
    expect(&lost, &by_rule, Code::ReplyUnanswered, Inferred);
    lost.facts.syn_ack_again = false;
    expect(&lost, &by_rule, Code::Healthy, Inferred);
}

#[test]
fn what_connection_tracking_refuses_behind_all_chains_is_its_own_doing() {
    let stages = [&PREROUTING[..], &[Stage::Forward, Stage::Postrouting, Stage::Snat]].concat();
    let mut clash = journey(&stages, Outcome::Dropped, Some(Stage::Postrouting), Some(("NETFILTER_DROP", "nf_hook_slow+0x7d")));
    expect(&clash, &Evidence::default(), Code::FirewallDrop, Inferred);
    clash.facts.at_confirmation = true;
    assert!(
        expect(&clash, &Evidence::default(), Code::ConntrackDrop, Inferred).summary.contains("another one has the same ends")
    );
    clash.translated = Some(Translated {
        source: ip("172.17.0.1"),
        source_port: 5000,
        destination: ip("172.17.0.2"),
        destination_port: 80,
        rule: None,
    });
    let by = |text: &str| {
        let rule = Rule { backend: Backend::Nft, handle: Some(4), text: Some(text.into()), comment: None, ..samples::rule() };
        Evidence { source_translator: Some(rule), ..Evidence::default() }
    };
    let mended = |text: &str| {
        let found = expect(&clash, &by(text), Code::ConntrackDrop, Inferred);
        assert!(found.summary.contains("from 172.17.0.1:5000 to 172.17.0.2:80"), "{}", found.summary);
        found.remedy[0].split_once(" handle 4 ").map(|(_, text)| text.to_owned())
    };
    assert_eq!(mended("tcp dport 80 masquerade to :5000").unwrap(), "'tcp dport 80 masquerade'");
    assert_eq!(
        mended("oifname \"br0\" snat ip to 172.17.0.1:5000 random").unwrap(),
        "'oifname \"br0\" snat ip to 172.17.0.1 random'"
    );
    assert_eq!(mended("snat to [fd00::1]:5000").unwrap(), "'snat to fd00::1'");
    for portless in ["snat to fd00::1", "masquerade", "snat to 172.17.0.1"] {
        assert_eq!(mended(portless), None, "{portless}");
    }
}

#[test]
fn a_bridge_that_would_have_to_send_back_is_told_with_the_container() {
    let stages = [&PREROUTING[..], &[Stage::TcEgress]].concat();
    let reason = Some(("NOT_SPECIFIED", "br_handle_frame_finish+0x392"));
    let mut back = journey(&stages, Outcome::Dropped, Some(Stage::TcEgress), reason);
    back.interface = Some("veth0".into());
    let source = back.flow.source;
    let to = |destination| Translated { source, source_port: 51234, destination, destination_port: 80, rule: None };
    back.translated = Some(to(ip("172.17.0.3")));
    expect(&back, &Evidence::default(), Code::UnexplainedDrop, Inferred);
    back.translated = Some(to(source));
    let found = expect(&back, &Evidence::default(), Code::NoForwarding, Inferred);
    assert_eq!(found.remedy[1], "sudo ip link set dev veth0 type bridge_slave hairpin on");
    assert!(found.remedy[2].contains("-s 172.28.16.1 -d 172.28.16.1 -p tcp --dport 80 -j MASQUERADE"), "{:?}", found.remedy);
}

#[test]
fn an_own_address_is_not_sought_at_a_neighbour() {
    let stages = [&PREROUTING[..], &[Stage::Forward, Stage::Postrouting, Stage::Neighbour]].concat();
    let mut sought = journey(&stages, Outcome::Unfinished, None, None);
    let own = OwnAddress { address: sought.flow.destination, prefix: 20, interface: "eth0".to_owned(), unready: None };
    let lost = Evidence { addresses: vec![own], astray: Some(Astray::NoRoute), ..Evidence::default() };
    expect(&sought, &Evidence::default(), Code::NoNeighbour, Inferred);
    let found = expect(&sought, &lost, Code::NoRoute, Inferred);
    assert_eq!(found.remedy[0], "sudo ip route add local 172.28.16.2 dev eth0 table local");
    sought.outcome = Outcome::Dropped;
    sought.died_at = Some(Stage::Neighbour);
    sought.reason = Some("NEIGH_FAILED".to_owned());
    expect(&sought, &lost, Code::NoRoute, Inferred);
    let found = expect(&sought, &Evidence::default(), Code::NoNeighbour, Proved);
    assert!(found.remedy[2].contains("docker ps -a"), "{:?}", found.remedy);
    // Nothing has led it here, and it would go out where it came in: the address was this machine's.
    sought.death = Some(DeathPlace { netns: sought.netns, interface: sought.interface });
    let found = expect(&sought, &Evidence::default(), Code::NoNeighbour, Proved);
    assert!(found.summary.contains("which this machine does not have (any longer)"), "{}", found.summary);
    assert!(found.remedy[2].contains("let the client ask for an address that this machine has"), "{:?}", found.remedy);
}

#[test]
fn the_answer_of_a_container_that_left_by_another_device_is_told_apart_from_one_that_was_lost() {
    let mut answer = answered(Facts::default());
    answer.outcome = Outcome::Unfinished;
    answer.facts.answer_left = false;
    let there = |stage, interface: &str, ns| StageVisit { stage, ns, interface: Some(interface.into()), netns: CONTAINER };
    answer.stages.truncate(7);
    answer.stages.extend([there(Stage::TcIngress, "eth0", 80_000), there(Stage::SynAck, "eth0", 90_000)]);
    answer.answer = Some(answer.stages.len() - 1);
    let by = |answer: &Journey, device: &str| {
        let mut answer = answer.clone();
        answer.stages.push(there(Stage::TcEgress, device, 99_000));
        answer
    };
    let found = expect(&by(&answer, "d1"), &Evidence::default(), Code::ReplyWrongInterface, Inferred);
    assert!(found.summary.contains("came in by eth0 and the answer left by d1"), "{}", found.summary);
    expect(&by(&answer, "eth0"), &Evidence::default(), Code::UnexplainedDrop, Inferred);
}

#[test]
fn a_device_whose_packets_are_too_small_for_ipv6_has_none() {
    let mut dropped =
        journey(&[Stage::TcIngress], Outcome::Dropped, Some(Stage::TcIngress), Some(("NOT_SPECIFIED", "ip6_rcv_core+0x1")));
    dropped.flow.family = crate::journey::Family::Ipv6;
    let mtu = |mtu| Evidence { mtu: Some(mtu), ..Evidence::default() };
    let found = expect(&dropped, &mtu(1000), Code::NoRoute, Inferred);
    assert_eq!(found.remedy[0], "sudo ip link set dev eth0 mtu 1500");
    expect(&dropped, &mtu(1500), Code::UnexplainedDrop, Inferred);
}

#[test]
fn a_listener_on_an_address_by_route_is_not_told_as_one_on_an_address_that_is_gone() {
    let refused = samples::bound_elsewhere().journey;
    let own = OwnAddress { address: refused.flow.destination, prefix: 20, interface: "eth0".to_owned(), unready: None };
    let bound = Evidence { addresses: vec![own], ..with_listeners(vec![listener("10.9.9.9")]) };
    assert!(expect(&refused, &bound, Code::ListenerBoundElsewhere, Proved).summary.contains("no address of this machine"));
    let by_route = Evidence { local_by_route: vec![ip("10.9.9.9")], ..bound };
    assert!(!expect(&refused, &by_route, Code::ListenerBoundElsewhere, Proved).summary.contains("no address of this machine"));
}

#[test]
fn without_the_rule_it_is_not_said_what_the_client_sees() {
    let mut unconfirmed = answered(Facts::default());
    unconfirmed.reason = Some("NETFILTER_DROP".to_owned());
    unconfirmed.location = Some("nf_hook_slow+0x7d".to_owned());
    let found = expect(&unconfirmed, &Evidence::default(), Code::FirewallDrop, Inferred);
    assert!(
        found.summary.contains("refused the client's next packet") && found.summary.contains("or gets an error"),
        "{}",
        found.summary
    );
}

#[test]
fn a_rule_that_gives_a_tracked_syn_another_source_is_named_where_its_answer_is_not_turned_back() {
    let writer = Rule {
        backend: Backend::Nft,
        chain: "prerouting".into(),
        text: Some("tcp dport 8080 ip saddr set 10.99.99.9".into()),
        verdict: "continue".into(),
        ..samples::rule()
    };
    let mut lost = answered(Facts { answer_alien: true, syn_ack: true, ..Facts::default() });
    lost.conntrack = Some(Conntrack::New);
    let (destination, source) = (ip("172.17.0.2"), ip("10.99.99.9"));
    lost.translated = Some(Translated { source, source_port: 50000, destination, destination_port: 80, rule: None });
    let none = expect(&lost, &Evidence::default(), Code::ReplyUnanswered, Proved);
    assert!(none.summary.contains("left with another address or port"), "{}", none.summary);
    let by_rule = Evidence { source_rewriter: Some(writer), ..Evidence::default() };
    let found = expect(&lost, &by_rule, Code::ReplyUnanswered, Inferred);
    assert!(found.summary.contains("prerouting gives its SYN the source 10.99.99.9:50000"), "{}", found.summary);
}
