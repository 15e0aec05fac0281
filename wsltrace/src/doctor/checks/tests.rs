//! What the checks say of made-up facts. The truth of each is how the facts were made.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::IpAddr;

use super::super::{Address, Facts, Finding, Firewalls, Interface, Linux, Severity, Unseen, WslFacts, diagnose};
use crate::evidence::Listener;
use crate::simulate::tests::{chain, rule, rulesets};
use crate::wsl::{NetworkingMode, Source, Way, Wsl};

/// A listener: an address, with `!` behind it IPv6 only, with `*` behind it nobody's.
pub(super) fn listener(text: &str) -> Listener {
    let (text, v6only) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
    let (text, owned) = text.strip_suffix('*').map_or((text, true), |text| (text, false));
    Listener {
        address: text.parse().unwrap(),
        port: 8080,
        v6only,
        device: None,
        queue: 0,
        backlog: 128,
        pid: owned.then_some(7),
        command: owned.then(|| "node".to_owned()),
        netns: 1,
    }
}

/// WSL in a mode, or plain Linux, with these listeners and nothing wrong.
pub(super) fn facts(mode: Option<NetworkingMode>, listeners: &str) -> Facts {
    let up = |name: &str| Interface { name: name.to_owned(), up: true, ..Interface::default() };
    let address: IpAddr = "172.28.20.5".parse().unwrap();
    let mut linux = Linux {
        kernel: "6.6.87.2-microsoft-standard-WSL2".to_owned(),
        root: true,
        listeners: listeners.split_whitespace().map(listener).collect(),
        other_ports: vec![22, 3000],
        interfaces: vec![up("lo"), up("eth0")],
        outer: Some((address, "eth0".to_owned())),
        gateway: Some(("172.28.16.1".parse().unwrap(), "eth0".to_owned())),
        ..Linux::default()
    };
    linux.names.localhost = Some(vec!["127.0.0.1".parse().unwrap()]);
    if matches!(mode, Some(NetworkingMode::Mirrored | NetworkingMode::Consomme)) {
        linux.interfaces.push(up("loopback0"));
        linux.loopback_rules = Some(true);
        for (key, value) in [("rp_filter", "0"), ("accept_local", "1"), ("route_localnet", "1")] {
            linux.settings.insert(format!("net.ipv4.conf.loopback0.{key}"), value.to_owned());
            linux.settings.insert(format!("net.ipv4.conf.all.{key}"), "0".to_owned());
        }
    }
    let wsl = if mode.is_some() { Wsl::Two } else { Wsl::No };
    Facts {
        port: 8080,
        linux,
        wsl: WslFacts { wsl, mode: mode.map(|mode| (mode, Source::Wslinfo)), ..WslFacts::default() },
        ..Facts::default()
    }
}

/// What is not in order: the checks and how bad it is.
pub(super) fn wrong(facts: &Facts) -> Vec<(String, Severity)> {
    let findings = diagnose(facts).into_iter().filter(|finding| finding.severity != Severity::Fine);
    findings.map(|finding| (finding.check, finding.severity)).collect()
}

/// The finding of a check that is not in order.
pub(super) fn finding(facts: &Facts, check: &str) -> Finding {
    let found = diagnose(facts).into_iter().find(|finding| finding.check == check && finding.severity != Severity::Fine);
    found.unwrap()
}

pub(super) fn is(check: &str, severity: Severity) -> Vec<(String, Severity)> {
    vec![(check.to_owned(), severity)]
}

#[test]
fn nothing_is_wrong_with_a_server_on_every_address() {
    use NetworkingMode as M;
    for mode in [None, Some(M::Nat), Some(M::Mirrored), Some(M::Consomme), Some(M::Bridged)] {
        let told = wrong(&facts(mode, "0.0.0.0"));
        let of_linux: Vec<_> = told.iter().filter(|(check, _)| !check.starts_with("windows")).collect();
        assert!(of_linux.is_empty(), "{mode:?}: {told:?}");
    }
}

