//! The record of one journey, as the probes assemble it and the ring buffer carries it.

use core::mem::{offset_of, size_of};

/// Most stages that one record can hold. A SYN that goes through DNAT into a container and whose answer comes back passes
/// about 60; `br_netfilter` can double the bridge's share.
pub const MAX_STAGES: usize = 96;

/// Length of a record's fixed part in bytes; `stage_count` entries follow it on the wire.
pub const HEADER_SIZE: usize = offset_of!(Record, stages);

/// An IPv6 address, or an IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`): four words, each in network byte order. (Words,
/// because the probes would copy and compare bytes one by one.)
pub type Address = [u32; 4];

/// The sixteen bytes of an address, in network byte order.
pub fn octets(address: Address) -> [u8; 16] {
    let mut octets = [0; 16];
    for (to, word) in octets.chunks_exact_mut(4).zip(address) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    octets
}

/// What identifies a packet wherever it is: the client's end and its initial sequence number. A SYN carries it as its
/// source; a SYN-ACK, RST or quoting ICMP error that answers it carries it as destination and acknowledgement number less one.
///
/// Aligned so that the probes copy and compare it by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client's address.
    pub address: Address,
    /// The initial sequence number, host byte order.
    pub sequence: u32,
    /// The client's port, host byte order.
    pub port: u16,
    /// Counts the attempts of a key, from [`FIRST_SLOT`]; 0 where any of them is meant.
    pub slot: u16,
}

/// How many cells there are for records, beside the table: a power of two.
pub const CELLS: u32 = 1024;

/// Which cells are taken, one bit each.
pub type TakenCells = [u64; CELLS as usize / 64];

/// The slot of a key's first attempt.
pub const FIRST_SLOT: u16 = 1;

/// The last attempt seen of a key. Records of the same key may differ in their destination (a program that sends every SYN
/// with one source port and one sequence number): those share slots, not numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Flags that the record begins with: what is known from older attempts.
    pub flags: u32,
    /// The slot of its record.
    pub slot: u16,
    /// Counts the SYNs of one flow and initial sequence number, from 1.
    pub number: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// Zero.
    pub padding: u16,
}

/// Addresses and ports of a SYN. Aligned as the key is.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// 4 or 6.
    pub family: u32,
}

/// What the kernel said when it freed a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`; 0: it did not happen.
    pub time_ns: u64,
    /// The code address that freed it; 0 where the kernel does not say.
    pub location: u64,
    /// Number in the running kernel's `enum skb_drop_reason` (high 16 bits: subsystem); 0 for `consume_skb`.
    pub reason: u32,
    /// The network namespace of its last stage, by inode number.
    pub netns: u32,
    /// The interface of its last stage.
    pub ifindex: u32,
    /// How many stages the record had at that moment: tells the last stage before the death.
    pub stage_count: u32,
}

/// One stage entered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEntry {
    /// Nanoseconds since `Record::first_ns`, shifted left by 16; bit 8: the answer's, not the SYN's; bits 0-7: the code.
    pub time_and_code: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The interface: where it came in, or for FORWARD, OUTPUT and POSTROUTING where it goes out; 0 when not known.
    pub ifindex: u32,
}

impl StageEntry {
    /// Set in the low half of `time_and_code` when the stage belongs to the answer (SYN-ACK, RST, ICMP error).
    pub const ANSWER: u64 = 1 << 8;
    /// How far the time is shifted left.
    pub const TIME_SHIFT: u32 = 16;
}

/// Bits of `Record::flags`.
pub struct Flags;

