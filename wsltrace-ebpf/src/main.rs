//! The probes, in the order of a packet's way. Each gathers and returns; none changes anything: TC programs answer `TCX_NEXT`,
//! netfilter programs `NF_ACCEPT`, the socket lookup `SK_PASS` without a choice.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), expect(internal_features, reason = "see atomic.rs"))]

mod atomic;
mod debug;
mod journey;
mod kernel;
mod maps;
mod packet;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sk_lookup},
    macros::{btf_tracepoint, classifier, sk_lookup},
    programs::{BtfTracePointContext, SkLookupContext, TcContext},
};
use wsltrace_common::{Flags, Key, NAMESPACE_TRACED, NearMiss, StageCode};

use crate::{
    kernel::{HookState, Place, SkBuff, offset, read, tc_netns},
    maps::{
        DELIVERED, NEAR_MISSES, NETWORK_NAMESPACES, SWITCH_NEAR_MISSES, asleep, mapped, nobody_waits, port_is_traced, switched_on,
    },
    packet::{Kind, Packet},
};

const TCX_NEXT: i32 = -1;
const NF_ACCEPT: i32 = 1;
const SK_PASS: u32 = 1;
const PACKET_OTHERHOST: u32 = 3;
const ETHERNET_HEADER: u32 = 14;

/// Every packet that comes in by an Ethernet-like device (`lo` included).
#[classifier]
pub fn tc_ingress(context: TcContext) -> i32 {
    let _: Option<()> = ingress(&context, ETHERNET_HEADER);
    TCX_NEXT
}

/// The same for devices without a link-layer header (tun and the like).
#[classifier]
pub fn tc_ingress_l3(context: TcContext) -> i32 {
    let _: Option<()> = ingress(&context, 0);
    TCX_NEXT
}

/// Every packet that leaves by an Ethernet-like device.
#[classifier]
pub fn tc_egress(context: TcContext) -> i32 {
    let _: Option<()> = egress(&context, ETHERNET_HEADER);
    TCX_NEXT
}

/// The same for devices without a link-layer header.
#[classifier]
pub fn tc_egress_l3(context: TcContext) -> i32 {
    let _: Option<()> = egress(&context, 0);
    TCX_NEXT
}

#[inline(always)]
fn raw(context: &TcContext) -> *mut __sk_buff {
    context.skb.skb
}

/// The entrance of packets from outside. Traffic that is not traced pays for `concerns_us` only.
#[inline(always)]
fn ingress(context: &TcContext, link_header: u32) -> Option<()> {
    let awake = !asleep();
    if !concerns_us(context, link_header, awake) {
        return None;
    }
    // SAFETY: the context is valid; the verifier rewrites the access.
    let (protocol, ifindex, packet_type) =
        unsafe { ((*raw(context)).protocol, (*raw(context)).ifindex, (*raw(context)).pkt_type) };
    if packet_type == PACKET_OTHERHOST {
        return None;
    }
    let packet = packet::from_frame(raw(context), link_header, u16::from_be(protocol as u16))?;
    let skb = raw(context) as u64;
    if packet.kind == Kind::ACK {
        acknowledged(&packet);
    } else if packet.kind == Kind::SYN {
        let place = Place { netns: tc_netns(skb)?, ifindex };
        syn_came_in(&packet, skb, place)?;
    } else {
        let found = journey::find(&packet, skb)?;
        journey::enter(&found, &packet, skb, StageCode::TcIngress as u8, Place { netns: tc_netns(skb)?, ifindex });
    }
    Some(())
}

#[inline(always)]
fn syn_came_in(packet: &Packet, skb: u64, place: Place) -> Option<()> {
    let known = journey::find(packet, skb);
    let found = match known {
        Some(found) if !journey::is_next_attempt(&found, skb, place, false) => found,
        _ => match journey::begin(packet, place, false) {
            Some(found) => found,
            None => return near_miss(packet, place),
        },
    };
    journey::enter(&found, packet, skb, StageCode::TcIngress as u8, place);
    Some(())
}

