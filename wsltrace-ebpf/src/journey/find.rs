//! Which record a packet belongs to.
//!
//! A record stands under its key with the slot of its attempt (cell.rs), and stays there until it is sent. The usual
//! packet belongs to the only attempt of its key and is found by one lookup; the rest is for retransmissions, Fast Open and SNAT.

use wsltrace_common::{Counter, FIRST_SLOT, Flags, Key, Record};

use super::{Found, cell, copy};
use crate::{
    maps::{ALIASES, ALIASES_NOTED, CARRIERS, CARRIERS_NOTED, SEEN, Seen, count},
    packet::{Kind, Packet},
};

/// How many older attempts of one key are looked at. A client resends its SYN about 6 times before it gives up, and a
/// neighbour is given up after 3 seconds.
pub const OLDER_ATTEMPTS: u16 = 8;

/// What tells whether the only attempt of a key goes on (none of these), or is held.
const STATE_ALONE: u32 = Flags::DONE | Flags::SETTLING | Flags::SUPERSEDED;

/// An address that no `sk_buff` has.
const NO_SKB: u64 = u64::MAX;

/// The record under exactly this key, slot included, unless it has ended and only waits for user space, or is held to see what
/// becomes of its connection: no packet belongs to it any more.
#[inline(always)]
pub fn exactly(key: &Key) -> Option<Found> {
    cell::any(key).filter(|found| found.goes_on())
}

/// The record under exactly this key, slot included, if it is held to see what becomes of its connection.
#[inline(always)]
fn held(key: &Key) -> Option<Found> {
    let found = cell::any(key)?;
    if found.record().flags & (Flags::DONE | Flags::SETTLING) == Flags::SETTLING { Some(found) } else { None }
}

/// The journey of a key that is established and held to see what becomes of the connection, if it is the key's only attempt, as it nearly
/// always is: found without a search. `sequences`: 2 when the key's sequence number may count the client's FIN.
#[inline(always)]
pub fn settling_alone(key: &Key, sequences: u32) -> Option<Found> {
    for back in 0..2 {
        if back == sequences {
            break;
        }
        if let Some(found) = cell::first(key, key.sequence.wrapping_sub(back))
            && found.record().flags & STATE_ALONE == Flags::SETTLING
        {
            return Some(found);
        }
    }
    None
}

/// The newest journey known under a key that is so held. `sequences` as above.
#[inline(always)]
pub fn settling(key: &Key, sequences: u32) -> Option<Found> {
    let mut exact = *key;
    // SAFETY: the key is ours.
    unsafe { journey_settling(&raw mut exact, sequences) };
    held(&exact)
}

/// Makes the key that of the newest attempt known under it that is held; its slot becomes 0 when there is none. A global BPF
/// function, see packet/mod.rs.
///
/// # Safety
///
/// `key` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_settling(key: *mut Key, sequences: u32) -> u32 {
    // SAFETY: as the caller promises.
    let Some(key) = (unsafe { key.as_mut() }) else { return 0 };
    let asked = *key;
    for back in 0..2 {
        if back == sequences {
            break;
        }
        // Anew each time: an alias replaces all of it.
        copy(&Key { sequence: asked.sequence.wrapping_sub(back), slot: 0, ..asked }, key);
        if let Some(attempt) = cell::last_attempt(key) {
            key.slot = attempt.slot;
        } else if let Some(alias) = alias_of(key) {
            newest_of(alias, key);
        } else {
            key.slot = FIRST_SLOT;
        }
        let newest = key.slot;
        for older in 0..=OLDER_ATTEMPTS {
            key.slot = newest.wrapping_sub(older);
            // SAFETY: a reference is valid.
            if unsafe { journey_held(key) } != 0 {
                return 0;
            }
        }
    }
    key.slot = 0;
    0
}

/// Whether the record under exactly this key is held. A global BPF function, see packet/mod.rs and [`journey_claims`].
///
/// # Safety
///
/// `key` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_held(key: *const Key) -> u32 {
    // SAFETY: as the caller promises.
    u32::from(unsafe { key.as_ref() }.and_then(held).is_some())
}

/// The newest living attempt known under a key (whatever its slot) or one of its aliases.
#[inline(always)]
pub fn newest(key: &Key) -> Option<Found> {
    lookup(key, Kind::ACK, NO_SKB, NO_SKB)
}

/// The attempt that this packet belongs to: the one that carries this very `sk_buff`, else the newest. An ICMP error that is new
/// belongs to the oldest that waits: when a neighbour is given up, the kernel tells so of each packet in the order of its queue.
#[inline(always)]
pub fn find(packet: &Packet) -> Option<Found> {
    lookup(&packet.key, packet.kind, packet.carrier.skb, NO_SKB)
}

/// The same for an answer that a task or the kernel has just made: it is to the SYN that this CPU has in hand, if that is one of its key. Of
/// two SYNs that were held up and come at once, the first is answered, and the second meets what the first has left.
#[inline(always)]
pub fn find_made(packet: &Packet) -> Option<Found> {
    // An ICMP error may be of a SYN that waited for its neighbour, after which another one was seen.
    let is_of_tcp = packet.kind == Kind::SYN_ACK || packet.kind == Kind::RESET;
    let in_hand = SEEN.get(0).filter(|seen| is_of_tcp && seen.kind == Kind::SYN.number() && seen.skb != 0);
    lookup(&packet.key, packet.kind, packet.carrier.skb, in_hand.map_or(NO_SKB, |seen| seen.skb))
}

/// Whether this very packet is the SYN (or its answer, by the kind of packet) of this record.
#[inline(always)]
pub fn carries(record: &Record, packet: &Packet) -> bool {
    packet.carrier.skb == if packet.kind.is_answer() { record.answer_skb } else { record.skb }
}

