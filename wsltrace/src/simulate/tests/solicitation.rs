//! The question for the hardware address of this machine, by which IPv6 clients begin.

use super::{address, chain, end, machine, rule, syn, told};
use crate::evidence::rules::legacy::parse;
use crate::simulate::{Packet, Rulesets, Way, predict};

const ACCEPT: &str = r#"{"accept": null}"#;

fn solicitation() -> Packet {
    Packet { way: Way::Solicitation { device: Some("eth0".to_owned()) }, destination: address("fd00::2"), source: None, ..syn() }
}

fn of(left: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}, {ACCEPT}"#)
}

#[test]
fn it_needs_a_rule_of_its_own() {
    let with = |expressions: &str| told(&end(&[chain("c", 1, "input", 0, "drop"), rule("c", 2, expressions)], &solicitation()));
    let protocol = |name: &str| of(r#"{"meta": {"key": "l4proto"}}"#, &format!(r#""{name}""#));
    let state = |which: &str| of(r#"{"ct": {"key": "state"}}"#, &format!(r#""{which}""#));
    assert_eq!([with(&protocol("tcp")), with(&protocol("ipv6-icmp"))], ["drop policy", "pass"]);
    assert_eq!(
        [with(&state("established")), with(&state("new")), with(&state("untracked"))],
        ["drop policy", "drop policy", "pass"]
    );
    // Of its type nothing is followed.
    let kind = with(&of(r#"{"payload": {"protocol": "icmpv6", "field": "type"}}"#, r#""nd-neighbor-solicit""#));
    assert!(kind.starts_with("maybe"), "{kind}");
}

#[test]
fn it_does_not_go_on_to_another_machine() {
    let drops = r#"{"drop": null}"#;
    let at = |hook| told(&end(&[chain("c", 1, hook, 0, "accept"), rule("c", 2, drops)], &solicitation()));
    assert_eq!([at("prerouting"), at("input"), at("forward"), at("output")], ["drop 2", "drop 2", "pass", "pass"]);
}

/// ufw begins with one for the routing header of type 0, and lets the question in later.
#[test]
fn a_header_that_it_may_have_proves_nothing() {
    let with = |packet: &Packet| {
        let save = "*filter\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -m rt --rt-type 0 -j DROP\nCOMMIT\n";
        told(&predict(&Rulesets::default().with_legacy("ip6", parse(save)), packet, &machine()))
    };
    assert_eq!(with(&solicitation()), "maybe payload");
    assert_eq!(with(&Packet { destination: address("fd00::2"), source: None, ..syn() }), "pass");
}
