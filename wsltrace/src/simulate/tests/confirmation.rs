//! What the client sends to confirm the answer.

use super::{address, chain, end, machine, rule, rulesets, syn, told};
use crate::simulate::{Packet, Standing, Way, predict_as};

const DROP: &str = r#"{"drop": null}"#;
const ACCEPT: &str = r#"{"accept": null}"#;

fn confirmation() -> Packet {
    Packet { way: Way::Confirmation { device: Some("eth0".to_owned()), bridged: false }, source_port: Some(50_000), ..syn() }
}

fn state(which: &str, then: &str) -> String {
    format!(r#"{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": "{which}"}}}}, {then}"#)
}

#[test]
fn rules_for_new_connections_do_not_let_it_in() {
    let with = |which| [chain("c", 1, "input", 0, "drop"), rule("c", 2, &state(which, ACCEPT))];
    assert_eq!([told(&end(&with("new"), &syn())), told(&end(&with("new"), &confirmation()))], ["pass", "drop policy"]);
    assert_eq!(
        [told(&end(&with("established"), &syn())), told(&end(&with("established"), &confirmation()))],
        ["drop policy", "pass"]
    );
    let exempt = [chain("p", 3, "prerouting", -300, "accept"), rule("p", 4, r#"{"notrack": null}"#)];
    let all = [&[chain("c", 1, "input", 0, "accept"), rule("c", 2, &state("established", DROP))][..], &exempt].concat();
    assert_eq!(told(&end(&all, &confirmation())), "maybe ct");
}

#[test]
fn what_connection_tracking_makes_of_it_may_be_known() {
    let with = |which| [chain("c", 1, "input", 0, "drop"), rule("c", 2, &state(which, ACCEPT))];
    let as_of = |which, standing| {
        let rules = rulesets(&with(which).join(","));
        told(&predict_as(&rules, &confirmation(), &machine(), standing))
    };
    for (standing, passes_by) in
        [(Standing::Established, "established"), (Standing::Invalid, "invalid"), (Standing::Untracked, "untracked")]
    {
        for which in ["established", "invalid", "untracked"] {
            let expected = if which == passes_by { "pass" } else { "drop policy" };
            assert_eq!(as_of(which, standing), expected, "{standing:?} by a rule for {which}");
        }
    }
}

#[test]
fn its_flags_are_those_of_an_ack() {
    let flags = |of: &str| {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"&": [{{"payload": {{"protocol": "tcp", "field": "flags"}}}}, ["syn", "ack"]]}}, "right": "{of}"}}}}, {DROP}"#
        )
    };
    let with = |of| told(&end(&[chain("c", 1, "input", 0, "accept"), rule("c", 2, &flags(of))], &confirmation()));
    assert_eq!([with("syn"), with("ack")], ["pass", "drop 2"]);
}

#[test]
fn it_goes_where_the_rules_of_nat_led_the_syn() {
    let dnat = r#"{"dnat": {"family": "ip", "addr": "172.17.0.2", "port": 80}}"#;
    let led = [chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 2, &state("new", dnat))];
    let with = |hook, expressions: &str| {
        let all = [&led[..], &[chain("c", 3, hook, 0, "accept"), rule("c", 4, expressions)]].concat();
        told(&end(&all, &confirmation()))
    };
    assert_eq!([with("forward", DROP), with("input", DROP)], ["drop 4", "pass"]);
    assert_eq!([with("forward", &state("established", DROP)), with("forward", &state("new", DROP))], ["drop 4", "pass"]);
}

#[test]
fn over_lo_it_goes_out_and_comes_in_again() {
    let local = address("127.0.0.1");
    let packet = Packet { way: Way::LoopbackConfirmation, source: Some(local), destination: local, ..confirmation() };
    let at = |hook| told(&end(&[chain("c", 1, hook, 0, "accept"), rule("c", 2, DROP)], &packet));
    assert_eq!([at("output"), at("prerouting"), at("input"), at("forward")], ["drop 2", "drop 2", "drop 2", "pass"]);
}
