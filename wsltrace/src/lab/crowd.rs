//! A table of connection tracking without room: filled with connections that exist in it only, all of them established, so that
//! the kernel lets none go before its time.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, Status, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{LabError, Namespace};
use crate::kernel::netlink;

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// How long an entry stays, in seconds.
const KEPT: u32 = 600;
/// How many entries are made with one system call.
const BATCH: u32 = 128;
/// The largest table that is filled: more would take a machine's memory for a lab.
const MOST: u32 = 1 << 20;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);

/// Fills the table of a namespace.
pub(super) fn fill_conntrack(namespace: &Namespace) -> Result<(), LabError> {
    let doing = || LabError::io("fill the table of connection tracking");
    namespace.run(|| {
        let most = setting("nf_conntrack_max").map_err(doing())?;
        if most > MOST {
            return Err(LabError::Unsupported(format!("nf_conntrack_max is {most}: too many entries to fill the table with")));
        }
        let socket = netlink::socket(NETLINK_NETFILTER).map_err(doing())?;
        for begin in (0..most).step_by(BATCH as usize) {
            let mut bytes = Vec::new();
            (begin..begin + BATCH).for_each(|number| append(&mut bytes, number));
            socket.send(&bytes, 0).map_err(doing())?;
        }
        let count = setting("nf_conntrack_count").map_err(doing())?;
        if count < most {
            return Err(LabError::Unsupported(format!(
                "only {count} of {most} entries could be made: is nf_conntrack_netlink there?"
            )));
        }
        Ok(())
    })
}

fn setting(name: &str) -> io::Result<u32> {
    let value = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"))?;
    value.trim().parse().map_err(io::Error::other)
}

/// Appends the request for one entry. The kernel answers only those that it refuses.
fn append(bytes: &mut Vec<u8>, number: u32) {
    let [_, high, middle, low] = number.to_be_bytes();
    let client = (Ipv4Addr::new(10, high, middle, low), 40_000);
    let server = (SERVER, 443);
    let attributes = vec![
        ConntrackAttribute::CtaTupleOrig(tuple(client, server)),
        ConntrackAttribute::CtaTupleReply(tuple(server, client)),
        ConntrackAttribute::CtaStatus(Status::Confirmed | Status::SeenReply | Status::Assured),
        ConntrackAttribute::CtaTimeout(KEPT),
        ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(vec![ProtoInfoTCP::State(ESTABLISHED)])]),
    ];
    let message = NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes));
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let mut packet = NetlinkMessage::from(NetfilterMessage::new(header, message));
    packet.header.flags = NLM_F_REQUEST | NLM_F_CREATE;
    packet.finalize();
    let at = bytes.len();
    bytes.resize(at + packet.buffer_len().next_multiple_of(4), 0);
    packet.serialize(&mut bytes[at..]);
}

fn tuple(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<Tuple> {
    let addresses = vec![IPTuple::SourceAddress(from.0.into()), IPTuple::DestinationAddress(to.0.into())];
    let ports = vec![ProtoTuple::Protocol(Protocol::Tcp), ProtoTuple::SourcePort(from.1), ProtoTuple::DestinationPort(to.1)];
    vec![Tuple::Ip(addresses), Tuple::Proto(ports)]
}
