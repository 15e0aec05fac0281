//! Where records stand: in the cell of their key, or in the table when that is taken.
//!
//! A cell is found by arithmetic, and the lookup in an array is a few instructions of the program itself. A lookup in a hash table is some
//! 170, and to put a record there (which has to be copied) and to take it out some 2500. The attempts of one key share a cell, so only
//! one of them is in it.

use aya_ebpf::bindings::BPF_NOEXIST;
use wsltrace_common::{Attempt, CELLS as CELL_COUNT, Counted, Counter, Death, FIRST_SLOT, Flags, Key, Record};

use super::Found;
use crate::{
    atomic,
    maps::{ATTEMPTS, ATTEMPTS_NOTED, CELLS, EMPTY_RECORD, IN_TABLE, JOURNEYS, TAKEN_CELLS, count},
};

/// A key as three words, so that it is compared and spread by words: as arrays it would be by loops over bytes.
#[derive(Clone, Copy)]
struct Words([u64; 3]);

impl Words {
    /// Where the slot stands in the last word, and the port and the sequence number below it.
    const SLOT_SHIFT: u32 = 48;

    #[inline(always)]
    fn of(key: &Key) -> Self {
        // SAFETY: a key is three aligned words, of which any bytes are a value. Volatile, because other CPUs write records' keys.
        Self(unsafe { core::ptr::read_volatile((&raw const *key).cast::<[u64; 3]>()) })
    }

    /// Of this key with another sequence number and the slot of a first attempt.
    #[inline(always)]
    fn of_first(key: &Key, sequence: u32) -> Self {
        let Self([a, b, _]) = Self::of(key);
        Self([a, b, last_word(sequence, key.port, FIRST_SLOT)])
    }

    #[inline(always)]
    fn equal(self, Self([d, e, f]): Self) -> bool {
        let Self([a, b, c]) = self;
        (a ^ d) | (b ^ e) | (c ^ f) == 0
    }

