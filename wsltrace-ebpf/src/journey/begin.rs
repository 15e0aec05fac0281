//! The beginning of a journey.

use wsltrace_common::{Attempt, Counted, Counter, FIRST_SLOT, Flags, Key, NAMESPACE_TRACED, StageCode};

use super::{
    Found, cell, copy,
    find::{add_alias, find, newest},
    now_ns, push, visit,
};
use crate::{
    debug,
    kernel::{Place, current_task, is_over_process_1},
    maps::{IN_FLIGHT, NETWORK_NAMESPACES, SWITCH_ARMED, asleep, count, nobody_waits, port_is_traced, switched_on},
    packet::Packet,
};

/// How long after its first stage a packet may still come to its entrance a second time, as with a VRF. A client sends its SYN again
/// after a second.
const SAME_PACKET_NS: u64 = 100_000_000;

/// What `journey_open` answers.
const NO_JOURNEY: u32 = 0;
const BEGUN: u32 = 1;
const KNOWN: u32 = 2;

/// A SYN stands at an entrance: its journey, its first or its next attempt, begins where journeys begin, or goes on. Whether it
/// has one.
#[inline(always)]
pub fn enter(packet: &Packet, place: Place, local: bool) -> bool {
    // SAFETY: a reference is valid.
    let opened = unsafe { journey_open(packet, place.netns, place.ifindex, u32::from(local)) };
    if opened == KNOWN {
        visit(packet, entrance(local), place);
    }
    opened != NO_JOURNEY
}

#[inline(always)]
fn entrance(local: bool) -> StageCode {
    if local { StageCode::Output } else { StageCode::TcIngress }
}

/// A global BPF function, see packet/mod.rs.
///
/// # Safety
///
/// `packet` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_open(packet: *const Packet, netns: u32, ifindex: u32, local: u32) -> u32 {
    // SAFETY: as the caller promises.
    let Some(packet) = (unsafe { packet.as_ref() }) else { return NO_JOURNEY };
    let (place, local) = (Place { netns, ifindex }, local != 0);
    // While nothing is being followed there is none to find, and four tables need not be searched.
    let known = if asleep() && nobody_waits() { None } else { find(packet) };
    match known {
        Some(found) if !is_next_attempt(&found, packet, place, local) => KNOWN,
        _ if begin(packet, place, local).is_some() => BEGUN,
        _ => NO_JOURNEY,
    }
}

#[inline(always)]
fn begin(packet: &Packet, place: Place, local: bool) -> Option<()> {
    if !switched_on(SWITCH_ARMED) || !port_is_traced(packet.flow.destination_port) {
        return None;
    }
    // SAFETY: the namespaces change only when containers come and go; a value is one word.
    let namespace = *unsafe { NETWORK_NAMESPACES.get(place.netns) }?;
    if namespace != NAMESPACE_TRACED {
        return None;
    }
    let attempt = next_attempt(packet);
    let key = Key { slot: attempt.slot, ..packet.key };
    if attempt.slot != FIRST_SLOT {
        cell::remember(&packet.key, &attempt, 0);
    }
    let Some(found) = cell::take(&key, Counted::IN_FLIGHT) else {
        count(Counter::TableFull);
        return None;
    };
    IN_FLIGHT.increment();
    let record = found.record();
    copy(&packet.flow, &mut record.flow);
    copy(&packet.flow, &mut record.now);
    record.first_ns = now_ns();
    record.skb = packet.carrier.skb;
    record.flags = attempt.flags;
    record.attempt = u32::from(attempt.number);
    record.netns = place.netns;
    record.ifindex = place.ifindex;
    record.payload_len = packet.payload_len;
    if is_over_process_1() {
        record.flags |= Flags::OVER_PROCESS_1;
    }
    if local {
        record.flags |= Flags::LOCAL;
        (record.tgid, record.comm) = current_task();
    }
    if packet.payload_len > 0 {
        let sequence = packet.key.sequence.wrapping_add(packet.payload_len);
        add_alias(&found, &key, &Key { sequence, ..packet.key });
    }
    push(record, entrance(local) as u8, false, place);
    cell::publish(&found, &key);
    count(Counter::Begun);
    debug::begun(packet.key.port, record.attempt);
    Some(())
}

/// Which attempt of its key this SYN is, told from the last one that was seen.
#[inline(always)]
fn next_attempt(packet: &Packet) -> Attempt {
    let destination_port = packet.flow.destination_port;
    let mut next = Attempt { flags: 0, slot: FIRST_SLOT, number: 1, destination_port, padding: 0 };
    let Some(last) = cell::last_attempt(&packet.key) else { return next };
    // Slot 0 is for keys that are looked up, and never a record's.
    next.slot = if last.slot == u16::MAX { FIRST_SLOT } else { last.slot + 1 };
    let same_flow = last.destination_port == destination_port;
    if same_flow {
        next.number = last.number.wrapping_add(1);
    }
    if let Some(older) = newest(&packet.key) {
        let record = older.record();
        record.flags |= Flags::SUPERSEDED;
        next.flags |= Flags::OLDER_ALIVE;
        if same_flow && record.flags & (Flags::SYN_ACK | Flags::ANSWERED_BEFORE) != 0 {
            next.flags |= Flags::ANSWERED_BEFORE;
        }
    }
    next
}

/// Whether this SYN, of a journey that is known, is a retransmission at its entrance rather than the same packet further on.
#[inline(always)]
fn is_next_attempt(found: &Found, packet: &Packet, place: Place, local: bool) -> bool {
    let record = found.record();
    (record.flags & Flags::LOCAL != 0) == local
        && record.netns == place.netns
        && (local || record.ifindex == place.ifindex)
        // One that went out of sight may have been freed, and this one stands where it stood.
        && (record.skb != packet.carrier.skb || now_ns().wrapping_sub(record.first_ns) > SAME_PACKET_NS)
}
