//! The life of a record: begun at an entrance, given a stage by each probe, sent once when its end is known.
//!
//! The newest attempt of a key stands in `JOURNEYS` under slot 0. When a retransmission opens a new attempt while the older
//! one still lives (it may wait for a neighbour), the older record moves to the slot of its attempt number. Which of them a
//! packet belongs to is told by the address of its `sk_buff`.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_ringbuf_output};
use wsltrace_common::{Counter, Death, Flags, HEADER_SIZE, Key, MAX_STAGES, NAMESPACE_TRACED, Record, StageCode, StageEntry};

use crate::{
    debug,
    kernel::{Place, SkBuff, current_task, offset},
    maps::{
        ALIASES, ATTEMPTS, AWAITING, CARRIERS, EMPTY_RECORD, IN_FLIGHT, JOURNEYS, NETWORK_NAMESPACES, RECORDS, SWITCH_ARMED,
        count, port_is_traced, switched_on,
    },
    packet::{Kind, Packet},
};

/// How many older attempts of one key are looked at. A client resends its SYN about 6 times before it gives up, and a
/// neighbour is given up after 3 seconds.
const OLDER_ATTEMPTS: u16 = 8;

/// A record in the table.
#[derive(Clone, Copy)]
pub struct Found(*mut Record);

impl Found {
    /// The record. Two CPUs rarely touch one record at a time, and then each field is written whole.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "a map value is shared memory; the reference does not outlive the program's run")]
    pub fn record(&self) -> &mut Record {
        // SAFETY: the pointer came from a lookup in this run of the program; the value is not reused before its RCU grace period.
        unsafe { &mut *self.0 }
    }
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn get(key: &Key) -> Option<Found> {
    let found = Found(JOURNEYS.get_ptr_mut(key)?);
    if found.record().flags & Flags::DONE != 0 { None } else { Some(found) }
}

/// The newest attempt known under a key or one of its aliases.
#[inline(always)]
pub fn newest(key: &Key) -> Option<Found> {
    if let Some(found) = get(key) {
        return Some(found);
    }
    // SAFETY: LRU elements are only reused for other aliases: a wrong one leads to a record that the checks below refuse.
    let alias = unsafe { ALIASES.get(key) }?;
    get(alias)
}

/// The attempt that this packet belongs to: the one that carries this very `sk_buff`, else the newest.
#[inline(always)]
pub fn find(packet: &Packet, skb: u64) -> Option<Found> {
    let mut newest = newest(&packet.key);
    if newest.is_none() && packet.kind == Kind::SYN {
        newest = carried(packet, skb);
    }
    let newest = newest?;
    if newest.record().flags & Flags::OLDER_ALIVE == 0 || carries(newest.record(), packet.kind, skb) {
        return Some(newest);
    }
    older(&newest, packet.kind, skb).or(Some(newest))
}

#[inline(always)]
fn carries(record: &Record, kind: Kind, skb: u64) -> bool {
    if kind.is_answer() { record.answer_skb == skb } else { record.skb == skb }
}

#[inline(always)]
fn older(newest: &Found, kind: Kind, skb: u64) -> Option<Found> {
    let attempt = newest.record().attempt as u16;
    for back in 1..=OLDER_ATTEMPTS {
        if back >= attempt {
            break;
        }
        let key = Key { slot: attempt - back, ..newest.record().key };
        if let Some(found) = get(&key)
            && carries(found.record(), kind, skb)
        {
            return Some(found);
        }
    }
    None
}

/// A SYN whose key is unknown, but whose `sk_buff` went through POSTROUTING as one of ours: SNAT gave it another source. From
/// here on the journey is known by that as well.
#[inline(always)]
fn carried(packet: &Packet, skb: u64) -> Option<Found> {
    // SAFETY: as for the aliases; the record must name this very sk_buff.
    let primary = unsafe { CARRIERS.get(skb) }?;
    let found = get(primary)?;
    if found.record().skb != skb || found.record().key.sequence != packet.key.sequence {
        return None;
    }
    add_alias(&found, &packet.key);
    Some(found)
}

#[inline(always)]
fn add_alias(found: &Found, alias: &Key) {
    if ALIASES.insert(alias, &found.record().key, 0).is_err() {
        found.record().flags |= Flags::INCOMPLETE;
        count(Counter::KeysFull);
    }
}

/// Remembers that this `sk_buff` carries the journey through POSTROUTING.
#[inline(always)]
pub fn carry_through_postrouting(found: &Found, skb: u64) {
    if CARRIERS.insert(skb, &found.record().key, 0).is_err() {
        found.record().flags |= Flags::INCOMPLETE;
        count(Counter::KeysFull);
    }
}

/// Begins a journey, or the next attempt of one, when this SYN stands at the entrance where journeys begin.
#[inline(always)]
pub fn begin(packet: &Packet, place: Place, local: bool) -> Option<Found> {
    if begin_record(packet, place.netns, place.ifindex, local) { get(&packet.key) } else { None }
}

/// A BPF function of its own, for its stack's sake; it returns no `Option` for the reason told in packet.rs.
#[inline(never)]
fn begin_record(packet: &Packet, netns: u32, ifindex: u32, local: bool) -> bool {
    try_begin(packet, Place { netns, ifindex }, local).is_some()
}

#[inline(always)]
fn try_begin(packet: &Packet, place: Place, local: bool) -> Option<()> {
    if !switched_on(SWITCH_ARMED) || !port_is_traced(packet.flow.destination_port) {
        return None;
    }
    // SAFETY: the namespaces change only when containers come and go; a value is one word.
    let namespace = *unsafe { NETWORK_NAMESPACES.get(place.netns) }?;
    if namespace != NAMESPACE_TRACED {
        return None;
    }
    let mut flags = Flags::IN_FLIGHT;
    let attempt = if let Some(older) = newest(&packet.key) {
        let record = older.record();
        // A record's key is always the one that it stands under; this place is overwritten below.
        record.key.slot = record.attempt as u16;
        if JOURNEYS.insert(&record.key, &*record, 0).is_err() {
            count(Counter::TableFull);
            forget(record);
        }
        flags |= Flags::OLDER_ALIVE;
        if record.flags & (Flags::SYN_ACK | Flags::ANSWERED_BEFORE) != 0 {
            flags |= Flags::ANSWERED_BEFORE;
        }
        record.attempt + 1
    } else {
        // SAFETY: an element reused for another key gives a wrong count of attempts at worst.
        unsafe { ATTEMPTS.get(&packet.key) }.map_or(1, |attempt| *attempt + 1)
    };
    if ATTEMPTS.insert(&packet.key, attempt, 0).is_err() {
        count(Counter::KeysFull);
    }
    if JOURNEYS.insert(&packet.key, &EMPTY_RECORD, 0).is_err() {
        count(Counter::TableFull);
        return None;
    }
    IN_FLIGHT.increment();
    let found = Found(JOURNEYS.get_ptr_mut(&packet.key)?);
    let record = found.record();
    record.key = packet.key;
    record.flow = packet.flow;
    record.now = packet.flow;
    record.first_ns = now_ns();
    record.flags = flags;
    record.attempt = attempt;
    record.netns = place.netns;
    record.ifindex = place.ifindex;
    record.payload_len = packet.payload_len;
    if local {
        record.flags |= Flags::LOCAL;
        (record.tgid, record.comm) = current_task();
    }
    if packet.payload_len > 0 {
        let sequence = packet.key.sequence.wrapping_add(packet.payload_len);
        add_alias(&found, &Key { sequence, ..packet.key });
    }
    count(Counter::Begun);
    debug::begun(packet.key.port, attempt);
    Some(())
}

/// Whether this SYN, of a journey that is known, is a retransmission at its entrance rather than the same packet further on.
#[inline(always)]
pub fn is_next_attempt(found: &Found, skb: u64, place: Place, local: bool) -> bool {
    let record = found.record();
    (record.flags & Flags::LOCAL != 0) == local
        && record.netns == place.netns
        && (local || record.ifindex == place.ifindex)
        && record.skb != skb
}

/// Writes a stage (a `StageCode`'s number) into the record.
#[inline(always)]
pub fn push(record: &mut Record, stage: u8, answer: bool, place: Place) {
    let now = now_ns();
    record.last_ns = now;
    if answer {
        (record.answer_netns, record.answer_ifindex) = (place.netns, place.ifindex);
    } else {
        (record.syn_netns, record.syn_ifindex) = (place.netns, place.ifindex);
    }
    let index = record.stage_count as usize;
    let Some(entry) = record.stages.get_mut(index) else {
        record.flags |= Flags::INCOMPLETE;
        count(Counter::StagesFull);
        return;
    };
    let mut time_and_code = now.wrapping_sub(record.first_ns) << StageEntry::TIME_SHIFT | u64::from(stage);
    if answer {
        time_and_code |= StageEntry::ANSWER;
    }
    *entry = StageEntry { time_and_code, netns: place.netns, ifindex: place.ifindex };
    record.stage_count = (index + 1) as u32;
}

/// A followed packet entered a stage.
#[inline(always)]
pub fn enter(found: &Found, packet: &Packet, skb: u64, stage: u8, place: Place) {
    let record = found.record();
    if packet.kind == Kind::SYN {
        syn_enters(record, packet, skb);
        push(record, stage, false, place);
    } else if packet.kind.is_answer() {
        // What goes out again after the answer left is a retransmission: `tcp_retransmit_synack` tells of it.
        if record.flags & Flags::ANSWER_LEFT != 0 {
            return;
        }
        if record.flags & (Flags::SYN_ACK | Flags::RESET | Flags::ICMP) == 0 && stage != StageCode::Output as u8 {
            record.flags |= Flags::ANSWER_FROM_OUTSIDE;
        }
        record.flags |= if packet.kind == Kind::SYN_ACK {
            Flags::SYN_ACK
        } else if packet.kind == Kind::RESET {
            Flags::RESET
        } else {
            Flags::ICMP
        };
        record.answer_skb = skb;
        push(record, stage, true, place);
    }
}

#[inline(always)]
fn syn_enters(record: &mut Record, packet: &Packet, skb: u64) {
    record.skb = skb;
    record.consumed.time_ns = 0;
    record.flags &= !(Flags::OUTSIDE | Flags::PAST_INPUT);
    if packet.flow.destination_port != record.flow.destination_port
        || packet.flow.source_port != record.flow.source_port
        || packet.flow.destination != record.flow.destination
        || packet.flow.source != record.flow.source
    {
        record.flags |= Flags::TRANSLATED;
    }
    record.now = packet.flow;
}

/// The answer stands where it leaves: at the entrance's egress, or for a local connection behind INPUT.
#[inline(always)]
pub fn answer_left(found: &Found) {
    let record = found.record();
    if record.flags & Flags::ANSWER_LEFT != 0 {
        return;
    }
    record.flags |= Flags::ANSWER_LEFT;
    if record.flags & Flags::SYN_ACK != 0 {
        // The probes go to sleep before these are freed; retransmissions may get their addresses.
        (record.skb, record.answer_skb) = (0, 0);
        forget_in_flight(record);
        record.flags |= Flags::AWAITING;
        AWAITING.increment();
    } else if record.death.time_ns != 0 || record.consumed.time_ns != 0 {
        finish(found);
    }
}

/// The place of the SYN's last stage: `skb->dev` is null or changed in much of TCP's code.
#[inline(always)]
pub fn last_place(record: &Record) -> Place {
    Place { netns: record.syn_netns, ifindex: record.syn_ifindex }
}

#[inline(always)]
fn death(record: &mut Record, place: Place, location: u64, reason: u32) -> Death {
    let time_ns = now_ns();
    record.last_ns = time_ns;
    Death { time_ns, location, reason, netns: place.netns, ifindex: place.ifindex, stage_count: record.stage_count }
}

/// Whether a packet that was last seen leaving a device is still on it, in a namespace that is watched. Behind a veth it is
/// somebody else's.
#[inline(always)]
fn out_of_sight(record: &Record, skb: SkBuff) -> bool {
    if record.flags & Flags::OUTSIDE == 0 {
        return false;
    }
    let Some(netns) = skb.netns() else { return true };
    // SAFETY: only whether there is such an element matters.
    unsafe { NETWORK_NAMESPACES.get(netns) }.is_none()
}

/// `kfree_skb` fired for a packet with the key of a journey.
#[inline(always)]
pub fn dropped(packet: &Packet, skb: SkBuff, location: u64, reason: u32) {
    let otherhost = offset!(reason_otherhost);
    if reason == otherhost {
        return;
    }
    let Some(found) = find(packet, skb.address()) else { return };
    let record = found.record();
    if !carries(record, packet.kind, skb.address()) {
        if packet.kind == Kind::SYN && !out_of_sight(record, skb) {
            record.stray = death(record, last_place(record), location, reason);
        }
        return;
    }
    if packet.kind.is_answer() {
        answer_dropped(&found, location, reason);
    } else if packet.kind == Kind::SYN && !out_of_sight(record, skb) {
        syn_dropped(&found, location, reason);
    }
}

#[inline(always)]
fn syn_dropped(found: &Found, location: u64, reason: u32) {
    let record = found.record();
    record.skb = 0;
    record.death = death(record, last_place(record), location, reason);
    let flags = record.flags;
    // A SYN whose SYN-ACK was made is answered, whatever frees it.
    if flags & Flags::SYN_ACK != 0 {
        return;
    }
    let answer_under_way =
        flags & (Flags::RESET | Flags::ICMP) != 0 && flags & Flags::ANSWER_LEFT == 0 && record.answer_death.time_ns == 0;
    if !answer_under_way {
        finish(found);
    }
}

#[inline(always)]
fn answer_dropped(found: &Found, location: u64, reason: u32) {
    let record = found.record();
    record.answer_skb = 0;
    if record.flags & Flags::ANSWER_LEFT != 0 {
        return;
    }
    let place = Place { netns: record.answer_netns, ifindex: record.answer_ifindex };
    record.answer_death = death(record, place, location, reason);
    if record.flags & Flags::SYN_ACK != 0 || record.death.time_ns != 0 {
        finish(found);
    }
}

/// `consume_skb` fired for a packet with the key of a journey. For a SYN at its listener that is the normal end; without an
/// answer the listener swallowed it, which user space decides after a second of silence.
#[inline(always)]
pub fn consumed(packet: &Packet, skb: SkBuff, location: u64) {
    if packet.kind != Kind::SYN {
        return;
    }
    let Some(found) = find(packet, skb.address()) else { return };
    let record = found.record();
    if record.skb != skb.address() || out_of_sight(record, skb) {
        return;
    }
    record.skb = 0;
    record.consumed = death(record, last_place(record), location, 0);
    if record.flags & Flags::ANSWER_LEFT != 0 && record.flags & Flags::SYN_ACK == 0 {
        finish(&found);
    }
}

/// The connection of this key became established: the journey ends, and so do older attempts that wait for the same client.
#[inline(always)]
pub fn established(key: &Key) {
    let Some(found) = newest(key) else { return };
    let attempt = found.record().attempt as u16;
    if found.record().flags & Flags::OLDER_ALIVE != 0 {
        for back in 1..=OLDER_ATTEMPTS {
            if back >= attempt {
                break;
            }
            if let Some(older) = get(&Key { slot: attempt - back, ..found.record().key })
                && older.record().flags & Flags::SYN_ACK != 0
            {
                older.record().flags |= Flags::ACK;
                finish(&older);
            }
        }
    }
    let record = found.record();
    record.flags |= Flags::ESTABLISHED | Flags::ACK;
    let place = Place { netns: last_place(record).netns, ifindex: record.ifindex };
    push(record, StageCode::Established as u8, false, place);
    finish(&found);
}

/// The record no longer keeps the probes awake.
#[inline(always)]
fn forget_in_flight(record: &mut Record) {
    if record.flags & Flags::IN_FLIGHT != 0 {
        record.flags &= !Flags::IN_FLIGHT;
        IN_FLIGHT.decrement();
    }
}

/// The record is in none of the counters any more.
#[inline(always)]
fn forget(record: &mut Record) {
    forget_in_flight(record);
    if record.flags & Flags::AWAITING != 0 {
        record.flags &= !Flags::AWAITING;
        AWAITING.decrement();
    }
}

/// Sends the record and takes it off the table. When the ring buffer is full it stays, marked, for user space to collect.
#[inline(always)]
pub fn finish(found: &Found) {
    let record = found.record();
    forget(record);
    debug::ended(record);
    // For the verifier: the count never exceeds the array.
    let stages = if record.stage_count as usize > MAX_STAGES { MAX_STAGES } else { record.stage_count as usize };
    let size = (HEADER_SIZE + stages * size_of::<StageEntry>()) as u64;
    // SAFETY: the record is a map value of at least `size` bytes; the map is a ring buffer.
    let result = unsafe { bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), found.0.cast(), size, 0) };
    if result != 0 {
        record.flags |= Flags::DONE;
        count(Counter::RingFull);
        return;
    }
    if JOURNEYS.remove(&record.key).is_err() {
        record.flags |= Flags::DONE;
    }
}

/// Ends a journey on behalf of user space, unless something happened to it after `last_ns`.
#[inline(always)]
pub fn collect(key: &Key, last_ns: u64) -> Option<()> {
    let found = Found(JOURNEYS.get_ptr_mut(key)?);
    if found.record().last_ns != last_ns {
        return None;
    }
    finish(&found);
    Some(())
}
