//! What is said of rules that hand connections to a proxy. The truth of each is how the facts were made.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::super::proxy::proxies;
use super::super::{Address, Facts, Firewalls, Severity, diagnose};
use super::tests::{facts, listener};
use crate::evidence::Listener;
use crate::evidence::sockets::Found;
use crate::simulate::tests::{chain, rule, rulesets};
use crate::wsl::{Answer, Row, Way};

fn found(text: &str, transparent: Option<bool>) -> Found {
    let listener = Listener { port: 9090, ..listener(text) };
    Found { listener, inode: 1, cookie: [0; 8], drops: None, cgroup: None, transparent, mark: Some(0) }
}

#[test]
fn a_port_takes_what_is_handed_where_any_address_leads_to_a_transparent_socket() {
    let of = |sockets: &[(&str, Option<bool>)]| {
        let all: Vec<Found> = sockets.iter().map(|(text, transparent)| found(text, *transparent)).collect();
        proxies(&all).map(|ports| ports.get(&9090).copied())
    };
    let (yes, no) = (Some(Some(true)), Some(Some(false)));
    assert_eq!(of(&[("0.0.0.0", Some(true))]), [yes, None]);
    assert_eq!(of(&[("::", Some(true))]), [yes, yes]);
    assert_eq!(of(&[("::!", Some(true))]), [None, yes]);
    assert_eq!(of(&[("127.0.0.1", Some(true))]), [Some(None), None], "the rule may name another address");
    assert_eq!(of(&[("127.0.0.1", Some(false))]), [no, None]);
    assert_eq!(of(&[("0.0.0.0", None)]), [Some(None), None], "before 5.10");
    assert_eq!(of(&[("0.0.0.0", Some(true)), ("10.0.0.1", Some(false))]), [Some(None), None]);
    assert_eq!(of(&[("0.0.0.0", Some(false)), ("10.0.0.1", Some(false))]), [no, None]);
}

fn handed(others: &str, transparent: Option<bool>, more: &str) -> (Facts, Row) {
    let mut facts = facts(None, "");
    facts.linux.interfaces[1].addresses = vec![Address { address: "172.28.20.5".parse().unwrap(), prefix: 20 }];
    let sockets: Vec<Found> = others.split_whitespace().map(|text| found(text, transparent)).collect();
    facts.linux.proxies = Some(proxies(&sockets));
    facts.linux.other_listeners = sockets.into_iter().map(|found| found.listener).collect();
    let tproxy = r#"{"tproxy": {"family": "ip", "port": 9090}}, {"accept": null}"#;
    let rules = [chain("p", 1, "prerouting", -150, "accept"), rule("p", 2, tproxy), more.to_owned()].join(", ");
    facts.firewalls = Firewalls::Read(Box::new(rulesets(&rules)));
    let row = facts.rows().into_iter().find(|row| row.way == Way::LanToAddress).unwrap();
    (facts, row)
}

#[test]
fn what_is_handed_to_a_transparent_socket_works_and_to_another_does_not() {
    let input = chain("i", 5, "input", 0, "accept");
    for (others, transparent, answer, severity) in [
        ("0.0.0.0", Some(true), Answer::Works, Severity::Fine),
        ("0.0.0.0", Some(false), Answer::Fails, Severity::Fails),
        ("", None, Answer::Fails, Severity::Fails),
        ("0.0.0.0", None, Answer::Unknown, Severity::Warns),
    ] {
        let (facts, row) = handed(others, transparent, &input);
        assert_eq!(row.answer, answer, "{row:?}");
        let found = diagnose(&facts).into_iter().find(|finding| finding.check == "listener").unwrap();
        assert_eq!(found.severity, severity, "{found:?}");
    }
    let output = chain("o", 5, "output", 0, "drop");
    assert_eq!(handed("0.0.0.0", Some(true), &output).1.answer, Answer::Fails, "its answer is dropped");
}
