//! One question and its answers over a netlink socket of the calling thread's network namespace. The kernel answers at once; should
//! it ever not, the question fails.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::sys::{Socket, SocketAddr};

/// How long an answer may take.
const PATIENCE_SECONDS: i64 = 2;

/// A socket that speaks with the kernel.
pub(crate) fn socket(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
    Ok(socket)
}

fn send<I: NetlinkSerializable>(socket: &Socket, message: I, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// The messages in one datagram; an error message of the kernel is an error, and the flag says that the end was among them.
pub(crate) fn decode<I: NetlinkDeserializable>(mut bytes: &[u8], into: &mut Vec<I>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let packet = NetlinkMessage::<I>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("netlink message: {error}")))?;
        match packet.payload {
            NetlinkPayload::InnerMessage(message) => into.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(true),
            _ => {}
        }
        // Messages stand on multiples of 4 bytes.
        let len = (packet.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(len..).unwrap_or_default();
        if len == 0 {
            break;
        }
    }
    Ok(false)
}

/// All answers to a dump request.
pub(crate) fn dump<I>(protocol: isize, message: I) -> io::Result<Vec<I>>
where
    I: NetlinkSerializable + NetlinkDeserializable,
{
    let socket = socket(protocol)?;
    send(&socket, message, NLM_F_DUMP)?;
    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        if decode(&bytes, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// The one answer to a request.
pub(crate) fn ask<I>(protocol: isize, message: I) -> io::Result<I>
where
    I: NetlinkSerializable + NetlinkDeserializable,
{
    let socket = socket(protocol)?;
    send(&socket, message, 0)?;
    let (bytes, _) = socket.recv_from_full()?;
    let mut answers = Vec::new();
    decode(&bytes, &mut answers)?;
    answers.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "netlink: the kernel gave no answer"))
}
