//! Hand-made journeys for the tests of this directory.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Report, StallLine, Summary,
    contract::{
        Absence, AbsenceTag, Armed, ArmedTag, Detail, Interface, JourneyLine, Lost, NearMiss, PortRange, ProbeMissing, ProbeOn,
        Time, Version,
    },
};
use crate::{
    evidence::{Backend, Connection, Evidence, Listener, Owner, Rule, Silence, Sockets},
    journey::{Conntrack, DeathPlace, Facts, Family, Flow, Journey, Origin, Outcome, Stage, StageVisit, Translated},
};

pub(crate) const NETNS: u32 = 4_026_531_840;
pub(crate) const CONTAINER: u32 = 4_026_532_201;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn time() -> Timestamp {
    "2026-11-22T21:14:03.123456789Z".parse().unwrap()
}

/// A journey from a client on Windows that passed these stages of eth0 and ended so.
pub(crate) fn journey(stages: &[Stage], outcome: Outcome, died_at: Option<Stage>, reason: Option<(&str, &str)>) -> Journey {
    let steps =
        [0, 3_173, 4_020, 5_511, 7_002, 9_930, 12_400, 15_100, 19_950, 21_000, 30_500, 47_000, 51_200, 55_000, 58_250, 70_000];
    let visits = stages.iter().zip(steps).map(|(stage, ns)| StageVisit {
        stage: *stage,
        ns,
        interface: Some("eth0".into()),
        netns: NETNS,
    });
    Journey {
        id: 7,
        time: time(),
        origin: Origin::Remote,
        interface: Some("eth0".into()),
        netns: NETNS,
        flow: Flow {
            family: Family::Ipv4,
            source: ip("172.28.16.1"),
            source_port: 51234,
            destination: ip("172.28.16.2"),
            destination_port: 8080,
            sequence: 305_419_896,
        },
        attempt: 1,
        conntrack: Some(Conntrack::New),
        translated: None,
        stages: visits.collect(),
        answer: stages.iter().position(|stage| matches!(stage, Stage::SynAck | Stage::Output)),
        outcome,
        died_at,
        death: died_at.map(|_| DeathPlace { netns: NETNS, interface: Some("eth0".into()) }),
        reason: reason.map(|(reason, _)| reason.into()),
        location: reason.map(|(_, location)| location.into()),
        complete: true,
        facts: Facts::default(),
    }
}

pub(crate) fn listener(address: &str) -> Listener {
    Listener {
        address: ip(address),
        port: 8080,
        v6only: false,
        device: None,
        queue: 0,
        backlog: 4096,
        pid: Some(412),
        command: Some("server".into()),
        netns: NETNS,
    }
}

pub(crate) fn with_listeners(listeners: Vec<Listener>) -> Evidence {
    Evidence { sockets: Some(Sockets { listeners }), ..Evidence::default() }
}

pub(crate) const PREROUTING: [Stage; 7] = {
    use Stage as S;
    [S::TcIngress, S::Prerouting, S::PreroutingRaw, S::Conntrack, S::PreroutingMangle, S::Dnat, S::Routing]
};

pub(crate) fn after_prerouting(more: &[Stage]) -> Vec<Stage> {
    PREROUTING.iter().chain(more).copied().collect()
}

pub(crate) fn to_socket(more: &[Stage]) -> Vec<Stage> {
    let input = [Stage::Input, Stage::InputMangle, Stage::InputFilter, Stage::InputSecurity, Stage::SocketLookup];
    after_prerouting(&[&input, more].concat())
}

pub(crate) fn healthy() -> Report {
    let mut journey = journey(&to_socket(&[Stage::SynAck, Stage::TcEgress, Stage::Established]), Outcome::Answered, None, None);
    journey.facts = Facts { syn_ack: true, answer_left: true, acknowledged: true, established: true, ..Facts::default() };
    Report::new(journey, Evidence::default())
}

pub(crate) fn firewall(rule: Option<Rule>) -> Report {
    let stages = after_prerouting(&[Stage::Input, Stage::InputMangle, Stage::InputFilter]);
    let died = Some(Stage::InputFilter);
    let journey = journey(&stages, Outcome::Dropped, died, Some(("NETFILTER_DROP", "nft_do_chain+0x3e8")));
    Report::new(journey, Evidence { rule, ..Evidence::default() })
}

