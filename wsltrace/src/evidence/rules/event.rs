//! The kernel's words about one packet and one rule, decoded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, Nla, NlasIterator};
use netlink_packet_netfilter::NetfilterProtoFamily;

const NFTA_TRACE_TABLE: u16 = 1;
const NFTA_TRACE_CHAIN: u16 = 2;
const NFTA_TRACE_RULE_HANDLE: u16 = 3;
const NFTA_TRACE_TYPE: u16 = 4;
const NFTA_TRACE_VERDICT: u16 = 5;
const NFTA_TRACE_ID: u16 = 6;
const NFTA_TRACE_NETWORK_HEADER: u16 = 8;
const NFTA_TRACE_TRANSPORT_HEADER: u16 = 9;
const NFTA_TRACE_POLICY: u16 = 16;
const NFTA_VERDICT_CODE: u16 = 1;

/// A rule or a chain's policy, by its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RuleRef {
    /// `ip`, `ip6`, `inet`, `netdev`, ...
    pub(crate) family: &'static str,
    /// Its table.
    pub(crate) table: String,
    /// Its chain.
    pub(crate) chain: String,
    /// The rule's handle; `None` for the chain's policy.
    pub(crate) handle: Option<u64>,
}

/// What a rule or policy answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    /// Taken over by the expression itself.
    Stolen,
    /// Given to a queue.
    Queue,
    /// Goes on in this or another chain.
    Continue,
}

/// Identity of a traced packet: the client's end and its initial sequence number, as the packet had them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The client's address.
    pub(crate) client: IpAddr,
    /// The client's port.
    pub(crate) port: u16,
    /// Initial sequence number of the client.
    pub(crate) sequence: u32,
    /// Whether it is the server's answer.
    pub(crate) answer: bool,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceEvent {
    /// The same for all messages of one packet; reused for later ones.
    pub(crate) id: u32,
    /// Where.
    pub(crate) rule: RuleRef,
    /// What.
    pub(crate) verdict: Verdict,
    /// The packet; only in the first message of each base chain.
    pub(crate) packet: Option<Identity>,
    /// The packet's ports, source and destination, with it.
    pub(crate) ports: Option<Ports>,
}

/// Source and destination port of a packet.
pub(crate) type Ports = (u16, u16);

/// nft's name of a family.
pub(crate) fn family_name(family: NetfilterProtoFamily) -> &'static str {
    match family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::NetDev => "netdev",
        NetfilterProtoFamily::Bridge => "bridge",
        NetfilterProtoFamily::ARP => "arp",
        _ => "unknown",
    }
}

/// Decodes a message; `None` when something that every such message has is missing.
pub(crate) fn decode(family: NetfilterProtoFamily, attributes: &[DefaultNla]) -> Option<TraceEvent> {
    const POLICY: u32 = 1;
    const RULE: u32 = 3;
    let value = |kind: u16| attributes.iter().find(|nla| nla.kind() & 0x3fff == kind).map(bytes_of);
    let number = |kind: u16| value(kind).and_then(|bytes| be32(&bytes));
    let text =
        |kind: u16| value(kind).map(|bytes| String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes)).into_owned());
    let kind = number(NFTA_TRACE_TYPE)?;
    let handle = value(NFTA_TRACE_RULE_HANDLE).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    let verdict = match kind {
        POLICY => number(NFTA_TRACE_POLICY).or_else(|| verdict_code(&value(NFTA_TRACE_VERDICT)?)).map(verdict_of)?,
        RULE => verdict_of(verdict_code(&value(NFTA_TRACE_VERDICT)?)?),
        _ => Verdict::Continue,
    };
    let packet = value(NFTA_TRACE_NETWORK_HEADER).zip(value(NFTA_TRACE_TRANSPORT_HEADER));
    Some(TraceEvent {
        id: number(NFTA_TRACE_ID)?,
        rule: RuleRef {
            family: family_name(family),
            table: text(NFTA_TRACE_TABLE)?,
            chain: text(NFTA_TRACE_CHAIN)?,
            handle: handle.filter(|_| kind != POLICY),
        },
        verdict,
        ports: packet.as_ref().and_then(|(_, transport)| ports(transport)),
        packet: packet.and_then(|(network, transport)| identity(&network, &transport)),
    })
}

fn bytes_of(nla: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    bytes
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn verdict_code(nested: &[u8]) -> Option<u32> {
    NlasIterator::new(nested).flatten().find(|nla| nla.kind() & 0x3fff == NFTA_VERDICT_CODE).and_then(|nla| be32(nla.value()))
}

fn verdict_of(code: u32) -> Verdict {
    // Queues carry their number in the upper half; the verdicts of nftables itself (jump, goto, return) are negative.
    match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        2 => Verdict::Stolen,
        code if code & 0xffff == 3 && code >> 31 == 0 => Verdict::Queue,
        _ => Verdict::Continue,
    }
}

fn ports(transport: &[u8]) -> Option<Ports> {
    let port = |at: usize| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
    Some((port(0)?, port(2)?))
}

fn identity(network: &[u8], transport: &[u8]) -> Option<Identity> {
    const ACK: u8 = 0x10;
    const SYN: u8 = 0x02;
    let (source, destination): (IpAddr, IpAddr) = match network.first()? >> 4 {
        4 => (address4(network.get(12..16)?)?.into(), address4(network.get(16..20)?)?.into()),
        6 => (address6(network.get(8..24)?)?.into(), address6(network.get(24..40)?)?.into()),
        _ => return None,
    };
    let (source_port, destination_port) = ports(transport)?;
    let word = |at: usize| be32(transport.get(at..at + 4)?);
    let flags = transport.get(13)?;
    Some(if flags & (SYN | ACK) == SYN {
        Identity { client: source, port: source_port, sequence: word(4)?, answer: false }
    } else {
        Identity { client: destination, port: destination_port, sequence: word(8)?.wrapping_sub(1), answer: true }
    })
}

fn address4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn address6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}
