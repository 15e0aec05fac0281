//! Judgements on what routing did, there and back, on hand-made journeys.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Code, Confidence, diagnose, tests::expect};
use crate::{
    evidence::{
        Astray, BridgePort, Down, Evidence, Hop, IpsecPolicy, LeadingRule, Mirror, OwnAddress, Queue, Refusing, RefusingRule,
        Silence, Unready,
    },
    journey::{DeathPlace, Family, Journey, Origin, Outcome, Stage, StageVisit, Translated},
    output::samples::{self, PREROUTING, after_prerouting, ip, journey, listener, with_listeners},
};

use Confidence::{Inferred, Proved};

fn dropped(reason: &str, location: &str) -> Journey {
    journey(&PREROUTING, Outcome::Dropped, PREROUTING.last().copied(), Some((reason, location)))
}

fn own(address: &str) -> OwnAddress {
    OwnAddress { address: ip(address), prefix: 20, interface: "eth0".to_owned(), unready: None }
}

fn rule(marked: bool) -> RefusingRule {
    RefusingRule { preference: 10, text: "from all iif eth0 prohibit".into(), marked }
}

#[test]
fn what_is_for_an_own_address_is_no_matter_of_forwarding() {
    let unrouted = dropped("IP_INADDRERRORS", "ip_error+0x8a");
    let destination = unrouted.flow.destination;
    let astray = |astray| Evidence { addresses: vec![own(&destination.to_string())], astray, ..Evidence::default() };
    expect(&unrouted, &Evidence::default(), Code::NoForwarding, Proved);
    let found = expect(&unrouted, &astray(Some(Astray::NoRule)), Code::NoRoute, Inferred);
    assert_eq!(found.remedy[0], "sudo ip rule add pref 0 lookup local");
    let found = expect(&unrouted, &astray(Some(Astray::NoRoute)), Code::NoRoute, Inferred);
    assert_eq!(found.remedy[0], format!("sudo ip route add local {destination} dev eth0 table local"));
    assert!(expect(&unrouted, &astray(None), Code::NoRoute, Inferred).summary.contains("to a table that does not say so"));
    let by_rule = Evidence { refusing_rule: Some(rule(false)), ..Evidence::default() };
    let found = expect(&unrouted, &by_rule, Code::NoRoute, Inferred);
    assert_eq!(found.remedy[0], "sudo ip rule del pref 10 from all iif eth0 prohibit");
    let if_marked = Evidence { refusing_rule: Some(rule(true)), ..Evidence::default() };
    expect(&unrouted, &if_marked, Code::NoForwarding, Proved);
}

#[test]
fn a_link_local_address_of_another_interface_is_no_matter_of_rules() {
    let mut stray = dropped("IP_INADDRERRORS", "ip6_forward+0x642");
    (stray.flow.family, stray.flow.source, stray.flow.destination) = (Family::Ipv6, ip("fe80::1"), ip("fe80::d0"));
    let on = |interface: &str, address: &str| OwnAddress { interface: interface.to_owned(), ..own(address) };
    let with = |addresses| Evidence { addresses, ..Evidence::default() };
    let other = expect(&stray, &with(vec![on("d0", "fe80::d0"), on("eth0", "fd00::2")]), Code::NoRoute, Inferred);
    assert!(other.summary.contains("fe80::d0 is the link-local address of d0 here"), "{}", other.summary);
    assert_eq!(other.remedy[0], "# let the client ask for [fd00::2]:8080, which eth0 has");
    let same = expect(&stray, &with(vec![on("d0", "fe80::d0"), on("eth0", "fe80::d0")]), Code::NoRoute, Inferred);
    assert!(!same.summary.contains("link-local"), "{}", same.summary);
}

