//! The order of hooks and chains, and the ways through them.

use super::{address, chain, end, machine, objects_of, rule, rulesets, syn, told};
use crate::evidence::rules::Listing;
use crate::simulate::{End, Goes, Packet, Rulesets, Unread, Way, predict};

const DROP: &str = r#"{"drop": null}"#;
const ACCEPT: &str = r#"{"accept": null}"#;

fn state(which: &str) -> String {
    format!(r#"{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": "{which}"}}}}, {DROP}"#)
}

#[test]
fn an_early_accept_does_not_end_the_way() {
    let all = [
        chain("late", 1, "input", 10, "accept"),
        chain("early", 2, "input", -10, "accept"),
        rule("early", 3, r#"{"accept": null}"#),
        rule("late", 4, DROP),
    ];
    assert_eq!(told(&end(&all, &syn())), "drop 4");
    let both = [chain("late", 1, "input", 10, "drop"), chain("pre", 2, "prerouting", 300, "accept"), rule("pre", 3, DROP)];
    assert_eq!(told(&end(&both, &syn())), "drop 3");
    let forward = [chain("f", 1, "forward", 0, "drop"), chain("o", 2, "output", 0, "drop")];
    assert_eq!(told(&end(&forward, &syn())), "pass");
}

#[test]
fn connection_tracking_sees_the_packet_at_its_priority() {
    let at =
        |priority, which| told(&end(&[chain("c", 1, "prerouting", priority, "accept"), rule("c", 2, &state(which))], &syn()));
    assert_eq!([at(-300, "invalid"), at(-300, "new")], ["drop 2", "pass"]);
    assert_eq!([at(-150, "invalid"), at(-150, "new")], ["pass", "drop 2"]);
    assert_eq!(at(-200, "new"), "maybe ct");
}

#[test]
fn later_chains_of_a_priority_come_first() {
    let two = |handles: [u64; 2]| {
        let all = [
            chain("one", handles[0], "input", 0, "accept"),
            chain("two", handles[1], "input", 0, "accept"),
            rule("one", 8, DROP),
            rule("two", 9, DROP),
        ];
        told(&end(&all, &syn()))
    };
    assert_eq!([two([1, 2]), two([2, 1])], ["drop 9", "drop 8"]);
    // Nothing tells the order of two tables' chains.
    let other = chain("two", 1, "input", 0, "accept").replace(r#""t""#, r#""other""#);
    let dropping = rule("two", 9, DROP).replace(r#""t""#, r#""other""#);
    let all = [chain("one", 1, "input", 0, "accept"), other, rule("one", 8, DROP), dropping];
    assert_eq!(told(&end(&all, &syn())), "maybe chains of equal priority");
    assert_eq!(told(&end(&all[..3], &syn())), "drop 8", "where only one decides the order is all the same");
}

/// The old tables and nftables may have chains of one priority, and which of them was made first nothing tells.
#[test]
fn of_both_tools_chains_of_a_priority_every_order_is_followed() {
    let legacy = |target: &str| {
        let rule = format!("-A INPUT -p tcp -m tcp --dport 8080 -j {target}");
        let saved = format!("*filter\n:INPUT ACCEPT [0:0]\n[0:0] {rule}\nCOMMIT\n");
        crate::evidence::rules::legacy::parse(&saved)
    };
    let nft = |statement: &str| rulesets(&[chain("c", 1, "input", 0, "accept"), rule("c", 8, statement)].join(","));
    let both = |statement: &str, target: &str| predict(&nft(statement).with_legacy("ip", legacy(target)), &syn(), &machine());
    // Whichever comes first, accepting ends one chain only.
    assert_eq!(told(&both(DROP, "ACCEPT")), "drop 8");
    assert_eq!(told(&both(ACCEPT, "DROP")), "drop 1");
    assert_eq!(told(&both(ACCEPT, "ACCEPT")), "pass");
    let dropped = both(DROP, "DROP");
    assert_eq!(told(&dropped), "maybe chains of equal priority");
    assert_eq!(dropped.stops().len(), 2, "it is dropped whatever the order");
    let mark = r#"{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 5}}, {"drop": null}"#;
    assert_eq!(told(&both(mark, "MARK --set-xmark 0x5/0xffffffff")), "maybe chains of equal priority");
    assert!(both(mark, "MARK --set-xmark 0x5/0xffffffff").stops().is_empty(), "it may pass");
    // Of another priority the order is known: mangle comes first.
    let marked = "*mangle\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -j MARK --set-xmark 0x5/0xffffffff\nCOMMIT\n";
    let first = nft(mark).with_legacy("ip", crate::evidence::rules::legacy::parse(marked));
    assert_eq!(told(&predict(&first, &syn(), &machine())), "drop 8");
}

#[test]
fn rules_of_another_interface_are_none_of_this_one() {
    let by = |device: &str| Packet { way: Way::Outside { device: Some(device.to_owned()), bridged: false }, ..syn() };
    let of =
        |key: &str| format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "{key}"}}}}, "right": "eth1"}}}}, {DROP}"#);
    let rules = [chain("c", 1, "input", 0, "accept"), rule("c", 8, &of("iifname"))];
    assert_eq!([told(&end(&rules, &by("eth0"))), told(&end(&rules, &by("eth1")))], ["pass", "drop 8"]);
}

