//! The question for the hardware address of this machine, by which clients begin, and the answer to it.

use super::{address, chain, end, machine, rule, rulesets, syn, told};
use crate::evidence::rules::legacy::parse;
use crate::simulate::{Packet, Port, Rulesets, Search, Way, predict, predict_search};

const ACCEPT: &str = r#"{"accept": null}"#;

fn solicitation() -> Packet {
    Packet {
        way: Way::Solicitation { device: Some("eth0".to_owned()), own: false },
        destination: address("fd00::2"),
        source: None,
        ..syn()
    }
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

fn legacy(policy: &str, chain: &str, rules: &[&str], packet: &Packet) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("[0:0] -A {chain} {rule}")).collect();
    let save = format!("*filter\n:{chain} {policy} [0:0]\n{}\nCOMMIT\n", rules.join("\n"));
    told(&predict(&Rulesets::default().with_legacy("ip6", parse(&save)), packet, &machine()))
}

/// ufw begins with a rule for the routing header of type 0, and lets the question in later, by its type and hop limit.
#[test]
fn what_ufw_asks_of_it_is_understood() {
    let ufw = ["-m rt --rt-type 0 -j DROP", "-p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT"];
    assert_eq!(legacy("DROP", "INPUT", &ufw, &solicitation()), "pass");
    assert_eq!(legacy("DROP", "INPUT", &ufw[..1], &solicitation()), "drop policy");
    let syn = Packet { destination: address("fd00::2"), source: None, ..syn() };
    assert_eq!(legacy("ACCEPT", "INPUT", &ufw, &syn), "pass");
    assert_eq!(legacy("DROP", "INPUT", &ufw, &syn), "drop policy");
    assert!(legacy("DROP", "INPUT", &["-m hl --hl-lt 5 -j ACCEPT"], &solicitation()).starts_with("maybe"));
}

#[test]
fn its_type_decides() {
    let drop = |kind: &str| [format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j DROP")];
    let with = |chain, kind: &str, packet: &Packet| legacy("ACCEPT", chain, &drop(kind).each_ref().map(String::as_str), packet);
    assert_eq!([with("INPUT", "135", &solicitation()), with("INPUT", "135/0", &solicitation())], ["drop 1", "drop 1"]);
    assert_eq!([with("INPUT", "136", &solicitation()), with("INPUT", "135/1", &solicitation())], ["pass", "pass"]);
    let answer = Packet { way: Way::Advertisement { device: Some("eth0".to_owned()), own: true }, ..solicitation() };
    assert_eq!(
        [with("OUTPUT", "136", &answer), with("OUTPUT", "135", &answer), with("INPUT", "136", &answer)],
        ["drop 1", "pass", "pass"]
    );
    let of_eth1 = "-o eth1 -p ipv6-icmp -j DROP";
    assert_eq!(legacy("ACCEPT", "OUTPUT", &[of_eth1], &answer), "pass");
    assert_eq!(legacy("DROP", "OUTPUT", &["-p tcp -j ACCEPT"], &answer), "drop policy");
}

/// What is asked of ARP itself is tested beside what uses it.
#[test]
fn rules_of_ip_see_none_of_arp_and_those_of_arp_no_syn() {
    let search =
        Search { whom: address("172.28.16.2"), asker: None, device: Some("eth0".to_owned()), port: Port::NoBridge, own: false };
    let said = |rulesets: &Rulesets| predict_search(rulesets, &search, &machine()).map(|prediction| told(&prediction));
    let policy = chain("c", 1, "input", 0, "drop");
    assert_eq!(said(&rulesets(&policy)), ["pass", "pass"]);
    let of_arp = policy.replace("\"inet\"", "\"arp\"");
    assert_eq!(said(&rulesets(&of_arp)), ["drop policy", "pass"]);
    assert_eq!(told(&end(&[of_arp], &syn())), "pass");
    let unread = Rulesets { arptables: true, ..Rulesets::default() };
    assert_eq!(said(&unread), ["maybe arp tables", "maybe arp tables"]);
}