#[test]
fn a_refusing_route_or_rule_is_named_there_and_back() {
    let refused = dropped("IP_INNOROUTES", "ip_error+0x8a");
    let route = Refusing { kind: "blackhole".into(), destination: (ip("0.0.0.0"), 0), table: 77, marked: true, nexthop: None };
    let by_route = Evidence { refusing_route: Some(route.clone()), ..Evidence::default() };
    let found = expect(&refused, &by_route, Code::NoRoute, Inferred);
    assert!(found.summary.contains("if they have the mark that leads there"), "{}", found.summary);
    assert_eq!(found.remedy[0], "sudo ip route del blackhole 0.0.0.0/0 table 77");
    let silent = samples::ignored().journey;
    let no_way = |evidence| Evidence { silence: Some(Silence::default()), route_back: Some(false), ..evidence };
    let found = expect(&silent, &no_way(by_route), Code::NoRouteBack, Inferred);
    assert_eq!(found.remedy[0], "sudo ip route del blackhole 0.0.0.0/0 table 77");
    let by_rule = no_way(Evidence { refusing_rule: Some(rule(false)), ..Evidence::default() });
    assert!(expect(&silent, &by_rule, Code::NoRouteBack, Inferred).remedy[0].starts_with("sudo ip rule del pref 10"));
    let blocked = Evidence {
        silence: Some(Silence::default()),
        route_back: Some(true),
        ipsec_refused: 2,
        ..with_listeners(vec![listener("0.0.0.0")])
    };
    assert!(expect(&silent, &blocked, Code::SocketPolicy, Inferred).summary.contains("IPsec"));
}

#[test]
fn a_policy_of_ipsec_is_named_where_it_refuses() {
    let policy = IpsecPolicy { selector: "src 10.0.0.1/32 dst ::/0".into(), direction: "fwd".into(), blocks: true };
    let named = Evidence { ipsec_policy: Some(policy), ..Evidence::default() };
    let by_reason = dropped("XFRM_POLICY", "ip_forward+0x2c0");
    assert_eq!(expect(&by_reason, &Evidence::default(), Code::SocketPolicy, Proved).remedy, ["sudo ip xfrm policy"]);
    let found = expect(&by_reason, &named, Code::SocketPolicy, Proved);
    assert_eq!(found.remedy[1], "sudo ip xfrm policy delete src 10.0.0.1/32 dst ::/0 dir fwd");
    let without = dropped("NOT_SPECIFIED", "ip6_forward+0x689");
    let setting = |value: &str| vec![("net.ipv6.conf.all.forwarding".to_owned(), value.to_owned())];
    let forwards = Evidence { sysctls: setting("1"), ..named.clone() };
    expect(&without, &forwards, Code::SocketPolicy, Inferred);
    let off = diagnose(&without, &Evidence { sysctls: setting("0"), ..named });
    assert_ne!(off.code, Code::SocketPolicy, "forwarding is asked for first");
}

