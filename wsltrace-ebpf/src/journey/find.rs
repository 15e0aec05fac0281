//! Which record a packet belongs to.
//!
//! A record stands in `JOURNEYS` under its key with the slot of its attempt, and stays there until it is sent. The usual
//! packet belongs to the only attempt of its key and is found by one lookup; the rest is for retransmissions, Fast Open and SNAT.

use wsltrace_common::{Counter, FIRST_SLOT, Flags, Key, Record};

use super::Found;
use crate::{
    maps::{ALIASES, ATTEMPTS, CARRIERS, JOURNEYS, count},
    packet::{Kind, Packet},
};

/// How many older attempts of one key are looked at. A client resends its SYN about 6 times before it gives up, and a
/// neighbour is given up after 3 seconds.
pub const OLDER_ATTEMPTS: u16 = 8;

/// An address that no `sk_buff` has.
const NO_SKB: u64 = u64::MAX;

/// The record under exactly this key, slot included, unless it has ended and only waits for user space.
#[inline(always)]
pub fn exactly(key: &Key) -> Option<Found> {
    let found = Found(JOURNEYS.get_ptr_mut(key)?);
    if found.record().flags & Flags::DONE != 0 { None } else { Some(found) }
}

/// The newest living attempt known under a key (whatever its slot) or one of its aliases.
#[inline(always)]
pub fn newest(key: &Key) -> Option<Found> {
    lookup(key, false, NO_SKB)
}

/// The attempt that this packet belongs to: the one that carries this very `sk_buff`, else the newest.
#[inline(always)]
pub fn find(packet: &Packet) -> Option<Found> {
    let found = lookup(&packet.key, packet.kind.is_answer(), packet.skb);
    if found.is_none() && packet.kind == Kind::SYN { carried(packet) } else { found }
}

/// Whether this very packet is the SYN (or its answer, by the kind of packet) of this record.
#[inline(always)]
pub fn carries(record: &Record, packet: &Packet) -> bool {
    has_skb(record, packet.kind.is_answer(), packet.skb)
}

#[inline(always)]
fn has_skb(record: &Record, answer: bool, skb: u64) -> bool {
    skb == if answer { record.answer_skb } else { record.skb }
}

#[inline(always)]
fn lookup(key: &Key, answer: bool, skb: u64) -> Option<Found> {
    if let Some(found) = exactly(&Key { slot: FIRST_SLOT, ..*key })
        && found.record().flags & Flags::SUPERSEDED == 0
    {
        return Some(found);
    }
    // SAFETY: LRU elements are only reused for other keys: a wrong one leads to a record that the callers' checks refuse.
    let newest = match unsafe { ATTEMPTS.get(key) } {
        Some(attempt) => Key { slot: attempt.slot, ..*key },
        // SAFETY: as above.
        None => *unsafe { ALIASES.get(key) }?,
    };
    among_attempts(&newest, answer, skb)
}

/// Looks from this attempt back for the one that carries the `sk_buff`; else gives the newest that lives.
#[inline(always)]
fn among_attempts(newest: &Key, answer: bool, skb: u64) -> Option<Found> {
    // Not an `Option`: the compiler would leave its payload unset, and the verifier refuses to see an unset register copied.
    let mut alive: *mut Record = core::ptr::null_mut();
    for back in 0..=OLDER_ATTEMPTS {
        if back >= newest.slot {
            break;
        }
        let Some(found) = exactly(&Key { slot: newest.slot - back, ..*newest }) else { continue };
        let record = found.record();
        if has_skb(record, answer, skb) {
            return Some(found);
        }
        if alive.is_null() {
            alive = found.0;
        }
        if record.flags & Flags::OLDER_ALIVE == 0 {
            break;
        }
    }
    if alive.is_null() { None } else { Some(Found(alive)) }
}

/// A SYN whose key is unknown, but whose `sk_buff` went through POSTROUTING as one of ours: SNAT gave it another source. From
/// here on the journey is known by that as well.
#[inline(always)]
fn carried(packet: &Packet) -> Option<Found> {
    // SAFETY: as for the aliases; the record must name this very sk_buff.
    let primary = unsafe { CARRIERS.get(packet.skb) }?;
    let found = exactly(primary)?;
    if found.record().skb != packet.skb || found.record().key.sequence != packet.key.sequence {
        return None;
    }
    add_alias(&found, &packet.key);
    Some(found)
}

/// Makes a journey known under another key.
#[inline(always)]
pub fn add_alias(found: &Found, alias: &Key) {
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
