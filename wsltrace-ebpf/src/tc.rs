//! The devices: every packet that comes in or leaves.

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use wsltrace_common::{Flags, NAMESPACE_TRACED, NearMiss, StageCode};

use crate::{
    journey,
    kernel::{Place, is_handed_on, skb_netns},
    maps::{NEAR_MISSES, NETWORK_NAMESPACES, SWITCH_NEAR_MISSES, asleep, nobody_waits, port_is_traced, switched_on},
    packet::{self, Kind, Packet, Room},
};

const TCX_NEXT: i32 = -1;
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
    // A frame for another's hardware address is a reader's, or a flood's, and goes no further, unless a bridge hands it on, or
    // it is a macvlan's, which may stand in another namespace.
    let astray = packet_type == PACKET_OTHERHOST && !is_handed_on(raw(context) as u64);
    if astray && !switched_on(SWITCH_NEAR_MISSES) {
        return None;
    }
    let mut room = Room::new();
    let packet = &*packet::from_frame(raw(context), link_header, u16::from_be(protocol as u16), &mut room)?;
    if astray {
        let place = Place { netns: skb_netns(packet.carrier.skb)?, ifindex };
        return if packet.kind == Kind::SYN && port_is_traced(packet.flow.destination_port) {
            count(packet, place)
        } else {
            None
        };
    }
    if packet.kind == Kind::ACK {
        acknowledged(packet);
        return None;
    }
    let place = Place { netns: skb_netns(packet.carrier.skb)?, ifindex };
    if packet.kind != Kind::SYN {
        journey::visit(packet, StageCode::TcIngress, place);
    } else if !journey::enter(packet, place, false) {
        near_miss(packet, place)?;
    }
    Some(())
}

/// Counts a SYN to a port that is not traced, while nobody has seen one to a port that is.
#[inline(always)]
fn near_miss(packet: &Packet, place: Place) -> Option<()> {
    if !switched_on(SWITCH_NEAR_MISSES) || port_is_traced(packet.flow.destination_port) {
        return None;
    }
    count(packet, place)
}

/// Counts a SYN of which there is no journey.
#[inline(always)]
fn count(packet: &Packet, place: Place) -> Option<()> {
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
            journey::note(record, StageCode::AckSeen as u8, false, place);
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
    // Extension headers of IPv6 take the slow way.
    let extended = matches!(protocol, 0 | 43 | 44 | 60);
    if awake || extended {
        return extended || matches!(protocol, 1 | 6 | 58);
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

/// Whether a frame is worth a closer look while journeys only wait for their clients. True where that is not plain to see.
#[inline(always)]
fn may_be_syn_ack(context: &TcContext, link_header: u32) -> bool {
    // SAFETY: the context is valid; the verifier rewrites the access.
    let protocol = u16::from_be(unsafe { (*raw(context)).protocol } as u16);
    match protocol {
        0x0800 => header_may_be_of_syn_ack(context, link_header as usize, 9, 20, 0x45),
        0x86dd => header_may_be_of_syn_ack(context, link_header as usize, 6, 40, 0),
        _ => false,
    }
}

/// The same for one family; the numbers are those of [`header_concerns_us`].
#[inline(always)]
fn header_may_be_of_syn_ack(context: &TcContext, network: usize, protocol_at: usize, transport: usize, first: u8) -> bool {
    const TCP_BYTES: usize = 14;
    let start = context.data() + network;
    if start + transport + TCP_BYTES > context.data_end() {
        return true;
    }
    // SAFETY: everything up to 14 bytes into the transport header was just checked to lie before the end of the data.
    let byte = |offset: usize| unsafe { *((start + offset) as *const u8) };
    match byte(protocol_at) {
        6 => first != 0 && byte(0) != first || byte(transport + 13) & 0x12 == 0x12,
        0 | 43 | 44 | 60 => true,
        _ => false,
    }
}

#[inline(always)]
fn egress(context: &TcContext, link_header: u32) -> Option<()> {
    // An answer that left its device may be sent to another one behind our place there.
    if asleep() && (nobody_waits() || !may_be_syn_ack(context, link_header)) {
        return None;
    }
    // SAFETY: the context is valid; the verifier rewrites the access.
    let (protocol, ifindex) = unsafe { ((*raw(context)).protocol, (*raw(context)).ifindex) };
    let mut room = Room::new();
    let packet = &*packet::from_frame(raw(context), link_header, u16::from_be(protocol as u16), &mut room)?;
    if packet.kind == Kind::ACK {
        return None;
    }
    let place = Place { netns: skb_netns(packet.carrier.skb)?, ifindex };
    journey::visit(packet, StageCode::TcEgress, place);
    Some(())
}
