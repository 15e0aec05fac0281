//! What the checks and the table say of containers that rules lead connections to, on made-up facts.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::super::unserved::End;
use super::super::{Address, Facts, Firewalls, Inside, Interface, Severity};
use super::tests::{facts, finding, is, led, listener, wrong};
use crate::evidence::Listener;
use crate::simulate::tests::{chain, rule, rulesets};
use crate::wsl::{Answer, NetworkingMode, Source, Way, Wsl};

/// A port that is led to 10.9.0.2:80, a container of br0 that serves it, and nothing wrong.
pub(super) fn published() -> Facts {
    let mut facts = led("", &[], r#"{"dnat": {"family": "ip", "addr": "10.9.0.2", "port": 80}}"#);
    for setting in ["net.ipv4.ip_forward", "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.br0.forwarding"] {
        facts.linux.settings.insert(setting.to_owned(), "1".to_owned());
    }
    let own = Address { address: "10.9.0.1".parse().unwrap(), prefix: 24 };
    let bridge = |name: &str, kind: &str, addresses| Interface {
        name: name.to_owned(),
        kind: Some(kind.to_owned()),
        up: true,
        addresses,
        ..Interface::default()
    };
    facts.linux.interfaces.extend([bridge("br0", "bridge", vec![own]), bridge("tun0", "tun", vec![])]);
    facts.linux.translated_by_way_of = vec![("10.9.0.2".parse().unwrap(), "br0".to_owned())];
    facts.linux.elsewhere = vec![Listener { netns: 2, port: 80, pid: Some(70), ..listener("0.0.0.0") }];
    facts.linux.inside = vec![inside("10.9.0.2")];
    facts
}

fn inside(address: &str) -> Inside {
    let address = address.parse().unwrap();
    let back = vec![("172.28.16.1".parse().unwrap(), Some("eth0".to_owned()))];
    let end = End { address, interface: "eth0".to_owned(), up: true, no_carrier: false, strict: false, back };
    Inside { netns: 2, through: "veth0".to_owned(), addresses: vec![address], leads_on: false, ends: vec![end] }
}

fn outside(facts: &Facts) -> (Answer, String) {
    let row = facts.rows().into_iter().find(|row| row.way == Way::LanToAddress).unwrap();
    (row.answer, row.why)
}

#[track_caller]
fn is_told(facts: &Facts, answer: Answer, severity: Severity, words: &str) {
    let (given, why) = outside(facts);
    assert!(given == answer && why.contains(words), "{given:?} {why}");
    let found = finding(facts, "container");
    assert!(found.severity == severity && found.summary.contains(words), "{found:?}");
}

#[test]
fn a_container_that_serves_works() {
    let facts = published();
    assert_eq!(outside(&facts).0, Answer::Works, "{:?}", outside(&facts));
    assert_eq!(wrong(&facts), []);
}

#[test]
fn windows_localhost_does_not_lead_where_only_a_rule_leads() {
    let in_wsl = |mode| {
        let mut facts = published();
        facts.wsl.wsl = Wsl::Two;
        facts.wsl.mode = Some((mode, Source::Wslinfo));
        facts
    };
    let facts = in_wsl(NetworkingMode::Nat);
    let found = finding(&facts, "published");
    assert_eq!(found.severity, Severity::Warns);
    assert!(found.summary.contains("localhost:8080/ is refused, while http://172.28.20.5:8080/ works"), "{}", found.summary);
    let row = |way| facts.rows().into_iter().find(|row| row.way == way).unwrap().answer;
    assert_eq!([row(Way::WindowsLocalhost), row(Way::WindowsToAddress)], [Answer::Fails, Answer::Works]);
    let told = |facts: &Facts| wrong(facts).iter().any(|(check, _)| check == "published");
    // As Docker's proxy listens.
    let mut proxied = facts.clone();
    proxied.linux.listeners = vec![listener("0.0.0.0")];
    assert!(!told(&proxied));
    // Nothing leads there: then it is told what stops it.
    let mut stopped = facts.clone();
    stopped.linux.settings.insert("net.ipv4.conf.eth0.forwarding".to_owned(), "0".to_owned());
    assert!(!told(&stopped));
    assert!(!told(&in_wsl(NetworkingMode::Mirrored)) && !told(&published()));
}

#[test]
fn an_address_that_no_container_has_is_served_by_none() {
    let mut facts = published();
    facts.linux.inside = vec![inside("10.9.0.3")];
    is_told(&facts, Answer::Unknown, Severity::Warns, "one with a server on port 80 has 10.9.0.3");
    facts.linux.inside.clear();
    assert_eq!(outside(&facts).0, Answer::Unknown);
    assert_eq!(wrong(&facts), []);
    // Which of two has it is not known.
    facts.linux.inside = vec![inside("10.9.0.2"), Inside { netns: 3, ..inside("10.9.0.2") }];
    assert_eq!(outside(&facts).0, Answer::Unknown);
}

#[test]
fn a_server_of_a_container_serves_as_long_as_its_process_does() {
    let mut facts = published();
    facts.linux.stopped = vec![70];
    is_told(&facts, Answer::Fails, Severity::Fails, "the container's server is stopped");
    assert_eq!(finding(&facts, "container").remedy[1].text, "sudo kill -CONT 70");
    // Another one that shares the port may get it.
    facts.linux.elsewhere.push(Listener { pid: Some(71), ..facts.linux.elsewhere[0].clone() });
    is_told(&facts, Answer::Unknown, Severity::Warns, "is stopped");
    facts = published();
    facts.linux.elsewhere[0].queue = 129;
    is_told(&facts, Answer::Fails, Severity::Fails, "its queue is full");
}

#[test]
fn the_way_back_out_of_a_container_is_asked_for() {
    let mut facts = published();
    facts.linux.inside[0].ends[0].back[0].1 = None;
    is_told(&facts, Answer::Unknown, Severity::Warns, "no route back to clients such as 172.28.16.1");
    facts.linux.inside[0].ends[0].back[0].1 = Some("tun9".to_owned());
    is_told(&facts, Answer::Unknown, Severity::Warns, "whether they get there is not known");
    facts.linux.inside[0].ends[0].strict = true;
    is_told(&facts, Answer::Unknown, Severity::Warns, "rp_filter refuses them");
    facts = published();
    facts.linux.inside[0].ends[0].up = false;
    is_told(&facts, Answer::Fails, Severity::Fails, "whose interface eth0 is down");
}

/// The interface behind which the container is, as a port of this bridge.
fn port(bridge: Option<&str>) -> Interface {
    let (name, kind) = ("veth0".to_owned(), Some("veth".to_owned()));
    Interface { name, kind, master: bridge.map(str::to_owned), up: true, ..Interface::default() }
}

#[test]
fn a_container_whose_port_is_down_is_cut_off() {
    let mut facts = published();
    facts.linux.inside[0].ends[0].no_carrier = true;
    is_told(&facts, Answer::Fails, Severity::Fails, "whose interface eth0 has no carrier");
    facts.linux.interfaces.push(port(Some("br0")));
    facts.linux.interfaces.last_mut().unwrap().up = false;
    is_told(&facts, Answer::Fails, Severity::Fails, "no carrier: veth0, behind which it is, is down");
    assert!(finding(&facts, "container").remedy.iter().any(|line| line.text == "sudo ip link set veth0 up"));
}

#[test]
fn a_container_that_was_taken_out_of_its_bridge_is_put_back() {
    let mut facts = published();
    facts.linux.interfaces.push(port(Some("br0")));
    assert_eq!(outside(&facts).0, Answer::Works);
    *facts.linux.interfaces.last_mut().unwrap() = port(None);
    is_told(&facts, Answer::Fails, Severity::Fails, "veth0, which is no port of the bridge br0 (any longer)");
    assert!(finding(&facts, "container").remedy.iter().any(|line| line.text == "sudo ip link set veth0 master br0"));
}

#[test]
fn each_interface_forwards_by_its_own_setting() {
    for interface in ["eth0", "br0"] {
        let mut facts = published();
        let setting = format!("net.ipv4.conf.{interface}.forwarding");
        facts.linux.settings.insert(setting.clone(), "0".to_owned());
        assert_eq!(outside(&facts).0, Answer::Fails);
        assert_eq!(wrong(&facts), is("forwarding", Severity::Fails));
        assert_eq!(finding(&facts, "forwarding").remedy[0].text, format!("sudo sysctl -w {setting}=1"));
    }
    let mut facts = published();
    facts.linux.settings.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    assert_eq!(outside(&facts).0, Answer::Works);
}

#[test]
fn a_route_that_covers_the_containers_network_takes_their_packets() {
    let mut facts = published();
    let by = |name: &str| vec![("10.9.0.2".parse().unwrap(), name.to_owned())];
    facts.linux.translated_by_way_of = by("tun0");
    is_told(&facts, Answer::Fails, Severity::Fails, "a route leads its packets to tun0");
    assert!(finding(&facts, "container").remedy.iter().any(|line| line.text == "sudo ip route add 10.9.0.2 dev br0"));
    facts.linux.interfaces[2].up = false;
    is_told(&facts, Answer::Fails, Severity::Fails, "br0, which is down");
    // A veth may lead to the container itself.
    facts = published();
    facts.linux.interfaces[3].kind = Some("veth".to_owned());
    facts.linux.translated_by_way_of = by("tun0");
    assert_eq!(outside(&facts).0, Answer::Works);
}

#[test]
fn rules_of_the_container_may_lead_it_to_another_port() {
    let mut facts = published();
    facts.linux.inside[0].leads_on = true;
    let (answer, why) = outside(&facts);
    assert!(answer == Answer::Unknown && why.contains("whose own rules"), "{why}");
}

/// Every way that fails is told of.
#[test]
fn an_answer_of_a_container_that_a_rule_drops_is_told() {
    let mut facts = published();
    let dnat = r#"{"dnat": {"family": "ip", "addr": "10.9.0.2", "port": 80}}"#;
    let new = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"accept": null}"#;
    let all = [chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 2, dnat), chain("f", 3, "forward", 0, "drop")];
    let rules = [&all[..], &[rule("f", 4, new)]].concat().join(", ");
    facts.firewalls = Firewalls::Read(Box::new(rulesets(&rules)));
    assert_eq!(outside(&facts).0, Answer::Fails);
    let found = finding(&facts, "firewall");
    assert!(found.severity == Severity::Fails && !found.remedy.is_empty(), "{found:?}");
}