#[test]
fn listeners_are_judged_by_who_can_reach_them() {
    use NetworkingMode as M;
    let of = |mode, listeners| {
        let told = wrong(&facts(mode, listeners));
        told.into_iter().filter(|(check, _)| !check.starts_with("windows")).collect::<Vec<_>>()
    };
    assert_eq!(of(Some(M::Nat), ""), is("listener", Severity::Fails));
    assert_eq!(of(Some(M::Nat), "::"), is("listener_address", Severity::Warns));
    assert_eq!(of(Some(M::Nat), "127.0.0.1"), is("listener_address", Severity::Warns));
    assert_eq!(of(Some(M::Nat), "127.0.0.2"), is("listener_address", Severity::Fails));
    assert_eq!(of(Some(M::Nat), "172.28.20.5"), []);
    assert_eq!(of(Some(M::Mirrored), "::1"), is("listener_address", Severity::Fails));
    assert_eq!(of(Some(M::Mirrored), "::"), []);
    assert_eq!(of(Some(M::Nat), "0.0.0.0*"), is("listener_owner", Severity::Warns));
    assert_eq!(of(None, "127.0.0.1"), is("listener_address", Severity::Warns));
    for elsewhere in ["172.28.20.5", "fd00::5", "::!", "::1", "127.0.0.2"] {
        assert_eq!(of(None, elsewhere), is("listener_address", Severity::Warns), "{elsewhere}");
    }
    for everywhere in ["0.0.0.0", "::", "0.0.0.0 ::!"] {
        assert_eq!(of(None, everywhere), [], "{everywhere}");
    }
    let summary = |listeners| finding(&facts(None, listeners), "listener_address").summary;
    assert!(summary("127.0.0.1 ::1").starts_with("only localhost leads to the server, other machines do not"));
    assert!(summary("::1").starts_with("only [::1] leads to the server, 127.0.0.1 and other machines do not"));
    let beside = finding(&facts(None, "fd00::5"), "listener_address");
    assert_eq!(beside.evidence, ["refused at 172.28.20.5 and 127.0.0.1 (localhost)"]);
    let go = finding(&facts(Some(M::Nat), "::"), "listener_address");
    assert!(go.summary.contains("http://127.0.0.1:8080/ is refused"), "{go:?}");
}

/// An IPv4 server over IPv6 is refused, whatever a rule does with the confirmations of connections that are made.
#[test]
fn rules_for_what_follows_an_answer_matter_only_where_somebody_answers() {
    let drops = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}, {"drop": null}"#;
    let rules = [chain("c", 1, "input", 0, "accept"), rule("c", 2, drops)].join(", ");
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.outer6 = Some(("fd00::5".parse().unwrap(), "eth0".to_owned()));
    let own = |text: &str| Address { address: text.parse().unwrap(), prefix: 64 };
    facts.linux.interfaces[1].addresses = vec![own("172.28.20.5"), own("fd00::5")];
    facts.firewalls = Firewalls::Read(Box::new(rulesets(&rules)));
    let rows = facts.rows();
    let why = |way| &rows.iter().find(|row| row.way == way).unwrap().why;
    assert_eq!(why(Way::Lan6), "the server listens only on 0.0.0.0");
    assert!(why(Way::LanToAddress).starts_with("what the client sends next (its ACK) is dropped by "), "{rows:?}");
}

#[test]
fn what_listens_in_a_container_is_told() {
    let facts = Facts { linux: Linux { elsewhere: vec![listener("0.0.0.0")], ..facts(None, "").linux }, ..facts(None, "") };
    let found = finding(&facts, "listener");
    assert!(found.evidence[0].starts_with("in a container node (pid 7)"), "{found:?}");
}

#[test]
fn a_server_that_does_not_accept_fails() {
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.listeners[0].queue = 129;
    assert_eq!(wrong(&facts), is("accept_queue", Severity::Fails));
}

