//! Programs that take packets from a rule (NFQUEUE): one that never answers, one that lets everything pass, and one that drops all.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;

use socket2::{Domain, Protocol, Socket, Type};

use super::reader::Watcher;
use super::{LabError, Namespace};

const NFNL_SUBSYS_QUEUE: u16 = 3;
const NFQNL_MSG_PACKET: u16 = 0;
const NFQNL_MSG_VERDICT: u16 = 1;
const NFQNL_MSG_CONFIG: u16 = 2;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_META: u8 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// Netlink's header and netfilter's own.
const HEADERS: usize = 20;

/// The owner of a queue that gives no verdict. When it is dropped, the kernel drops what waits in the queue.
#[derive(Debug)]
pub(super) struct SilentQueue {
    _socket: Socket,
}

impl SilentQueue {
    /// Becomes the owner of this queue in the namespace.
    pub(super) fn own(namespace: &Namespace, queue: u16) -> Result<Self, LabError> {
        Ok(Self { _socket: own(namespace, queue)? })
    }
}

/// A program that becomes the owner of this queue in the namespace and accepts each packet, until it is dropped.
pub(super) fn accept_all(namespace: &Namespace, queue: u16) -> Result<Watcher, LabError> {
    accept_after(namespace, queue, || {})
}

/// The same, but it drops each packet.
pub(super) fn drop_all(namespace: &Namespace, queue: u16) -> Result<Watcher, LabError> {
    decide(namespace, queue, NF_DROP, || {})
}

/// The same, and before each packet goes on it does something else.
pub(super) fn accept_after(
    namespace: &Namespace,
    queue: u16,
    before: impl FnMut() + Send + 'static,
) -> Result<Watcher, LabError> {
    decide(namespace, queue, NF_ACCEPT, before)
}

fn decide(
    namespace: &Namespace,
    queue: u16,
    verdict: u32,
    mut before: impl FnMut() + Send + 'static,
) -> Result<Watcher, LabError> {
    let socket = own(namespace, queue)?;
    Watcher::start(socket, move |socket| {
        let packet = receive(socket)?;
        let Some(id) = packet_id(&packet) else { return Ok(()) };
        before();
        let verdict = attribute(NFQA_VERDICT_HDR, &[verdict.to_be_bytes(), id].concat());
        socket.send(&message(NFQNL_MSG_VERDICT, 0, queue, &verdict)).map(drop)
    })
}

fn own(namespace: &Namespace, queue: u16) -> Result<Socket, LabError> {
    namespace.run(|| bind(queue).map_err(LabError::io(format!("own netfilter queue {queue}"))))
}

fn bind(queue: u16) -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    let command = attribute(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    // Packets without their data; unless it is told how much is wanted, the kernel queues nothing.
    let wanted = attribute(NFQA_CFG_PARAMS, &[0, 0, 0, 0, NFQNL_COPY_META]);
    socket.send(&message(NFQNL_MSG_CONFIG, NLM_F_ACK, queue, &[command, wanted].concat()))?;
    let answer = receive(&socket)?;
    match (answer.get(4..6), answer.get(16..20)) {
        (Some(kind), Some(&[a, b, c, d])) if kind == NLMSG_ERROR.to_ne_bytes() => match c_int::from_ne_bytes([a, b, c, d]) {
            0 => Ok(socket),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let length = socket.recv(&mut buffer)?;
    // SAFETY: the kernel wrote that many bytes.
    Ok(buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect())
}

/// A netlink message to the queue's part of netfilter. The kernel fills in sequence number and sender.
fn message(kind: u16, flags: u16, queue: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let kind = NFNL_SUBSYS_QUEUE << 8 | kind;
    [
        length.to_ne_bytes().as_slice(),
        &kind.to_ne_bytes(),
        &(NLM_F_REQUEST | flags).to_ne_bytes(),
        &[0; 8],
        // Any family, version 0.
        &[0; 2],
        &queue.to_be_bytes(),
        attributes,
    ]
    .concat()
}

/// An attribute, filled up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The number of a queued packet, in network byte order; `None` for another kind of message.
fn packet_id(message: &[u8]) -> Option<[u8; 4]> {
    if *message.get(4..6)? != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET).to_ne_bytes() {
        return None;
    }
    let mut attributes = message.get(HEADERS..)?;
    loop {
        let [a, b, c, d] = *attributes.first_chunk()?;
        if u16::from_ne_bytes([c, d]) == NFQA_PACKET_HDR {
            return attributes.get(4..8)?.try_into().ok();
        }
        attributes = attributes.get(usize::from(u16::from_ne_bytes([a, b])).next_multiple_of(4).max(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packets_number_is_found_behind_other_attributes() {
        let other = attribute(9, &[1, 2, 3]);
        let header = attribute(NFQA_PACKET_HDR, &[0, 0, 1, 7, 8, 0, 1]);
        let attributes = [other.clone(), header].concat();
        assert_eq!(packet_id(&message(NFQNL_MSG_PACKET, 0, 7, &attributes)), Some([0, 0, 1, 7]));
        assert_eq!(packet_id(&message(NFQNL_MSG_CONFIG, 0, 7, &attributes)), None);
        assert_eq!(packet_id(&message(NFQNL_MSG_PACKET, 0, 7, &other)), None);
    }
}