/// Counts a SYN to a port that is not traced, while nobody has seen one to a port that is.
#[inline(always)]
fn near_miss(packet: &Packet, place: Place) -> Option<()> {
    if !switched_on(SWITCH_NEAR_MISSES) || port_is_traced(packet.flow.destination_port) {
        return None;
    }
    // SAFETY: a value is one word.
    if *unsafe { NETWORK_NAMESPACES.get(place.netns) }? != NAMESPACE_TRACED {
        return None;
    }
    let key = NearMiss { netns: place.netns, ifindex: place.ifindex, port: u32::from(packet.flow.destination_port) };
    if let Some(count) = NEAR_MISSES.get_ptr_mut(key) {
        // SAFETY: a valid map value; a lost increment only makes the note's number too small.
        unsafe { *count += 1 };
    } else {
        NEAR_MISSES.insert(key, 1, 0).ok()?;
    }
    Some(())
}

/// The client acknowledged the SYN-ACK of an answered journey.
#[inline(always)]
fn acknowledged(packet: &Packet) {
    if let Some(found) = journey::newest(&packet.key) {
        let record = found.record();
        if record.flags & (Flags::SYN_ACK | Flags::ACK) == Flags::SYN_ACK {
            record.flags |= Flags::ACK;
            let place = Place { netns: record.netns, ifindex: record.ifindex };
            journey::push(record, StageCode::AckSeen as u8, false, place);
        }
    }
}

/// Whether a frame is worth a closer look: a SYN of a traced port (or any SYN while near misses are counted), an
/// acknowledgement that a journey waits for, and while a journey is under way any TCP or ICMP.
#[inline(always)]
fn concerns_us(context: &TcContext, link_header: u32, awake: bool) -> bool {
    // SAFETY: the context is valid; the verifier rewrites the access.
    let protocol = u16::from_be(unsafe { (*raw(context)).protocol } as u16);
    match protocol {
        // Anything but the plain header of 20 bytes takes the slow way.
        0x0800 => header_concerns_us(context, link_header as usize, 9, 20, 0x45, awake),
        0x86dd => header_concerns_us(context, link_header as usize, 6, 40, 0, awake),
        _ => false,
    }
}

/// The same for one family: where its protocol number and its transport header lie from the network header, and what the first
/// byte must be (0: anything). True where the linear part of the frame is too short to tell.
#[inline(always)]
fn header_concerns_us(context: &TcContext, network: usize, protocol_at: usize, transport: usize, first: u8, awake: bool) -> bool {
    const TCP_BYTES: usize = 14;
    let start = context.data() + network;
    if start + transport + TCP_BYTES > context.data_end() {
        return true;
    }
    // SAFETY: everything up to 14 bytes into the transport header was just checked to lie before the end of the data.
    let byte = |offset: usize| unsafe { *((start + offset) as *const u8) };
    let protocol = byte(protocol_at);
    if awake {
        return matches!(protocol, 1 | 6 | 58);
    }
    if protocol != 6 {
        return false;
    }
    if first != 0 && byte(0) != first {
        return true;
    }
    match byte(transport + 13) & 0x12 {
        0x02 => port_is_traced(u16::from_be_bytes([byte(transport + 2), byte(transport + 3)])) || switched_on(SWITCH_NEAR_MISSES),
        0x10 => !nobody_waits(),
        _ => false,
    }
}

#[inline(always)]
fn egress(context: &TcContext, link_header: u32) -> Option<()> {
    if asleep() {
        return None;
    }
    // SAFETY: the context is valid; the verifier rewrites the access.
    let (protocol, ifindex) = unsafe { ((*raw(context)).protocol, (*raw(context)).ifindex) };
    let packet = packet::from_frame(raw(context), link_header, u16::from_be(protocol as u16))?;
    if packet.kind == Kind::ACK {
        return None;
    }
    let skb = raw(context) as u64;
    let found = journey::find(&packet, skb)?;
    let place = Place { netns: tc_netns(skb)?, ifindex };
    journey::enter(&found, &packet, skb, StageCode::TcEgress as u8, place);
    let record = found.record();
    if packet.kind == Kind::SYN {
        record.flags |= Flags::OUTSIDE;
    } else if record.flags & Flags::LOCAL == 0 && place.netns == record.netns {
        if place.ifindex == record.ifindex {
            journey::answer_left(&found);
        } else {
            record.flags |= Flags::ANSWER_ELSEWHERE;
        }
    }
    Some(())
}

