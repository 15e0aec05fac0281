//! What is said where something may stop packets, or may not. The truth of each is how the facts were made.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::super::{Address, Facts, Firewalls, Severity, diagnose};
use super::tests::{facts, finding, is, led, wrong};
use crate::evidence::{Back, Refusal, RefusedClient, Refusing, RefusingRule};
use crate::simulate::tests::{chain, rule as nft_rule, rulesets};
use crate::wsl::Answer::{self, Fails, Unknown, Works};
use crate::wsl::{NetworkingMode, Way};

fn answer(facts: &Facts, way: Way) -> Answer {
    facts.rows().into_iter().find(|row| row.way == way).unwrap().answer
}

fn typed(facts: &Facts) -> Vec<String> {
    let of = diagnose(facts).into_iter().filter(|finding| finding.check == "own_routing");
    of.flat_map(|finding| finding.remedy).map(|line| line.text).collect()
}

/// The address of this machine.
fn own() -> Address {
    Address { address: "172.28.20.5".parse().unwrap(), prefix: 20 }
}

/// A host's route that refuses answers.
fn route(client: &str, marked: bool) -> RefusedClient {
    let client = client.parse().unwrap();
    let route = Refusing { kind: "blackhole".into(), destination: (client, 32), source: None, table: 254, marked, nexthop: None };
    RefusedClient { client, everybody: false, answer: true, by: Refusal::Route(route) }
}

/// A rule that refuses answers to everybody.
fn rule() -> RefusedClient {
    let rule = RefusingRule { preference: 9, text: "from 172.28.20.5/32 prohibit".into(), marked: false };
    RefusedClient { client: "172.28.16.1".parse().unwrap(), everybody: true, answer: true, by: Refusal::Rule(rule) }
}

fn refusing(listeners: &str, refused: RefusedClient) -> Facts {
    let mut facts = facts(None, listeners);
    facts.linux.interfaces[1].addresses = vec![own()];
    facts.linux.own_routing = Some("a rule".to_owned());
    facts.linux.arrives = vec!["172.28.20.5".parse().unwrap()];
    facts.linux.refused_clients = vec![refused];
    facts
}

#[test]
fn whoever_is_refused_is_told_with_the_command_that_ends_it() {
    let everybody = refusing("0.0.0.0", rule());
    assert_eq!(answer(&everybody, Way::LanToAddress), Fails);
    assert_eq!(wrong(&everybody), is("own_routing", Severity::Fails));
    assert_eq!(typed(&everybody), ["sudo ip rule del pref 9 from 172.28.20.5/32 prohibit"]);
    assert_eq!(answer(&everybody, Way::Inside4), Works);

    let one = refusing("0.0.0.0", route("172.28.17.7", false));
    assert_eq!(answer(&one, Way::LanToAddress), Unknown);
    assert_eq!(wrong(&one), is("own_routing", Severity::Warns));
    assert_eq!(typed(&one), ["sudo ip route del blackhole 172.28.17.7/32"]);

    let far = refusing("0.0.0.0", route("10.9.0.1", false));
    assert_eq!(typed(&far), ["# only if it has clients there: sudo ip route del blackhole 10.9.0.1/32"]);
    // What only packets with a mark meet is nobody's fault yet.
    let marked = refusing("0.0.0.0", route("172.28.17.7", true));
    assert_eq!(typed(&marked), ["ip rule show", "ip route show table all"]);
    // A server on ::1 alone gets nothing of it.
    assert_eq!(answer(&refusing("::1", route("172.28.17.7", false)), Way::LanToAddress), Fails);
    let mut astray = refusing("::1", route("172.28.17.7", false));
    astray.linux.arrives.clear();
    assert_eq!(answer(&astray, Way::LanToAddress), Unknown, "where packets go is not known");
}

#[test]
fn a_client_that_is_known_is_refused_by_its_own_route() {
    let of = |client: &str, marked| {
        let mut facts = facts(Some(NetworkingMode::Nat), "0.0.0.0");
        facts.linux.own_routing = Some("a route".to_owned());
        facts.linux.refused_clients = vec![route(client, marked)];
        answer(&facts, Way::WindowsToAddress)
    };
    // In nat mode Windows comes with the address of the gateway.
    assert_eq!(of("172.28.16.1", false), Fails);
    assert_eq!([of("172.28.16.1", true), of("172.28.16.9", false)], [Unknown, Unknown]);
}

#[test]
fn a_program_that_may_drop_saves_nothing_that_fails_without_it() {
    let of = |listeners: &str, policy: &str, change: &dyn Fn(&mut Facts)| {
        let mut facts = facts(None, listeners);
        facts.linux.interfaces[1].addresses = vec![own()];
        facts.firewalls = Firewalls::Read(Box::new(rulesets(&chain("c", 1, "input", 0, policy))));
        change(&mut facts);
        answer(&facts, Way::LanToAddress)
    };
    let drops: &dyn Fn(&mut Facts) = &|facts| facts.linux.netfilter_programs = vec!["f".to_owned()];
    assert_eq!([of("0.0.0.0", "accept", drops), of("", "accept", drops), of("::1", "accept", drops)], [Unknown, Fails, Fails]);
    assert_eq!(of("0.0.0.0", "drop", drops), Fails);
    // One that chooses sockets may give it to a server on another port, but does not see what a rule drops.
    let chooses: &dyn Fn(&mut Facts) = &|facts| facts.linux.lookup_programs = vec!["f".to_owned()];
    assert_eq!([of("0.0.0.0", "accept", chooses), of("", "accept", chooses)], [Unknown, Unknown]);
    assert_eq!(of("", "drop", chooses), Fails);
}

