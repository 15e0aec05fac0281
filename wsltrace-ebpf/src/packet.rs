//! From headers to identity: which packets of TCP (and which ICMP errors) have to do with a connection attempt.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use wsltrace_common::{Address, Flow, Key};

use crate::{
    kernel::{Plain, SkBuff, read_to},
    maps::mapped,
};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_ICMPV6: u8 = 58;
const ICMP_DEST_UNREACH: u8 = 3;
const ICMPV6_DEST_UNREACH: u8 = 1;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How many extension headers of IPv6 are gone past.
const EXTENSION_HEADERS: u32 = 4;

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

/// Where the bytes of a packet come from.
trait Bytes {
    /// Reads a value at a distance from the network header; `false` when it is not there.
    fn read_to<T: Plain>(&self, offset: u32, value: *mut T) -> bool;

    /// The same, by value.
    #[inline(always)]
    fn at<T: Plain>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        if !self.read_to(offset, value.as_mut_ptr()) {
            return None;
        }
        // SAFETY: all of it was just written, with bytes of which any are a value.
        Some(unsafe { value.assume_init() })
    }
}

/// A packet in kernel memory.
struct Memory {
    network_header: u64,
}

impl Bytes for Memory {
    #[inline(always)]
    fn read_to<T: Plain>(&self, offset: u32, value: *mut T) -> bool {
        read_to(self.network_header + u64::from(offset), value)
    }
}

/// A packet given to a TC program; the bytes may lie in fragments.
struct Frame {
    context: *mut __sk_buff,
    link_header: u32,
}

impl Bytes for Frame {
    #[inline(always)]
    fn read_to<T: Plain>(&self, offset: u32, value: *mut T) -> bool {
        // SAFETY: the callers pass their own memory; the helper writes `size_of::<T>()` bytes to it.
        let result =
            unsafe { bpf_skb_load_bytes(self.context.cast(), self.link_header + offset, value.cast(), size_of::<T>() as u32) };
        result == 0
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

/// Writes every field of the packet that [`Room::prepare`] does not, if it is one of those that have to do with an attempt.
#[inline(always)]
fn parse<B: Bytes>(bytes: &B, protocol: u16, packet: &mut Packet) -> Option<()> {
    match plain(bytes, protocol, packet) {
        Reading::Tcp => return Some(()),
        Reading::Other => return None,
        Reading::Unknown => {}
    }
    let layer = match protocol {
        ETH_P_IP => {
            let layer = Layer::ipv4(bytes, 0)?;
            packet.flow.family = 4;
            layer
        }
        ETH_P_IPV6 => {
            let layer = Layer::ipv6(bytes, 0)?;
            packet.flow.family = 6;
            layer
        }
        _ => return None,
    };
    packet.flow.source = layer.source;
    packet.flow.destination = layer.destination;
    match layer.protocol {
        IPPROTO_TCP => tcp(bytes, &layer, packet),
        IPPROTO_ICMP if packet.flow.family == 4 => icmp_ipv4(bytes, &layer, packet),
        IPPROTO_ICMPV6 if packet.flow.family == 6 => icmp_ipv6(bytes, &layer, packet),
        _ => None,
    }
}

/// What was found where the header of TCP stands when nothing precedes it but a network header without options.
enum Reading {
    /// That header: the packet is read.
    Tcp,
    /// What is neither TCP nor ICMP.
    Other,
    /// It has to be looked at piece by piece.
    Unknown,
}

/// Nearly every packet, in one read: a read costs some 80 instructions, whatever its length.
#[inline(always)]
fn plain<B: Bytes>(bytes: &B, protocol: u16, packet: &mut Packet) -> Reading {
    match protocol {
        ETH_P_IP => plain_ipv4(bytes, packet),
        ETH_P_IPV6 => plain_ipv6(bytes, packet),
        _ => Reading::Other,
    }
}

#[inline(always)]
fn plain_ipv4<B: Bytes>(bytes: &B, packet: &mut Packet) -> Reading {
    const HEADER: u32 = 20;
    const VERSION_AND_WORDS: u32 = 0x45;
    let Some([length, fragment, protocol, source, destination, tcp @ ..]) = bytes.at::<[u32; 9]>(0) else {
        return Reading::Unknown;
    };
    let (length, later_fragment) = (u32::from_be(length), u32::from_be(fragment) & 0x1fff != 0);
    if length >> 24 != VERSION_AND_WORDS || later_fragment {
        return Reading::Unknown;
    }
    match (u32::from_be(protocol) >> 16) as u8 {
        IPPROTO_TCP => {}
        IPPROTO_ICMP => return Reading::Unknown,
        _ => return Reading::Other,
    }
    packet.flow.family = 4;
    packet.flow.source = mapped(source);
    packet.flow.destination = mapped(destination);
    plain_tcp(tcp, (length & 0xffff).saturating_sub(HEADER), packet)
}

#[inline(always)]
fn plain_ipv6<B: Bytes>(bytes: &B, packet: &mut Packet) -> Reading {
    let Some([version, length_next, s0, s1, s2, s3, d0, d1, d2, d3, tcp @ ..]) = bytes.at::<[u32; 14]>(0) else {
        return Reading::Unknown;
    };
    let length_next = u32::from_be(length_next);
    if u32::from_be(version) >> 28 != 6 || (length_next >> 8) as u8 != IPPROTO_TCP {
        return Reading::Unknown;
    }
    packet.flow.family = 6;
    packet.flow.source = [s0, s1, s2, s3];
    packet.flow.destination = [d0, d1, d2, d3];
    plain_tcp(tcp, length_next >> 16, packet)
}

#[inline(always)]
fn plain_tcp(header: [u32; 4], payload_len: u32, packet: &mut Packet) -> Reading {
    if tcp_header(header, payload_len, packet).is_some() { Reading::Tcp } else { Reading::Other }
}

/// What a network header says; of a packet, or of one quoted in an ICMP error.
struct Layer {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Distance of the transport header from the outer network header, bytes.
    transport: u32,
    /// Length of what follows the network header, bytes.
    payload_len: u32,
}

impl Layer {
    #[inline(always)]
    fn ipv4<B: Bytes>(bytes: &B, start: u32) -> Option<Self> {
        let [version_length, fragment, protocol, source, destination] = bytes.at::<[u32; 5]>(start)?;
        let version_length = u32::from_be(version_length);
        let later_fragment = u32::from_be(fragment) & 0x1fff != 0;
        if version_length >> 28 != 4 || later_fragment {
            return None;
        }
        let header = (version_length >> 24 & 15) * 4;
        Some(Self {
            source: mapped(source),
            destination: mapped(destination),
            protocol: (u32::from_be(protocol) >> 16) as u8,
            transport: start + header,
            payload_len: (version_length & 0xffff).saturating_sub(header),
        })
    }

    #[inline(always)]
    fn ipv6<B: Bytes>(bytes: &B, start: u32) -> Option<Self> {
        let [version, length_next, s0, s1, s2, s3, d0, d1, d2, d3] = bytes.at::<[u32; 10]>(start)?;
        if u32::from_be(version) >> 28 != 6 {
            return None;
        }
        let length_next = u32::from_be(length_next);
        let mut layer = Self {
            source: [s0, s1, s2, s3],
            destination: [d0, d1, d2, d3],
            protocol: (length_next >> 8) as u8,
            transport: start + 40,
            payload_len: length_next >> 16,
        };
        for _ in 0..EXTENSION_HEADERS {
            if !layer.skip_extension(bytes)? {
                break;
            }
        }
        Some(layer)
    }

    /// Goes past an extension header of IPv6; `false` when there is none.
    #[inline(always)]
    fn skip_extension<B: Bytes>(&mut self, bytes: &B) -> Option<bool> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        if !matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Some(false);
        }
        let [next, length, offset_high, offset_low] = bytes.at::<[u8; 4]>(self.transport)?;
        let fragment = self.protocol == FRAGMENT;
        // Only the first fragment has the transport header.
        if fragment && u16::from_be_bytes([offset_high, offset_low]) >> 3 != 0 {
            return None;
        }
        let size = if fragment { 8 } else { (u32::from(length) + 1) * 8 };
        self.protocol = next;
        self.transport += size;
        self.payload_len = self.payload_len.saturating_sub(size);
        Some(true)
    }
}