#[test]
fn each_setting_of_mirrored_mode_is_missed() {
    let mirrored = || facts(Some(NetworkingMode::Mirrored), "0.0.0.0");
    let with = |name: &str, value: &str| {
        let mut facts = mirrored();
        facts.linux.settings.insert(format!("net.ipv4.conf.{name}"), value.to_owned());
        let found = finding(&facts, "loopback0");
        (found.severity, found.remedy[0].text.clone())
    };
    let (warns, fails) = (Severity::Warns, Severity::Fails);
    assert_eq!(with("all.rp_filter", "1"), (warns, "sudo sysctl -w net.ipv4.conf.all.rp_filter=0".to_owned()));
    assert_eq!(with("loopback0.accept_local", "0"), (warns, "sudo sysctl -w net.ipv4.conf.loopback0.accept_local=1".to_owned()));
    let local = "sudo sysctl -w net.ipv4.conf.loopback0.route_localnet=1".to_owned();
    assert_eq!(with("loopback0.route_localnet", "0"), (fails, local));
    let mut without = mirrored();
    without.linux.loopback_rules = Some(false);
    without.linux.settings.insert("net.ipv4.conf.all.rp_filter".to_owned(), "1".to_owned());
    without.linux.settings.insert("net.ipv4.conf.loopback0.accept_local".to_owned(), "0".to_owned());
    let of_loopback0 = diagnose(&without).into_iter().filter(|finding| finding.check == "loopback0");
    assert_eq!(of_loopback0.map(|finding| finding.severity).collect::<Vec<_>>(), [fails, fails, fails]);
    let mut down = mirrored();
    down.linux.interfaces[2].up = false;
    assert_eq!(finding(&down, "loopback0").remedy[0].text, "sudo ip link set loopback0 up");
    down.linux.interfaces.pop();
    assert!(finding(&down, "loopback0").summary.contains("missing"));
}

#[test]
fn localhost_must_be_a_loopback_address_that_the_server_has() {
    let with = |addresses: &[&str], listeners: &str| {
        let mut facts = facts(None, listeners);
        facts.linux.names.localhost = Some(addresses.iter().map(|address| address.parse().unwrap()).collect());
        wrong(&facts)
    };
    assert_eq!(with(&["127.0.0.1"], "0.0.0.0"), []);
    assert_eq!(with(&["10.0.0.9"], "0.0.0.0"), is("localhost", Severity::Fails));
    assert_eq!(with(&[], "0.0.0.0"), is("localhost", Severity::Fails));
    assert_eq!(with(&["::1", "127.0.0.1"], "0.0.0.0"), is("localhost", Severity::Warns));
    assert_eq!(with(&["::1", "127.0.0.1"], "::"), []);
}

#[test]
fn programs_ahead_of_netfilter_and_a_full_table_are_told() {
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.interfaces[1].xdp = true;
    facts.linux.interfaces[1].tc = vec!["guard".to_owned()];
    facts.linux.settings.insert("net.netfilter.nf_conntrack_count".to_owned(), "65536".to_owned());
    facts.linux.settings.insert("net.netfilter.nf_conntrack_max".to_owned(), "65536".to_owned());
    let warns = |check: &str| (check.to_owned(), Severity::Warns);
    assert_eq!(wrong(&facts), [("conntrack".to_owned(), Severity::Fails), warns("xdp"), warns("programs")]);
}

#[test]
fn what_was_not_seen_is_said_and_claims_nothing() {
    let mut facts = facts(None, "");
    facts.linux.unseen.push(Unseen { what: super::super::gather::LISTENERS.to_owned(), why: "not permitted".to_owned() });
    assert_eq!(wrong(&facts), is("unseen", Severity::Unknown));
}

