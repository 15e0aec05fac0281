//! Matches of nft, as `nft -j` prints them.

use super::{chain, end, rule, syn, told};
use crate::simulate::Packet;

const DROP: &str = r#"{"drop": null}"#;

/// Whether a rule of this match takes the packet: `drop 9` when it does.
fn taken_by(packet: &Packet, objects: &[&str], expression: &str) -> String {
    let mut all: Vec<String> = objects.iter().map(|object| (*object).to_owned()).collect();
    all.push(chain("c", 1, "input", 0, "accept"));
    all.push(rule("c", 9, &format!("{expression}, {DROP}")));
    told(&end(&all, packet))
}

fn payload(operator: &str, protocol: &str, field: &str, right: &str) -> String {
    format!(
        r#"{{"match": {{"op": "{operator}", "left": {{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}, "right": {right}}}}}"#
    )
}

fn by_key(kind: &str, operator: &str, key: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "{operator}", "left": {{"{kind}": {{"key": "{key}"}}}}, "right": {right}}}}}"#)
}

fn check(cases: &[(String, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(taken_by(&syn(), &[], expression), *expected, "{expression}");
    }
}

#[test]
fn headers() {
    let one = |protocol, field, right| payload("==", protocol, field, right);
    let not = |protocol, field, right| payload("!=", protocol, field, right);
    check(&[
        (one("tcp", "dport", "8080"), "drop 9"),
        (one("tcp", "dport", "80"), "pass"),
        (not("tcp", "dport", "8080"), "pass"),
        (one("th", "dport", "8080"), "drop 9"),
        (one("tcp", "dport", r#"{"range": [8000, 9000]}"#), "drop 9"),
        (not("tcp", "dport", r#"{"range": [0, 1023]}"#), "drop 9"),
        (one("tcp", "dport", r#"{"set": [80, {"range": [443, 500]}]}"#), "pass"),
        (one("tcp", "dport", r#"{"set": [80, 8080]}"#), "drop 9"),
        (not("tcp", "dport", r#"{"set": [80, 8080]}"#), "pass"),
        (payload(">", "tcp", "dport", "1024"), "drop 9"),
        (payload("<=", "tcp", "dport", "1024"), "pass"),
        (payload(">", "tcp", "sport", "1024"), "maybe the client's port"),
        (one("udp", "dport", "8080"), "pass"),
        (not("udp", "dport", "53"), "pass"),
        (one("icmp", "type", r#""echo-request""#), "pass"),
        (one("ip", "saddr", r#""172.28.16.1""#), "drop 9"),
        (not("ip", "saddr", r#"{"prefix": {"addr": "172.16.0.0", "len": 12}}"#), "pass"),
        (one("ip", "saddr", r#"{"range": ["172.28.16.0", "172.28.16.9"]}"#), "drop 9"),
        (one("ip", "saddr", r#"{"set": [{"prefix": {"addr": "1.2.3.0", "len": 24}}, "5.6.7.8"]}"#), "pass"),
        (one("ip", "daddr", r#"{"prefix": {"addr": "127.0.0.0", "len": 8}}"#), "pass"),
        (one("ip6", "saddr", r#"{"prefix": {"addr": "fe80::", "len": 10}}"#), "pass"),
        (not("ip6", "saddr", r#""fd00::1""#), "pass"),
        (one("ip", "protocol", r#""tcp""#), "drop 9"),
        (one("ip6", "nexthdr", r#""tcp""#), "pass"),
        (one("ip", "version", "4"), "drop 9"),
        (one("ip", "ttl", "64"), "maybe payload"),
        (one("ether", "saddr", r#""00:11:22:33:44:55""#), "maybe ether"),
    ]);
}

#[test]
fn flags_and_bits() {
    let flags = |mask: &str, right: &str| {
        let left = format!(r#"{{"&": [{{"payload": {{"protocol": "tcp", "field": "flags"}}}}, {mask}]}}"#);
        format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}"#)
    };
    let mark = |mask: u32, right: u32| {
        let left = format!(r#"{{"&": [{{"meta": {{"key": "mark"}}}}, {mask}]}}"#);
        format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}"#)
    };
    check(&[
        (flags(r#"["syn", "ack"]"#, r#""syn""#), "drop 9"),
        (flags(r#"["fin", "syn", "rst", "ack"]"#, r#""syn""#), "drop 9"),
        (flags(r#"{"|": ["fin", "syn"]}"#, r#"["fin", "syn"]"#), "pass"),
        (payload("in", "tcp", "flags", r#""syn""#), "drop 9"),
        (payload("in", "tcp", "flags", r#"["ack", "rst"]"#), "pass"),
        (payload("!", "tcp", "flags", r#""ack""#), "drop 9"),
        (mark(255, 16), "pass"),
        (mark(255, 0), "drop 9"),
        (
            r#"{"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "ip", "field": "saddr"}}, "255.0.0.255"]}, "right": "172.0.0.1"}}"#
                .to_owned(),
            "drop 9",
        ),
        (
            r#"{"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "tcp", "field": "dport"}}, 1]}, "right": 1}}"#
                .to_owned(),
            "pass",
        ),
    ]);
}

#[test]
fn what_the_kernel_keeps_with_the_packet() {
    check(&[
        (by_key("meta", "==", "iifname", r#""eth0""#), "drop 9"),
        (by_key("meta", "==", "iifname", r#""eth*""#), "drop 9"),
        (by_key("meta", "!=", "iifname", r#""eth0""#), "pass"),
        (by_key("meta", "==", "iifname", r#"{"set": ["lo", "wl*"]}"#), "pass"),
        (by_key("meta", "==", "iif", r#""lo""#), "pass"),
        (by_key("meta", "==", "iif", "17"), "maybe a constant"),
        (by_key("meta", "==", "oifname", r#""eth0""#), "pass"),
        (by_key("meta", "!=", "oifname", r#""eth*""#), "drop 9"),
        (by_key("meta", "==", "l4proto", r#"{"set": ["tcp", "udp"]}"#), "drop 9"),
        (by_key("meta", "==", "nfproto", r#""ipv6""#), "pass"),
        (by_key("meta", "==", "protocol", r#""ip""#), "drop 9"),
        (by_key("meta", "==", "mark", r#"{"set": [{"range": [1, 5]}]}"#), "pass"),
        (by_key("meta", "==", "pkttype", r#""host""#), "drop 9"),
        (by_key("meta", "==", "skuid", "0"), "maybe skuid"),
        (by_key("meta", "==", "hour", r#"{"range": ["10:00", "12:00"]}"#), "maybe hour"),
        (by_key("meta", "==", "cgroup", "1"), "maybe cgroup"),
        (by_key("meta", "==", "cpu", "0"), "maybe cpu"),
        (by_key("meta", "==", "iifkind", r#""veth""#), "maybe devgroup"),
        (by_key("meta", "==", "length", "60"), "maybe length"),
        (by_key("ct", "in", "state", r#"["established", "new"]"#), "drop 9"),
        (by_key("ct", "in", "state", r#"["invalid", "untracked"]"#), "pass"),
        (by_key("ct", "==", "state", r#"{"set": ["related", "new"]}"#), "drop 9"),
        (by_key("ct", "!=", "state", r#""new""#), "pass"),
        (by_key("ct", "==", "mark", "1"), "pass"),
        (by_key("ct", "==", "direction", r#""original""#), "drop 9"),
        (by_key("ct", "in", "status", r#""dnat""#), "pass"),
        (by_key("ct", "in", "status", r#""confirmed""#), "maybe ct"),
        (by_key("ct", "==", "id", "1"), "maybe ct"),
        (of_direction("original", "proto-dst", "8080"), "drop 9"),
        (of_direction("original", "proto-dst", "9090"), "pass"),
        (of_direction("original", "ip daddr", r#"{"prefix": {"addr": "172.28.16.0", "len": 20}}"#), "drop 9"),
        (of_direction("original", "ip daddr", r#""172.28.16.3""#), "pass"),
        (of_direction("original", "ip6 daddr", r#""fd00::2""#), "pass"),
        (of_direction("original", "ip saddr", r#""172.28.16.1""#), "maybe ct"),
        (of_direction("reply", "proto-dst", "8080"), "maybe ct"),
        (by_key("socket", "==", "transparent", "1"), "maybe socket"),
        (by_key("osf", "==", "name", r#""Linux""#), "maybe osf"),
        (by_key("rt", "==", "nexthop", r#""1.2.3.4""#), "maybe rt"),
    ]);
}

/// A field of the connection that is of a direction.
fn of_direction(direction: &str, key: &str, right: &str) -> String {
    let left = format!(r#"{{"ct": {{"key": "{key}", "dir": "{direction}"}}}}"#);
    format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}"#)
}

#[test]
fn routing_and_chance() {
    let fib = |operator: &str, result: &str, flags: &str, right: &str| {
        let left = format!(r#"{{"fib": {{"result": "{result}", "flags": {flags}}}}}"#);
        format!(r#"{{"match": {{"op": "{operator}", "left": {left}, "right": {right}}}}}"#)
    };
    check(&[
        (fib("==", "type", r#"["daddr"]"#, r#""local""#), "drop 9"),
        (fib("!=", "type", r#"["daddr"]"#, r#""local""#), "pass"),
        (fib("!=", "type", r#"["daddr"]"#, r#"{"set": ["local", "broadcast", "multicast"]}"#), "pass"),
        (fib("==", "type", r#"["saddr"]"#, r#""local""#), "pass"),
        (fib("!=", "type", r#"["daddr", "iif"]"#, r#"{"set": ["local", "broadcast"]}"#), "maybe fib"),
        (fib("==", "oif", r#"["saddr", "iif"]"#, "false"), "maybe fib"),
        (
            r#"{"match": {"op": "==", "left": {"numgen": {"mode": "random", "mod": 2, "offset": 0}}, "right": 0}}"#.to_owned(),
            "maybe numgen",
        ),
        (
            r#"{"match": {"op": "==", "left": {"jhash": {"mod": 2, "expr": {"payload": {"protocol": "ip", "field": "saddr"}}}}, "right": 0}}"#
                .to_owned(),
            "maybe jhash",
        ),
        (r#"{"match": {"op": "==", "left": {"tcp option": {"name": "maxseg"}}, "right": true}}"#.to_owned(), "maybe tcp option"),
        (r#"{"match": {"op": "==", "left": {"exthdr": {"name": "frag"}}, "right": true}}"#.to_owned(), "maybe exthdr"),
        (r#"{"match": {"op": "==", "left": {"new in 2030": {}}, "right": 0}}"#.to_owned(), "maybe another nft expression"),
    ]);
}

const SETS: [&str; 4] = [
    r#"{"set": {"family": "inet", "name": "s", "table": "t", "type": "ipv4_addr", "handle": 4, "flags": ["interval"], "elem": [{"prefix": {"addr": "172.16.0.0", "len": 12}}, {"range": ["10.0.0.1", "10.0.0.9"]}]}}"#,
    r#"{"set": {"family": "inet", "name": "ci", "table": "t", "type": ["ipv4_addr", "inet_service"], "handle": 6, "flags": ["interval"], "elem": [{"concat": [{"prefix": {"addr": "172.0.0.0", "len": 8}}, {"range": [8000, 8090]}]}]}}"#,
    r#"{"set": {"family": "inet", "name": "cnt", "table": "t", "type": "ipv4_addr", "handle": 10, "elem": [{"elem": {"val": "172.28.16.1", "comment": "hey", "counter": {"packets": 0, "bytes": 0}}}], "stmt": [{"counter": null}]}}"#,
    r#"{"map": {"family": "inet", "name": "m", "table": "t", "type": "inet_service", "handle": 7, "map": "verdict", "elem": [[22, {"drop": null}], ["*", {"continue": null}]]}}"#,
];

#[test]
fn sets_by_name_and_concatenations() {
    let taken = |expression: &str| taken_by(&syn(), &SETS, expression);
    assert_eq!(taken(&payload("==", "ip", "saddr", r#""@s""#)), "drop 9");
    assert_eq!(taken(&payload("!=", "ip", "saddr", r#""@s""#)), "pass");
    assert_eq!(taken(&payload("==", "ip", "saddr", r#""@cnt""#)), "drop 9");
    assert_eq!(taken(&payload("==", "ip", "saddr", r#""@gone""#)), "maybe another nft expression");
    let concat = r#"{"match": {"op": "==", "left": {"concat": [{"payload": {"protocol": "ip", "field": "saddr"}}, {"payload": {"protocol": "tcp", "field": "dport"}}]}, "right": "@ci"}}"#;
    assert_eq!(taken(concat), "drop 9");
    assert_eq!(taken(r#"{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": "@m"}}"#), "drop 9");
    let add = r#"{"set": {"op": "add", "elem": {"payload": {"protocol": "ip", "field": "saddr"}}, "set": "@s"}}"#;
    let both = format!("{add}, {}", payload("==", "ip", "saddr", r#""@s""#));
    assert_eq!(taken(&both), "maybe a set that rules change");
}

#[test]
fn what_is_not_given_is_not_known() {
    let no_source = Packet { source: None, ..syn() };
    let source = payload("==", "ip", "saddr", r#""10.0.0.1""#);
    assert_eq!(taken_by(&no_source, &[], &source), "maybe the client's address");
    let no_device = Packet { way: crate::simulate::Way::Outside { device: None, bridged: false }, ..syn() };
    assert_eq!(taken_by(&no_device, &[], &by_key("meta", "==", "iifname", r#""eth0""#)), "maybe the input device");
    let exactly = payload("==", "tcp", "flags", r#""syn""#);
    assert_eq!(taken_by(&syn(), &[], &exactly), "drop 9");
    assert_eq!(taken_by(&Packet { ecn: None, ..syn() }, &[], &exactly), "maybe tcp flags");
    assert_eq!(taken_by(&Packet { ecn: Some(true), ..syn() }, &[], &exactly), "pass");
    // What does not depend on it stays certain.
    let other = format!("{source}, {}", payload("==", "tcp", "dport", "9"));
    assert_eq!(taken_by(&no_source, &[], &other), "pass");
}

#[test]
fn what_is_stopped_at_every_end_is_stopped() {
    let saddr = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.1"}}, {"drop": null}"#;
    let anybody = Packet { source: None, ..syn() };
    let of = |policy| end(&[chain("c", 1, "input", 0, policy), rule("c", 2, saddr)], &anybody);
    assert_eq!(told(&of("drop")), "maybe the client's address");
    assert_eq!(of("drop").stops().len(), 2);
    assert!(of("accept").stops().is_empty());
    let known = end(&[chain("c", 1, "input", 0, "drop"), rule("c", 2, saddr)], &syn());
    assert_eq!(known.stops(), [&known.end]);
}
