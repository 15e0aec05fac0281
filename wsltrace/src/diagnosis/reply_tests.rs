//! Judgements on the ways that answers take, on hand-made journeys.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::{
    Code, Confidence,
    routing_tests::{dropped, own},
    tests::expect,
};
use crate::{
    evidence::{BridgePort, Evidence, Hop, LeadingRule, Mirror, OwnAddress, Refusing},
    journey::{DeathPlace, Journey, Origin, Outcome, Stage, StageVisit},
    output::samples::{self, ip, journey},
};

use Confidence::{Inferred, Proved};

/// A SYN that came by `eth0` and whose answer left by `interface`.
fn answered_by(interface: &str, stage: Stage, outcome: Outcome) -> Journey {
    let mut journey = samples::healthy().journey;
    journey.outcome = outcome;
    journey.facts.established = false;
    journey.facts.acknowledged = false;
    journey.facts.answer_left = false;
    journey.facts.answer_elsewhere = stage == Stage::TcEgress;
    let first = journey.stages.first().unwrap().clone();
    journey.stages.truncate(1);
    let visit = |stage, ns| StageVisit { stage, ns, interface: Some(interface.into()), ..first };
    journey.stages.extend([visit(Stage::Output, 10), visit(stage, 20)]);
    journey.answer = Some(1);
    journey
}

#[test]
fn an_address_that_was_left_on_a_port_of_a_bridge_is_told() {
    let mut waited = answered_by("eth0", Stage::Neighbour, Outcome::AnswerDropped);
    waited.reason = Some("NEIGH_FAILED".into());
    let port = BridgePort { device: "eth0".into(), bridge: "br0".into(), address: ip("172.28.16.2"), prefix: 20 };
    let found =
        expect(&waited, &Evidence { bridge_port: Some(port), ..Evidence::default() }, Code::ReplyWrongInterface, Inferred);
    assert!(found.summary.contains("address and routes belong on the bridge"), "{}", found.summary);
    let commands = ["sudo ip address del 172.28.16.2/20 dev eth0", "sudo ip address add 172.28.16.2/20 dev br0"];
    assert_eq!(found.remedy[..2], commands);
}

#[test]
fn an_answer_that_leaves_elsewhere_by_its_mark_is_told_from_one_by_the_routes() {
    let wrong = answered_by("tun0", Stage::TcEgress, Outcome::Answered);
    let way = |device: &str| Evidence {
        way_back: Some(device.to_owned()),
        hop_back: Some(Hop { gateway: None }),
        ..Evidence::default()
    };
    let found = expect(&wrong, &way("tun0"), Code::ReplyWrongInterface, Proved);
    assert!(found.remedy[0].contains("route replace") && !found.summary.contains("fwmark"), "{found:?}");
    let marked = Evidence { rules_by_mark: true, ..way("eth0") };
    let found = expect(&wrong, &marked, Code::ReplyWrongInterface, Proved);
    assert!(!found.remedy[0].contains("route replace") && found.summary.contains("fwmark"), "{found:?}");
    let found = expect(&wrong, &way("eth0"), Code::ReplyWrongInterface, Proved);
    assert!(!found.summary.contains("mark") && !found.remedy.concat().contains("mark"), "no rule asks for one: {found:?}");
    let waits = answered_by("tun0", Stage::Neighbour, Outcome::Unfinished);
    assert!(expect(&waits, &way("tun0"), Code::ReplyWrongInterface, Inferred).summary.contains("so far"));
    let waits = answered_by("eth0", Stage::Neighbour, Outcome::Unfinished);
    expect(&waits, &way("eth0"), Code::NoNeighbour, Inferred);
}

/// Asymmetric routes are usual, and no fault where both directions arrive.
#[test]
fn an_answer_that_arrives_may_take_any_way() {
    let mut arrived = answered_by("tun0", Stage::TcEgress, Outcome::Answered);
    (arrived.facts.acknowledged, arrived.facts.established) = (true, true);
    let found = expect(&arrived, &Evidence::default(), Code::Healthy, Proved);
    assert!(found.summary.contains("the answer left by tun0"), "{}", found.summary);
}

#[test]
fn a_confirmation_that_is_seen_and_makes_no_connection_proves_nothing() {
    let mut confirmed = answered_by("eth0", Stage::TcEgress, Outcome::Answered);
    (confirmed.facts.acknowledged, confirmed.facts.answer_left, confirmed.facts.answer_elsewhere) = (true, true, false);
    expect(&confirmed, &Evidence::default(), Code::Healthy, Inferred);
    confirmed.reason = Some("TC_INGRESS".to_owned());
    expect(&confirmed, &Evidence::default(), Code::TcDrop, Proved);
    confirmed.reason = Some("XFRM_POLICY".to_owned());
    expect(&confirmed, &Evidence::default(), Code::SocketPolicy, Proved);
}

