//! Constants by the names that nft and iptables print.

use std::net::IpAddr;

use super::unknown;
use super::value::{Arp, Field, Item, number_of};

/// The bits of conntrack's states, for `ct state`.
pub(super) const INVALID: u128 = 1;
pub(super) const ESTABLISHED: u128 = 2;
pub(super) const NEW: u128 = 8;
pub(super) const UNTRACKED: u128 = 64;
/// `-m conntrack`'s own bits for translated connections.
pub(super) const XT_SNAT: u128 = 1 << 16;
pub(super) const XT_DNAT: u128 = 1 << 17;
/// The bits of `ct status`.
pub(super) const STATUS_SNAT: u128 = 16;
pub(super) const STATUS_DNAT: u128 = 32;
/// `RTN_LOCAL`.
pub(super) const LOCAL: u128 = 2;
pub(super) const SYN: u128 = 2;
pub(super) const ACK: u128 = 16;
pub(super) const PSH: u128 = 8;
/// Both flags of a SYN that asks for congestion notification.
pub(super) const ECN: u128 = 0xc0;
pub(super) const TCP: u128 = 6;
pub(super) const ICMPV6: u128 = 58;
/// `ETH_P_IP`, `ETH_P_IPV6`, `ETH_P_ARP`.
pub(super) const IPV4: u128 = 0x0800;
pub(super) const IPV6: u128 = 0x86dd;
pub(super) const ARP: u128 = 0x0806;
/// `ARPOP_REQUEST`, `ARPOP_REPLY`.
pub(super) const ARP_REQUEST: u128 = 1;
pub(super) const ARP_REPLY: u128 = 2;

const STATES: [(&str, u128); 7] = [
    ("invalid", INVALID),
    ("established", 2),
    ("related", 4),
    ("new", NEW),
    ("untracked", UNTRACKED),
    ("snat", XT_SNAT),
    ("dnat", XT_DNAT),
];
const STATUSES: [(&str, u128); 8] = [
    ("none", 0),
    ("expected", 1),
    ("seen-reply", 2),
    ("assured", 4),
    ("confirmed", 8),
    ("snat", STATUS_SNAT),
    ("dnat", STATUS_DNAT),
    ("dying", 512),
];
const FLAGS: [(&str, u128); 10] = [
    ("fin", 1),
    ("syn", SYN),
    ("rst", 4),
    ("psh", 8),
    ("ack", 16),
    ("urg", 32),
    ("ecn", 64),
    ("cwr", 128),
    ("none", 0),
    ("all", 63),
];
const PROTOCOLS: [(&str, u128); 20] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("ipv4", 4),
    ("ipip", 4),
    ("tcp", TCP),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("comp", 108),
    ("ospf", 89),
    ("vrrp", 112),
    ("pim", 103),
    ("sctp", 132),
    ("udplite", 136),
];
const FAMILIES: [(&str, u128); 2] = [("ipv4", 2), ("ipv6", 10)];
const ETHER_TYPES: [(&str, u128); 4] = [("ip", IPV4), ("ip6", IPV6), ("arp", ARP), ("vlan", 0x8100)];
const ARP_OPERATIONS: [(&str, u128); 2] = [("request", ARP_REQUEST), ("reply", ARP_REPLY)];
const DIRECTIONS: [(&str, u128); 2] = [("original", 0), ("reply", 1)];
const PACKET_TYPES: [(&str, u128); 5] = [("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)];
const TYPES: [(&str, u128); 8] = [
    ("unspec", 0),
    ("unicast", 1),
    ("local", LOCAL),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
];

/// The number by which a field has what a word says.
pub(super) fn number(field: Field, word: &str) -> Option<u128> {
    let table: &[(&str, u128)] = match field {
        Field::Source { .. } | Field::Destination { .. } | Field::AskedAddress { .. } | Field::Arp(Arp::Sender | Arp::Target) => {
            return word.parse::<IpAddr>().ok().map(number_of);
        }
        Field::State | Field::XtState => &STATES,
        Field::Status => &STATUSES,
        Field::TcpFlags => &FLAGS,
        Field::TransportProtocol | Field::NextHeader { .. } => &PROTOCOLS,
        Field::NetworkFamily => &FAMILIES,
        Field::EtherType | Field::Arp(Arp::ProtocolType) => &ETHER_TYPES,
        Field::Arp(Arp::Operation) => &ARP_OPERATIONS,
        Field::Direction => &DIRECTIONS,
        Field::PacketType => &PACKET_TYPES,
        Field::DestinationType { .. } | Field::SourceType => &TYPES,
        _ => &[],
    };
    let word = word.to_ascii_lowercase();
    table.iter().find(|(name, _)| *name == word).map(|(_, number)| *number).or_else(|| plain(&word))
}

/// A number, which may be hexadecimal.
pub(super) fn plain(word: &str) -> Option<u128> {
    match word.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// A constant for a field.
pub(super) fn item(field: Field, word: &str) -> Item {
    if matches!(field, Field::InputName | Field::OutputName) {
        // An escaped asterisk is a character of the name, which no device has by chance.
        return match word.strip_suffix('*') {
            Some(text) if text.contains('\\') => Item::Unknown(unknown::CONSTANT),
            Some(text) => Item::Name { text: text.to_owned(), beginning: true },
            None => Item::Name { text: word.to_owned(), beginning: false },
        };
    }
    number(field, word).map_or(Item::Unknown(unknown::CONSTANT), |number| Item::Range(number, number))
}

/// The addresses of a network.
pub(super) fn network(address: u128, length: u32, ipv4: bool) -> Item {
    let bits = if ipv4 { 32 } else { 128 };
    let Some(host) = u32::checked_sub(bits, length) else { return Item::Unknown(unknown::CONSTANT) };
    let rest = 1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
    Item::Range(address & !rest, (address & !rest) | rest)
}