/// `struct bpf_nf_ctx`.
#[repr(C)]
struct NetfilterContext {
    state: *const u8,
    skb: *const u8,
}

/// One entry per position, because a netfilter program is not told at which priority it runs. (A tail call into one shared
/// program would load faster, but a program array leaks on 6.18 when somebody lists maps while it is being freed: its
/// release schedules one work twice and holds a reference for each.)
///
/// aya does not know this program type, so the section only has to be one that it parses; the loader passes the real type to
/// the kernel.
macro_rules! netfilter_entries {
    ($($name:ident => $stage:ident),+ $(,)?) => {$(
        /// A netfilter position.
        ///
        /// # Safety
        ///
        /// Called by the kernel with a valid context.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "socket")]
        pub unsafe extern "C" fn $name(context: *const core::ffi::c_void) -> i32 {
            let _: Option<()> = netfilter(context.cast(), StageCode::$stage as u8);
            NF_ACCEPT
        }
    )+};
}

netfilter_entries! {
    nf_prerouting => Prerouting,
    nf_prerouting_raw => PreroutingRaw,
    nf_prerouting_conntrack => PreroutingConntrack,
    nf_prerouting_mangle => PreroutingMangle,
    nf_prerouting_dnat => PreroutingDnat,
    nf_prerouting_rest => PreroutingRest,
    nf_routing => Routing,
    nf_input => Input,
    nf_input_mangle => InputMangle,
    nf_input_filter => InputFilter,
    nf_input_security => InputSecurity,
    nf_input_rest => InputRest,
    nf_input_end => InputEnd,
    nf_forward => Forward,
    nf_forward_mangle => ForwardMangle,
    nf_forward_filter => ForwardFilter,
    nf_forward_security => ForwardSecurity,
    nf_forward_rest => ForwardRest,
    nf_output => Output,
    nf_output_raw => OutputRaw,
    nf_output_conntrack => OutputConntrack,
    nf_output_mangle => OutputMangle,
    nf_output_nat => OutputNat,
    nf_output_filter => OutputFilter,
    nf_output_security => OutputSecurity,
    nf_output_rest => OutputRest,
    nf_postrouting => Postrouting,
    nf_postrouting_mangle => PostroutingMangle,
    nf_postrouting_snat => PostroutingSnat,
    nf_postrouting_rest => PostroutingRest,
    nf_postrouting_end => PostroutingEnd,
}

#[inline(always)]
fn netfilter(context: *const NetfilterContext, stage: u8) -> Option<()> {
    let entrance = stage == StageCode::Output as u8;
    if asleep() && !entrance {
        return None;
    }
    // SAFETY: the kernel passes a valid context; the verifier knows its two fields.
    let (state, skb) = unsafe { (HookState((*context).state), SkBuff((*context).skb)) };
    if asleep() && !state.may_connect() {
        return None;
    }
    let packet = packet::from_skb(skb)?;
    if packet.kind == Kind::ACK {
        return None;
    }
    let address = skb.address();
    let incoming = stage < StageCode::Forward as u8;
    let found = if entrance && packet.kind == Kind::SYN {
        let place = state.place(incoming);
        match journey::find(&packet, address) {
            Some(found) if !journey::is_next_attempt(&found, address, place, true) => found,
            _ => journey::begin(&packet, place, true)?,
        }
    } else {
        journey::find(&packet, address)?
    };
    let place = state.place(incoming);
    journey::enter(&found, &packet, address, stage, place);
    if packet.kind == Kind::SYN {
        syn_passed(&found, skb, stage);
    } else if stage == StageCode::InputEnd as u8 {
        let record = found.record();
        if record.flags & Flags::LOCAL != 0 && place.netns == record.netns {
            journey::answer_left(&found);
        }
    }
    Some(())
}

