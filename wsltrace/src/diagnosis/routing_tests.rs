//! Judgements on what routing did on hand-made journeys.

use super::{Code, Confidence, diagnose, tests::expect};
use crate::{
    evidence::{Astray, Evidence, Hop, OwnAddress, Refusing, RefusingRule, Silence, Unready},
    journey::{DeathPlace, Family, Journey, Outcome, Stage, Translated},
    output::samples::{self, PREROUTING, after_prerouting, ip, journey, listener, with_listeners},
};

use Confidence::{Inferred, Proved};

pub(super) fn dropped(reason: &str, location: &str) -> Journey {
    journey(&PREROUTING, Outcome::Dropped, PREROUTING.last().copied(), Some((reason, location)))
}

pub(super) fn own(address: &str) -> OwnAddress {
    OwnAddress { address: ip(address), prefix: 20, interface: "eth0".to_owned(), unready: None }
}

pub(super) fn rule(marked: bool) -> RefusingRule {
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
    let route = Refusing {
        kind: "blackhole".into(),
        destination: (ip("0.0.0.0"), 0),
        source: None,
        table: 77,
        marked: true,
        nexthop: None,
    };
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
fn the_way_back_in_a_vrf_is_a_route_of_its_own_table() {
    let silent = samples::ignored().journey;
    let vrf = Some("red".to_owned());
    let none = Evidence { silence: Some(Silence::default()), route_back: Some(false), vrf: vrf.clone(), ..Evidence::default() };
    let found = expect(&silent, &none, Code::NoRouteBack, Inferred);
    assert!(found.summary.contains("no route back to 172.28.16.1 in the VRF red"), "{}", found.summary);
    assert_eq!(found.remedy[0], "sudo ip route add 172.28.16.1 dev eth0 vrf red");
    let off = expect(&silent, &Evidence { down_here: vrf, ..none }, Code::NoRouteBack, Inferred);
    assert!(off.summary.contains("the VRF red, in which its answers are routed, is switched off"), "{}", off.summary);
    assert_eq!(off.remedy[0], "sudo ip link set red up");
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
