//! The expressions that put a field into a register, or change one. Numbers of settings and of keys are those of
//! `linux/netfilter/nf_tables.h`.

use super::expression::Expression;
use super::registers::{Content, Piece, Scale};
use super::rule::{ALL, Read, Reader, must, named, size};
use crate::simulate::ruleset::{Mark, Statement};
use crate::simulate::unknown;
use crate::simulate::value::{Arp, Field};

/// `NFT_PAYLOAD_LL_HEADER`, `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Of a frame of Ethernet: where a field begins, its bytes.
const FRAME: [(usize, usize, Field); 1] = [(12, 2, Field::EtherType)];
/// The same of ARP for IPv4 over Ethernet.
const ARP: [(usize, usize, Field); 7] = [
    (0, 2, Field::Arp(Arp::HardwareType)),
    (2, 2, Field::Arp(Arp::ProtocolType)),
    (4, 1, Field::Arp(Arp::HardwareLength)),
    (5, 1, Field::Arp(Arp::ProtocolLength)),
    (6, 2, Field::Arp(Arp::Operation)),
    (14, 4, Field::Arp(Arp::Sender)),
    (24, 4, Field::Arp(Arp::Target)),
];
/// The same of IPv4, IPv6 and TCP.
const IPV4: [(usize, usize, Field); 5] = [
    (0, 1, Field::IpVersion { ipv4: true }),
    (6, 2, Field::FragmentOffset),
    (9, 1, Field::NextHeader { ipv4: true }),
    (12, 4, Field::Source { ipv4: true }),
    (16, 4, Field::Destination { ipv4: true }),
];
const IPV6: [(usize, usize, Field); 5] = [
    (0, 1, Field::IpVersion { ipv4: false }),
    (6, 1, Field::NextHeader { ipv4: false }),
    (7, 1, Field::HopLimit),
    (8, 16, Field::Source { ipv4: false }),
    (24, 16, Field::Destination { ipv4: false }),
];
const TCP: [(usize, usize, Field); 3] = [(0, 2, Field::SourcePort), (2, 2, Field::DestinationPort), (13, 1, Field::TcpFlags)];

impl Reader<'_> {
    pub(super) fn payload(&mut self, expression: &Expression) -> Read {
        const DREG: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LEN: u16 = 4;
        let (base, offset, len) = (must(expression, BASE)?, size(expression, OFFSET)?, size(expression, LEN)?);
        let fields: &[(usize, usize, Field)] = match (base, self.ipv4) {
            // Elsewhere there may be none.
            (LINK_HEADER, _) if self.sees_frames() => &FRAME,
            (NETWORK_HEADER, _) if self.arp => &ARP,
            (NETWORK_HEADER, Some(true)) => &IPV4,
            (NETWORK_HEADER, Some(false)) => &IPV6,
            (TRANSPORT_HEADER, _) => &TCP,
            _ => &[],
        };
        let Some(register) = expression.number(DREG) else {
            // It writes. What is not read by anything here does not matter.
            let touches = |(at, size, _): &(usize, usize, Field)| *at < offset + len && offset < at + size;
            let read = fields
                .iter()
                .filter(|(_, _, field)| !matches!(field, Field::IpVersion { .. } | Field::FragmentOffset | Field::HopLimit));
            let matters = read.filter(|(_, _, field)| !matches!(field, Field::NextHeader { .. })).any(touches);
            let is_known = !fields.is_empty() || base == LINK_HEADER;
            return Ok((matters || !is_known).then_some(Statement::Anything(unknown::EXPRESSION)));
        };
        let other = if base == LINK_HEADER { "ether" } else { "payload" };
        let (mut at, mut contents) = (offset, Vec::new());
        while at < offset + len {
            let left = offset + len - at;
            let piece = match fields.iter().find(|(start, ..)| *start == at) {
                Some((_, 1, field @ Field::IpVersion { .. })) => Piece { scale: Scale::Version, ..Piece::new(*field, 1, true) },
                Some((_, size, field)) if *size <= left => Piece::new(*field, *size, true),
                Some((_, size, field)) => Piece { scale: Scale::Upper(8 * (size - left)), ..Piece::new(*field, left, true) },
                None => Piece::new(Field::Unknown(named(other)), left, true),
            };
            at += piece.len;
            contents.push(Content::Field(piece));
        }
        self.registers.put(register, contents);
        Ok(None)
    }

    pub(super) fn meta(&mut self, expression: &Expression) -> Read {
        const DREG: u16 = 1;
        const KEY: u16 = 2;
        const SREG: u16 = 3;
        const MARK: u32 = 3;
        const PKTTYPE: u32 = 19;
        let key = must(expression, KEY)?;
        if let Some(register) = expression.number(SREG) {
            return Ok(match key {
                MARK => Some(self.mark(Mark::Packet, register)),
                PKTTYPE => Some(Statement::Anything(named("pkttype"))),
                _ => None,
            });
        }
        let (field, len, big) = match key {
            1 => (Field::EtherType, 2, true),
            MARK => (Field::Mark, 4, false),
            4 => (Field::InputName, 4, false),
            5 => (Field::OutputName, 4, false),
            6 => (Field::InputName, 16, true),
            7 => (Field::OutputName, 16, true),
            15 => (Field::NetworkFamily, 1, true),
            16 => (Field::TransportProtocol, 1, true),
            PKTTYPE => (Field::PacketType, 1, true),
            other => (Field::Unknown(meta_name(other)), ALL, false),
        };
        Ok(self.load(must(expression, DREG)?, field, len, big))
    }

    pub(super) fn ct(&mut self, expression: &Expression) -> Read {
        const DREG: u16 = 1;
        const KEY: u16 = 2;
        const DIRECTION: u16 = 3;
        const SREG: u16 = 4;
        const MARK: u32 = 3;
        const ZONE: u32 = 17;
        let key = must(expression, KEY)?;
        if let Some(register) = expression.number(SREG) {
            return Ok(match key {
                MARK => Some(self.mark(Mark::Connection, register)),
                ZONE => Some(Statement::Template),
                _ => None,
            });
        }
        // What is of a direction, here the original one, is as it stands in the packet.
        let (field, len, big) = match (key, expression.bytes(DIRECTION)) {
            (0, None) => (Field::State, 4, false),
            (1, None) => (Field::Direction, 1, false),
            (2, None) => (Field::Status, 4, false),
            (MARK, None) => (Field::ConnectionMark, 4, false),
            (12, Some([0])) => (Field::AskedPort, 2, true),
            (20, Some([0])) => (Field::AskedAddress { ipv4: true }, 4, true),
            (22, Some([0])) => (Field::AskedAddress { ipv4: false }, 16, true),
            _ => (Field::Unknown(unknown::CT), ALL, false),
        };
        Ok(self.load(must(expression, DREG)?, field, len, big))
    }

    /// A field of another header, or an option of TCP.
    pub(super) fn header(&mut self, expression: &Expression) -> Option<Statement> {
        const DREG: u16 = 1;
        const OP: u16 = 6;
        const SREG: u16 = 7;
        const OPTION: u32 = 1;
        let name = if expression.number(OP) == Some(OPTION) { "tcp option" } else { "exthdr" };
        match (expression.number(DREG), expression.number(SREG)) {
            (Some(register), _) => self.load(register, Field::Unknown(named(name)), ALL, true),
            // It writes what nothing here reads.
            (None, Some(_)) => None,
            (None, None) => Some(Statement::Anything(named(name))),
        }
    }
}

