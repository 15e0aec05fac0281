//! Records made by hand, and the names that go with them.

use jiff::Timestamp;
use wsltrace_common::{Address, Death, Flow, Key, MAX_STAGES, Record, StageCode, StageEntry};

use super::assemble::{Names, assemble};
use super::{Journey, Stage};

pub(super) struct Made;
/// Where IPv6 frees what waited for a neighbour.
pub(super) const OF_NDISC: u64 = 0xd15c;
/// Where IPv4 frees what has no route.
pub(super) const OF_ROUTING: u64 = 0xe404;

impl Names for Made {
    fn interface(&self, _netns: u32, ifindex: u32) -> Option<super::InterfaceName> {
        Some(format!("eth{ifindex}").as_str().into())
    }

    fn reason(&self, number: u32) -> Option<String> {
        let names = ["", "NETFILTER_DROP", "NO_SOCKET", "NEIGH_FAILED", "IP_RPFILTER", "TC_EGRESS", "PACKET_SOCK_ERROR"];
        names.get(number as usize).map(|name| (*name).to_owned())
    }

    fn location(&self, address: u64) -> Option<String> {
        Some(match address {
            OF_NDISC => "ndisc_error_report+0x52".to_owned(),
            OF_ROUTING => "ip_error+0x94".to_owned(),
            _ => format!("function+{address:#x}"),
        })
    }

    fn is_relay(&self, _tgid: u32, comm: &[u8; 16]) -> bool {
        comm.starts_with(b"init\0")
    }

    fn time(&self, _monotonic_ns: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

pub(super) const NETFILTER_DROP: u32 = 1;
pub(super) const NO_SOCKET: u32 = 2;
pub(super) const NEIGH_FAILED: u32 = 3;
pub(super) const RPFILTER: u32 = 4;
pub(super) const TC_EGRESS: u32 = 5;
pub(super) const PACKET_SOCK_ERROR: u32 = 6;

pub(super) const TO_ROUTING: [StageCode; 7] = {
    use StageCode as C;
    [C::TcIngress, C::Prerouting, C::PreroutingRaw, C::PreroutingConntrack, C::PreroutingMangle, C::PreroutingDnat, C::Routing]
};

pub(super) const TO_LOOKUP: [StageCode; 6] = {
    use StageCode as C;
    [C::Input, C::InputMangle, C::InputFilter, C::InputSecurity, C::InputEnd, C::SocketLookup]
};

pub(super) const ANSWER: [StageCode; 3] = [StageCode::Output, StageCode::Postrouting, StageCode::TcEgress];

pub(super) fn mapped(last: u8) -> Address {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])]
}

pub(super) fn never() -> Death {
    Death { time_ns: 0, location: 0, reason: 0, netns: 0, ifindex: 0, stage_count: 0 }
}

/// A record whose SYN passed these stages, 1 microsecond apart.
pub(super) fn record(syn: &[&[StageCode]]) -> Record {
    let flow = Flow { source: mapped(1), destination: mapped(2), source_port: 5000, destination_port: 8080, family: 4 };
    let mut record = Record {
        key: Key { address: mapped(1), sequence: 77, port: 5000, slot: 0 },
        flow,
        now: flow,
        first_ns: 1_000_000,
        last_ns: 0,
        skb: 0,
        answer_skb: 0,
        death: never(),
        consumed: never(),
        answer_death: never(),
        stray: never(),
        confirmation_death: never(),
        counted: 0,
        flags: 0,
        attempt: 1,
        netns: 1,
        ifindex: 2,
        syn_netns: 1,
        syn_ifindex: 2,
        answer_netns: 1,
        answer_ifindex: 2,
        tgid: 0,
        conntrack: 0,
        payload_len: 0,
        stage_count: 0,
        comm: [0; 16],
        stages: [StageEntry { time_and_code: 0, netns: 1, ifindex: 2 }; MAX_STAGES],
    };
    for code in syn.iter().copied().flatten() {
        add(&mut record, *code, false);
    }
    record
}

pub(super) fn add(record: &mut Record, code: StageCode, answer: bool) {
    let index = record.stage_count as usize;
    let ns = 200 + 1000 * index as u64;
    let answer = if answer { StageEntry::ANSWER } else { 0 };
    record.stages[index].time_and_code = ns << StageEntry::TIME_SHIFT | answer | u64::from(code as u8);
    record.stage_count += 1;
}

pub(super) fn answered(mut record: Record, flags: u32, stages: &[StageCode]) -> Record {
    record.flags |= flags;
    for code in stages {
        add(&mut record, *code, true);
    }
    record
}

pub(super) fn died(record: &Record, reason: u32) -> Death {
    Death { time_ns: 1_100_000, location: 0x10, reason, netns: 1, ifindex: 2, stage_count: record.stage_count }
}

pub(super) fn names(journey: &Journey) -> Vec<Stage> {
    assert!(journey.stages.windows(2).all(|pair| pair[0].ns < pair[1].ns), "{:?}", journey.stages);
    assert_eq!(journey.stages.first().map(|visit| visit.ns), Some(0));
    journey.stages.iter().map(|visit| visit.stage).collect()
}

pub(super) fn made(record: &Record) -> Journey {
    assemble(record, 1, &Made)
}