pub(crate) fn rule() -> Rule {
    Rule {
        backend: Backend::IptablesNft,
        family: "ip".into(),
        table: "filter".into(),
        chain: "INPUT".into(),
        handle: Some(4),
        number: None,
        text: Some("tcp dport 8080 counter drop".into()),
        comment: Some("block web".into()),
        verdict: "drop".into(),
        owner: Owner::User,
        without_users_chain: false,
        at_chains_end: false,
    }
}

pub(crate) fn bound_elsewhere() -> Report {
    let stages = to_socket(&[Stage::Output, Stage::OutputFilter, Stage::TcEgress]);
    let mut journey = journey(&stages, Outcome::Refused, Some(Stage::SocketLookup), Some(("NO_SOCKET", "tcp_v4_rcv+0x91")));
    journey.facts = Facts { reset: true, kernel_reset: true, answer_left: true, socket_lookup: true, ..Facts::default() };
    let mut there = listener("127.0.0.1");
    there.command = Some("ser\x1b[31mver".into());
    Report::new(journey, with_listeners(vec![there]))
}

pub(crate) fn container() -> Report {
    let stages = after_prerouting(&[
        Stage::Forward,
        Stage::ForwardFilter,
        Stage::Postrouting,
        Stage::TcEgress,
        Stage::Input,
        Stage::SocketLookup,
    ]);
    let mut journey = journey(&stages, Outcome::Refused, Some(Stage::SocketLookup), Some(("NO_SOCKET", "tcp_v4_rcv+0x91")));
    for (index, visit) in journey.stages.iter_mut().enumerate().skip(7) {
        let inside = index > 10;
        visit.interface = Some(if inside { "eth0" } else { "docker0" }.into());
        visit.netns = if inside { CONTAINER } else { NETNS };
    }
    journey.death = Some(DeathPlace { netns: CONTAINER, interface: Some("eth0".into()) });
    journey.translated = Some(Translated {
        source: ip("172.28.16.1"),
        source_port: 51234,
        destination: ip("172.17.0.2"),
        destination_port: 80,
        rule: None,
    });
    journey.facts = Facts { kernel_reset: true, reset: true, socket_lookup: true, ..Facts::default() };
    Report::new(journey, with_listeners(Vec::new()))
}

/// One SYN was swallowed, for a full accept queue.
pub(crate) const OVERFLOWED: Silence = Silence { drops: 1, overflows: 1, syn_queue_full: 0, own_drops: 1, journeys: 1 };

pub(crate) fn ignored() -> Report {
    let journey = journey(&to_socket(&[]), Outcome::Ignored, Some(Stage::Listener), None);
    let full = Listener { queue: 2, backlog: 1, ..listener("0.0.0.0") };
    Report::new(journey, Evidence { silence: Some(OVERFLOWED), ..with_listeners(vec![full]) })
}

pub(crate) fn routing(reason: &str) -> Report {
    Report::new(
        journey(&PREROUTING, Outcome::Dropped, Some(Stage::Routing), Some((reason, "ip_rcv_finish_core+0x18c"))),
        Evidence { sysctls: vec![("net.ipv4.conf.eth0.rp_filter".into(), "1".into())], ..Evidence::default() },
    )
}

pub(crate) fn other(outcome: Outcome) -> Report {
    let stages = to_socket(&[Stage::SynAck, Stage::OutputFilter]);
    let died = (outcome == Outcome::AnswerDropped).then_some(Stage::OutputFilter);
    let reason = died.map(|_| ("NETFILTER_DROP", "nft_do_chain+0x3e8"));
    let mut journey = journey(&stages, outcome, died, reason);
    match outcome {
        Outcome::Rejected => {
            journey = firewall(None).journey;
            journey.outcome = outcome;
            journey.facts.icmp = true;
        }
        Outcome::Challenged => {
            journey.stages.truncate(11);
            journey.died_at = Some(Stage::Listener);
            journey.reason = Some("TCP_INVALID_SYN".into());
        }
        Outcome::Forwarded => journey.stages = container().journey.stages.into_iter().take(11).collect(),
        Outcome::Unfinished => journey.stages.truncate(10),
        _ => {}
    }
    journey.facts.syn_ack = matches!(outcome, Outcome::Answered | Outcome::AnswerDropped);
    journey.facts.syn_ack_again = outcome == Outcome::Answered;
    Report::new(journey, Evidence::default())
}

