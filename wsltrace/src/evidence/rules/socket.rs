//! The sockets of one namespace: one owns our table, the other hears the kernel's messages about marked packets.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::sys::{Socket, protocols::NETLINK_NETFILTER};

use super::event::{self, TraceEvent};
use crate::kernel::netlink;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNLGRP_NFTRACE: u32 = 9;
/// Room for the messages of a second's marked packets through long rulesets: the kernel counts about 1 KiB for each.
const RECEIVE_BYTES: usize = 16 << 20;

/// Our table; it goes with this.
#[derive(Debug)]
pub(crate) struct OwnTable {
    _socket: Socket,
}

impl OwnTable {
    /// Makes the table in the calling thread's namespace, or nothing at all.
    pub(crate) fn make(messages: Vec<NfTablesMessage>) -> io::Result<Self> {
        let socket = netlink::socket(NETLINK_NETFILTER)?;
        let expected = messages.len();
        let control = |message| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
            NetfilterMessage::new(header, message)
        };
        let mut bytes = Vec::new();
        append(&mut bytes, control(ControlMessage::BatchBegin), 0, 0);
        for (number, message) in (1..).zip(messages) {
            let inet = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
            append(&mut bytes, NetfilterMessage::new(inet, message), NLM_F_ACK | NLM_F_CREATE, number);
        }
        append(&mut bytes, control(ControlMessage::BatchEnd), 0, 0);
        socket.send(&bytes, 0)?;
        let mut acknowledged = 0;
        while acknowledged < expected {
            let (answer, _) = socket.recv_from_full()?;
            acknowledged += acknowledgements(&answer)?;
        }
        Ok(Self { _socket: socket })
    }
}

fn append(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    packet.finalize();
    let start = bytes.len();
    bytes.resize((start + packet.buffer_len()).next_multiple_of(4), 0);
    packet.serialize(&mut bytes[start..]);
}

/// How many requests this datagram says were done.
fn acknowledgements(mut bytes: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let packet = parse(bytes)?;
        if let NetlinkPayload::Error(error) = &packet.payload {
            if error.code.is_some() {
                return Err(error.to_io());
            }
            count += 1;
        }
        bytes = rest(bytes, &packet);
    }
    Ok(count)
}

fn parse(bytes: &[u8]) -> io::Result<NetlinkMessage<NetfilterMessage>> {
    NetlinkMessage::deserialize(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("netlink message: {error}")))
}

fn rest<'a>(bytes: &'a [u8], packet: &NetlinkMessage<NetfilterMessage>) -> &'a [u8] {
    let length = (packet.header.length as usize).next_multiple_of(4).max(4);
    bytes.get(length..).unwrap_or_default()
}

/// Hears what becomes of marked packets.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
}

impl Listener {
    /// Listens in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        nix::sys::socket::setsockopt(&socket.as_fd(), nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BYTES)?;
        socket.add_membership(NFNLGRP_NFTRACE)?;
        Ok(Self { socket })
    }

    /// Everything that has come. Messages that found no room are gone: then the packets that they were about stay unnamed.
    pub(crate) fn drain(&self, mut take: impl FnMut(TraceEvent)) -> io::Result<()> {
        loop {
            let bytes = match self.socket.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    log::debug!("firewall trace: messages were lost on descriptor {}", self.socket.as_raw_fd());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let packet = parse(left)?;
                if let NetlinkPayload::InnerMessage(message) = &packet.payload
                    && let NetfilterMessageInner::NfTables(NfTablesMessage::Trace(attributes)) = &message.inner
                    && let Some(event) = event::decode(message.header.family, attributes)
                {
                    take(event);
                }
                left = rest(left, &packet);
            }
        }
    }
}
