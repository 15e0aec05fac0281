//! Judgements on hand-made journeys, one a row of measured signatures.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Code, Confidence, Diagnosis, ROWS, diagnose, row};
use crate::{
    evidence::Evidence,
    journey::{Journey, Outcome, Stage},
    output::samples::{self, CONTAINER, PREROUTING, after_prerouting, ip, journey, listener, with_listeners},
};

use Confidence::{Inferred, Proved};

pub(super) fn dropped(stages: &[Stage], reason: &str, location: &str) -> Journey {
    journey(stages, Outcome::Dropped, stages.last().copied(), Some((reason, location)))
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
fn loss_takes_the_proof_away() {
    let mut j = samples::bound_elsewhere().journey;
    j.complete = false;
    let found = expect(&j, &with_listeners(Vec::new()), Code::NoListener, Inferred);
    assert!(found.summary.contains("were lost"));
}
