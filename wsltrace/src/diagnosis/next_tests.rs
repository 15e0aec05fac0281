//! What is told of the next fault, beside the first.

use super::tests::expect;
use super::{Code, Confidence::Proved};
use crate::evidence::{Arrival, Evidence, Further, Listener, Rule};
use crate::journey::Stage;
use crate::output::samples::{self, PREROUTING, ip, listener};

fn behind_a_firewall(listeners: Vec<Listener>) -> (String, Vec<String>) {
    with_answer(listeners, None)
}

fn with_answer(listeners: Vec<Listener>, answer_stopped_by: Option<Rule>) -> (String, Vec<String>) {
    let report = samples::firewall(Some(samples::rule()));
    let arrival = Some(Arrival { address: ip("172.28.16.2"), port: 8080, listeners, answer_stopped_by });
    let found = expect(&report.journey, &Evidence { arrival, ..(*report.evidence).clone() }, Code::FirewallDrop, Proved);
    (found.summary, found.remedy)
}

#[test]
fn a_port_that_nobody_serves_is_told_before_it_is_opened() {
    let (summary, remedy) = behind_a_firewall(Vec::new());
    assert!(
        summary.ends_with("as things are now, nothing listens on port 8080, so the client would be refused next"),
        "{summary}"
    );
    assert_eq!(remedy.last().map(String::as_str), Some("sudo ss -ltnp"));
    let (summary, remedy) = behind_a_firewall(vec![listener("127.0.0.1")]);
    assert!(summary.contains("server (pid 412) listens on 127.0.0.1:8080 only"), "{summary}");
    assert!(remedy.iter().any(|line| line.contains("so that it listens on 0.0.0.0")), "{remedy:?}");
    let (summary, _) = behind_a_firewall(vec![Listener { v6only: true, ..listener("::") }]);
    assert!(summary.contains("listens on [::]:8080 for IPv6 only"), "{summary}");
    let (summary, _) = behind_a_firewall(vec![Listener { device: Some("eth1".into()), ..listener("0.0.0.0") }]);
    assert!(summary.contains("from one device only"), "{summary}");
}

#[test]
fn a_port_that_is_served_has_nothing_behind_the_rule() {
    for taker in ["0.0.0.0", "172.28.16.2", "::"] {
        let (summary, remedy) = behind_a_firewall(vec![listener("127.0.0.1"), listener(taker)]);
        assert!(!summary.contains("behind that") && remedy.iter().all(|line| !line.starts_with('#')), "{taker}: {summary}");
    }
}

#[test]
fn a_wall_behind_routing_is_told_with_it() {
    let report = samples::routing("IP_RPFILTER");
    assert_eq!(report.journey.stages.len(), PREROUTING.len());
    assert_eq!(report.journey.died_at, Some(Stage::Routing));
    let rule = Rule { handle: Some(9), text: Some("tcp dport 8000-9000 drop".into()), ..samples::rule() };
    let further = vec![Further { rule, address: Some(ip("172.28.16.2")), port: 8080, forward: false }];
    let found = expect(&report.journey, &Evidence { further, ..(*report.evidence).clone() }, Code::ReversePathFilter, Proved);
    assert!(found.summary.contains("once that lets it through, rule handle 9 of ip filter INPUT would stop it next"));
    assert!(
        found.remedy.last().is_some_and(|line| line.starts_with("sudo iptables-nft -t filter -I INPUT")),
        "{:?}",
        found.remedy
    );
}

#[test]
fn a_rule_that_stops_the_answer_is_told_and_mended_with_the_first() {
    let policy =
        Rule { chain: "OUTPUT".into(), handle: None, text: Some("policy drop".into()), at_chains_end: true, ..samples::rule() };
    let (summary, remedy) = with_answer(vec![listener("0.0.0.0")], Some(policy));
    assert!(summary.ends_with("the answer would be dropped by the policy of ip filter OUTPUT"), "{summary}");
    let open = "sudo iptables-nft -t filter -A OUTPUT -p tcp --sport 8080 ! --syn -j ACCEPT";
    assert_eq!(remedy.last().map(String::as_str), Some(open));
}