#[test]
fn a_way_that_fails_is_told_where_no_check_does() {
    let mut facts = published();
    facts.linux.interfaces[1].up = false;
    assert_eq!(outside(&facts).0, Answer::Fails);
    assert_eq!(wrong(&facts), is("ways", Severity::Fails));
}

#[test]
fn who_is_served_by_rules_that_are_not_decided_is_not_said_to_lack_a_server() {
    let mut facts = published();
    let by_address = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "172.28.16.9"}}, {"dnat": {"family": "ip", "addr": "10.9.0.2", "port": 80}}"#;
    let rules = [chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 2, by_address)].join(", ");
    facts.firewalls = Firewalls::Read(Box::new(rulesets(&rules)));
    assert_eq!(outside(&facts).0, Answer::Unknown);
    let found = finding(&facts, "listener");
    assert!(found.severity == Severity::Unknown && found.summary.contains("may lead connections on"), "{found:?}");
    assert!(wrong(&facts).iter().all(|(_, severity)| *severity != Severity::Fails), "{:?}", wrong(&facts));
}

#[test]
fn a_loopback_address_that_is_gone_is_told() {
    let mut facts = facts(None, "::");
    let row = |facts: &Facts, way| facts.rows().into_iter().find(|row| row.way == way).unwrap().answer;
    facts.linux.loopback_gone = vec!["127.0.0.1".parse().unwrap()];
    assert_eq!([row(&facts, Way::Inside4), row(&facts, Way::Inside6)], [Answer::Fails, Answer::Works]);
    assert_eq!(wrong(&facts), is("network", Severity::Fails));
    let told = |facts: &Facts| finding(facts, "network").remedy[0].text.clone();
    assert_eq!(told(&facts), "sudo ip address add 127.0.0.1/8 dev lo");
    // What lo has cannot be added; its routes can.
    let had = facts.linux.interfaces[0].clone();
    facts.linux.interfaces[0].addresses = vec![Address { address: "127.0.0.1".parse().unwrap(), prefix: 8 }];
    assert_eq!(told(&facts), "sudo ip route add local 127.0.0.0/8 dev lo table local");
    facts.linux.interfaces[0] = had;
    facts.linux.loopback_gone = vec!["::1".parse().unwrap()];
    assert_eq!([row(&facts, Way::Inside4), row(&facts, Way::Inside6)], [Answer::Works, Answer::Fails]);
    assert_eq!(wrong(&facts), is("network", Severity::Warns));
}

#[test]
fn a_default_route_needs_no_next_hop() {
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.gateway = None;
    let summary = |facts: &Facts| finding(facts, "network").summary;
    assert!(summary(&facts).starts_with("there is no default route"));
    facts.linux.default_by = Some("tun0".to_owned());
    assert!(summary(&facts).contains("leave by tun0"));
    facts.linux.default_by = Some("eth0".to_owned());
    assert_eq!(wrong(&facts), []);
}
