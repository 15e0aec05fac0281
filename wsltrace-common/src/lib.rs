//! The contract between the probes in the kernel and the program in user space: stage codes, the journey record, field
//! offsets and counters. Plain data, no logic; every structure has a fixed layout without hidden padding.
#![no_std]

mod hooks;
mod offsets;
mod record;
mod stage;

pub use hooks::{HOOKS, HookList, HooksRequest, LIST_FAILED, LIST_MADE, LIST_UNCHANGED, MOST_HOOKED, NetfilterHooks, UNREADABLE};
pub use offsets::{ABSENT, Offsets};
pub use record::{
    Address, Attempt, CELLS, Counted, Death, FIRST_SLOT, Flags, Flow, HEADER_SIZE, Key, MAX_STAGES, NearMiss, Record, StageEntry,
    TakenCells, octets,
};
pub use stage::StageCode;

/// Number of 64-bit words in the bitmap of traced ports.
pub const PORT_WORDS: usize = 65536 / 64;

/// What `NETWORK_NAMESPACES` says of a namespace: journeys may begin in it.
pub const NAMESPACE_TRACED: u32 = 1;
/// What `NETWORK_NAMESPACES` says of a namespace: journeys are followed into it but never begin there (a container).
pub const NAMESPACE_FOLLOWED: u32 = 2;

/// How long after its last event a journey is given up that may still go on, nanoseconds: one that waits to be accepted, too.
pub const SILENCE_NS: u64 = 1_000_000_000;
/// How long an established journey is held to see what becomes of the connection, nanoseconds.
pub const SETTLE_NS: u64 = 500_000_000;

/// Indices into the per-CPU array `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Journeys begun: SYNs of traced ports seen at an entrance.
    Begun = 0,
    /// SYNs that could not be followed because the table of journeys was full.
    TableFull = 1,
    /// Finished journeys that did not fit into the ring buffer; they stay in the table until user space collects them.
    RingFull = 2,
    /// Stages that did not fit into their record.
    StagesFull = 3,
    /// Keys (of a retransmission or of a translated address) that could not be stored.
    KeysFull = 4,
    /// Segments that the servers' side of traced connections sent again, while that is asked for.
    SentAgain = 5,
    /// How many counters there are.
    Count = 6,
}
