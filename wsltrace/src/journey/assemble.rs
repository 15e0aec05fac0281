//! From a record to a journey: stages in users' words, and how it ended. Pure; names of interfaces, drop reasons and symbols
//! come through [`Names`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wsltrace_common::{Address, Death, Flags, Record, StageCode, StageEntry, octets};

use super::end::{confirmation_death, died_at, end, has_left_its_hook, outcome, told_end};
use super::lent::where_answered;
use super::way::{Way, entries};
use super::{
    Conntrack, DataDrop, DeathPlace, Facts, Family, Flow, InterfaceName, Journey, Origin, Outcome, Translated,
    reasons::{is_taken, keeps_from_being_made},
};

/// Names for the numbers in a record.
pub trait Names {
    /// The interface with this number in this namespace.
    fn interface(&self, netns: u32, ifindex: u32) -> Option<InterfaceName>;
    /// A drop reason without its prefix.
    fn reason(&self, number: u32) -> Option<String>;
    /// `symbol+0xoffset` of a code address.
    fn location(&self, address: u64) -> Option<String>;
    /// Whether the connecting task is WSL's localhost relay.
    fn is_relay(&self, tgid: u32, comm: &[u8; 16]) -> bool;
    /// Wall-clock time of an instant of `CLOCK_MONOTONIC`, nanoseconds.
    fn time(&self, monotonic_ns: u64) -> jiff::Timestamp;
}

/// Makes a journey of a record. `id` counts the journeys of this run.
pub fn assemble(record: &Record, id: u64, names: &impl Names) -> Journey {
    let moved = where_answered(record);
    let record = moved.as_ref().unwrap_or(record);
    let reason_of = |death: Death| if death.reason == 0 { None } else { names.reason(death.reason) };
    let by_netfilter = |death: &Death| reason_of(*death).as_deref() == Some("NETFILTER_DROP");
    let of_data = record.flags & Flags::DATA_DROPPED != 0;
    let data_dropped = reason_of(record.confirmation_death).filter(|_| of_data).and_then(|reason| DataDrop::of(&reason));
    let at_confirmation = by_netfilter(&record.death) && has_left_its_hook(record);
    let location_of = |death: Death| if death.location == 0 { None } else { names.location(death.location) };
    let died = record.confirmation_death;
    let of_confirmation = record.flags & (Flags::CONFIRMATION_DROPPED | Flags::DATA_DROPPED) == Flags::CONFIRMATION_DROPPED;
    let confirmation_taken =
        of_confirmation && died.time_ns != 0 && is_taken(reason_of(died).as_deref(), location_of(died).as_deref());
    let facts = Facts { confirmation_taken, data_dropped, at_confirmation, ..facts(record) };
    let reason = end(record).and_then(reason_of);
    let outcome = outcome(record, facts, reason.as_deref());
    let location = end(record).and_then(location_of);
    let mut way = Way::read(record);
    let died_at = died_at(record, outcome, (reason.as_deref(), location.as_deref()), &mut way);
    if outcome == Outcome::Unfinished {
        way.infer_waiting(facts.syn_ack);
    }
    let for_good = |death: &Death| keeps_from_being_made(reason_of(*death).as_deref(), location_of(*death).as_deref());
    let unconfirmed = || confirmation_death(record, outcome).filter(for_good).filter(|_| !facts.answer_from_outside);
    let ended = if died_at.is_some() { end(record) } else { unconfirmed() };
    // Where it is over process 1 a kernel may not tell of a packet that it frees, and count no missed event either.
    let has_ended = died_at.is_some() || outcome == Outcome::Unfinished && end(record).is_some();
    let may_be_untold = outcome == Outcome::Unfinished && record.flags & Flags::OVER_PROCESS_1 != 0;
    let end_is_missing = (has_ended || may_be_untold) && told_end(record).is_none();
    let interface = |netns, ifindex| if ifindex == 0 { None } else { names.interface(netns, ifindex) };
    let (stages, answer) = way.visits(&interface);
    Journey {
        id,
        time: names.time(record.first_ns),
        origin: origin(record, names),
        interface: interface(record.netns, record.ifindex),
        netns: record.netns,
        flow: flow(record),
        attempt: record.attempt,
        conntrack: conntrack(record),
        translated: translated(record),
        stages,
        answer,
        outcome,
        died_at,
        death: ended.map(|death| DeathPlace { netns: death.netns, interface: interface(death.netns, death.ifindex) }),
        reason: ended.and_then(reason_of),
        location: ended.and_then(location_of),
        complete: record.flags & Flags::INCOMPLETE == 0 && !end_is_missing,
        facts,
    }
}