impl Flags {
    /// The journey began at OUTPUT: a connection made inside this machine.
    pub const LOCAL: u32 = 1 << 0;
    /// A SYN-ACK was seen in OUTPUT.
    pub const SYN_ACK: u32 = 1 << 1;
    /// A RST that answers the SYN was seen in OUTPUT.
    pub const RESET: u32 = 1 << 2;
    /// An ICMP or `ICMPv6` error that quotes the SYN was seen in OUTPUT.
    pub const ICMP: u32 = 1 << 3;
    /// The answer left by the entrance (a local one: passed INPUT of `lo`).
    pub const ANSWER_LEFT: u32 = 1 << 4;
    /// The answer was seen leaving by another interface of the namespace where the journey began.
    pub const ANSWER_ELSEWHERE: u32 = 1 << 5;
    /// The SYN passed INPUT's last position.
    pub const PAST_INPUT: u32 = 1 << 6;
    /// The SYN was last seen leaving a device.
    pub const OUTSIDE: u32 = 1 << 7;
    /// The connection became established.
    pub const ESTABLISHED: u32 = 1 << 8;
    /// The client acknowledged the SYN-ACK.
    pub const ACK: u32 = 1 << 9;
    /// The kernel sent its SYN-ACK again.
    pub const SYN_ACK_AGAIN: u32 = 1 << 10;
    /// The addresses or ports of the SYN changed on the way.
    pub const TRANSLATED: u32 = 1 << 11;
    /// Something that belongs to this record could not be stored.
    pub const INCOMPLETE: u32 = 1 << 12;
    /// The journey has ended but the ring buffer had no room: user space collects it from the table.
    pub const DONE: u32 = 1 << 13;
    /// An older attempt of the same key still lives.
    pub const OLDER_ALIVE: u32 = 1 << 14;
    /// The kernel's TCP reset (the event `tcp_send_reset`) this SYN or, with [`Self::SYN_ACK`], what confirms its answer.
    pub const KERNEL_RESET: u32 = 1 << 15;
    /// conntrack has set a state on the SYN, kept in `Record::conntrack`.
    pub const CONNTRACK: u32 = 1 << 16;
    /// The SYN was a frame for another's hardware address, and nobody here took it: this is no journey.
    pub const FOR_ANOTHER: u32 = 1 << 17;
    /// The answer came in from outside: it was not made in a namespace that is watched.
    pub const ANSWER_FROM_OUTSIDE: u32 = 1 << 18;
    /// The SYN-ACK left by the entrance with another source than the address and port that the SYN was for.
    pub const ANSWER_ALIEN: u32 = 1 << 19;
    /// An older attempt of the same flow got a SYN-ACK.
    pub const ANSWERED_BEFORE: u32 = 1 << 20;
    /// A newer attempt of the same key was begun while this one lived.
    pub const SUPERSEDED: u32 = 1 << 21;
    /// Established, and the application has not accepted, which would be seen.
    pub const UNACCEPTED: u32 = 1 << 22;
    /// The application took the connection.
    pub const ACCEPTED: u32 = 1 << 23;
    /// The connection was established, but the application had not taken it when the journey was given up. Only where that can
    /// be seen.
    pub const NOT_ACCEPTED: u32 = 1 << 24;
    /// Established, and held to see what becomes of the connection.
    pub const SETTLING: u32 = 1 << 25;
    /// The server's side reset the connection, at `Record::last_ns`, before it had sent a byte.
    pub const SERVER_RESET: u32 = 1 << 26;
    /// `Record::confirmation_death` happened.
    pub const CONFIRMATION_DROPPED: u32 = 1 << 27;
    /// What died then is not the confirmation, but the first data of a connection that was just made.
    pub const DATA_DROPPED: u32 = 1 << 28;
    /// The SYN-ACK was made again before the first had left by the entrance.
    pub const ANSWERED_AGAIN: u32 = 1 << 29;
    /// The server's side closed the connection with a FIN, at `Record::last_ns`, before it had sent a byte.
    pub const SERVER_CLOSED: u32 = 1 << 30;
    /// The SYN, or its answer, was first seen while process 1 was what the processor had been at: there are kernels that tell no
    /// tracepoint's programs of what they do meanwhile.
    pub const OVER_PROCESS_1: u32 = 1 << 31;
}

/// Bits of [`Record::counted`]: which of the numbers that keep the probes awake a record is in.
pub struct Counted;

