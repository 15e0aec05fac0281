//! Statements and verdicts of nft.

use std::collections::BTreeMap;

use super::{address, chain, end, machine, rule, rulesets, syn, told};
use crate::simulate::{End, Goes, Machine, predict};

const PORT: &str = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 8080}}"#;
const DROP: &str = r#"{"drop": null}"#;

/// A chain at INPUT with rules, counted from 1, and its policy.
fn input(rules: &[&str], policy: &str) -> String {
    let mut all = vec![
        chain("c", 1, "input", 0, policy),
        r#"{"chain": {"family": "inet", "table": "t", "name": "u", "handle": 2}}"#.to_owned(),
    ];
    all.extend(rules.iter().zip(1..).map(|(text, handle)| match text.strip_prefix("u: ") {
        Some(text) => rule("u", handle, text),
        None => rule("c", handle, text),
    }));
    told(&end(&all, &syn()))
}

#[test]
fn verdicts() {
    assert_eq!(input(&[r#"{"counter": {"packets": 0, "bytes": 0}}, {"log": null}"#, DROP], "accept"), "drop 2");
    assert_eq!(input(&[], "drop"), "drop policy");
    assert_eq!(input(&[r#"{"accept": null}"#, DROP], "drop"), "pass");
    assert_eq!(input(&[r#"{"reject": {"type": "tcp reset"}}"#], "accept"), "reject 1");
    assert_eq!(input(&[r#"{"queue": {"num": 0, "flags": "bypass"}}"#], "accept"), "queue 1");
    assert_eq!(input(&[r#"{"continue": null}"#, DROP], "accept"), "drop 2");
    assert_eq!(input(&[r#"{"return": null}"#, DROP], "drop"), "drop policy");
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let jump = r#"{"jump": {"target": "u"}}"#;
    let goto = r#"{"goto": {"target": "u"}}"#;
    assert_eq!(input(&[jump, DROP], "accept"), "drop 2");
    assert_eq!(input(&[goto, DROP], "accept"), "pass");
    assert_eq!(input(&[jump, DROP, &format!("u: {PORT}, {DROP}")], "accept"), "drop 3");
    assert_eq!(input(&[jump, DROP, r#"u: {"return": null}"#, &format!("u: {DROP}")], "accept"), "drop 2");
    assert_eq!(input(&[jump, DROP, r#"u: {"accept": null}"#], "drop"), "pass");
}

#[test]
fn maps_of_verdicts() {
    let by_port = |map: &str| {
        format!(r#"{{"vmap": {{"key": {{"payload": {{"protocol": "tcp", "field": "dport"}}}}, "data": {{"set": [{map}]}}}}}}"#)
    };
    assert_eq!(
        input(
            &[&by_port(r#"[22, {"accept": null}], [{"range": [8000, 9000]}, {"goto": {"target": "u"}}]"#), &format!("u: {DROP}")],
            "accept"
        ),
        "drop 2"
    );
    assert_eq!(input(&[&by_port(r#"[22, {"accept": null}]"#), DROP], "accept"), "drop 2");
    let state = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["new", {"accept": null}]]}}}"#;
    assert_eq!(input(&[state, DROP], "drop"), "pass");
    let chance = r#"{"vmap": {"key": {"numgen": {"mode": "inc", "mod": 2, "offset": 0}}, "data": {"set": [[0, {"accept": null}], [1, {"drop": null}]]}}}"#;
    assert_eq!(input(&[chance], "accept"), "maybe numgen");
}

#[test]
fn what_depends_on_other_packets_takes_both_ways() {
    let limit = r#"{"limit": {"rate": 5, "burst": 5, "per": "second"}}"#;
    assert_eq!(input(&[&format!("{limit}, {DROP}")], "accept"), "maybe limit");
    assert_eq!(input(&[&format!(r#"{limit}, {{"log": null}}"#), DROP], "accept"), "drop 2", "both ways end alike");
    assert_eq!(input(&[&format!(r#"{limit}, {{"accept": null}}"#), DROP], "accept"), "maybe limit");
    assert_eq!(input(&[r#"{"limit": "lim"}, {"drop": null}"#], "accept"), "maybe limit");
    assert_eq!(input(&[r#"{"ct count": {"val": 5, "inv": true}}, {"drop": null}"#], "accept"), "maybe ct count");
    assert_eq!(input(&[r#"{"quota": {"val": 100, "val_unit": "bytes", "inv": true}}, {"drop": null}"#], "accept"), "maybe quota");
    assert_eq!(input(&[r#"{"synproxy": {"mss": 1460}}"#], "accept"), "maybe synproxy");
    assert_eq!(input(&[r#"{"xt": {"type": "target", "name": "LOG"}}"#], "accept"), "maybe xt");
    assert_eq!(input(&[r#"{"new in 2030": null}"#], "drop"), "maybe another nft expression");
    assert_eq!(input(&[r#"{"flow": {"op": "add", "flowtable": "@f"}}"#, DROP], "accept"), "drop 2");
}

#[test]
fn more_ways_than_are_followed_are_not_guessed() {
    let mark = |bit: u32| {
        let limit = r#"{"limit": {"rate": 5, "burst": 5, "per": "second"}}"#;
        format!(
            r#"{limit}, {{"mangle": {{"key": {{"meta": {{"key": "mark"}}}}, "value": {{"|": [{{"meta": {{"key": "mark"}}}}, {bit}]}}}}}}"#
        )
    };
    let rules: Vec<String> = (0..10).map(|at| mark(1 << at)).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(input(&rules[..4], "accept"), "pass");
    assert_eq!(input(&rules, "accept"), "maybe limit, too many ways");
}

#[test]
fn marks_are_followed() {
    let set = |key: &str, value: &str| format!(r#"{{"mangle": {{"key": {{"{key}": {{"key": "mark"}}}}, "value": {value}}}}}"#);
    let is = |key: &str, value: u32| {
        format!(r#"{{"match": {{"op": "==", "left": {{"{key}": {{"key": "mark"}}}}, "right": {value}}}}}, {DROP}"#)
    };
    assert_eq!(input(&[&set("meta", "16"), &is("meta", 16)], "accept"), "drop 2");
    let or = set("meta", r#"{"|": [{"meta": {"key": "mark"}}, 32]}"#);
    assert_eq!(input(&[&set("meta", "16"), &or, &is("meta", 48)], "accept"), "drop 3");
    let xor = set("meta", r#"{"^": [{"&": [{"meta": {"key": "mark"}}, 255]}, 16]}"#);
    assert_eq!(input(&[&set("meta", "257"), &xor, &is("meta", 17)], "accept"), "drop 3");
    let save = set("ct", r#"{"meta": {"key": "mark"}}"#);
    assert_eq!(
        input(
            &[&set("meta", "5"), &save, &set("meta", "0"), &set("meta", r#"{"ct": {"key": "mark"}}"#), &is("meta", 5)],
            "accept"
        ),
        "drop 5"
    );
    let chance = set("meta", r#"{"numgen": {"mode": "inc", "mod": 2, "offset": 0}}"#);
    assert_eq!(input(&[&chance, &is("meta", 1)], "accept"), "maybe mark");
    let map =
        set("meta", r#"{"map": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [[8080, 7]]}}}"#);
    assert_eq!(input(&[&map, &is("meta", 7)], "accept"), "drop 2");
    let other = r#"{"mangle": {"key": {"payload": {"protocol": "ip", "field": "dscp"}}, "value": "cs1"}}"#;
    assert_eq!(input(&[other, DROP], "accept"), "drop 2");
    let rewritten = r#"{"mangle": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "value": "1.2.3.4"}}"#;
    assert_eq!(input(&[rewritten], "accept"), "maybe another nft expression");
}

/// A chain of NAT at PREROUTING with a rule.
fn nat(expressions: &str) -> End {
    let all = [chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 5, expressions), rule("nat", 6, DROP)].join(",");
    predict(&rulesets(&all), &syn(), &machine()).end
}

fn to(end: &End) -> (Option<std::net::IpAddr>, Option<u16>, Option<u64>, Goes) {
    match end {
        End::Passes { address, port, translated_by, goes } => {
            (*address, *port, translated_by.as_ref().and_then(|rule| rule.handle), *goes)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn destinations_are_translated() {
    let container = Some(address("172.17.0.2"));
    let end = nat(&format!(r#"{PORT}, {{"dnat": {{"family": "ip", "addr": "172.17.0.2", "port": 80}}}}"#));
    assert_eq!(to(&end), (container, Some(80), Some(5), Goes::Forward));
    let end = nat(r#"{"dnat": {"family": "ip", "addr": "172.17.0.2"}}"#);
    assert_eq!(to(&end), (container, Some(8080), Some(5), Goes::Forward));
    let end = nat(r#"{"redirect": {"port": 80}}"#);
    assert_eq!(to(&end), (Some(address("172.28.16.2")), Some(80), Some(5), Goes::Local));
    let map = r#"{"dnat": {"family": "ip", "addr": {"map": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [[8080, {"concat": ["172.17.0.2", 90]}]]}}}}}"#;
    assert_eq!(to(&nat(map)), (container, Some(90), Some(5), Goes::Forward));
    let miss = map.replace("8080", "81");
    assert!(matches!(nat(&miss), End::Dropped { rule, .. } if rule.handle == Some(6)));
    let several = nat(r#"{"dnat": {"family": "ip", "addr": {"prefix": {"addr": "10.0.0.0", "len": 24}}, "flags": "netmap"}}"#);
    assert!(matches!(several, End::Maybe { because, .. } if because[0].name == "the address after DNAT"));
    let ports = nat(r#"{"redirect": {"port": {"range": [8080, 8090]}}}"#);
    assert_eq!(to(&ports), (Some(address("172.28.16.2")), None, Some(5), Goes::Local));
}

#[test]
fn an_untracked_packet_has_no_translation() {
    let all = [
        chain("raw", 1, "prerouting", -300, "accept"),
        chain("nat", 2, "prerouting", -100, "accept"),
        chain("c", 3, "input", 0, "accept"),
        rule("raw", 4, r#"{"notrack": null}"#),
        rule("nat", 5, r#"{"dnat": {"family": "ip", "addr": "172.17.0.2"}}"#),
        rule("c", 6, r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "untracked"}}, {"drop": null}"#),
    ];
    assert_eq!(told(&end(&all, &syn())), "drop 6");
}

/// What a rule that hands packets to a proxy makes of one, in a chain of PREROUTING that stands before others.
fn handed(statement: &str) -> (Vec<Option<u16>>, Vec<String>) {
    let all =
        [chain("c", 1, "prerouting", -150, "accept"), rule("c", 5, statement), chain("i", 1, "input", 0, "accept")].join(",");
    let prediction = predict(&rulesets(&all), &syn(), &machine());
    let End::Maybe { possible, .. } = &prediction.end else { panic!("{prediction:?}") };
    let mut ports: Vec<Option<u16>> = possible
        .iter()
        .map(|end| match end {
            End::Passes { port, goes: Goes::Local | Goes::Proxy, .. } => *port,
            other => panic!("{other:?}"),
        })
        .collect();
    ports.sort_unstable();
    (ports, prediction.maybe())
}

#[test]
fn a_proxy_may_take_the_packet_at_its_own_port() {
    let (ports, because) = handed(r#"{"tproxy": {"family": "ip", "port": 9090}}, {"accept": null}"#);
    assert_eq!((ports, because), (vec![Some(8080), Some(9090)], vec!["tproxy (inet t c)".to_owned()]));
    let (ports, _) = handed(r#"{"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 9090}}"#);
    assert_eq!(ports, [Some(8080), Some(9090)]);
    let (ports, _) = handed(r#"{"tproxy": {"family": "ip", "port": {"map": {}}}}"#);
    assert_eq!(ports, [None, Some(8080)]);
}

#[test]
fn whether_a_proxy_is_there_decides() {
    let rules = [
        chain("c", 1, "prerouting", -150, "accept"),
        rule("c", 5, r#"{"tproxy": {"family": "ip", "port": 9090}}, {"accept": null}"#),
        chain("i", 1, "input", 0, "accept"),
    ];
    let end = |port: u16, transparent: Option<bool>| {
        let machine = Machine { proxies: Some(BTreeMap::from([(port, transparent)])), ..machine() };
        predict(&rulesets(&rules.join(",")), &syn(), &machine).end
    };
    assert!(matches!(end(9090, Some(true)), End::Passes { port: Some(9090), goes: Goes::Proxy, .. }));
    assert!(matches!(end(9090, Some(false)), End::Passes { port: Some(8080), goes: Goes::Local, .. }));
    assert!(matches!(end(80, Some(true)), End::Passes { port: Some(8080), goes: Goes::Local, .. }), "nobody listens there");
    assert!(matches!(end(9090, None), End::Maybe { .. }));
}