/// What some positions mean for a SYN beside being entered.
#[inline(always)]
fn syn_passed(found: &journey::Found, skb: SkBuff, code: u8) {
    let record = found.record();
    if code == StageCode::InputEnd as u8 {
        record.flags |= Flags::PAST_INPUT;
        if let Some(delivered) = DELIVERED.get_ptr_mut(0) {
            // SAFETY: a valid map value of this CPU, read back by the lookup on this CPU before anything else is delivered.
            unsafe { *delivered = record.key };
        }
    } else if code == StageCode::Postrouting as u8 {
        journey::carry_through_postrouting(found, skb.address());
    }
    let after_conntrack = (code > StageCode::PreroutingConntrack as u8 && code <= StageCode::ForwardRest as u8)
        || (code > StageCode::OutputConntrack as u8 && code <= StageCode::OutputRest as u8);
    if after_conntrack
        && record.flags & Flags::CONNTRACK == 0
        && let Some(nfct) = skb.nfct()
        && nfct != 0
    {
        record.flags |= Flags::CONNTRACK;
        record.conntrack = (nfct & 7) as u32;
    }
}

/// The kernel looks for a listener. It also does so for nft's `socket` and for tproxy, before INPUT: only a lookup that
/// follows INPUT's last position counts.
#[sk_lookup]
pub fn socket_lookup(context: SkLookupContext) -> u32 {
    if !asleep() {
        let _: Option<()> = looked_up(context.lookup);
    }
    SK_PASS
}

#[inline(always)]
fn looked_up(context: *mut bpf_sk_lookup) -> Option<()> {
    const AF_INET: u32 = 2;
    let delivered = DELIVERED.get_ptr_mut(0)?;
    // Every field is read, whatever the family: a load from either of two offsets would be one through a changed context
    // pointer, which the verifier refuses. Volatile, so that the compiler does not make it one.
    macro_rules! read {
        ($($field:tt)+) => {{
            // SAFETY: the context is valid; the verifier rewrites the access.
            unsafe { core::ptr::read_volatile(&raw const (*context).$($field)+) }
        }};
    }
    let (family, port, ipv4) = (read!(family), u16::from_be(read!(remote_port)), read!(remote_ip4));
    let ipv6 = [read!(remote_ip6[0]), read!(remote_ip6[1]), read!(remote_ip6[2]), read!(remote_ip6[3])];
    let address = if family == AF_INET { [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), ipv4] } else { ipv6 };
    // SNAT may have given the client another end than the journey's key: the address as last seen decides.
    // SAFETY: a valid map value of this CPU.
    let found = journey::newest(unsafe { &*delivered })?;
    let record = found.record();
    if record.flags & Flags::PAST_INPUT == 0 || record.now.source_port != port || words(&record.now.source) != address {
        return None;
    }
    record.flags &= !Flags::PAST_INPUT;
    let place = journey::last_place(record);
    journey::push(record, StageCode::SocketLookup as u8, false, place);
    Some(())
}

/// An address as four words, each in network byte order.
#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

/// The kernel's TCP answers a packet with RST. Argument 1 is the packet that it answers; it is null when there is none.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(context: BtfTracePointContext) -> i32 {
    if !asleep() {
        let _: Option<()> = kernel_reset(SkBuff(context.arg(1)));
    }
    0
}

#[inline(always)]
fn kernel_reset(skb: SkBuff) -> Option<()> {
    if skb.0.is_null() {
        return None;
    }
    let packet = packet::from_skb(skb)?;
    if packet.kind == Kind::SYN {
        let found = journey::find(&packet, skb.address())?;
        found.record().flags |= Flags::KERNEL_RESET;
    }
    Some(())
}

/// A packet is freed as dropped.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(context: BtfTracePointContext) -> i32 {
    if asleep() {
        return 0;
    }
    let skb = SkBuff(context.arg(0));
    if let Some(packet) = packet::from_skb(skb) {
        journey::dropped(&packet, skb, context.arg(1), context.arg(2));
    }
    0
}

