//! Judgements on refusals by the sockets, on hand-made journeys.

use super::{
    Code, Confidence,
    tests::{dropped, expect},
};
use crate::{
    evidence::Evidence,
    journey::{Journey, Origin, Stage, Translated},
    output::samples::{self, CONTAINER, after_prerouting, ip, listener, with_listeners},
};

use Confidence::{Inferred, Proved};

#[test]
fn a_port_that_nat_leads_on_is_let_be_tracked() {
    let refused = samples::bound_elsewhere().journey;
    let notrack = crate::evidence::Rule {
        text: Some("tcp dport 8080 notrack".into()),
        verdict: "notrack".into(),
        backend: crate::evidence::Backend::Nft,
        ..samples::rule()
    };
    let exempted = Evidence { exempted_by: Some(notrack), ..with_listeners(Vec::new()) };
    let found = expect(&refused, &exempted, Code::NoListener, Proved);
    assert!(found.remedy.iter().any(|line| line.contains("start the server")), "{:?}", found.remedy);
    let led = Evidence { led_on_to: Some(ip("172.17.0.2")), ..exempted };
    let found = expect(&refused, &led, Code::NoListener, Proved);
    assert_eq!(found.remedy[1..], ["sudo nft delete rule ip filter INPUT handle 4"]);
    assert!(found.summary.contains("did not take this connection"), "{}", found.summary);
}

fn refused() -> Journey {
    samples::bound_elsewhere().journey
}

#[test]
fn refused_is_told_apart_by_the_listeners() {
    let j = refused();
    let found = expect(&j, &with_listeners(vec![listener("127.0.0.1")]), Code::ListenerBoundElsewhere, Proved);
    assert!(found.summary.contains("server (pid 412) listens on 127.0.0.1:8080 only"));
    expect(&j, &with_listeners(vec![listener("::1")]), Code::ListenerOtherFamily, Proved);
    let only = crate::evidence::Listener { v6only: true, ..listener("::") };
    expect(&j, &with_listeners(vec![only.clone()]), Code::ListenerOtherFamily, Proved);
    expect(&j, &with_listeners(vec![only, listener("127.0.0.1")]), Code::ListenerBoundElsewhere, Proved);
    let device = crate::evidence::Listener { device: Some("lo".into()), ..listener("0.0.0.0") };
    expect(&j, &with_listeners(vec![device]), Code::SocketPolicy, Proved);
    let there = crate::evidence::Listener { netns: CONTAINER, ..listener("0.0.0.0") };
    let elsewhere = Evidence { elsewhere: vec![there], ..with_listeners(Vec::new()) };
    let found = expect(&j, &elsewhere, Code::ListenerOtherNetns, Proved);
    assert!(found.remedy[1].contains("docker run -p 8080:8080"), "{found:?}");
    // A macvlan network publishes no ports.
    let beside = Evidence { elsewhere_at: Some(ip("172.28.16.9")), ..elsewhere.clone() };
    let found = expect(&j, &beside, Code::ListenerOtherNetns, Proved);
    assert!(found.remedy[1].contains("let the client ask 172.28.16.9:8080"), "{found:?}");
    // Led to a container's port by a rule: another container's server on that port has nothing to do with it.
    let mut published = j.clone();
    let now = Translated {
        source: j.flow.source,
        source_port: j.flow.source_port,
        destination: ip("172.17.0.2"),
        destination_port: 80,
        rule: None,
    };
    published.translated = Some(now);
    expect(&published, &elsewhere, Code::NoListener, Proved);
    // A rule of PREROUTING takes none of this machine's own.
    let led = Evidence { led_on_to: Some(ip("172.17.0.2")), ..with_listeners(Vec::new()) };
    let found = expect(&j, &led, Code::NoListener, Proved);
    assert!(found.summary.contains("leads this port on to 172.17.0.2, but did not take this connection"), "{}", found.summary);
    let found = expect(&Journey { origin: Origin::Local, ..j.clone() }, &led, Code::NoListener, Proved);
    assert!(found.summary.contains("meet no rule of PREROUTING") && found.remedy[0].contains("nat OUTPUT"), "{found:?}");
    let by = Evidence { led_on_by: Some(ip("172.28.16.3")), ..led.clone() };
    let found = expect(&j, &by, Code::NoListener, Proved);
    assert!(
        found.summary.contains("but only for those who ask 172.28.16.3") && found.remedy[0].contains("ask for 172.28.16.3"),
        "{found:?}"
    );
    let except = |name: &str| Evidence { led_on_except: Some(name.to_owned()), ..led.clone() };
    let found = expect(&j, &except("eth0"), Code::NoListener, Proved);
    assert!(found.summary.contains("it leaves alone what comes in by eth0"), "{}", found.summary);
    assert!(found.remedy[0].contains("ask 172.17.0.2 itself"), "{found:?}");
    let found = expect(&j, &except("docker0"), Code::NoListener, Proved);
    assert!(!found.summary.contains("leaves alone"), "{}", found.summary);
    let v6 = Evidence { led_on_to: Some(ip("fd00::2")), ..with_listeners(Vec::new()) };
    assert!(expect(&j, &v6, Code::NoListener, Proved).summary.contains("it is for IPv6, and the client came by IPv4"));
    expect(&j, &with_listeners(Vec::new()), Code::NoListener, Proved);
    expect(&j, &Evidence::default(), Code::NoListener, Inferred);
    // A dual-stack listener takes IPv4: it can only have been started later.
    expect(&j, &with_listeners(vec![listener("::")]), Code::NoListener, Inferred);
}