#[test]
fn an_answer_to_an_own_address_stays_on_lo() {
    let mut to_itself = answered_by("lo", Stage::TcEgress, Outcome::Answered);
    let source = to_itself.flow.source;
    let evidence = Evidence { addresses: vec![own(&source.to_string())], ..Evidence::default() };
    let found = expect(&to_itself, &evidence, Code::ReplyWrongInterface, Proved);
    assert!(found.summary.contains("an address of this machine too"), "{}", found.summary);
    to_itself.flow.source = ip("127.0.0.1");
    for (mirror, mend) in [
        (Mirror::NoRule, "sudo ip rule add pref 1 ipproto tcp lookup 127"),
        (Mirror::RuleBehind(0), "sudo ip rule del pref 0 lookup local"),
        (Mirror::NoRoute, "sudo ip route add 127.0.0.1 via 169.254.73.249 dev eth0 onlink src 127.0.0.1 table 127"),
    ] {
        let evidence = Evidence { mirror: Some(mirror), ..Evidence::default() };
        assert_eq!(expect(&to_itself, &evidence, Code::ReplyWrongInterface, Proved).remedy[0], mend);
    }
}

#[test]
fn a_rule_that_leads_answers_elsewhere_is_told_and_its_table_mended() {
    let wrong = answered_by("tun0", Stage::TcEgress, Outcome::Answered);
    let rule = LeadingRule { preference: 5, text: "from 172.17.0.0/16 lookup 99".into(), table: 99 };
    let led = |device: &str| Evidence {
        way_back: Some(device.to_owned()),
        hop_back: Some(Hop { gateway: None }),
        leading_rule: Some(rule.clone()),
        ..Evidence::default()
    };
    let found = expect(&wrong, &led("tun0"), Code::ReplyWrongInterface, Proved);
    assert!(found.summary.contains("\"5: from 172.17.0.0/16 lookup 99\" of `ip rule` leads it to tun0"), "{}", found.summary);
    assert_eq!(found.remedy[0], format!("sudo ip route replace {} dev eth0 table 99", wrong.flow.source));
    // By the rules it would go where it did not.
    let found = expect(&wrong, &led("tun1"), Code::ReplyWrongInterface, Proved);
    assert!(!found.summary.contains("lookup 99"), "{}", found.summary);
}

#[test]
fn an_answer_that_leaves_a_container_by_another_interface_is_told() {
    let mut astray = answered_by("tun0", Stage::TcEgress, Outcome::Unfinished);
    astray.facts.answer_elsewhere = false;
    let first = astray.stages.first().unwrap().clone();
    astray.stages.insert(1, StageVisit { netns: samples::CONTAINER, ns: 5, ..first });
    astray.stages[2..].iter_mut().for_each(|visit| visit.netns = samples::CONTAINER);
    astray.answer = Some(2);
    let by_router = Evidence { router: Some(ip("172.17.0.1")), way_back: Some("tun0".to_owned()), ..Evidence::default() };
    let found = expect(&astray, &by_router, Code::ReplyWrongInterface, Inferred);
    assert!(found.summary.contains("came in by eth0 and the answer left by tun0, and was not seen again"), "{}", found.summary);
    assert_eq!(found.remedy[1], "sudo ip route replace 172.28.16.1 via 172.17.0.1 dev eth0");
    astray.stages.last_mut().unwrap().interface = Some("eth0".into());
    expect(&astray, &by_router, Code::UnexplainedDrop, Inferred);
}

/// A SYN whose answer came back from a container by `docker0`, and died there in routing.
fn answer_refused(reason: &str, location: &str) -> Journey {
    let mut journey = dropped(reason, location);
    (journey.outcome, journey.facts.syn_ack) = (Outcome::AnswerDropped, true);
    let first = journey.stages.first().unwrap().clone();
    let visit = |stage, netns, interface: &str| StageVisit { stage, ns: 90_000, interface: Some(interface.into()), netns };
    journey.answer = Some(journey.stages.len());
    journey.stages.extend([
        visit(Stage::SynAck, samples::CONTAINER, "eth0"),
        visit(Stage::TcIngress, first.netns, "veth0"),
        visit(Stage::Prerouting, first.netns, "docker0"),
        visit(Stage::Routing, first.netns, "docker0"),
    ]);
    journey.death = Some(DeathPlace { netns: first.netns, interface: Some("docker0".into()) });
    journey
}

