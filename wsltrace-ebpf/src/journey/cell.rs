//! Where records stand: in the cell of their key, or in the table when that is taken.
//!
//! A cell is found by arithmetic, and the lookup in an array is a few instructions of the program itself. A lookup in a hash table is some
//! 170, and to put a record there (which has to be copied) and to take it out some 2500. The attempts of one key share a cell, so only
//! one of them is in it.

use aya_ebpf::bindings::BPF_NOEXIST;
use wsltrace_common::{Attempt, CELLS as CELL_COUNT, Counted, Counter, FIRST_SLOT, Flags, HEADER_SIZE, Key, Record};

use super::{Found, copy};
use crate::{
    atomic,
    maps::{ATTEMPTS, CELLS, EMPTY_RECORD, IN_TABLE, JOURNEYS, TAKEN_CELLS, count},
};

/// A key's bits, without its slot, spread over a word: multiplied by the golden ratio.
#[inline(always)]
fn spread(key: &Key) -> u64 {
    let [a, b, c, d] = key.address;
    let high = a ^ b ^ c ^ d ^ u32::from(key.port) << 16;
    (u64::from(high) << 32 | u64::from(key.sequence)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The number of a key's cell.
#[inline(always)]
fn number(key: &Key) -> u32 {
    (spread(key) >> (u64::BITS - CELL_COUNT.trailing_zeros())) as u32
}

/// What the owner of a cell writes into it: which key has taken it, slot included, as nearly as the bits tell.
#[inline(always)]
fn owner(key: &Key) -> u64 {
    spread(key).wrapping_add(u64::from(key.slot)).rotate_left(u64::BITS / 2) << Counted::BITS
}

/// Whether two keys are the same, slots included. Word by word: a comparison of arrays becomes a loop over bytes.
#[inline(always)]
fn same(one: &Key, other: &Key) -> bool {
    let words = |key: &Key| {
        // SAFETY: a key is three aligned words, of which any bytes are a value. Volatile, because other CPUs write records' keys.
        unsafe { core::ptr::read_volatile((&raw const *key).cast::<[u64; 3]>()) }
    };
    let ([a, b, c], [d, e, f]) = (words(one), words(other));
    (a ^ d) | (b ^ e) | (c ^ f) == 0
}

/// The record under exactly this key, slot included, whatever its state.
#[inline(always)]
pub fn any(key: &Key) -> Option<Found> {
    if key.slot == 0 {
        return None;
    }
    if let Some(record) = CELLS.get_ptr_mut(number(key))
        // SAFETY: a valid map value.
        && same(unsafe { &(*record).key }, key)
    {
        return Some(Found(record));
    }
    if IN_TABLE.load() == 0 { None } else { JOURNEYS.get_ptr_mut(key).map(Found) }
}

/// Where a record stands, for [`at`].
#[inline(always)]
pub fn cell_of(record: &Record) -> u32 {
    if record.counted & Counted::CELL == 0 { 0 } else { number(&record.key) + 1 }
}

/// The record in the cell that [`cell_of`] told; `None` when it has ended.
#[inline(always)]
pub fn at(cell: u32) -> Option<Found> {
    let found = Found(CELLS.get_ptr_mut(cell.wrapping_sub(1))?);
    if found.record().counted & Counted::LIVE == 0 { None } else { Some(found) }
}

/// The last attempt of a key that is remembered (the key's slot is 0).
#[inline(always)]
pub fn last_attempt(key: &Key) -> Option<Attempt> {
    // SAFETY: an element reused for another key gives a wrong count of attempts, or leads to a record that the callers' checks refuse.
    if let Some(attempt) = unsafe { ATTEMPTS.get(key) } {
        return Some(*attempt);
    }
    let first = Key { slot: FIRST_SLOT, ..*key };
    let record = match any(&first) {
        Some(found) => found.0,
        // What has ended leaves its key behind, with the slot 0.
        None => CELLS.get_ptr_mut(number(key)).filter(|record| {
            // SAFETY: a valid map value.
            same(unsafe { &(**record).key }, key)
        })?,
    };
    // SAFETY: a valid map value; taken by another key meanwhile, it gives a wrong count of attempts.
    let (number, destination_port) = unsafe { ((*record).attempt as u16, (*record).flow.destination_port) };
    Some(Attempt { flags: 0, slot: FIRST_SLOT, number, destination_port, padding: 0 })
}

/// A record to be filled in, its key last ([`publish`]): all zeroes but for `counted`. `None` when there is no room, and when a record
/// of this key, slot included, stands there already: the attempt's number was forgotten in a flood of keys.
#[inline(always)]
pub fn take(key: &Key, counted: u64) -> Option<Found> {
    let number = number(key);
    let Some(record) = CELLS.get_ptr_mut(number) else { return take_in_table(key, counted) };
    let owner = owner(key);
    // SAFETY: a field of a valid map value.
    let (was, is_ours) = unsafe { atomic::claim(&raw mut (*record).counted, owner | counted | Counted::LIVE | Counted::CELL) };
    if !is_ours {
        let is_same = (was ^ owner) >> Counted::BITS == 0;
        return if is_same { None } else { take_in_table(key, counted) };
    }
    let stands_in_table = IN_TABLE.load() != 0 && JOURNEYS.get_ptr_mut(key).is_some();
    if stands_in_table {
        // SAFETY: as above.
        unsafe { atomic::take(&raw mut (*record).counted, u64::MAX) };
        return None;
    }
    // SAFETY: the record is this program's until its key is written.
    unsafe { clear(record) };
    if let Some((word, bit)) = taken_bit(number) {
        // SAFETY: a pointer into a valid map value.
        unsafe { atomic::put(word, bit) };
    }
    Some(Found(record))
}

#[inline(always)]
fn take_in_table(key: &Key, counted: u64) -> Option<Found> {
    IN_TABLE.increment();
    if JOURNEYS.insert(key, &EMPTY_RECORD, u64::from(BPF_NOEXIST)).is_err() {
        IN_TABLE.decrement();
        return None;
    }
    let found = Found(JOURNEYS.get_ptr_mut(key)?);
    found.record().counted = counted | Counted::LIVE;
    Some(found)
}

/// Makes a record that was taken one that is found.
#[inline(always)]
pub fn publish(found: &Found, key: &Key) {
    let record = found.record();
    copy(&key.address, &mut record.key.address);
    write_last_word(record, key.sequence, key.port, key.slot);
}

/// In one, and after the others: what is half written is no key.
#[inline(always)]
fn write_last_word(record: &mut Record, sequence: u32, port: u16, slot: u16) {
    let word = u64::from(sequence) | u64::from(port) << 32 | u64::from(slot) << 48;
    // SAFETY: the aligned last third of the key. Volatile, so that it is one store and is not moved.
    unsafe { (&raw mut record.key).cast::<u64>().add(2).write_volatile(word) };
}

/// Takes away the record of a journey that was sent: it is found no more. Its attempt is remembered.
#[inline(always)]
pub fn give_back(record: &mut Record) {
    let in_cell = record.counted & Counted::CELL != 0;
    let key = record.key;
    let cell_remembers = in_cell && record.flags & Flags::ESTABLISHED != 0;
    if key.slot == FIRST_SLOT && !cell_remembers {
        let (number, destination_port) = (record.attempt as u16, record.flow.destination_port);
        let first = Attempt { flags: 0, slot: key.slot, number, destination_port, padding: 0 };
        // Not over a later attempt, begun while this one lived.
        remember(&Key { slot: 0, ..key }, &first, u64::from(BPF_NOEXIST));
    }
    if !in_cell {
        if JOURNEYS.remove(&key).is_ok() {
            IN_TABLE.decrement();
        }
        return;
    }
    (record.skb, record.answer_skb) = (0, 0);
    write_last_word(record, key.sequence, key.port, 0);
    if let Some((word, bit)) = taken_bit(number(&key)) {
        // SAFETY: a pointer into a valid map value.
        unsafe { atomic::take(word, bit) };
    }
    // SAFETY: a field of a record.
    unsafe { atomic::take(&raw mut record.counted, u64::MAX) };
}

/// Notes the last attempt of a key (its slot is 0). `flags` is 0, or `BPF_NOEXIST` when one that is noted already is to stay.
#[inline(always)]
pub fn remember(key: &Key, attempt: &Attempt, flags: u64) {
    const EEXIST: i32 = -17;
    if ATTEMPTS.insert(key, attempt, flags).is_err_and(|error| error != EEXIST) {
        count(Counter::KeysFull);
    }
}

/// Where the bit of a cell stands in `TAKEN_CELLS`.
#[inline(always)]
fn taken_bit(number: u32) -> Option<(*mut u64, u64)> {
    let words = TAKEN_CELLS.get_ptr_mut(0)?.cast::<u64>();
    let word = ((number / u64::BITS) & (CELL_COUNT / u64::BITS - 1)) as usize;
    // SAFETY: the number is below that of the words.
    Some((unsafe { words.add(word) }, 1 << (number % u64::BITS)))
}

/// Zeroes the fixed part but for the owner; the stages are only read as far as they are counted. Word by word: a plain assignment becomes
/// a loop over bytes. Between the owner and the key is the rest of what was there: whoever finds the old key finds its slot to be 0.
///
/// # Safety
///
/// `record` is valid, and nobody else's.
#[inline(always)]
unsafe fn clear(record: *mut Record) {
    const WORD: usize = size_of::<u64>();
    const OWNER: usize = core::mem::offset_of!(Record, counted) / WORD;
    let words = record.cast::<u64>();
    for index in 0..HEADER_SIZE / WORD {
        if index != OWNER {
            // SAFETY: within the record. Volatile, see above.
            unsafe { words.add(index).write_volatile(0) };
        }
    }
}