#[test]
fn the_reverse_path_is_mended_where_there_is_none_too() {
    let filtered = dropped("IP_RPFILTER", "ip_rcv_finish_core+0x18c");
    let source = filtered.flow.source;
    let none = Evidence { route_back: Some(false), ..Evidence::default() };
    let found = expect(&filtered, &none, Code::ReversePathFilter, Proved);
    assert_eq!(found.remedy[0], format!("sudo ip route add {source} dev eth0"));
    let elsewhere = Evidence {
        route_back: Some(true),
        way_back: Some("tun0".to_owned()),
        hop_back: Some(Hop { gateway: None }),
        ..Evidence::default()
    };
    let found = expect(&filtered, &elsewhere, Code::ReversePathFilter, Proved);
    assert_eq!(found.remedy[0], format!("sudo ip route replace {source} dev eth0"));
    let right = Evidence { way_back: Some("eth0".to_owned()), ..elsewhere };
    let found = expect(&filtered, &right, Code::ReversePathFilter, Proved);
    assert!(found.remedy[0].contains("rp_filter=0"), "the routes are right: {}", found.remedy[0]);
    let by_rule = Evidence { refusing_rule: Some(rule(false)), ..none };
    let found = expect(&filtered, &by_rule, Code::ReversePathFilter, Proved);
    assert_eq!(found.remedy[0], "sudo ip rule del pref 10 from all iif eth0 prohibit");
}

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
    let route =
        Refusing { kind: "blackhole".into(), destination: (ip("172.28.16.0"), 20), table: 254, marked: false, nexthop: Some(7) };
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
fn what_refuses_the_way_back_that_a_rule_asks_for_is_taken_away() {
    let killed = dropped("NETFILTER_DROP", "nft_do_chain+0x3e8");
    let rule = crate::evidence::Rule { text: Some("fib saddr . iif oif missing drop".into()), ..samples::rule() };
    let no_way = Evidence { rule: Some(rule), route_back: Some(false), ..Evidence::default() };
    let found = expect(&killed, &no_way, Code::FirewallDrop, Proved);
    assert!(found.remedy[0].starts_with("sudo ip route add 172.28.16.1 dev eth0"), "{:?}", found.remedy);
    let route =
        Refusing { kind: "blackhole".into(), destination: (ip("172.28.16.1"), 32), table: 254, marked: false, nexthop: None };
    let found = expect(&killed, &Evidence { refusing_route: Some(route), ..no_way }, Code::FirewallDrop, Proved);
    assert!(
        found.summary.contains("the same interface, and the route \"blackhole 172.28.16.1/32\" refuses"),
        "{}",
        found.summary
    );
    assert_eq!(found.remedy, ["sudo ip route del blackhole 172.28.16.1/32"]);
}

#[test]
fn an_interface_is_blamed_for_forwarding_only_where_the_setting_of_all_is_on() {
    let unrouted = dropped("IP_INADDRERRORS", "ip_error+0x8a");
    let with = |value: &str| Evidence { sysctls: vec![("net.ipv4.ip_forward".into(), value.into())], ..Evidence::default() };
    let mend = |evidence: &Evidence| expect(&unrouted, evidence, Code::NoForwarding, Proved).remedy.concat();
    assert_eq!(mend(&Evidence::default()), "sudo sysctl -w net.ipv4.ip_forward=1");
    assert_eq!(mend(&with("0")), "sudo sysctl -w net.ipv4.ip_forward=1");
    assert_eq!(mend(&with("1")), "sudo sysctl -w net.ipv4.conf.eth0.forwarding=1");
}

#[test]
fn the_way_back_of_a_container_leads_by_its_router() {
    let silent = samples::ignored().journey;
    let none = Evidence { silence: Some(Silence::default()), route_back: Some(false), ..Evidence::default() };
    let found = expect(&silent, &none, Code::NoRouteBack, Inferred);
    assert!(found.remedy[1].contains("route replace 172.28.16.1 via ROUTER dev eth0"), "{:?}", found.remedy);
    let behind = Evidence { router: Some(ip("172.17.0.1")), ..none };
    let found = expect(&silent, &behind, Code::NoRouteBack, Inferred);
    assert_eq!(found.remedy[0], "sudo ip route add 172.28.16.1 via 172.17.0.1 dev eth0");
    assert!(found.remedy[1].contains("route add default via 172.17.0.1"), "{:?}", found.remedy);
}

