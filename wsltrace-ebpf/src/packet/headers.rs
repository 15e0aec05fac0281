//! The headers of a packet, one after the other.

use wsltrace_common::Address;

use super::{Kind, Packet, bytes::Bytes};
use crate::maps::mapped;

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

/// Writes every field of the packet that [`super::Room::prepare`] does not, if it is one of those that have to do with an attempt.
#[inline(always)]
pub(super) fn parse<B: Bytes>(bytes: &B, protocol: u16, packet: &mut Packet) -> Option<()> {
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
