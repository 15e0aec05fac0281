//! The gatherer on real namespaces: a refused journey, and a full accept queue.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::evidence::Silence;
use crate::journey::{Facts, Family, Flow, Origin, StageVisit};
use crate::kernel::netns::tests::{fresh, ip};

fn journey(netns: &Netns, port: u16, outcome: Outcome, stage: Stage) -> Journey {
    Journey {
        id: 1,
        time: jiff::Timestamp::now(),
        origin: Origin::Local,
        interface: Some("lo".into()),
        netns: netns.inum(),
        flow: Flow {
            family: Family::Ipv4,
            source: Ipv4Addr::LOCALHOST.into(),
            source_port: 40000,
            destination: Ipv4Addr::LOCALHOST.into(),
            destination_port: port,
            sequence: 1,
        },
        attempt: 1,
        conntrack: None,
        translated: None,
        stages: vec![StageVisit { stage, ns: 0, interface: Some("lo".into()), netns: netns.inum() }],
        answer: None,
        outcome,
        died_at: Some(stage),
        death: None,
        reason: None,
        location: None,
        complete: true,
        facts: Facts::default(),
    }
}

#[test]
fn a_refused_journey_is_told_who_listens_here_and_elsewhere() {
    let test = "a_refused_journey_is_told_who_listens_here_and_elsewhere";
    let (Some(host), Some(container)) = (fresh(test), fresh(test)) else { return };
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
    let sockets = [host.run(listen).unwrap(), container.run(listen).unwrap()];
    let mut gatherer = Gatherer::new();
    gatherer.watch(&host).unwrap();
    gatherer.watch(&container).unwrap();
    let evidence = gatherer.gather(&journey(&host, 8080, Outcome::Refused, Stage::SocketLookup));
    let here = evidence.sockets.unwrap().listeners;
    assert_eq!((here.len(), here[0].netns, here[0].pid), (1, host.inum(), Some(std::process::id())));
    assert_eq!((evidence.elsewhere.len(), evidence.elsewhere[0].netns), (1, container.inum()));
    assert_eq!(evidence.silence, None);
    drop(sockets);
    let evidence = gatherer.gather(&journey(&host, 8081, Outcome::Refused, Stage::SocketLookup));
    assert!(evidence.sockets.unwrap().listeners.is_empty() && evidence.elsewhere.is_empty());
    gatherer.forget(container.inum());
    assert_eq!(gatherer.gather(&journey(&container, 8080, Outcome::Refused, Stage::SocketLookup)).sockets, None);
}

#[test]
fn an_overflow_counts_only_after_a_reading_from_before_the_syn() {
    let Some(netns) = fresh("an_overflow_counts_only_after_a_reading_from_before_the_syn") else { return };
    ip(&netns, "link set lo up");
    let mut gatherer = Gatherer::new();
    gatherer.watch(&netns).unwrap();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, 8080).into();
    let listener = netns.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        socket
    });
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // A connection on `lo` is made or swallowed within the call.
        assert!(socket.connect(&address.into()).is_err());
        socket
    };
    let first = netns.run(connect).unwrap();
    let quiet = Silence { journeys: 1, ..Silence::default() };
    let healthy = gatherer.gather(&journey(&netns, 8081, Outcome::Ignored, Stage::Listener));
    assert_eq!((healthy.silence, healthy.route_back), (Some(quiet), Some(true)));
    let swallowed = journey(&netns, 8080, Outcome::Ignored, Stage::Listener);
    let second = netns.run(connect).unwrap();
    let evidence = gatherer.gather(&swallowed);
    assert_eq!(evidence.silence, Some(Silence { drops: 1, overflows: 1, own_drops: 1, ..quiet }));
    let queue = &evidence.sockets.unwrap().listeners[0];
    assert!(queue.queue > queue.backlog, "{queue:?}");

    let mut before_all = journey(&netns, 8080, Outcome::Ignored, Stage::Listener);
    before_all.time -= jiff::SignedDuration::from_secs(60);
    assert_eq!(gatherer.gather(&before_all).silence, None);
    assert!(listener.unwrap().as_raw_fd() >= 0 && first.as_raw_fd() != second.as_raw_fd());
}

#[test]
fn a_death_in_routing_brings_the_settings_and_a_firewall_its_kind() {
    let Some(netns) = fresh("a_death_in_routing_brings_the_settings_and_a_firewall_its_kind") else { return };
    let mut gatherer = Gatherer::new();
    gatherer.watch(&netns).unwrap();
    let evidence = gatherer.gather(&journey(&netns, 8080, Outcome::Dropped, Stage::Routing));
    assert!(evidence.sysctls.iter().any(|(name, value)| name == "net.ipv4.conf.lo.accept_local" && value == "0"));
    assert_eq!(evidence.sockets, None);
    let mut killed = journey(&netns, 8080, Outcome::Dropped, Stage::NetfilterIngress);
    killed.reason = Some("NETFILTER_DROP".to_owned());
    assert_eq!(gatherer.gather(&killed).backend, Some(super::super::Backend::Nft));
}