/// A packet is freed as consumed.
#[btf_tracepoint(function = "consume_skb")]
pub fn consume_skb(context: BtfTracePointContext) -> i32 {
    if asleep() {
        return 0;
    }
    let skb = SkBuff(context.arg(0));
    if let Some(packet) = packet::from_skb(skb) {
        let location = if offset!(consume_skb_location_argument) == 1 { context.arg(1) } else { 0 };
        journey::consumed(&packet, skb, location);
    }
    0
}

/// The kernel sends its SYN-ACK again, because the client did not acknowledge the first.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(context: BtfTracePointContext) -> i32 {
    if !(nobody_waits() && asleep()) {
        let _: Option<()> = syn_ack_again(context.arg(1));
    }
    0
}

#[inline(always)]
fn syn_ack_again(request: u64) -> Option<()> {
    let family: u16 = read(request + u64::from(offset!(inet_request_sock_family)))?;
    let key = Key {
        address: address_of(family, request, offset!(inet_request_sock_rmt_addr), offset!(inet_request_sock_v6_rmt_addr))?,
        sequence: read(request + u64::from(offset!(tcp_request_sock_rcv_isn)))?,
        port: u16::from_be(read(request + u64::from(offset!(inet_request_sock_rmt_port)))?),
        slot: 0,
    };
    let found = journey::newest(&key)?;
    let record = found.record();
    record.flags |= Flags::SYN_ACK_AGAIN;
    let place = Place { netns: record.netns, ifindex: record.ifindex };
    journey::push(record, StageCode::SynAckRetransmitted as u8, true, place);
    Some(())
}

/// The remote address of a socket or request, by its family.
#[inline(always)]
fn address_of(family: u16, base: u64, v4: u32, v6: u32) -> Option<[u8; 16]> {
    const AF_INET: u16 = 2;
    if family == AF_INET { read(base + u64::from(v4)).map(mapped) } else { read(base + u64::from(v6)) }
}

/// A socket changes its state. A server's connection becomes established from `SYN_RECV`, a client's from `SYN_SENT`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    const TCP_ESTABLISHED: i32 = 1;
    const TCP_SYN_RECV: i32 = 3;
    if nobody_waits() && asleep() {
        return 0;
    }
    if context.arg::<i32>(1) == TCP_SYN_RECV && context.arg::<i32>(2) == TCP_ESTABLISHED {
        let _: Option<()> = became_established(context.arg(0));
    }
    0
}

#[inline(always)]
fn became_established(socket: u64) -> Option<()> {
    // The event is global: the server may be in a namespace that is not watched, where nobody would see it on another machine.
    let net: u64 = read(socket + u64::from(offset!(sock_net)))?;
    let netns: u32 = read(net + u64::from(offset!(net_inum)))?;
    // SAFETY: only whether there is such an element matters.
    unsafe { NETWORK_NAMESPACES.get(netns) }?;
    let family: u16 = read(socket + u64::from(offset!(sock_family)))?;
    let next: u32 = read(socket + u64::from(offset!(tcp_sock_rcv_nxt)))?;
    let received: u64 = read(socket + u64::from(offset!(tcp_sock_bytes_received)))?;
    journey::established(&Key {
        address: address_of(family, socket, offset!(sock_daddr), offset!(sock_v6_daddr))?,
        sequence: next.wrapping_sub(1).wrapping_sub(received as u32),
        port: u16::from_be(read(socket + u64::from(offset!(sock_dport)))?),
        slot: 0,
    });
    Some(())
}

/// What user space passes to `collect`.
#[repr(C)]
struct CollectRequest {
    key: Key,
    last_ns: u64,
}

/// Run by user space (not attached to anything): ends an overdue journey the same way as the probes do, so that the counters
/// stay exact. Answers 1 when the journey moved on since user space looked, or is gone.
///
/// # Safety
///
/// Called by the kernel with a context of the size of `CollectRequest`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
pub unsafe extern "C" fn collect(context: *const core::ffi::c_void) -> i32 {
    let request = context.cast::<CollectRequest>();
    // SAFETY: the kernel checked the size of the context that user space gave.
    let (key, last_ns) = unsafe { ((*request).key, (*request).last_ns) };
    i32::from(journey::collect(&key, last_ns).is_none())
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // A reachable panic would be an endless loop, which the verifier refuses to load.
    loop {}
}