#[test]
fn a_mode_that_was_guessed_is_said_to_be() {
    let mut facts = facts(Some(NetworkingMode::Nat), "0.0.0.0");
    facts.wsl.mode = Some((NetworkingMode::Nat, Source::Interfaces));
    let mode = diagnose(&facts).into_iter().find(|finding| finding.check == "mode").unwrap();
    assert!(mode.evidence[0].starts_with("guessed"));
    facts.wsl.mode = None;
    assert!(wrong(&facts).contains(&("mode".to_owned(), Severity::Unknown)));
}

/// Facts of a Linux whose rules lead what comes by `eth0` on as these expressions say.
pub(super) fn led(listeners: &str, others: &[(&str, u16)], expressions: &str) -> Facts {
    let mut facts = facts(None, listeners);
    let own = |text: &str| Address { address: text.parse().unwrap(), prefix: 20 };
    facts.linux.interfaces[1].addresses = vec![own("172.28.20.5")];
    facts.linux.other_listeners = others.iter().map(|(text, port)| Listener { port: *port, ..listener(text) }).collect();
    facts.linux.settings.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    for of in ["all", "eth0"] {
        facts.linux.settings.insert(format!("net.ipv4.conf.{of}.route_localnet"), "0".to_owned());
    }
    facts.firewalls = Firewalls::Read(Box::new(rulesets(
        &[chain("nat", 1, "prerouting", -100, "accept"), rule("nat", 2, expressions)].join(", "),
    )));
    facts
}

#[test]
fn a_redirect_is_judged_by_the_listeners_of_its_port() {
    use crate::wsl::Answer;
    let redirect = r#"{"redirect": {"port": 9999}}"#;
    let outside = |facts: &Facts| {
        let row = facts.rows().into_iter().find(|row| row.way == Way::LanToAddress).unwrap();
        (row.answer, row.why)
    };
    for listeners in ["0.0.0.0", ""] {
        let facts = led(listeners, &[("0.0.0.0", 9999)], redirect);
        let (answer, why) = outside(&facts);
        assert_eq!(answer, Answer::Works, "{why}");
        assert_eq!(wrong(&facts), [], "{listeners:?}");
        let facts = led(listeners, &[("0.0.0.0", 9998), ("127.0.0.1", 9999)], redirect);
        assert!(outside(&facts).1.ends_with("where the server listens only on 127.0.0.1"), "{:?}", outside(&facts));
        assert!(finding(&facts, "listener").remedy[0].text.contains("let the server on port 9999 listen on 0.0.0.0"));
        let facts = led(listeners, &[("0.0.0.0", 9998)], redirect);
        assert!(outside(&facts).1.ends_with("where nothing listens"), "{:?}", outside(&facts));
        assert_eq!(wrong(&facts), is("listener", Severity::Fails));
        // Each of what is told of a server on the port is told of this one.
        let mut stopped = led(listeners, &[("0.0.0.0", 9999)], redirect);
        let owner = |listener: &mut Listener| listener.pid = Some(99);
        stopped.linux.other_listeners.iter_mut().for_each(owner);
        stopped.linux.stopped = vec![99];
        assert!(outside(&stopped).1.ends_with("the server is stopped (Ctrl-Z)"), "{:?}", outside(&stopped));
        assert_eq!(wrong(&stopped), is("accept_queue", Severity::Fails));
        let typed: Vec<_> = finding(&stopped, "accept_queue").remedy.into_iter().map(|line| line.text).collect();
        assert_eq!(typed[1], "sudo kill -CONT 99");
        let mut full = led(listeners, &[("0.0.0.0", 9999)], redirect);
        full.linux.other_listeners.iter_mut().for_each(|listener| listener.queue = listener.backlog + 1);
        assert_eq!(outside(&full).0, Answer::Fails);
        assert_eq!(wrong(&full), is("accept_queue", Severity::Fails));
    }
}

#[test]
fn nothing_from_outside_is_led_to_loopback() {
    let dnat = r#"{"dnat": {"family": "ip", "addr": "127.0.0.1", "port": 8080}}"#;
    let mut facts = led("0.0.0.0", &[], dnat);
    let found = finding(&facts, "forwarding");
    assert_eq!(found.remedy[0].text, "sudo sysctl -w net.ipv4.conf.eth0.route_localnet=1");
    facts.linux.settings.insert("net.ipv4.conf.eth0.route_localnet".to_owned(), "1".to_owned());
    assert_eq!(wrong(&facts), []);
}