/// A connection whose full packets do not arrive.
pub(crate) fn stall() -> StallLine {
    let journey = journey(&[Stage::TcIngress, Stage::Established], Outcome::Answered, None, None);
    let connection = Connection {
        retransmissions: 3,
        probes: 0,
        unconfirmed: 6,
        arrived_behind: 1,
        unconfirmed_bytes: 8192,
        confirmed_bytes: 1,
        received_bytes: 80,
        unread_bytes: 0,
        waiting_bytes: 1024,
        window_bytes: 64_000,
        segment_bytes: 1448,
        path_mtu: 1500,
        silent_ms: 1_420,
    };
    StallLine::new(
        time(),
        &journey,
        &connection,
        crate::diagnosis::stall(&journey, &connection, &crate::diagnosis::Lately::default()).unwrap(),
    )
}

pub(crate) fn armed() -> Armed {
    let missing = ProbeMissing {
        probe: "security_sock_graft".into(),
        reason: "this kernel refuses fentry programs".into(),
        cost: "whether the application accepts is not seen".into(),
    };
    Armed {
        r#type: ArmedTag::Armed,
        schema: Version,
        time: Time(time()),
        netns: NETNS,
        ports: vec![PortRange { first: 8080, last: 8080 }],
        detail: Detail::Full,
        interfaces: interfaces(),
        probes_on: vec![ProbeOn { name: "netfilter".into(), count: 44 }, ProbeOn { name: "tc_ingress".into(), count: 3 }],
        probes_missing: vec![missing],
    }
}

pub(crate) fn start() -> super::Start {
    super::Start {
        listeners: vec![listener("127.0.0.1")],
        containers: false,
        invitation: "now open http://localhost:8080/ in a browser on Windows".into(),
    }
}

fn interfaces() -> Vec<Interface> {
    ["lo", "eth0", "loopback0"]
        .iter()
        .zip(1..)
        .map(|(name, index)| Interface { name: (*name).into(), netns: NETNS, index })
        .collect()
}

pub(crate) fn waited() -> super::Waited {
    super::Waited {
        why: super::Why::Time(std::time::Duration::from_secs(10)),
        from: Vec::new(),
        interfaces: Vec::new(),
        hidden: 0,
        astray: None,
        protected: false,
    }
}

pub(crate) fn absence() -> Absence {
    Absence {
        r#type: AbsenceTag::Absence,
        schema: Version,
        time: Time(time()),
        seconds: 10,
        ports: vec![PortRange { first: 8080, last: 8080 }],
        interfaces: interfaces(),
        mode: Some("nat".into()),
        message: super::absence_message(&waited(), Some("nat"), 8080, &["nothing listens on port 8080 in this Linux".to_owned()]),
        near_misses: vec![NearMiss { port: 8081, interface: "eth0".into(), count: 3 }],
    }
}

pub(crate) fn reports() -> Vec<Report> {
    let mut all = vec![
        healthy(),
        firewall(None),
        firewall(Some(rule())),
        bound_elsewhere(),
        container(),
        ignored(),
        routing("IP_RPFILTER"),
    ];
    all.extend(
        [
            Outcome::Rejected,
            Outcome::Challenged,
            Outcome::AnswerDropped,
            Outcome::Forwarded,
            Outcome::Unfinished,
            Outcome::Answered,
        ]
        .map(other),
    );
    for (report, id) in all.iter_mut().zip(1..) {
        report.journey.id = id;
        report.journey.flow.sequence = u32::try_from(id).unwrap();
        // Far enough apart to be attempts of their own.
        report.journey.time += std::time::Duration::from_secs(id);
    }
    all
}

pub(crate) fn summary() -> super::contract::SummaryLine {
    let mut summary = Summary::default();
    for report in reports() {
        summary.add(&report.journey, &report.diagnosis);
    }
    summary.line(time(), 34_200_000_000, Lost { ring_full: 3, ..Lost::default() })
}

/// One of each type of line.
pub(crate) fn lines() -> Vec<Value> {
    let journeys = reports();
    let mut lines: Vec<_> = journeys.iter().map(|report| serde_json::to_value(JourneyLine::from(report)).unwrap()).collect();
    lines.push(serde_json::to_value(armed()).unwrap());
    lines.push(serde_json::to_value(absence()).unwrap());
    lines.push(serde_json::to_value(stall()).unwrap());
    lines.push(serde_json::to_value(summary()).unwrap());
    lines
}
