//! The life of a record: begun at an entrance, given a stage by each probe, sent once when its end is known.
//!
//! Each attempt of a key has a record of its own, with the slot of its number. Several can be alive at once (SYNs that wait
//! for a neighbour): which of them a packet belongs to is told by the address of its `sk_buff`.

mod begin;
mod cell;
mod end;
mod find;
mod pass;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_ktime_get_ns, generated::bpf_ringbuf_output},
};
use wsltrace_common::{Counted, Counter, Flags, HEADER_SIZE, Key, MAX_STAGES, Record, SILENCE_NS, StageEntry};

pub use self::{
    begin::enter,
    end::{accepted, closed, confirmation_reset, consumed, dropped, established, reset_by_server},
    find::{exactly, find, newest},
    pass::{is_none_of_ours, visit, went_on},
};
use crate::{
    atomic::{self, SharedU64},
    debug,
    kernel::Place,
    maps::{AWAITING, IN_FLIGHT, RECORDS, SETTLING, WAKE_ABOVE, WAKE_EVERY_NS, WOKEN_NS, count},
};

/// A record.
#[derive(Clone, Copy)]
pub struct Found(*mut Record);

impl Found {
    /// The record. Two CPUs may touch one at a time, as when an application accepts while the packet that let it is not freed yet: then
    /// each field is written whole, one of two flags set at the very same moment may be lost, and what must not be lost is in
    /// [`Record::counted`].
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "a map value is shared memory; the reference does not outlive the program's run")]
    pub fn record(&self) -> &mut Record {
        // SAFETY: the pointer came from a lookup in this run of the program, and stays one to a record. It may be another journey's by now:
        // if another CPU has ended this one within these few hundred nanoseconds, and a third one's SYN has come for the same cell.
        unsafe { &mut *self.0 }
    }

    /// Whether packets belong to it: it has not ended, and is not held to see what becomes of its connection.
    #[inline(always)]
    fn goes_on(self) -> bool {
        self.record().flags & (Flags::DONE | Flags::SETTLING) == 0
    }
}

/// Copies word by word. A plain assignment between places that the compiler cannot tell apart becomes a call that copies byte
/// by byte.
#[inline(always)]
fn copy<T: Copy>(from: &T, to: &mut T) {
    // SAFETY: a mutable reference overlaps no other.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// Writes a stage (a `StageCode`'s number) into the record: the SYN, or its answer, is there now.
#[inline(always)]
pub fn push(record: &mut Record, stage: u8, answer: bool, place: Place) {
    if answer {
        (record.answer_netns, record.answer_ifindex) = (place.netns, place.ifindex);
    } else {
        (record.syn_netns, record.syn_ifindex) = (place.netns, place.ifindex);
    }
    note(record, stage, answer, place);
}

/// Writes a stage that neither the SYN nor its answer is in: another packet, or the connection.
#[inline(always)]
pub fn note(record: &mut Record, stage: u8, answer: bool, place: Place) {
    let now = now_ns();
    record.last_ns = now;
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

/// The place of the SYN's last stage: `skb->dev` is null or changed in much of TCP's code.
#[inline(always)]
pub fn last_place(record: &Record) -> Place {
    Place { netns: record.syn_netns, ifindex: record.syn_ifindex }
}

/// The record no longer keeps the probes awake.
#[inline(always)]
fn forget_in_flight(record: &mut Record) {
    if record.counted & Counted::IN_FLIGHT != 0 {
        take_out(record, Counted::IN_FLIGHT);
    }
}

/// Takes the record out of these numbers, each once: an application may accept on one CPU while a packet ends the journey on another.
#[inline(always)]
fn take_out(record: &mut Record, of: u64) {
    // SAFETY: a field of a record in the table.
    let was = unsafe { atomic::take(&raw mut record.counted, of) } & of;
    if was & Counted::IN_FLIGHT != 0 {
        IN_FLIGHT.decrement();
    }
    if was & Counted::AWAITING != 0 {
        AWAITING.decrement();
    }
    if was & Counted::SETTLING != 0 {
        SETTLING.decrement();
    }
}

/// The record is in none of the counters any more.
#[inline(always)]
fn forget(record: &mut Record) {
    take_out(record, Counted::IN_FLIGHT | Counted::AWAITING | Counted::SETTLING);
}

/// Puts the record into one of these numbers, unless another CPU has ended its journey meanwhile.
#[inline(always)]
fn count_in(record: &mut Record, of: u64, number: &SharedU64) {
    // Before the record says so, so that nobody takes it out too early.
    number.increment();
    // SAFETY: a field of a record.
    let was = unsafe { atomic::put(&raw mut record.counted, of) };
    if was & Counted::LIVE == 0 {
        // SAFETY: as above.
        unsafe { atomic::take(&raw mut record.counted, of) };
    }
    if was & Counted::LIVE == 0 || was & of != 0 {
        number.decrement();
    }
}

/// Sends the record and gives its place back. When the ring buffer is full it stays, marked, for user space to collect.
#[inline(always)]
pub fn finish(found: &Found) {
    // SAFETY: the pointer came from a lookup in this run of the program.
    unsafe { journey_finish(found.0) };
}

/// A global BPF function, see packet/mod.rs: it is reached from many places.
///
/// # Safety
///
/// `record` is null, or a valid record in the table.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_finish(record: *mut Record) -> u32 {
    // SAFETY: as the caller promises.
    let Some(record) = (unsafe { record.as_mut() }) else { return 0 };
    // Two CPUs may come to its end at once.
    // SAFETY: a field of a record.
    if unsafe { atomic::take(&raw mut record.counted, Counted::LIVE) } & Counted::LIVE == 0 {
        return 0;
    }
    forget(record);
    debug::ended(record);
    // For the verifier: the count never exceeds the array.
    let stages = if record.stage_count as usize > MAX_STAGES { MAX_STAGES } else { record.stage_count as usize };
    let size = (HEADER_SIZE + stages * size_of::<StageEntry>()) as u64;
    // SAFETY: the record is at least `size` bytes; the map is a ring buffer.
    let result = unsafe { bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), (&raw mut *record).cast(), size, wakeup()) };
    if result != 0 {
        record.flags |= Flags::DONE;
        // SAFETY: as above.
        unsafe { atomic::put(&raw mut record.counted, Counted::LIVE) };
        count(Counter::RingFull);
        return 0;
    }
    cell::give_back(record);
    0
}

/// Waking the reader costs the packet more than all our probes together (an interrupt to this CPU, which a virtual machine makes
/// dear). The reader looks ten times a second anyway, and is woken only when the ring buffer fills up faster than that; and not for each
/// record that comes before it gets a processor.
#[inline(always)]
fn wakeup() -> u64 {
    if RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) < WAKE_ABOVE {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    let now = now_ns();
    if now.wrapping_sub(WOKEN_NS.load()) < WAKE_EVERY_NS {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    WOKEN_NS.store(now);
    u64::from(BPF_RB_FORCE_WAKEUP)
}

/// Ends a journey on behalf of user space, unless something happened to it after `last_ns`.
#[inline(always)]
pub fn collect(key: &Key, last_ns: u64) -> Option<()> {
    let found = cell::any(key)?;
    if found.record().last_ns != last_ns {
        return None;
    }
    let record = found.record();
    // At the end of a trace journeys are collected early: then nothing can be said of the application.
    if record.flags & Flags::UNACCEPTED != 0 && now_ns().wrapping_sub(last_ns) >= SILENCE_NS {
        record.flags |= Flags::NOT_ACCEPTED;
    }
    finish(&found);
    Some(())
}