/// The register that an expression fills, by the number of the setting that says so.
pub(super) fn dreg(expression: &Expression) -> u16 {
    const NFTA_HASH_DREG: u16 = 2;
    const NFTA_SOCKET_DREG: u16 = 2;
    match expression.name.as_str() {
        "hash" => NFTA_HASH_DREG,
        "socket" => NFTA_SOCKET_DREG,
        _ => 1,
    }
}

/// A number that chance or a hash decides.
pub(super) fn chance(expression: &Expression) -> Field {
    const NFTA_NG_MODULUS: u16 = 2;
    const NFTA_NG_OFFSET: u16 = 4;
    const NFTA_HASH_MODULUS: u16 = 4;
    const NFTA_HASH_OFFSET: u16 = 6;
    const NFTA_HASH_TYPE: u16 = 7;
    let (name, modulus, offset) = match expression.name.as_str() {
        "hash" if expression.number(NFTA_HASH_TYPE) == Some(1) => ("symhash", NFTA_HASH_MODULUS, NFTA_HASH_OFFSET),
        "hash" => ("jhash", NFTA_HASH_MODULUS, NFTA_HASH_OFFSET),
        name => (name, NFTA_NG_MODULUS, NFTA_NG_OFFSET),
    };
    let number = |setting| expression.number(setting).unwrap_or(0);
    Field::between(number(modulus), number(offset), named(name))
}

/// A field that is not known here, by what nft calls it.
pub(super) fn of(expression: &Expression) -> Field {
    Field::Unknown(named(match expression.name.as_str() {
        "xfrm" => "ipsec",
        name => name,
    }))
}

pub(super) fn fib(expression: &Expression) -> Field {
    const RESULT: u16 = 2;
    const FLAGS: u16 = 3;
    const ADDRESS_TYPE: u32 = 3;
    const SOURCE: u32 = 1;
    const DESTINATION: u32 = 2;
    const INPUT: u32 = 8;
    match (expression.number(RESULT), expression.number(FLAGS)) {
        (Some(ADDRESS_TYPE), Some(DESTINATION)) => Field::DestinationType { device: false },
        (Some(ADDRESS_TYPE), Some(flags)) if flags == DESTINATION | INPUT => Field::DestinationType { device: true },
        (Some(ADDRESS_TYPE), Some(SOURCE)) => Field::SourceType,
        _ => Field::Unknown(unknown::FIB),
    }
}

/// What nft calls a key of `meta` that is not known here.
fn meta_name(key: u32) -> &'static str {
    named(match key {
        0 => "length",
        // Asked before a header of Ethernet is read, without a word from nft.
        8 => "ether",
        9 | 21 | 22 | 26 | 27 => "devgroup",
        10 => "skuid",
        11 => "skgid",
        20 => "cpu",
        23 => "cgroup",
        24 => "random",
        25 => "ipsec",
        30 => "time",
        31 => "day",
        32 => "hour",
        _ => "",
    })
}
