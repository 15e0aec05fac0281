//! Rules and tables of namespaces made for it, and what is said of packets that they lead.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::super::routes;
use super::*;
use crate::kernel::netns::tests::{fresh, ip};

fn packet<'a>(from: &str, to: &str, came_by: &'a str) -> Packet<'a> {
    Packet { from: from.parse().unwrap(), to: to.parse().unwrap(), came_by, ports: (40000, 8080) }
}

fn refusal(netns: &Netns, packet: &Packet<'_>) -> Option<Refusal> {
    let routes = netns.run(|| routes::all(packet.to)).unwrap().unwrap();
    Rules::read(netns, packet.to).unwrap().refusal(packet, &routes)
}

#[test]
fn a_rule_that_refuses_this_packet_is_told_as_ip_rule_takes_it() {
    let Some(netns) = fresh("a_rule_that_refuses_this_packet_is_told_as_ip_rule_takes_it") else { return };
    ip(&netns, "link set lo up");
    for (ip_family, from, to) in [("", "10.1.0.1", "10.2.0.1"), ("-6 ", "fd01::1", "fd02::1")] {
        let bits = if ip_family.is_empty() { 32 } else { 128 };
        let packet = packet(from, to, "eth0");
        ip(&netns, &format!("{ip_family}route add {to} dev lo"));
        for (rule, marked) in [
            ("from all fwmark 0x1/0xff blackhole".to_owned(), true),
            ("not from all fwmark 0xca6c prohibit".to_owned(), false),
            ("from all uidrange 0-0 unreachable".to_owned(), true),
            (format!("from {from}/{bits} iif eth0 prohibit"), false),
            (format!("from all to {to}/{bits} ipproto tcp dport 8080-8090 unreachable"), false),
        ] {
            assert_eq!(refusal(&netns, &packet), None);
            ip(&netns, &format!("{ip_family}rule add pref 77 {rule}"));
            let told = RefusingRule { preference: 77, text: rule.clone().into(), marked };
            assert_eq!(refusal(&netns, &packet), Some(Refusal::Rule(told)));
            ip(&netns, &format!("{ip_family}rule del pref 77 {rule}"));
        }
        // A jump passes the refusing rule over, where its target is there.
        for rule in ["pref 70 from all goto 80", "pref 77 from all prohibit"] {
            ip(&netns, &format!("{ip_family}rule add {rule}"));
        }
        assert!(refusal(&netns, &packet).is_some());
        ip(&netns, &format!("{ip_family}rule add pref 80 from all lookup main"));
        assert_eq!(refusal(&netns, &packet), None);
        for preference in [70, 77, 80] {
            ip(&netns, &format!("{ip_family}rule del pref {preference}"));
        }
        for other in [
            "pref 77 from all iif eth1 prohibit",
            "pref 77 from all ipproto udp prohibit",
            "pref 77 from all dport 1-8079 prohibit",
            // Behind the table that has a route.
            "pref 40000 from all prohibit",
        ] {
            ip(&netns, &format!("{ip_family}rule add {other}"));
            assert_eq!(refusal(&netns, &packet), None, "{other}");
            ip(&netns, &format!("{ip_family}rule del {other}"));
        }
    }
}

#[test]
fn the_route_that_the_kernel_takes_is_the_one_that_may_refuse() {
    let Some(netns) = fresh("the_route_that_the_kernel_takes_is_the_one_that_may_refuse") else { return };
    ip(&netns, "link set lo up");
    for (ip_family, from, to, wide, narrow) in
        [("", "10.1.0.1", "10.9.0.1", "10.0.0.0/8", "10.9.0.0/16"), ("-6 ", "fd01::1", "fd00:9::1", "fd00::/16", "fd00:9::/32")]
    {
        let packet = packet(from, to, "eth0");
        let told = |kind: &'static str, table, marked| {
            let (network, bits) = if table == 254 { (wide, 0) } else { (narrow, 0) };
            let (network, bits) =
                network.split_once('/').map_or((network, bits), |(network, bits)| (network, bits.parse().unwrap()));
            Some(Refusal::Route(Refusing {
                kind: kind.into(),
                destination: (network.parse().unwrap(), bits),
                source: None,
                table,
                marked,
                nexthop: None,
            }))
        };
        assert_eq!(refusal(&netns, &packet), None, "there is no route at all");
        ip(&netns, &format!("{ip_family}route add blackhole {wide}"));
        assert_eq!(refusal(&netns, &packet), told("blackhole", 254, false));
        ip(&netns, &format!("{ip_family}route add {narrow} dev lo"));
        assert_eq!(refusal(&netns, &packet), None, "a narrower route leads on");
        ip(&netns, &format!("{ip_family}route add prohibit {narrow} table 77"));
        assert_eq!(refusal(&netns, &packet), None, "no rule leads to the table");
        ip(&netns, &format!("{ip_family}rule add pref 9 fwmark 1 lookup 77"));
        assert_eq!(refusal(&netns, &packet), told("prohibit", 77, true));
        ip(&netns, &format!("{ip_family}rule add pref 8 lookup 77"));
        assert_eq!(refusal(&netns, &packet), told("prohibit", 77, false));
        ip(&netns, &format!("{ip_family}rule add pref 7 lookup main suppress_prefixlength 0"));
        assert_eq!(refusal(&netns, &packet), None);
        ip(&netns, &format!("{ip_family}rule del pref 8"));
        ip(&netns, &format!("{ip_family}route replace throw {narrow}"));
        ip(&netns, &format!("{ip_family}rule del pref 7"));
        ip(&netns, &format!("{ip_family}rule del pref 9"));
        ip(&netns, &format!("{ip_family}route del blackhole {wide}"));
        assert_eq!(refusal(&netns, &packet), None, "without the throw there is no route either");
        ip(&netns, &format!("{ip_family}route add {wide} dev lo"));
        let Some(Refusal::Route(thrown)) = refusal(&netns, &packet) else { panic!("the throw hides a route") };
        assert_eq!((thrown.kind.as_ref(), thrown.table), ("throw", 254));
    }
}