/// By chance one of two redirects leads to port 9999, and the other to 9998.
fn balanced(others: &[(&str, u16)]) -> Facts {
    let mut facts = led("", others, "");
    let to = |port: u16| format!(r#"{{"redirect": {{"port": {port}}}}}"#);
    let chance = r#"{"match": {"op": "==", "left": {"numgen": {"mode": "random", "mod": 2, "offset": 0}}, "right": 0}}"#;
    facts.firewalls = Firewalls::Read(Box::new(rulesets(
        &[
            chain("nat", 1, "prerouting", -100, "accept"),
            nft_rule("nat", 2, &format!("{chance}, {}", to(9999))),
            nft_rule("nat", 3, &to(9998)),
        ]
        .join(", "),
    )));
    facts
}

#[test]
fn what_chance_leads_to_several_servers_is_judged_by_all_of_them() {
    let any = "0.0.0.0";
    let both = balanced(&[(any, 9998), (any, 9999)]);
    assert_eq!(answer(&both, Way::LanToAddress), Works);
    assert_eq!(wrong(&both), []);
    for one in [9998, 9999] {
        let facts = balanced(&[(any, one)]);
        let row = facts.rows().into_iter().find(|row| row.way == Way::LanToAddress).unwrap();
        let dead = 9998 + 9999 - one;
        assert_eq!(row.answer, Unknown);
        assert!(
            row.why.contains("numgen")
                && row.why.contains(&format!(":{dead} by rule"))
                && row.why.ends_with("where nothing listens"),
            "{}",
            row.why
        );
        assert!(wrong(&facts).contains(&("firewall".to_owned(), Severity::Warns)));
    }
    let neither = balanced(&[("127.0.0.1", 9998)]);
    assert_eq!(answer(&neither, Way::LanToAddress), Fails);
    assert_eq!(wrong(&neither), is("firewall", Severity::Fails));
    let told = finding(&neither, "firewall");
    assert!(told.summary.contains("where nothing listens") && told.summary.contains("listens only on 127.0.0.1"), "{told:?}");
}

#[test]
fn where_a_client_comes_from_is_not_known_and_does_not_matter_if_all_are_served() {
    let from = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.9"}}"#;
    let redirected = |others: &[(&str, u16)]| led("0.0.0.0", others, &format!(r#"{from}, {{"redirect": {{"port": 9999}}}}"#));
    assert_eq!(answer(&redirected(&[("0.0.0.0", 9999)]), Way::LanToAddress), Works);
    assert_eq!(answer(&redirected(&[]), Way::LanToAddress), Unknown);
}

#[test]
fn rules_between_tables_do_not_matter_where_answers_leave_as_they_should() {
    let ruled = |back: Back, expressions: &str| {
        let mut facts = led("0.0.0.0", &[], expressions);
        let own = "172.28.20.5".parse().unwrap();
        facts.linux.own_routing = Some("the rule of preference 5250 between routing tables".to_owned());
        facts.linux.arrives = vec![own];
        facts.linux.back = vec![(own, back)];
        facts
    };
    let of = |back, expressions: &str| {
        let facts = ruled(back, expressions);
        (answer(&facts, Way::LanToAddress), wrong(&facts))
    };
    assert_eq!(of(Back::Everywhere, ""), (Works, vec![]));
    assert_eq!(of(Back::Near, ""), (Works, is("own_routing", Severity::Warns)));
    assert_eq!(of(Back::Unclear, ""), (Unknown, is("own_routing", Severity::Warns)));
    // Another rule may come before the one that leads to own addresses.
    let mut facts = ruled(Back::Everywhere, "");
    facts.linux.arrives.clear();
    assert_eq!(answer(&facts, Way::LanToAddress), Unknown);
}

#[test]
fn on_the_way_through_this_linux_rules_decide_about_both_directions() {
    let mut facts = super::container_tests::published();
    let own = "172.28.20.5".parse().unwrap();
    facts.linux.own_routing = Some("the rule of preference 5250 between routing tables".to_owned());
    facts.linux.arrives = vec![own];
    facts.linux.back = vec![(own, Back::Everywhere)];
    assert_eq!(answer(&facts, Way::LanToAddress), Unknown);
    assert!(wrong(&facts).contains(&("own_routing".to_owned(), Severity::Warns)));
    facts.linux.through = vec![(own, "10.9.0.2".parse().unwrap())];
    assert_eq!(answer(&facts, Way::LanToAddress), Works);
    assert_eq!(wrong(&facts), []);
}

#[test]
fn localhost_that_a_rule_leads_away_is_told() {
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.loopback_strayed = vec![("127.0.0.1".parse().unwrap(), Some("eth0".to_owned()))];
    assert_eq!(answer(&facts, Way::Inside4), Fails);
    assert_eq!(wrong(&facts), is("network", Severity::Fails));
    assert!(finding(&facts, "network").remedy[0].text.ends_with("sudo ip rule add pref 0 lookup local"));
}