#[test]
fn a_rule_for_another_port_leaves_no_doubt_of_the_answer() {
    let drops =
        r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 23}}, {"drop": null}"#;
    let mut facts = facts(None, "0.0.0.0");
    facts.firewalls = Firewalls::Read(Box::new(rulesets(&[chain("c", 1, "input", 0, "accept"), rule("c", 2, drops)].join(", "))));
    assert_eq!(wrong(&facts), []);
    facts.linux.settings.insert("net.ipv4.ip_local_port_range".to_owned(), "23\t60999".to_owned());
    let found = finding(&facts, "firewall");
    assert!(found.evidence[0].starts_with("it depends on the client's port"), "{found:?}");
}

#[test]
fn addresses_of_ipv4_in_ipv6_are_what_they_stand_for() {
    assert_eq!(wrong(&facts(None, "::ffff:0.0.0.0")), []);
    assert_eq!(wrong(&facts(None, "::ffff:127.0.0.1")), is("listener_address", Severity::Warns));
    let mut names = facts(None, "0.0.0.0");
    names.linux.names.localhost = Some(vec!["::ffff:127.0.0.1".parse().unwrap()]);
    assert_eq!(wrong(&names), []);
}

#[test]
fn an_interface_that_is_down_is_told_with_the_command_that_brings_it_up() {
    let mut facts = facts(None, "0.0.0.0");
    facts.linux.outer = None;
    assert!(finding(&facts, "network").remedy.is_empty(), "none has an address");
    let own = Address { address: "172.28.20.5".parse().unwrap(), prefix: 20 };
    facts.linux.interfaces[1] = Interface { up: false, addresses: vec![own], ..facts.linux.interfaces[1].clone() };
    let found = finding(&facts, "network");
    assert!(found.summary.starts_with("eth0 is down"), "{found:?}");
    assert_eq!(found.remedy[0].text, "sudo ip link set eth0 up");
}

#[test]
fn an_interface_that_does_not_say_its_hardware_address_is_told() {
    use crate::wsl::Answer::{Fails, Unknown, Works};
    let answer = |facts: &Facts| facts.rows().into_iter().find(|row| row.way == Way::LanToAddress).unwrap().answer;
    let set = |name: &str, value: &str| {
        let mut facts = facts(None, "0.0.0.0");
        let own = Address { address: "172.28.20.5".parse().unwrap(), prefix: 20 };
        facts.linux.interfaces[1].addresses = vec![own];
        facts.linux.settings.insert(format!("net.ipv4.conf.{name}.arp_ignore"), value.to_owned());
        facts
    };
    for name in ["all", "eth0"] {
        let facts = set(name, "8");
        let found = finding(&facts, "neighbours");
        assert_eq!(found.remedy[0].text, format!("sudo sysctl -w net.ipv4.conf.{name}.arp_ignore=0"));
        assert_eq!(answer(&facts), Fails);
        for value in ["0", "1", "2"] {
            assert_eq!((wrong(&set(name, value)), answer(&set(name, value))), (vec![], Works), "{name} {value}");
        }
    }
    let mut other = set("eth0", "1");
    other.linux.interfaces[1].addresses.clear();
    assert!(finding(&other, "neighbours").summary.contains("for the hardware address of 172.28.20.5"));
    let mut silent = set("eth0", "0");
    silent.linux.silent = vec!["eth0".to_owned()];
    assert_eq!(finding(&silent, "neighbours").remedy[0].text, "sudo ip link set dev eth0 arp on");
    // Whether Windows has these addresses as well, and asks, nobody knows.
    let mut shared = set("eth0", "8");
    shared.wsl.mode = Some((NetworkingMode::Mirrored, Source::Wslinfo));
    assert_eq!(answer(&shared), Unknown);
}