#[test]
fn an_address_that_is_not_used_or_gone_is_told() {
    let unrouted = dropped("IP_INADDRERRORS", "ip_error+0x8a");
    let address = unrouted.flow.destination.to_string();
    let with = |unready| Evidence {
        addresses: vec![OwnAddress { unready, ..own(&address) }],
        astray: Some(Astray::NoRoute),
        ..Evidence::default()
    };
    let found = expect(&unrouted, &with(Some(Unready::Duplicate)), Code::NoRoute, Inferred);
    assert!(found.summary.contains("another machine on that network had it"), "{}", found.summary);
    assert_eq!(found.remedy[1..3], ["del", "add"].map(|does| format!("sudo ip address {does} {address}/20 dev eth0")));
    let found = expect(&unrouted, &with(Some(Unready::Tentative)), Code::NoRoute, Inferred);
    assert!(found.summary.contains("tentative"), "{}", found.summary);
    let gone = Evidence { addresses: vec![own("10.0.0.1")], ..with_listeners(vec![listener(&address)]) };
    let found = expect(&unrouted, &gone, Code::NoRoute, Inferred);
    assert!(found.summary.contains("no address of this machine any longer"), "{}", found.summary);
    assert_eq!(found.remedy[1], format!("sudo ip address add {address}/32 dev eth0"));
    let to_all = Evidence { addresses: vec![own("10.0.0.1")], ..with_listeners(vec![listener("0.0.0.0")]) };
    expect(&unrouted, &to_all, Code::NoForwarding, Proved);
}

#[test]
fn a_container_that_asks_for_its_own_port_needs_another_source() {
    let mut itself = dropped("IP_LOCAL_SOURCE", "ip_rcv_finish_core+0x25b");
    itself.flow.source = ip("172.17.0.2");
    let now = Translated {
        source: itself.flow.source,
        source_port: itself.flow.source_port,
        destination: itself.flow.source,
        destination_port: 80,
        rule: None,
    };
    itself.translated = Some(now);
    itself.death = Some(DeathPlace { netns: samples::CONTAINER, interface: Some("eth0".into()) });
    let found = expect(&itself, &Evidence::default(), Code::MartianAddress, Proved);
    let wanted = "sudo iptables-nft -t nat -A POSTROUTING -s 172.17.0.2 -d 172.17.0.2 -p tcp --dport 80 -j MASQUERADE";
    assert_eq!(found.remedy, [wanted]);
}

#[test]
fn addresses_that_cannot_be_are_told_by_the_place_where_there_is_no_reason() {
    let delivered = after_prerouting(&[Stage::Input, Stage::SocketLookup]);
    let mut to_all = journey(&delivered, Outcome::Dropped, Some(Stage::SocketLookup), Some(("NOT_SPECIFIED", "tcp_v4_rcv+0x99")));
    let network = Evidence { addresses: vec![own("172.28.16.2")], ..Evidence::default() };
    to_all.flow.destination = ip("172.28.31.255");
    assert!(expect(&to_all, &network, Code::MartianAddress, Inferred).summary.contains("broadcast"));
    to_all.flow.destination = ip("172.28.16.2");
    let mut from_all = dropped("NOT_SPECIFIED", "ip_rcv_finish_core+0x18c");
    expect(&from_all, &network, Code::BadPacket, Inferred);
    from_all.flow.source = ip("172.28.31.255");
    expect(&from_all, &network, Code::MartianAddress, Inferred);
    expect(&to_all, &network, Code::BadPacket, Inferred);

    let stages = [Stage::Output, Stage::OutputNat];
    let mut out = journey(&stages, Outcome::Dropped, Some(Stage::OutputNat), Some(("NETFILTER_DROP", "nf_hook_slow+0x7d")));
    out.translated = Some(Translated {
        source: ip("127.0.0.1"),
        source_port: 40000,
        destination: ip("172.17.0.2"),
        destination_port: 80,
        rule: None,
    });
    let by_docker0 = Evidence { way_on: Some("docker0".to_owned()), ..Evidence::default() };
    let found = expect(&out, &by_docker0, Code::MartianAddress, Inferred);
    assert_eq!(found.remedy[0], "sudo sysctl -w net.ipv4.conf.docker0.route_localnet=1");
    let by_rule = Evidence { rule: Some(samples::rule()), ..by_docker0 };
    expect(&out, &by_rule, Code::FirewallDrop, Proved);
}

