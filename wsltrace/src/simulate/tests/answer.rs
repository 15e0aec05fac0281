//! The answer of a server, on its way back.

use super::{address, chain, end, rule, syn, told};
use crate::simulate::{Packet, Way};

const DROP: &str = r#"{"drop": null}"#;

fn answer() -> Packet {
    Packet { way: Way::Answer { device: Some("eth0".to_owned()) }, source_port: Some(50_000), ..syn() }
}

fn matching(left: &str, right: &str) -> String {
    format!(r#"{{"match": {{"op": "==", "left": {left}, "right": {right}}}}}, {DROP}"#)
}

fn port(which: &str, number: u16) -> String {
    matching(&format!(r#"{{"payload": {{"protocol": "tcp", "field": "{which}"}}}}"#), &number.to_string())
}

fn state(which: &str) -> String {
    format!(r#"{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": "{which}"}}}}, {DROP}"#)
}

#[test]
fn it_goes_out_with_its_ends_exchanged() {
    let at = |hook, expressions: &str| told(&end(&[chain("c", 1, hook, 0, "accept"), rule("c", 2, expressions)], &answer()));
    assert_eq!([at("output", DROP), at("postrouting", DROP)], ["drop 2", "drop 2"]);
    assert_eq!([at("input", DROP), at("forward", DROP), at("prerouting", DROP)], ["pass", "pass", "pass"]);
    assert_eq!([at("output", &port("sport", 8080)), at("output", &port("dport", 8080))], ["drop 2", "pass"]);
    assert_eq!([at("output", &port("dport", 50_000)), at("output", &port("sport", 50_000))], ["drop 2", "pass"]);
}

#[test]
fn connection_tracking_knows_it_for_an_answer() {
    let of = |which| told(&end(&[chain("c", 1, "output", 0, "accept"), rule("c", 2, &state(which))], &answer()));
    assert_eq!([of("established"), of("new"), of("invalid")], ["drop 2", "pass", "pass"]);
    // Of a SYN that is exempt from connection tracking nobody knows what its answer is.
    let exempt = [chain("p", 3, "prerouting", -300, "accept"), rule("p", 4, r#"{"notrack": null}"#)];
    let all = [&[chain("c", 1, "output", 0, "accept"), rule("c", 2, &state("established"))][..], &exempt].concat();
    assert_eq!(told(&end(&all, &answer())), "maybe ct");
}

#[test]
fn its_flags_are_those_of_a_syn_ack() {
    let syn = r#"{"match": {"op": "==", "left": {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["syn", "ack"]]}, "right": "syn"}}, {"drop": null}"#;
    let all = [chain("c", 1, "output", 0, "accept"), rule("c", 2, syn)];
    assert_eq!(told(&end(&all, &answer())), "pass");
    let on_lo =
        Packet { way: Way::Loopback, source: Some(address("127.0.0.1")), destination: address("127.0.0.1"), ..super::syn() };
    assert_eq!(told(&end(&all, &on_lo)), "drop 2");
}

#[test]
fn over_lo_it_comes_in_again() {
    let back = Packet { way: Way::LoopbackAnswer, ..answer() };
    let at = |hook| told(&end(&[chain("c", 1, hook, 0, "accept"), rule("c", 2, &port("sport", 8080))], &back));
    assert_eq!([at("output"), at("prerouting"), at("input"), at("forward")], ["drop 2", "drop 2", "drop 2", "pass"]);
}

#[test]
fn of_a_container_it_goes_through() {
    let way = Way::ForwardedAnswer { device: Some("eth0".to_owned()) };
    let back = Packet { way, destination: address("172.17.0.2"), destination_port: 80, ..answer() };
    let at = |hook, expressions: &str| told(&end(&[chain("c", 1, hook, 0, "accept"), rule("c", 2, expressions)], &back));
    assert_eq!([at("forward", DROP), at("input", DROP), at("output", DROP)], ["drop 2", "pass", "pass"]);
    let from = |name: &str| matching(r#"{"meta": {"key": "iifname"}}"#, &format!("\"{name}\""));
    assert_eq!([at("forward", &from("docker0")), at("forward", &from("eth0"))], ["drop 2", "pass"]);
}

#[test]
fn nat_is_not_asked_again() {
    let all = [chain("nat_out", 1, "output", -100, "accept"), rule("nat_out", 2, DROP)];
    assert_eq!(told(&end(&all, &answer())), "pass");
}
