//! What the checks and the table say of servers that listen and do not serve, on made-up facts.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;

use super::super::{Facts, Inside, Severity};
use super::tests::{facts, finding, is, led, listener, wrong};
use crate::evidence::Listener;
use crate::wsl::{Answer, NetworkingMode, Way};

fn row(facts: &Facts, way: Way) -> (Answer, String) {
    let row = facts.rows().into_iter().find(|row| row.way == way).unwrap();
    (row.answer, row.why)
}

/// WSL or plain Linux with a server bound to a device.
fn bound(mode: Option<NetworkingMode>, device: &str) -> Facts {
    let mut facts = facts(mode, "0.0.0.0");
    facts.linux.listeners[0].device = Some(device.to_owned());
    facts
}

#[test]
fn a_server_of_a_device_takes_what_comes_by_it() {
    use NetworkingMode as M;
    let ways = |facts: &Facts| [Way::Inside4, Way::WindowsToAddress].map(|way| row(facts, way).0);
    assert_eq!(ways(&bound(Some(M::Nat), "eth0")), [Answer::Fails, Answer::Works]);
    assert_eq!(ways(&bound(Some(M::Nat), "lo")), [Answer::Works, Answer::Fails]);
    assert_eq!(ways(&bound(Some(M::Nat), "eth1")), [Answer::Fails, Answer::Fails]);
    let severity = |facts: &Facts| finding(facts, "listener_address").severity;
    // The relay comes over lo, Windows to the address over eth0.
    for device in ["lo", "eth0"] {
        assert_eq!(severity(&bound(Some(M::Nat), device)), Severity::Warns, "{device}");
    }
    let mut elsewhere = bound(Some(M::Nat), "eth1");
    assert!(finding(&elsewhere, "listener_address").summary.contains("eth1, which is not there or down"));
    elsewhere.linux.interfaces[1].name = "eth1".to_owned();
    let found = finding(&elsewhere, "listener_address");
    assert!(found.severity == Severity::Fails && found.summary.contains("and nothing from Windows does"), "{found:?}");
    assert!(found.remedy[0].text.contains("without binding it to a device"));
    assert_eq!(wrong(&bound(None, "eth0")), is("listener_address", Severity::Warns));
    // One with a link-local address is bound by that.
    let mut of_link = bound(None, "eth0");
    of_link.linux.listeners[0].address = "fe80::1".parse().unwrap();
    let found = finding(&of_link, "listener_address");
    assert!(
        found.summary.contains("its address is a link-local one") && found.remedy[0].text.contains("listen on [::]"),
        "{found:?}"
    );
    // One that is not bound takes the rest.
    let mut both = bound(None, "eth0");
    both.linux.listeners.push(listener("0.0.0.0"));
    assert_eq!(wrong(&both), []);
}

#[test]
fn others_reach_a_server_on_localhost_by_a_rule_that_leads_there() {
    let mut facts = led("127.0.0.1", &[], r#"{"dnat": {"family": "ip", "addr": "127.0.0.1", "port": 8080}}"#);
    assert_eq!(row(&facts, Way::LanToAddress).0, Answer::Fails);
    assert!(wrong(&facts).contains(&("listener_address".to_owned(), Severity::Warns)), "{:?}", wrong(&facts));
    facts.linux.settings.insert("net.ipv4.conf.eth0.route_localnet".to_owned(), "1".to_owned());
    assert_eq!(row(&facts, Way::LanToAddress).0, Answer::Works);
    assert_eq!(wrong(&facts), []);
}

#[test]
fn a_server_whose_addresses_are_all_gone_fails() {
    let gone = |listeners: &str| {
        let mut facts = facts(None, listeners);
        facts.linux.gone = vec!["10.9.9.9".parse().unwrap()];
        wrong(&facts)
    };
    assert_eq!(gone("10.9.9.9"), is("listener_address", Severity::Fails));
    assert_eq!(gone("::ffff:10.9.9.9"), is("listener_address", Severity::Fails));
    assert_eq!(gone("10.9.9.9 0.0.0.0"), []);
}

#[test]
fn a_stopped_server_answers_nobody() {
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.stopped = vec![7];
    let found = finding(&facts, "accept_queue");
    assert_eq!((found.severity, found.remedy[1].text.as_str()), (Severity::Fails, "sudo kill -CONT 7"));
    assert_eq!(row(&facts, Way::Inside4).0, Answer::Fails);
    // Another server that shares the port may get the connection.
    facts.linux.listeners.push(Listener { pid: Some(8), ..listener("0.0.0.0") });
    assert_eq!(finding(&facts, "accept_queue").severity, Severity::Warns);
    let (answer, why) = row(&facts, Way::Inside4);
    assert_eq!(answer, Answer::Unknown);
    assert!(why.starts_with("of 2 servers that share the port 1 fail: "), "{why}");
    // Where all are, each has to go on.
    facts.linux.stopped.push(8);
    let typed: Vec<String> = finding(&facts, "accept_queue").remedy.into_iter().skip(1).map(|line| line.text).collect();
    assert_eq!(typed, ["sudo kill -CONT 7", "sudo kill -CONT 8"]);
}

#[test]
fn docker_proxy_serves_only_where_the_container_does() {
    let target: SocketAddr = "172.17.0.2:80".parse().unwrap();
    let proxied = |inside: &str, leads_on: bool| {
        let mut facts = facts(None, "0.0.0.0");
        facts.linux.proxied = vec![(7, target)];
        facts.linux.inside = vec![Inside { netns: 2, addresses: vec![target.ip()], leads_on, ..Inside::default() }];
        let there = |text: &str| Listener { netns: 2, port: 80, ..listener(text) };
        facts.linux.elsewhere = inside.split_whitespace().map(there).collect();
        facts
    };
    for (inside, said) in [("127.0.0.1", "where the container's server listens only on 127.0.0.1"), ("", "where nothing listens")]
    {
        let facts = proxied(inside, false);
        let found = finding(&facts, "listener");
        assert!(found.severity == Severity::Fails && found.summary.contains(said), "{found:?}");
        let (answer, why) = row(&facts, Way::Inside4);
        assert!(answer == Answer::Fails && why.contains(said), "{why}");
    }
    for facts in [proxied("0.0.0.0", false), proxied("172.17.0.2", false), proxied("127.0.0.1", true)] {
        assert_eq!((row(&facts, Way::Inside4).0, wrong(&facts)), (Answer::Works, Vec::new()));
    }
    // Two containers with the same address: which of them it is is not known.
    let mut twice = proxied("127.0.0.1", false);
    twice.linux.inside.push(Inside { netns: 3, ..twice.linux.inside[0].clone() });
    assert_eq!(wrong(&twice), []);
}