#[test]
fn the_filter_of_a_container_is_told_as_its_own() {
    let mut inside = dropped("IP_RPFILTER", "ip_rcv_finish_core+0x18c");
    inside.death = Some(DeathPlace { netns: samples::CONTAINER, interface: Some("eth0".into()) });
    inside.stages.iter_mut().for_each(|visit| visit.netns = samples::CONTAINER);
    let (destination, destination_port) = (ip("172.17.0.2"), 80);
    inside.translated =
        Some(Translated { source: ip("172.17.0.1"), source_port: 50000, destination, destination_port, rule: None });
    let found = expect(&inside, &Evidence::default(), Code::ReversePathFilter, Proved);
    let place = format!("on eth0 of network namespace {}: the kernel would not answer 172.17.0.1", samples::CONTAINER);
    assert!(found.summary.contains(&place), "{}", found.summary);
}

#[test]
fn an_address_that_is_this_machines_by_a_route_is_looked_for_there() {
    let journey = dropped("IP_LOCAL_SOURCE", "ip_rcv_finish_core+0x25b");
    let source = journey.flow.source;
    let with = |address: &str| Evidence { addresses: vec![own(address)], ..Evidence::default() };
    let set = expect(&journey, &with(&source.to_string()), Code::MartianAddress, Proved);
    assert_eq!(set.remedy[0], format!("sudo ip address show to {source}"));
    let by_route = expect(&journey, &with("10.9.0.9"), Code::MartianAddress, Proved);
    assert_eq!(by_route.remedy[0], format!("sudo ip route get {source}"));
}

#[test]
fn what_goes_round_on_lo_is_led_there_by_a_route() {
    let mut looped = dropped("IP_INHDR", "ip_forward+0x2c0");
    looped.death = looped.death.map(|death| DeathPlace { interface: Some("lo".into()), ..death });
    let found = expect(&looped, &Evidence::default(), Code::BadPacket, Proved);
    assert!(found.summary.contains("a route leads it to lo"), "{}", found.summary);
    assert_eq!(found.remedy, [format!("sudo ip route get {}", looped.flow.destination)]);
}

#[test]
fn a_port_that_nat_leads_on_is_let_be_tracked() {
    let refused = samples::bound_elsewhere().journey;
    let notrack = crate::evidence::Rule {
        text: Some("tcp dport 8080 notrack".into()),
        verdict: "notrack".into(),
        backend: crate::evidence::Backend::Nft,
        ..samples::rule()
    };
    let exempted = Evidence { exempted_by: Some(notrack), ..with_listeners(Vec::new()) };
    let found = expect(&refused, &exempted, Code::NoListener, Proved);
    assert!(found.remedy.iter().any(|line| line.contains("start the server")), "{:?}", found.remedy);
    let led = Evidence { led_on_to: Some(ip("172.17.0.2")), ..exempted };
    let found = expect(&refused, &led, Code::NoListener, Proved);
    assert_eq!(found.remedy[1..], ["sudo nft delete rule ip filter INPUT handle 4"]);
    assert!(found.summary.contains("did not take this connection"), "{}", found.summary);
}