#[inline(always)]
fn lookup(key: &Key, kind: Kind, skb: u64, in_hand: u64) -> Option<Found> {
    if let Some(found) = cell::first(key, key.sequence)
        && found.record().flags & STATE_ALONE == 0
    {
        return Some(found);
    }
    let mut search = Search { key: Key { slot: FIRST_SLOT, ..*key }, skb, in_hand, kind: kind.number(), chosen: 0 };
    // SAFETY: a reference is valid.
    unsafe { journey_among_attempts(&raw mut search) };
    exactly(&search.key)
}

/// The search for the attempt of a packet.
#[repr(C)]
struct Search {
    /// Of the attempt that is looked at.
    key: Key,
    /// Address of the packet's `sk_buff`.
    skb: u64,
    /// Address of the SYN's to which it is made.
    in_hand: u64,
    /// What the packet is: `Kind`.
    kind: u32,
    /// The slot of the attempt that has the best claim so far; 0: none has any.
    chosen: u32,
}

/// The rare ways to a record: makes the key that of the attempt that carries the `sk_buff`, else of the newest that lives, or for
/// an ICMP error of the oldest that waits for an answer; its slot becomes 0 when there is none. A global BPF function, see
/// packet/mod.rs.
///
/// # Safety
///
/// `search` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_among_attempts(search: *mut Search) -> u32 {
    // SAFETY: as the caller promises.
    let Some(search) = (unsafe { search.as_mut() }) else { return 0 };
    search.key.slot = 0;
    if let Some(attempt) = cell::last_attempt(&search.key) {
        search.key.slot = attempt.slot;
    } else if let Some(alias) = alias_of(&search.key) {
        newest_of(alias, &mut search.key);
    } else if search.kind != Kind::SYN.number() || carried(&mut search.key, search.skb).is_none() {
        return 0;
    }
    let newest = search.key.slot;
    for back in 0..=OLDER_ATTEMPTS {
        search.key.slot = newest.wrapping_sub(back);
        // SAFETY: a reference is valid.
        if unsafe { journey_claims(&raw mut *search) } != 0 {
            break;
        }
    }
    search.key.slot = search.chosen as u16;
    0
}

/// The key of which this one (its slot is 0) is an alias.
#[inline(always)]
fn alias_of(key: &Key) -> Option<&'static Key> {
    if ALIASES_NOTED.load() == 0 {
        return None;
    }
    // SAFETY: LRU elements are only reused for other keys: a wrong one leads to a record that the callers' checks refuse.
    unsafe { ALIASES.get(key) }
}

/// Makes the key that of the newest attempt of the journey's own key: the alias was made by an earlier one, and a SYN that is sent
/// again gets the same other source.
#[inline(always)]
fn newest_of(alias: &Key, key: &mut Key) {
    copy(alias, key);
    key.slot = 0;
    key.slot = cell::last_attempt(key).map_or(alias.slot, |attempt| attempt.slot);
}

/// Chooses the attempt of the key, slot included, if its claim is better than that of the one chosen before. Not 0 when there can be no
/// better. A global BPF function, see packet/mod.rs: in the loop above it would be followed once for each turn.
///
/// # Safety
///
/// `search` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_claims(search: *mut Search) -> u32 {
    const ANSWERED: u32 = Flags::SYN_ACK | Flags::RESET | Flags::ICMP;
    // SAFETY: as the caller promises.
    let Some(search) = (unsafe { search.as_mut() }) else { return 0 };
    let Some(found) = exactly(&search.key) else { return 0 };
    let record = found.record();
    let carries = record.skb == search.skb || record.answer_skb == search.skb || record.skb == search.in_hand;
    let waits = record.skb != 0 && record.flags & ANSWERED == 0;
    if carries || search.chosen == 0 || search.kind == Kind::ICMP_ERROR.number() && waits {
        search.chosen = u32::from(search.key.slot);
    }
    u32::from(carries)
}

/// What this CPU has seen last, if it was this `sk_buff`.
#[inline(always)]
pub fn seen(skb: u64) -> Option<&'static Seen> {
    SEEN.get(0).filter(|seen| seen.skb == skb)
}

/// A SYN whose key is unknown, but whose `sk_buff` was one of ours in this hook, or went through POSTROUTING as such: SNAT gave
/// it another source. From here on the journey is known by that as well.
#[inline(always)]
fn carried(key: &mut Key, skb: u64) -> Option<()> {
    let primary = match seen(skb) {
        Some(seen) => &seen.key,
        None if CARRIERS_NOTED.load() == 0 => return None,
        // SAFETY: as for the aliases; the record must name this very sk_buff.
        None => unsafe { CARRIERS.get(skb) }?,
    };
    let found = exactly(primary)?;
    if found.record().skb != skb || found.record().key.sequence != key.sequence {
        return None;
    }
    add_alias(&found, &found.record().key, key);
    copy(primary, key);
    Some(())
}

/// Makes a journey known under another key.
#[inline(always)]
pub fn add_alias(found: &Found, key: &Key, alias: &Key) {
    ALIASES_NOTED.increment();
    if ALIASES.insert(alias, key, 0).is_err() {
        found.record().flags |= Flags::INCOMPLETE;
        count(Counter::KeysFull);
    }
}

/// Remembers that this `sk_buff` carries the journey through POSTROUTING.
#[inline(always)]
pub fn carry_through_postrouting(found: &Found, skb: u64) {
    CARRIERS_NOTED.increment();
    if CARRIERS.insert(skb, &found.record().key, 0).is_err() {
        found.record().flags |= Flags::INCOMPLETE;
        count(Counter::KeysFull);
    }
}
