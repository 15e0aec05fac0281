//! What the probes share with each other and with user space: maps and global variables.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use wsltrace_common::{Address, Attempt, Counter, Key, NearMiss, Offsets, PORT_WORDS, Record, TakenCells};

use crate::atomic::{SharedU64, add};

/// Journeys that have not ended: most of them. Each key has one cell, so that it is found without a search and its record is made without
/// being copied (journey/cell.rs).
#[map]
pub static CELLS: Array<Record> = Array::with_max_entries(wsltrace_common::CELLS, 0);

/// Which cells are taken, for user space.
#[map]
pub static TAKEN_CELLS: Array<TakenCells> = Array::with_max_entries(1, 0);

/// Journeys that have not ended and whose cell was taken. Not preallocated: a record is large and there are few here, except in a flood.
#[map]
pub static JOURNEYS: HashMap<Key, Record> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Other keys (slot 0) under which a journey is known: after SNAT, or with the length of Fast Open data added. The newest
/// attempt's own key stands behind it.
#[map]
pub static ALIASES: LruHashMap<Key, Key> = LruHashMap::with_max_entries(16_384, 0);

/// The last attempt seen of each key (slot 0), also after its journey ended; but the first attempt only when it has ended, and not when
/// it was in a cell and came to a connection: then the cell remembers it until it is taken again.
#[map]
pub static ATTEMPTS: LruHashMap<Key, Attempt> = LruHashMap::with_max_entries(65_536, 0);

/// Which `sk_buff` carries which attempt through POSTROUTING, where SNAT takes away the key.
#[map]
pub static CARRIERS: LruHashMap<u64, Key> = LruHashMap::with_max_entries(4_096, 0);

/// Network namespaces by inode number: `NAMESPACE_TRACED` or `NAMESPACE_FOLLOWED`.
#[map]
pub static NETWORK_NAMESPACES: HashMap<u32, u32> = HashMap::with_max_entries(4_096, 0);

/// SYNs to other ports, while somebody wants to know.
#[map]
pub static NEAR_MISSES: LruHashMap<NearMiss, u64> = LruHashMap::with_max_entries(1_024, 0);

/// See `wsltrace_common::Counter`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::Count as u32, 0);

/// A packet of a journey, as it was seen last.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    /// Its attempt, slot included.
    pub key: Key,
    /// Address of its `sk_buff`.
    pub skb: u64,
    /// What it is: `packet::Kind`.
    pub kind: u32,
    /// Where its record stands: the number of the cell plus one, or 0 for the table.
    pub cell: u32,
}

/// The packet seen last on this CPU: by it a hook's positions know the packet that the first of them has read, and the socket
/// lookup, whose context has no sequence number, the packet that passed INPUT. A hook, and INPUT with the lookup that follows,
/// run in one go with bottom halves off; where a task sends and may be moved, the record's own `sk_buff` shows it.
#[map]
pub static SEEN: PerCpuArray<Seen> = PerCpuArray::with_max_entries(1, 0);

/// Ended journeys, one record each: the fixed part and as many stages as there are. A megabyte holds about 2000; what finds no room
/// waits in the table. Its reader maps it twice, and that counts as its memory.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

const RING_BYTES: u32 = 1 << 20;

/// How many bytes wait in `RECORDS` before its reader is woken. With a smaller ring buffer, as tests have it, it never is.
pub const WAKE_ABOVE: u64 = RING_BYTES as u64 / 4;

/// How often it is woken at most.
pub const WAKE_EVERY_NS: u64 = 1_000_000;

/// When it was woken last, by the kernel's monotonic clock.
#[unsafe(no_mangle)]
pub static WOKEN_NS: SharedU64 = SharedU64::new();

/// Field offsets of the running kernel. Set before loading.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = EMPTY_OFFSETS;

/// Bitmap of the traced ports. Set before loading.
#[unsafe(no_mangle)]
pub static PORTS: [u64; PORT_WORDS] = [0; PORT_WORDS];

/// Journeys whose SYN or answer is still on its way: while it is zero, only the entrances do anything.
#[unsafe(no_mangle)]
pub static IN_FLIGHT: SharedU64 = SharedU64::new();

/// Journeys in the table, or about to be put there: while it is zero, nobody looks there.
#[unsafe(no_mangle)]
pub static IN_TABLE: SharedU64 = SharedU64::new();

/// Changes of `ATTEMPTS`, about to be made or made: while it is zero, nobody looks there. It is where every SYN reached a connection.
#[unsafe(no_mangle)]
pub static ATTEMPTS_NOTED: SharedU64 = SharedU64::new();

/// The same of `ALIASES`, without SNAT and Fast Open.
#[unsafe(no_mangle)]
pub static ALIASES_NOTED: SharedU64 = SharedU64::new();

/// The same of `CARRIERS`, where nothing is handed on.
#[unsafe(no_mangle)]
pub static CARRIERS_NOTED: SharedU64 = SharedU64::new();

/// Answered journeys that wait for the client's acknowledgement.
#[unsafe(no_mangle)]
pub static AWAITING: SharedU64 = SharedU64::new();

/// Established journeys that are held to see what becomes of their connections.
#[unsafe(no_mangle)]
pub static SETTLING: SharedU64 = SharedU64::new();

/// A record to start from: too large for the stack.
pub static EMPTY_RECORD: Record = {
    // SAFETY: a record is made of integers, for which zeroes are a value.
    unsafe { core::mem::zeroed() }
};

const EMPTY_OFFSETS: Offsets = {
    // SAFETY: as for the record.
    unsafe { core::mem::zeroed() }
};

/// Keys of the array `SWITCHES`.
#[map]
pub static SWITCHES: Array<u32> = Array::with_max_entries(3, 0);

/// Index in `SWITCHES`: journeys begin only when this is not zero; set when every probe is attached.
pub const SWITCH_ARMED: u32 = 0;
/// Index in `SWITCHES`: SYNs to other ports are counted when this is not zero.
pub const SWITCH_NEAR_MISSES: u32 = 1;
/// Index in `SWITCHES`: it is seen when applications accept, so established journeys are held for that when this is not zero.
pub const SWITCH_ACCEPT: u32 = 2;

/// Whether a switch is on.
#[inline(always)]
pub fn switched_on(switch: u32) -> bool {
    SWITCHES.get(switch).is_some_and(|value| *value != 0)
}

/// Whether a port is traced.
#[inline(always)]
pub fn port_is_traced(port: u16) -> bool {
    let word = usize::from(port >> 6);
    // SAFETY: the pointer is to a static; `word` is below 1024 because a port has 16 bits. Volatile, because user space
    // replaces the value before loading and the compiler must not take the zeroes for granted.
    let word = unsafe { core::ptr::read_volatile((&raw const PORTS).cast::<u64>().add(word)) };
    word >> (port & 63) & 1 != 0
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a valid map value of this CPU; an interrupt between load and store could lose one, so it is atomic.
        unsafe { add(value, 1) };
    }
}

/// Whether nothing is being followed: every probe but the entrances returns on this at once.
#[inline(always)]
pub fn asleep() -> bool {
    IN_FLIGHT.load() == 0
}

/// Whether no answered journey waits for its client.
#[inline(always)]
pub fn nobody_waits() -> bool {
    AWAITING.load() == 0
}

/// Whether no established journey is held to see what becomes of its connection.
#[inline(always)]
pub fn all_settled() -> bool {
    SETTLING.load() == 0
}

/// An IPv4 address (network byte order) mapped into IPv6.
#[inline(always)]
pub fn mapped(address: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), address]
}