#[test]
fn what_refuses_an_answer_in_routing_is_told() {
    let without_reason = answer_refused("NOT_SPECIFIED", "ip_error+0x94");
    let route = Refusing {
        kind: "blackhole".into(),
        destination: (ip("172.28.16.0"), 20),
        source: None,
        table: 254,
        marked: false,
        nexthop: Some(7),
    };
    let refused = Evidence { refusing_route: Some(route), ..Evidence::default() };
    let found = expect(&without_reason, &refused, Code::ReplyDropped, Inferred);
    assert!(found.summary.contains("in routing on docker0: the route \"blackhole 172.28.16.0/20 nhid 7\""), "{}", found.summary);
    assert_eq!(found.remedy, ["sudo ip route del 172.28.16.0/20 nhid 7"]);
    let no_way = Evidence { route_back: Some(false), ..Evidence::default() };
    let found = expect(&without_reason, &no_way, Code::ReplyDropped, Inferred);
    assert!(found.remedy[0].starts_with("sudo ip route add 172.28.16.1 dev eth0"), "{:?}", found.remedy);
    let not_forwarded = answer_refused("IP_INADDRERRORS", "ip_error+0x94");
    let found = expect(&not_forwarded, &Evidence::default(), Code::ReplyDropped, Inferred);
    assert_eq!(found.remedy, ["sudo sysctl -w net.ipv4.conf.docker0.forwarding=1"]);
    expect(&without_reason, &Evidence::default(), Code::ReplyDropped, Inferred);
}

#[test]
fn an_answer_with_no_hop_left_is_told_by_its_time_to_live() {
    let stages = [Stage::TcIngress, Stage::SynAck, Stage::TcEgress, Stage::Routing];
    let place = Some(("IP_INHDR", "ip_forward+0x2c0"));
    let mut answer = journey(&stages, Outcome::AnswerDropped, Some(Stage::Routing), place);
    answer.facts.syn_ack = true;
    let found = expect(&answer, &Evidence::default(), Code::ReplyDropped, Proved);
    assert!(found.summary.contains("its time to live has run out"), "{}", found.summary);
    assert!(found.remedy[0].ends_with("sysctl net.ipv4.ip_default_ttl"), "{:?}", found.remedy);
}

#[test]
fn what_was_sent_on_tells_where_it_went() {
    let mut on = samples::other(Outcome::Forwarded).journey;
    let first = on.stages.first().unwrap().clone();
    let visit = |stage, interface: &str| StageVisit { stage, interface: Some(interface.into()), ..first };
    let mut told = |stages: Vec<StageVisit>| {
        on.stages = stages;
        expect(&on, &Evidence::default(), Code::Forwarded, Proved).summary
    };
    let routed =
        |device: &str| vec![visit(Stage::TcIngress, "eth0"), visit(Stage::Routing, "eth0"), visit(Stage::TcEgress, device)];
    assert!(told(routed("eth0")).contains("where it came from"));
    assert!(told(routed("eth1")).ends_with("what happens there is not seen from here"));
    let taken = vec![visit(Stage::TcIngress, "eth0"), visit(Stage::TcEgress, "eth1")];
    assert!(told(taken).contains("before this machine's routing saw it"));
}

#[test]
fn an_own_address_that_lo_has_lost_is_told_where_it_left() {
    let mut left = samples::other(Outcome::Forwarded).journey;
    left.translated = None;
    left.origin = Origin::Local;
    for (address, network) in [("127.0.0.1", "127.0.0.1/8"), ("::1", "::1/128")] {
        left.flow.destination = ip(address);
        let found = expect(&left, &Evidence::default(), Code::Forwarded, Inferred);
        assert!(found.summary.contains("lo has no such address any longer"), "{}", found.summary);
        assert_eq!(found.remedy.last().unwrap(), &format!("sudo ip address replace {network} dev lo"));
        let on = found.remedy.iter().any(|line| line == "sudo sysctl -w net.ipv6.conf.lo.disable_ipv6=0");
        assert_eq!(on, network == "::1/128");
    }
    left.flow.destination = ip("127.0.0.1");
    let own = OwnAddress { interface: "lo".to_owned(), address: ip("127.0.0.1"), prefix: 8, unready: None };
    let found = expect(&left, &Evidence { addresses: vec![own], ..Evidence::default() }, Code::Forwarded, Inferred);
    assert!(found.summary.contains("lo has that address, and the routing table `local` does not"), "{}", found.summary);
    assert_eq!(found.remedy, ["sudo ip route add local 127.0.0.0/8 dev lo table local"]);
    left.flow.destination = ip("203.0.113.5");
    expect(&left, &Evidence::default(), Code::Forwarded, Proved);
}