#[test]
fn whether_rules_lead_to_own_addresses() {
    let Some(netns) = fresh("whether_rules_lead_to_own_addresses") else { return };
    let [of_eth0, of_loopback0] = ["eth0", "loopback0"].map(|device| packet("10.1.0.1", "10.2.0.1", device));
    let leads = |packet: Packet<'_>| Rules::read(&netns, packet.to).unwrap().lead_to_local(&packet);
    assert!(leads(of_eth0));
    ip(&netns, "rule add pref 5 iif loopback0 ipproto tcp lookup local");
    ip(&netns, "rule del pref 0");
    assert!(!leads(of_eth0) && leads(of_loopback0));
}

#[test]
fn what_keeps_answers_from_windows_localhost_is_told() {
    let Some(netns) = fresh("what_keeps_answers_from_windows_localhost_is_told") else { return };
    let answer = packet("127.0.0.1", "127.0.0.1", "lo");
    let mirror = || Rules::read(&netns, answer.to).unwrap().mirror(&answer);
    assert_eq!(mirror(), Some(Mirror::NoRule));
    ip(&netns, "rule add pref 1 ipproto tcp lookup 127");
    assert_eq!(mirror(), Some(Mirror::RuleBehind(0)));
    ip(&netns, "rule add pref 2 lookup local");
    ip(&netns, "rule del pref 0 lookup local");
    assert_eq!(mirror(), None);
}

#[test]
fn the_rule_that_leads_a_packet_to_its_route_is_told() {
    let Some(netns) = fresh("the_rule_that_leads_a_packet_to_its_route_is_told") else { return };
    ip(&netns, "link set lo up");
    for (ip_family, from, to, network) in
        [("", "10.1.0.1", "10.2.0.1", "10.1.0.0/16"), ("-6 ", "fd01::1", "fd02::1", "fd01::/64")]
    {
        let packet = packet(from, to, "br0");
        let leading = || {
            let routes = netns.run(|| routes::all(packet.to)).unwrap().unwrap();
            Rules::read(&netns, packet.to).unwrap().leading(&packet, &routes)
        };
        ip(&netns, &format!("{ip_family}route add {to} dev lo"));
        assert_eq!(leading(), None, "the tables that every machine has");
        let text = format!("from {network} lookup 99");
        ip(&netns, &format!("{ip_family}rule add pref 5 {text}"));
        assert_eq!(leading(), None, "its table has no route");
        ip(&netns, &format!("{ip_family}route add default dev lo table 99"));
        assert_eq!(leading(), Some(LeadingRule { preference: 5, text: text.into(), table: 99 }));
        ip(&netns, &format!("{ip_family}route add blackhole {to} table 99"));
        assert_eq!(leading(), None, "it refuses");
    }
}

#[test]
fn a_route_by_a_nexthop_that_refuses_is_told_with_its_number() {
    let Some(netns) = fresh("a_route_by_a_nexthop_that_refuses_is_told_with_its_number") else { return };
    ip(&netns, "link set lo up");
    let packet = packet("10.1.0.1", "10.2.0.1", "eth0");
    ip(&netns, "nexthop add id 7 blackhole");
    ip(&netns, "route add 10.2.0.0/16 nhid 7");
    let told = Refusing {
        kind: "blackhole".into(),
        destination: ("10.2.0.0".parse().unwrap(), 16),
        source: None,
        table: 254,
        marked: false,
        nexthop: Some(7),
    };
    assert_eq!(refusal(&netns, &packet), Some(Refusal::Route(told)));
}

#[test]
fn a_route_of_some_sources_refuses_only_them() {
    let Some(netns) = fresh("a_route_of_some_sources_refuses_only_them") else { return };
    ip(&netns, "link set lo up");
    ip(&netns, "-6 route add fd00:9::/32 dev lo");
    ip(&netns, "-6 route add prohibit fd00:9::/32 from fd01::/64");
    let Some(Refusal::Route(told)) = refusal(&netns, &packet("fd01::1", "fd00:9::1", "eth0")) else {
        panic!("it is one of them")
    };
    assert_eq!((told.kind.as_ref(), told.source), ("prohibit", Some(("fd01::".parse().unwrap(), 64))));
    assert_eq!(refusal(&netns, &packet("fd02::1", "fd00:9::1", "eth0")), None, "it is none of them");
}