impl Counted {
    /// On its way.
    pub const IN_FLIGHT: u64 = 1;
    /// Waiting for the client's acknowledgement.
    pub const AWAITING: u64 = 1 << 1;
    /// Held to see what becomes of its connection.
    pub const SETTLING: u64 = 1 << 2;
    /// Not ended: whoever takes this away ends the journey.
    pub const LIVE: u64 = 1 << 3;
    /// Stands in a cell, and not in the table.
    pub const CELL: u64 = 1 << 4;
    /// How many bits there are; those above tell whose a cell is from the moment that it is taken.
    pub const BITS: u32 = 8;
}

/// The record of one journey.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Identity as first seen.
    pub key: Key,
    /// Addresses and ports as first seen.
    pub flow: Flow,
    /// Addresses and ports as last seen.
    pub now: Flow,
    /// First sight, in nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// Last event of any kind.
    pub last_ns: u64,
    /// Address of the `sk_buff` last seen carrying the SYN; 0 once it was freed.
    pub skb: u64,
    /// Address of the `sk_buff` last seen carrying the answer; 0 once it was freed.
    pub answer_skb: u64,
    /// The SYN freed as dropped.
    pub death: Death,
    /// The SYN freed as consumed.
    pub consumed: Death,
    /// The answer freed as dropped.
    pub answer_death: Death,
    /// Another packet with this key freed as dropped: a copy, or the SYN under an address that was not seen before.
    pub stray: Death,
    /// What came from the client after the SYN-ACK (its acknowledgement, or data with it) freed as dropped, the first time, before the
    /// connection was established. See [`Flags::CONFIRMATION_DROPPED`].
    pub confirmation_death: Death,
    /// See [`Counted`]; 0 in a cell that is free. Only changed by atomic operations: taken out of a number twice, a record would put
    /// the probes to sleep under another one's packet. Means nothing to user space.
    pub counted: u64,
    /// See [`Flags`].
    pub flags: u32,
    /// Counts the SYNs of one flow and initial sequence number, from 1.
    pub attempt: u32,
    /// Inode number of the network namespace of the first sight.
    pub netns: u32,
    /// Interface of the first sight.
    pub ifindex: u32,
    /// Network namespace of the SYN's last stage.
    pub syn_netns: u32,
    /// Interface of the SYN's last stage.
    pub syn_ifindex: u32,
    /// Network namespace of the answer's last stage.
    pub answer_netns: u32,
    /// Interface of the answer's last stage.
    pub answer_ifindex: u32,
    /// Thread group of the connecting task, when the journey began in a task's context; 0 otherwise.
    pub tgid: u32,
    /// `enum ip_conntrack_info` of the SYN, when [`Flags::CONNTRACK`] is set.
    pub conntrack: u32,
    /// Length of the data that the SYN carries (TCP Fast Open), bytes.
    pub payload_len: u32,
    /// How many of `stages` are filled.
    pub stage_count: u32,
    /// Name of the connecting task, as `tgid`; zero-padded.
    pub comm: [u8; 16],
    /// The stages entered, in order.
    pub stages: [StageEntry; MAX_STAGES],
}

/// Counts SYNs to ports that are not traced, by interface and port; and those to a port that is, which came for another hardware address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NearMiss {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The interface that the SYN came in by.
    pub ifindex: u32,
    /// Destination port, host byte order.
    pub port: u32,
}

const _: () = {
    assert!(size_of::<Key>() == 24);
    assert!(size_of::<Attempt>() == 12);
    assert!(size_of::<Flow>() == 40);
    assert!(size_of::<Death>() == 32);
    assert!(CELLS.is_power_of_two() && CELLS >= 64);
    assert!(size_of::<StageEntry>() == 16);
    assert!(size_of::<Record>() == HEADER_SIZE + MAX_STAGES * size_of::<StageEntry>());
    assert!(HEADER_SIZE == 24 + 2 * 40 + 4 * 8 + 5 * 32 + 8 + 12 * 4 + 16);
};

#[cfg(feature = "user")]
mod pod {
    use super::{Key, NearMiss, Record};

    // SAFETY: integers and arrays of integers in a fixed layout without padding (asserted above).
    unsafe impl aya::Pod for Key {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Record {}
    // SAFETY: three u32 fields.
    unsafe impl aya::Pod for NearMiss {}
}