#[test]
fn chains_see_their_own_family() {
    let ip6 = |text: String| text.replace(r#""inet""#, r#""ip6""#);
    let all = [ip6(chain("c", 1, "input", 0, "drop"))];
    assert_eq!(told(&end(&all, &syn())), "pass");
    let packet = Packet { source: None, destination: address("fd00::2"), ..syn() };
    assert_eq!(told(&end(&all, &packet)), "drop policy");
}

#[test]
fn what_sleeps_and_what_is_our_own_is_left_out() {
    let own = chain("c", 1, "input", 0, "drop").replace(r#""t""#, r#""wsltrace-7""#);
    assert_eq!(told(&end(&[own], &syn())), "pass");
    let listing = Listing::parse("table inet t { # handle 1\n\tflags dormant\n}\n");
    let asleep = Rulesets::of(objects_of(&chain("c", 1, "input", 0, "drop")), listing, &[]).unwrap();
    assert_eq!(told(&predict(&asleep, &syn(), &machine())), "pass");
}

#[test]
fn a_translated_packet_is_forwarded() {
    let dnat = r#"{"dnat": {"family": "ip", "addr": "172.17.0.2", "port": 80}}"#;
    let by = |key: &str, name: &str| {
        format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "{key}"}}}}, "right": "{name}"}}}}, {DROP}"#)
    };
    let base = [
        chain("nat", 1, "prerouting", -100, "accept"),
        rule("nat", 2, dnat),
        chain("in", 3, "input", 0, "drop"),
        chain("f", 4, "forward", 0, "accept"),
    ];
    let with = |text: &str| {
        let mut all = base.to_vec();
        all.push(rule("f", 9, text));
        told(&end(&all, &syn()))
    };
    assert_eq!(with(&by("oifname", "docker0")), "drop 9");
    assert_eq!(with(&by("oifname", "eth0")), "pass");
    assert_eq!(with(r#"{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"drop": null}"#), "drop 9");
    assert_eq!(
        with(
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}}, {"drop": null}"#
        ),
        "drop 9"
    );
    let nowhere = base.join(",").replace("172.17.0.2", "172.17.0.9");
    let all = format!("{nowhere},{}", rule("f", 9, &by("oifname", "docker0")));
    assert_eq!(told(&predict(&rulesets(&all), &syn(), &machine())), "maybe the output device");
}

#[test]
fn over_lo_output_translates_and_prerouting_does_not() {
    let packet = Packet {
        way: Way::Loopback,
        source: Some(address("127.0.0.1")),
        source_port: None,
        destination: address("127.0.0.1"),
        destination_port: 8080,
        ecn: None,
    };
    let dnat = |to: &str| format!(r#"{{"dnat": {{"family": "ip", "addr": "{to}"}}}}"#);
    let pre = [chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 2, &dnat("172.17.0.2"))];
    assert!(matches!(end(&pre, &packet).end, End::Passes { translated_by: None, goes: Goes::Local, .. }));
    let out = [chain("nat", 1, "output", -100, "accept"), rule("nat", 2, &dnat("172.17.0.2"))];
    assert!(matches!(end(&out, &packet).end, End::Passes { translated_by: Some(_), goes: Goes::Out, .. }));
    let raw = [chain("raw", 1, "prerouting", -300, "accept"), rule("raw", 2, &state("new"))];
    assert_eq!(told(&end(&raw, &packet)), "drop 2", "it has been seen on its way out");
    assert_eq!(told(&end(&[chain("o", 1, "output", 0, "drop")], &packet)), "drop policy");
    let owner = r#"{"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": 0}}, {"drop": null}"#;
    assert_eq!(told(&end(&[chain("o", 1, "output", 0, "accept"), rule("o", 2, owner)], &packet)), "maybe skuid");
}

#[test]
fn bridges_and_what_was_not_read_leave_it_open() {
    let bridge = [chain("c", 1, "input", 0, "drop").replace(r#""inet""#, r#""bridge""#)];
    assert_eq!(told(&end(&bridge, &syn())), "pass");
    let packet = Packet { way: Way::Outside { device: Some("eth0".to_owned()), bridged: true }, ..syn() };
    assert_eq!(told(&end(&bridge, &packet)), "maybe bridge tables");
    let mut rulesets = rulesets(&chain("c", 1, "input", 0, "drop"));
    rulesets.unread.push(Unread { what: "iptables-legacy-save".to_owned(), why: "not found".to_owned() });
    let prediction = predict(&rulesets, &syn(), &machine());
    assert_eq!(prediction.maybe(), ["not read (iptables-legacy-save: not found)"]);
    assert!(matches!(prediction.end, End::Maybe { possible, .. } if possible.len() == 1));
}

/// Tables of both families have rules for one, which let packets of the other go on.
#[test]
fn a_new_destination_is_for_packets_of_its_family() {
    let dnat = r#"{"dnat": {"family": "ip", "addr": "10.9.0.2", "port": 80}}"#;
    let all = [chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 2, dnat)];
    let rulesets = rulesets(&all.join(", "));
    let led = |source: &str, destination: &str| {
        let (source, destination) = (Some(address(source)), address(destination));
        let packet = Packet { source, destination, ..syn() };
        let end = predict(&rulesets, &packet, &machine()).end;
        let End::Passes { address, port, .. } = end else { panic!("{end:?}") };
        (address.unwrap().to_string(), port)
    };
    assert_eq!(led("10.0.0.1", "10.0.0.2"), ("10.9.0.2".to_owned(), Some(80)));
    assert_eq!(led("fd00::1", "fd00::2").0, "fd00::2");
}
