//! One question and its answers over a netlink socket of the calling thread's network namespace. The kernel answers at once; should
//! it ever not, the question fails.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
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

/// The next datagram. Where there is a time limit a signal, or a stop and what ends it, interrupts the call (signal(7)); that is no answer.
fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    loop {
        match socket.recv_from_full() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return Ok(received?.0),
        }
    }
}

/// How far a dump has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The end was among the messages.
    ended: bool,
    /// What is listed was changed meanwhile: something may be missing or there twice.
    interrupted: bool,
}

/// The messages in one datagram; an error message of the kernel is an error, also where it comes with the end of a dump.
pub(crate) fn decode<I: NetlinkDeserializable>(mut bytes: &[u8], into: &mut Vec<I>) -> io::Result<Progress> {
    let mut progress = Progress::default();
    while !bytes.is_empty() {
        let packet = NetlinkMessage::<I>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("netlink message: {error}")))?;
        progress.interrupted |= packet.header.flags & NLM_F_DUMP_INTR != 0;
        match packet.payload {
            NetlinkPayload::InnerMessage(message) => into.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Done(done) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(Progress { ended: true, ..progress }),
            _ => {}
        }
        // Messages stand on multiples of 4 bytes.
        let len = (packet.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(len..).unwrap_or_default();
        if len == 0 {
            break;
        }
    }
    Ok(progress)
}

/// All answers to a dump request. A list that was changed while it was read is read again, a few times.
pub(crate) fn dump<I>(protocol: isize, message: &I) -> io::Result<Vec<I>>
where
    I: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        // A socket of its own: after an answer that could not be read, more of them may be waiting.
        let socket = socket(protocol)?;
        send(&socket, message.clone(), NLM_F_DUMP)?;
        let (mut answers, mut interrupted) = (Vec::new(), false);
        loop {
            let bytes = receive(&socket)?;
            let progress = decode(&bytes, &mut answers)?;
            interrupted |= progress.interrupted;
            if progress.ended {
                break;
            }
        }
        if !interrupted {
            return Ok(answers);
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "netlink: the list was changed each time while it was read"))
}

/// The one answer to a request.
pub(crate) fn ask<I>(protocol: isize, message: I) -> io::Result<I>
where
    I: NetlinkSerializable + NetlinkDeserializable,
{
    let socket = socket(protocol)?;
    send(&socket, message, 0)?;
    let bytes = receive(&socket)?;
    let mut answers = Vec::new();
    decode(&bytes, &mut answers)?;
    answers.pop().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "netlink: the kernel gave no answer"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use netlink_packet_core::{DoneMessage, NLM_F_MULTIPART};
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    fn datagram(payloads: Vec<(NetlinkPayload<RouteNetlinkMessage>, u16)>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (payload, flags) in payloads {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_MULTIPART | flags;
            let mut packet = NetlinkMessage::new(header, payload);
            packet.finalize();
            let mut message = vec![0; packet.buffer_len()];
            packet.serialize(&mut message);
            bytes.extend(message);
        }
        bytes
    }

    fn link() -> NetlinkPayload<RouteNetlinkMessage> {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(LinkMessage::default()))
    }

    fn done(code: i32) -> NetlinkPayload<RouteNetlinkMessage> {
        let mut done = DoneMessage::default();
        done.code = code;
        NetlinkPayload::Done(done)
    }

    fn decoded(payloads: Vec<(NetlinkPayload<RouteNetlinkMessage>, u16)>) -> io::Result<(Progress, usize)> {
        let mut messages: Vec<RouteNetlinkMessage> = Vec::new();
        let progress = decode(&datagram(payloads), &mut messages)?;
        Ok((progress, messages.len()))
    }

    #[test]
    fn a_dump_goes_on_until_its_end() {
        let (progress, count) = decoded(vec![(link(), 0), (link(), 0)]).unwrap();
        assert_eq!((progress, count), (Progress::default(), 2));
        let (progress, count) = decoded(vec![(link(), 0), (done(0), 0)]).unwrap();
        assert_eq!((progress, count), (Progress { ended: true, interrupted: false }, 1));
    }

    #[test]
    fn a_list_that_was_changed_meanwhile_is_no_list() {
        let (progress, _) = decoded(vec![(link(), 0), (link(), NLM_F_DUMP_INTR), (done(0), 0)]).unwrap();
        assert_eq!(progress, Progress { ended: true, interrupted: true });
        let (progress, _) = decoded(vec![(link(), 0), (done(0), NLM_F_DUMP_INTR)]).unwrap();
        assert!(progress.interrupted);
    }

    #[test]
    fn an_end_with_an_error_is_one() {
        let error = decoded(vec![(link(), 0), (done(-libc::EINVAL), 0)]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