pub(super) fn facts(record: &Record) -> Facts {
    let has = |flag| record.flags & flag != 0;
    Facts {
        lasted_ns: record.last_ns.saturating_sub(record.first_ns),
        syn_ack: has(Flags::SYN_ACK),
        reset: has(Flags::RESET),
        kernel_reset: has(Flags::KERNEL_RESET) && !has(Flags::SYN_ACK),
        confirmation_reset: has(Flags::KERNEL_RESET) && has(Flags::SYN_ACK) && !has(Flags::ESTABLISHED),
        icmp: has(Flags::ICMP),
        answer_left: has(Flags::ANSWER_LEFT),
        answer_elsewhere: has(Flags::ANSWER_ELSEWHERE),
        answer_from_outside: has(Flags::ANSWER_FROM_OUTSIDE) && !is_answered_in_a_vrf(record),
        answer_alien: has(Flags::ANSWER_ALIEN),
        acknowledged: has(Flags::ACK),
        established: has(Flags::ESTABLISHED),
        not_accepted: has(Flags::NOT_ACCEPTED),
        server_reset_ns: has(Flags::SERVER_RESET).then(|| lasted(record, StageCode::Established)).flatten(),
        server_closed_ns: has(Flags::SERVER_CLOSED).then(|| lasted(record, StageCode::Established)).flatten(),
        data_dropped: None,
        syn_ack_again: has(Flags::SYN_ACK_AGAIN),
        socket_lookup: entries(record).any(|(code, _)| code == StageCode::SocketLookup),
        consumed: record.consumed.time_ns != 0,
        seen_as_copy: record.death.time_ns == 0 && record.stray.time_ns != 0,
        answered_before: has(Flags::ANSWERED_BEFORE),
        asked_again: has(Flags::SUPERSEDED),
        at_confirmation: false,
        confirmation_taken: false,
    }
}

/// What leaves by a VRF passes its POSTROUTING before any OUTPUT; what comes from outside is never first seen there.
fn is_answered_in_a_vrf(record: &Record) -> bool {
    let mut answer = entries(record).filter(|(_, entry)| entry.time_and_code & StageEntry::ANSWER != 0);
    answer.next().is_some_and(|(code, _)| code == StageCode::Postrouting)
}

/// The time from the stage's last visit to the record's last event.
fn lasted(record: &Record, stage: StageCode) -> Option<u64> {
    let since = entries(record)
        .filter(|(code, _)| *code == stage)
        .last()
        .map(|(_, entry)| entry.time_and_code >> StageEntry::TIME_SHIFT)?;
    Some(record.last_ns.saturating_sub(record.first_ns).saturating_sub(since))
}

fn origin(record: &Record, names: &impl Names) -> Origin {
    if record.flags & Flags::LOCAL == 0 {
        Origin::Remote
    } else if names.is_relay(record.tgid, &record.comm) {
        Origin::WslLocalhostRelay
    } else {
        Origin::Local
    }
}

fn address(address: Address, family: u32) -> IpAddr {
    let octets = octets(address);
    let [.., a, b, c, d] = octets;
    if family == 4 { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { IpAddr::V6(Ipv6Addr::from(octets)) }
}

/// The client's address as first seen.
pub fn source(record: &Record) -> IpAddr {
    address(record.flow.source, record.flow.family)
}

fn flow(record: &Record) -> Flow {
    let flow = &record.flow;
    Flow {
        family: if flow.family == 4 { Family::Ipv4 } else { Family::Ipv6 },
        source: source(record),
        source_port: flow.source_port,
        destination: address(flow.destination, flow.family),
        destination_port: flow.destination_port,
        sequence: record.key.sequence,
    }
}

fn translated(record: &Record) -> Option<Translated> {
    let now = &record.now;
    if record.flags & Flags::TRANSLATED == 0 || *now == record.flow {
        return None;
    }
    Some(Translated {
        source: address(now.source, now.family),
        source_port: now.source_port,
        destination: address(now.destination, now.family),
        destination_port: now.destination_port,
        rule: None,
    })
}

/// `enum ip_conntrack_info`.
fn conntrack(record: &Record) -> Option<Conntrack> {
    if record.flags & Flags::CONNTRACK == 0 {
        return None;
    }
    match record.conntrack {
        0 => Some(Conntrack::Established),
        1 => Some(Conntrack::Related),
        2 => Some(Conntrack::New),
        3 | 4 => Some(Conntrack::Reply),
        7 => Some(Conntrack::Untracked),
        _ => None,
    }
}
