//! From headers to identity: which packets of TCP (and which ICMP errors) have to do with a connection attempt.

mod bytes;
mod headers;

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use wsltrace_common::{Flow, Key};

use self::{
    bytes::{Frame, Memory},
    headers::parse,
};
use crate::kernel::SkBuff;

/// What a packet is to a connection attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Kind(u32);

impl Kind {
    /// The attempt itself.
    pub const SYN: Self = Self(0);
    /// The client's acknowledgement, or later data.
    pub const ACK: Self = Self(1);
    /// The server's acceptance.
    pub const SYN_ACK: Self = Self(2);
    /// A refusal that answers a SYN.
    pub const RESET: Self = Self(3);
    /// An ICMP or `ICMPv6` error that quotes a TCP packet.
    pub const ICMP_ERROR: Self = Self(4);

    /// Whether it travels from the server to the client.
    #[inline(always)]
    pub fn is_answer(self) -> bool {
        self.0 >= Self::SYN_ACK.0
    }

    /// As an argument of a global function, or in a map.
    #[inline(always)]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The kind of this number.
    #[inline(always)]
    pub fn of(number: u32) -> Self {
        Self(number)
    }
}

/// What the kernel knows a packet by.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Carrier {
    /// Address of its `struct sk_buff`.
    pub skb: u64,
    /// Its `_nfct`, where a netfilter position saw it; 0 otherwise.
    pub nfct: u64,
}

impl Carrier {
    /// Of a packet at a netfilter position.
    #[inline(always)]
    pub fn of(skb: SkBuff) -> Self {
        Self { skb: skb.address(), nfct: skb.nfct().unwrap_or(0) }
    }
}

/// A packet that has to do with a connection attempt.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Packet {
    /// What it is.
    pub kind: Kind,
    /// The attempt that it belongs to.
    pub key: Key,
    /// Its own addresses and ports.
    pub flow: Flow,
    /// Bytes of data behind the TCP header; 0 for ICMP.
    pub payload_len: u32,
    /// What carries it.
    pub carrier: Carrier,
    /// Address of its network header, where the bytes are read from kernel memory.
    network_header: u64,
}

/// Room for a packet, in the caller's stack: given back by value it would be copied, and zeroed before, which took 50 instructions.
pub struct Room(MaybeUninit<Packet>);

impl Room {
    /// Nothing yet.
    #[inline(always)]
    pub fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Writes what no header says.
    #[inline(always)]
    fn prepare(&mut self, skb: u64, network_header: u64) -> *mut Packet {
        let packet = self.0.as_mut_ptr();
        // SAFETY: the packet is ours. Volatile: of two zeroes side by side the compiler makes a call of a function that writes byte by byte.
        unsafe {
            (&raw mut (*packet).carrier.skb).write(skb);
            (&raw mut (*packet).carrier.nfct).write_volatile(0);
            (&raw mut (*packet).network_header).write_volatile(network_header);
            (&raw mut (*packet).key.slot).write(0);
        }
        packet
    }

    /// The packet, when it was read.
    #[inline(always)]
    fn read(&mut self, found: u32) -> Option<&mut Packet> {
        // SAFETY: whoever reads a packet (`parse`) writes every other field of it.
        if found == 0 { None } else { Some(unsafe { self.0.assume_init_mut() }) }
    }
}

/// Reads a packet from an `sk_buff` whose network header is set.
#[inline(always)]
pub fn from_skb(skb: SkBuff, room: &mut Room) -> Option<&mut Packet> {
    let packet = room.prepare(skb.address(), skb.network_header()?);
    // SAFETY: the packet is ours.
    let found = unsafe { packet_from_memory(u32::from(skb.protocol()?), packet) };
    room.read(found)
}

/// Reads a packet of the given ethertype (host byte order) from a TC program's context.
#[inline(always)]
pub fn from_frame(context: *mut __sk_buff, link_header: u32, protocol: u16, room: &mut Room) -> Option<&mut Packet> {
    let packet = room.prepare(context as u64, 0);
    // SAFETY: the context is valid and the packet is ours.
    let found = unsafe { packet_from_frame(context, link_header, u32::from(protocol), packet) };
    room.read(found)
}

// The two below are global BPF functions: the verifier follows them once a program, on their own, and at the call knows only
// their signature. Inlined, every way through the headers would be followed on through all that comes after. Scalars and
// pointers to plain structures are all that the kernel takes in such a signature, and every pointer may be null.

/// The header's address comes in the packet: to the verifier (6.17 and later) it is a pointer, which is no argument.
///
/// # Safety
///
/// `packet` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn packet_from_memory(protocol: u32, packet: *mut Packet) -> u32 {
    // SAFETY: as the caller promises.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return 0 };
    u32::from(parse(&Memory { network_header: packet.network_header }, protocol as u16, packet).is_some())
}

/// # Safety
///
/// `context` is a TC program's; `packet` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn packet_from_frame(context: *mut __sk_buff, link_header: u32, protocol: u32, packet: *mut Packet) -> u32 {
    // SAFETY: as the caller promises.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return 0 };
    u32::from(parse(&Frame { context, link_header }, protocol as u16, packet).is_some())
}