    /// Its bits, without the slot, spread over a word: multiplied by the golden ratio.
    #[inline(always)]
    fn spread(self) -> u64 {
        let Self([a, b, c]) = self;
        (a ^ b ^ c & ((1 << Self::SLOT_SHIFT) - 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The number of its cell.
    #[inline(always)]
    fn cell(self) -> u32 {
        (self.spread() >> (u64::BITS - CELL_COUNT.trailing_zeros())) as u32
    }

    /// What the owner of a cell writes into it: which key has taken it, slot included, as nearly as the bits tell.
    #[inline(always)]
    fn owner(self) -> u64 {
        let Self([_, _, c]) = self;
        self.spread().wrapping_add(c >> Self::SLOT_SHIFT).rotate_left(u64::BITS / 2) << Counted::BITS
    }

    /// The record in its cell, if that is of this key, slot included.
    #[inline(always)]
    fn in_cell(self) -> Option<*mut Record> {
        CELLS.get_ptr_mut(self.cell()).filter(|record| {
            // SAFETY: a valid map value.
            Self::of(unsafe { &(**record).key }).equal(self)
        })
    }
}

/// The last third of a key.
#[inline(always)]
fn last_word(sequence: u32, port: u16, slot: u16) -> u64 {
    u64::from(sequence) | u64::from(port) << 32 | u64::from(slot) << Words::SLOT_SHIFT
}

/// The record under exactly this key, slot included, whatever its state.
#[inline(always)]
pub fn any(key: &Key) -> Option<Found> {
    if key.slot == 0 {
        return None;
    }
    if let Some(record) = Words::of(key).in_cell() {
        return Some(Found(record));
    }
    if IN_TABLE.load() == 0 { None } else { JOURNEYS.get_ptr_mut(key).map(Found) }
}

/// The record of the first attempt of this key (whatever its slot) with another sequence number, whatever its state.
#[inline(always)]
pub fn first(key: &Key, sequence: u32) -> Option<Found> {
    if let Some(record) = Words::of_first(key, sequence).in_cell() {
        return Some(Found(record));
    }
    if IN_TABLE.load() == 0 { None } else { JOURNEYS.get_ptr_mut(&Key { slot: FIRST_SLOT, sequence, ..*key }).map(Found) }
}

/// Where a record stands, for [`at`].
#[inline(always)]
pub fn cell_of(record: &Record) -> u32 {
    if record.counted & Counted::CELL == 0 { 0 } else { Words::of(&record.key).cell() + 1 }
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
    if ATTEMPTS_NOTED.load() != 0
        // SAFETY: an element reused for another key gives a wrong count of attempts, or leads to a record that the callers' checks refuse.
        && let Some(attempt) = unsafe { ATTEMPTS.get(key) }
    {
        return Some(*attempt);
    }
    let record = match first(key, key.sequence) {
        Some(found) => found.0,
        // What has ended leaves its key behind, with the slot 0.
        None => Words::of(key).in_cell()?,
    };
    // SAFETY: a valid map value; taken by another key meanwhile, it gives a wrong count of attempts.
    let (number, destination_port) = unsafe { ((*record).attempt as u16, (*record).flow.destination_port) };
    Some(Attempt { flags: 0, slot: FIRST_SLOT, number, destination_port, padding: 0 })
}

/// A record to be filled in, its key last ([`publish`]): nothing has happened to it. `None` when there is no room, and when a record
/// of this key, slot included, stands there already: the attempt's number was forgotten in a flood of keys.
#[inline(always)]
pub fn take(key: &Key, counted: u64) -> Option<Found> {
    let words = Words::of(key);
    let Some(record) = CELLS.get_ptr_mut(words.cell()) else { return take_in_table(key, counted) };
    let owner = words.owner();
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
    unsafe { clear(&mut *record) };
    if let Some((word, bit)) = taken_bit(words.cell()) {
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
    let Words([first, second, _]) = Words::of(key);
    // SAFETY: the aligned first two thirds of the key; volatile as the last.
    unsafe {
        let words = (&raw mut record.key).cast::<u64>();
        words.write_volatile(first);
        words.add(1).write_volatile(second);
    }
    write_last_word(record, last_word(key.sequence, key.port, key.slot));
}

/// In one, and after the others: what is half written is no key.
#[inline(always)]
fn write_last_word(record: &mut Record, word: u64) {
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
    zero(&mut record.skb);
    zero(&mut record.answer_skb);
    write_last_word(record, last_word(key.sequence, key.port, 0));
    if let Some((word, bit)) = taken_bit(Words::of(&key).cell()) {
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
    ATTEMPTS_NOTED.increment();
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

/// Makes the record of a cell one to which nothing has happened; what a beginning journey writes anyway is left as it was, as are the
/// stages, which are only read as far as they are counted.
#[inline(always)]
fn clear(record: &mut Record) {
    zero(&mut record.last_ns);
    zero(&mut record.answer_skb);
    clear_death(&mut record.death);
    clear_death(&mut record.consumed);
    clear_death(&mut record.answer_death);
    clear_death(&mut record.stray);
    clear_death(&mut record.confirmation_death);
    zero(&mut record.answer_netns);
    zero(&mut record.answer_ifindex);
    zero(&mut record.tgid);
    zero(&mut record.conntrack);
    zero(&mut record.stage_count);
    // SAFETY: sixteen bytes at a multiple of eight.
    unsafe {
        let words = (&raw mut record.comm).cast::<u64>();
        words.write_volatile(0);
        words.add(1).write_volatile(0);
    }
}

#[inline(always)]
fn clear_death(death: &mut Death) {
    zero(&mut death.time_ns);
    zero(&mut death.location);
    zero(&mut death.reason);
    zero(&mut death.netns);
    zero(&mut death.ifindex);
    zero(&mut death.stage_count);
}

/// Volatile: of several such stores the compiler would make one call of a function that writes byte by byte.
#[inline(always)]
pub fn zero<T: Default>(field: &mut T) {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::write_volatile(field, T::default()) };
}