#[test]
fn each_family_has_routes_of_its_own() {
    use crate::wsl::Answer::{Unknown, Works};
    let mut facts = facts(None, "0.0.0.0 ::!");
    facts.linux.outer6 = Some(("fd00::5".parse().unwrap(), "eth0".to_owned()));
    let answers = |facts: &Facts| {
        let of = |way| facts.rows().into_iter().find(|row| row.way == way).unwrap().answer;
        [of(Way::LanToAddress), of(Way::Lan6)]
    };
    facts.linux.own_routing = Some("the blackhole route of 172.28.16.1/32".to_owned());
    assert_eq!(answers(&facts), [Unknown, Works]);
    facts.linux.own_routing6 = facts.linux.own_routing.take();
    assert_eq!(answers(&facts), [Works, Unknown]);
    assert_eq!(wrong(&facts), is("own_routing", Severity::Warns));
}

#[test]
fn what_no_client_can_ask_for_fails_in_the_table_too() {
    use crate::wsl::Answer::{Fails, Works};
    let mut facts = facts(None, "::!");
    facts.linux.outer6 = Some(("fd00::5".parse().unwrap(), "eth0".to_owned()));
    facts.linux.interfaces[1].addresses = vec![Address { address: "fd00::5".parse().unwrap(), prefix: 64 }];
    let tcp = r#"{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}, {"accept": null}"#;
    for (policy, answer) in [("drop", Fails), ("accept", Works)] {
        let rules = [chain("c", 1, "input", 0, policy), rule("c", 2, tcp)].join(", ");
        facts.firewalls = Firewalls::Read(Box::new(rulesets(&rules)));
        let row = facts.rows().into_iter().find(|row| row.way == Way::Lan6).unwrap();
        assert_eq!(row.answer, answer, "{row:?}");
    }
}

#[test]
fn a_strict_rp_filter_refuses_whom_it_would_answer_by_another_interface() {
    use crate::wsl::Answer::{Fails, Unknown, Works};
    let mut facts = facts(None, "0.0.0.0");
    let toward = |by: [&str; 2]| {
        let client = |text: &str| text.parse::<IpAddr>().unwrap();
        vec![(client("172.28.16.1"), by[0].to_owned()), (client("172.28.31.254"), by[1].to_owned())]
    };
    for (by, value, answer, told) in [
        (["tun9", "eth0"], "1", Unknown, is("own_routing", Severity::Warns)),
        (["tun9", "tun9"], "1", Fails, is("own_routing", Severity::Fails)),
        (["tun9", "tun9"], "2", Unknown, is("own_routing", Severity::Warns)),
        (["tun9", "eth0"], "0", Unknown, is("own_routing", Severity::Warns)),
        (["eth0", "eth0"], "1", Works, vec![]),
    ] {
        facts.linux.toward_clients = toward(by);
        facts.linux.settings.insert("net.ipv4.conf.eth0.rp_filter".to_owned(), value.to_owned());
        let row = facts.rows().into_iter().find(|row| row.way == Way::LanToAddress).unwrap();
        assert_eq!((row.answer, wrong(&facts)), (answer, told), "{by:?} {value}: {row:?}");
        // Whether an answer is lost in another network, a setting of this Linux does not change.
        let typed = crate::doctor::diagnose(&facts).into_iter().flat_map(|finding| finding.remedy).map(|line| line.text);
        let (asked, set): (Vec<_>, Vec<_>) =
            typed.filter(|text| !text.starts_with('#')).partition(|text| text.contains("route get"));
        assert_eq!((asked.len(), set), (usize::from(answer != Works), Vec::<String>::new()), "{by:?} {value}");
    }
    facts.linux.gateway = Some(("10.8.0.1".parse().unwrap(), "tun9".to_owned()));
    assert_eq!(wrong(&facts), is("network", Severity::Warns));
}