#[test]
fn a_refusal_beside_a_fitting_listener_is_put_down_to_a_program_that_chooses_listeners() {
    let j = refused();
    let programs = vec!["first".to_owned(), "second".to_owned()];
    let evidence = Evidence { lookup_programs: programs.clone(), ..with_listeners(vec![listener("0.0.0.0")]) };
    assert!(expect(&j, &evidence, Code::SocketPolicy, Inferred).summary.contains("(sk_lookup: first, second)"));
    let nobody = Evidence { lookup_programs: programs, ..with_listeners(Vec::new()) };
    expect(&j, &nobody, Code::NoListener, Proved);
}

#[test]
fn a_refusal_beside_a_fitting_listener_is_put_down_to_a_program_of_its_shared_port() {
    let j = refused();
    let choosing = vec!["chooser".to_owned()];
    let evidence = Evidence { choosing_programs: choosing.clone(), ..with_listeners(vec![listener("0.0.0.0")]) };
    assert!(expect(&j, &evidence, Code::SocketPolicy, Inferred).summary.contains("(SO_REUSEPORT: chooser)"));
    let elsewhere = Evidence { choosing_programs: choosing, ..with_listeners(vec![listener("127.0.0.1")]) };
    expect(&j, &elsewhere, Code::ListenerBoundElsewhere, Proved);
}

#[test]
fn a_listener_of_no_vrf_gets_nothing_that_comes_by_one() {
    let j = refused();
    let setting = |value: &str| vec![("net.ipv4.tcp_l3mdev_accept".to_owned(), value.to_owned())];
    let by_red =
        |value| Evidence { vrf: Some("red".into()), sysctls: setting(value), ..with_listeners(vec![listener("0.0.0.0")]) };
    let found = expect(&j, &by_red("0"), Code::SocketPolicy, Proved);
    assert_eq!(found.remedy[0], "sudo sysctl -w net.ipv4.tcp_l3mdev_accept=1");
    expect(&j, &by_red("1"), Code::NoListener, Inferred);
}

#[test]
fn a_refusal_that_cannot_be_sent_is_still_one_of_the_sockets() {
    let journey = dropped(&after_prerouting(&[Stage::SocketLookup]), "NO_SOCKET", "tcp_v4_rcv+0x99");
    let alone = Evidence { route_back: Some(false), ..with_listeners(Vec::new()) };
    let found = expect(&journey, &alone, Code::NoListener, Proved);
    assert!(
        found.summary.contains("there is no route back to 172.28.16.1, so the kernel's refusal was not sent"),
        "{}",
        found.summary
    );
    assert!(found.remedy.iter().any(|line| line.contains("route add 172.28.16.1")), "{:?}", found.remedy);
    let elsewhere = Evidence { route_back: Some(false), ..with_listeners(vec![listener("127.0.0.1")]) };
    expect(&journey, &elsewhere, Code::ListenerBoundElsewhere, Proved);
}