#[inline(always)]
fn tcp<B: Bytes>(bytes: &B, layer: &Layer, packet: &mut Packet) -> Option<()> {
    tcp_header(bytes.at(layer.transport)?, layer.payload_len, packet)
}

/// The first four words of TCP's header; `payload_len` is its length with what follows it, bytes.
#[inline(always)]
fn tcp_header([ports, sequence, acknowledged, offset_flags]: [u32; 4], payload_len: u32, packet: &mut Packet) -> Option<()> {
    let (ports, offset_flags) = (u32::from_be(ports), u32::from_be(offset_flags));
    let kind = match (offset_flags >> 16) as u8 & (SYN | ACK | RST | FIN) {
        SYN => Kind::SYN,
        f if f == SYN | ACK => Kind::SYN_ACK,
        f if f & (RST | ACK) == RST | ACK => Kind::RESET,
        f if f & (ACK | RST) == ACK => Kind::ACK,
        _ => return None,
    };
    packet.kind = kind;
    packet.flow.source_port = (ports >> 16) as u16;
    packet.flow.destination_port = ports as u16;
    packet.payload_len = payload_len.saturating_sub((offset_flags >> 28) * 4);
    if packet.kind.is_answer() {
        packet.key.address = packet.flow.destination;
        packet.key.port = packet.flow.destination_port;
        packet.key.sequence = u32::from_be(acknowledged).wrapping_sub(1);
    } else {
        packet.key.address = packet.flow.source;
        packet.key.port = packet.flow.source_port;
        packet.key.sequence = u32::from_be(sequence).wrapping_sub(u32::from(packet.kind == Kind::ACK));
    }
    Some(())
}

#[inline(always)]
fn icmp_ipv4<B: Bytes>(bytes: &B, layer: &Layer, packet: &mut Packet) -> Option<()> {
    if bytes.at::<u8>(layer.transport)? != ICMP_DEST_UNREACH {
        return None;
    }
    quoted_tcp(bytes, &Layer::ipv4(bytes, layer.transport + 8)?, packet)
}

#[inline(always)]
fn icmp_ipv6<B: Bytes>(bytes: &B, layer: &Layer, packet: &mut Packet) -> Option<()> {
    if bytes.at::<u8>(layer.transport)? != ICMPV6_DEST_UNREACH {
        return None;
    }
    quoted_tcp(bytes, &Layer::ipv6(bytes, layer.transport + 8)?, packet)
}

#[inline(always)]
fn quoted_tcp<B: Bytes>(bytes: &B, quoted: &Layer, packet: &mut Packet) -> Option<()> {
    if quoted.protocol != IPPROTO_TCP {
        return None;
    }
    let [ports, sequence] = bytes.at::<[u32; 2]>(quoted.transport)?;
    packet.kind = Kind::ICMP_ERROR;
    packet.flow.source_port = 0;
    packet.flow.destination_port = 0;
    packet.payload_len = 0;
    packet.key.address = quoted.source;
    packet.key.port = (u32::from_be(ports) >> 16) as u16;
    packet.key.sequence = u32::from_be(sequence);
    Some(())
}