#[test]
fn a_time_to_live_that_ran_out_is_no_malformed_header() {
    assert!(
        expect(&dropped("IP_INHDR", "ip_forward+0x2c0"), &Evidence::default(), Code::BadPacket, Proved)
            .summary
            .contains("time to live")
    );
    assert!(
        expect(&dropped("IP_INHDR", "ip_rcv_core+0x1"), &Evidence::default(), Code::BadPacket, Proved)
            .summary
            .contains("malformed")
    );
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
fn a_queue_that_drops_is_told_with_its_device() {
    let mut full = journey(
        &[Stage::Output, Stage::TcEgress],
        Outcome::Dropped,
        Some(Stage::TcEgress),
        Some(("QDISC_DROP", "__dev_queue_xmit+0xdd1")),
    );
    full.death = full.death.map(|death| DeathPlace { interface: Some("eth0".into()), ..death });
    let with = |up, qdisc: Option<&str>| Evidence {
        queue: Some(Queue { up, carrier: true, qdisc: qdisc.map(str::to_owned), is_bridge: false }),
        ..Evidence::default()
    };
    let queue = Some(Queue { up: true, carrier: false, qdisc: Some("pfifo_fast".to_owned()), is_bridge: false });
    let alone = expect(&full, &Evidence { queue, ..Evidence::default() }, Code::TcDrop, Proved);
    assert!(alone.summary.contains("no carrier") && !alone.summary.contains("pfifo_fast"), "{}", alone.summary);
    let bridge = Queue { up: true, carrier: false, qdisc: Some("noqueue".to_owned()), is_bridge: true };
    let bridge = Evidence { queue: Some(bridge), ..Evidence::default() };
    let alone = expect(&full, &bridge, Code::TcDrop, Proved);
    assert!(alone.summary.contains("none of its ports has a carrier") && !alone.summary.contains("VPN"), "{}", alone.summary);
    assert_eq!(alone.remedy[0], "sudo ip -br link show master eth0");
    let down = Down { netns: 7, entrance: Some("nsenter -t 412 -n".to_owned()), device: "eth0".to_owned() };
    let off = expect(&full, &Evidence { down: Some(down), ..bridge }, Code::TcDrop, Proved);
    assert!(off.summary.contains("eth0 of network namespace 7, which has 172.28.16.2, is switched off"), "{}", off.summary);
    assert_eq!(off.remedy[0], "sudo nsenter -t 412 -n ip link set eth0 up");
    assert_eq!(expect(&full, &with(false, Some("noop")), Code::TcDrop, Proved).remedy, ["sudo ip link set eth0 up"]);
    assert_eq!(expect(&full, &with(true, Some("tbf")), Code::TcDrop, Proved).remedy[1], "sudo tc qdisc del dev eth0 root");
    assert!(
        !expect(&full, &with(true, Some("fq_codel")), Code::TcDrop, Proved).remedy.concat().contains("qdisc del"),
        "the kernel's own"
    );
}

#[test]
fn a_client_whose_connection_came_to_nothing_was_not_accepted() {
    let mut half = samples::healthy().journey;
    half.facts.established = false;
    half.facts.acknowledged = true;
    half.facts.socket_lookup = true;
    assert!(expect(&half, &with_listeners(Vec::new()), Code::NotAccepted, Inferred).summary.contains("any longer"));
    expect(&half, &with_listeners(vec![listener("0.0.0.0")]), Code::Healthy, Inferred);
    expect(&half, &Evidence::default(), Code::Healthy, Inferred);
    half.facts.socket_lookup = false;
    half.facts.answer_from_outside = true;
    expect(&half, &with_listeners(Vec::new()), Code::Healthy, Proved);
    half.facts.answer_from_outside = false;
    assert!(expect(&half, &with_listeners(Vec::new()), Code::NotAccepted, Inferred).summary.contains("SYN proxy"));
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
fn a_listener_that_ignores_what_was_sent_to_many_has_no_route_to_miss() {
    let mut ignored = samples::other(Outcome::Ignored).journey;
    let evidence = Evidence { addresses: vec![own("172.28.16.2")], ..Evidence::default() };
    for many in ["255.255.255.255", "224.0.0.1", "172.28.31.255"] {
        ignored.flow.destination = ip(many);
        let found = expect(&ignored, &evidence, Code::MartianAddress, Inferred);
        assert!(found.summary.contains(&format!("{many} is a broadcast or multicast address")), "{}", found.summary);
    }
    ignored.flow.destination = ip("172.28.16.2");
    assert_ne!(diagnose(&ignored, &evidence).code, Code::MartianAddress);
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
        assert_eq!(found.remedy.last().unwrap(), &format!("sudo ip address add {network} dev lo"));
    }
    left.flow.destination = ip("203.0.113.5");
    expect(&left, &Evidence::default(), Code::Forwarded, Proved);
}
