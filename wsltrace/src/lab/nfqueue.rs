//! A program that takes packets from a rule (NFQUEUE) and never answers.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;

use socket2::{Domain, Protocol, Socket, Type};

use super::{LabError, Namespace};

const NFNL_SUBSYS_QUEUE: u16 = 3;
const NFQNL_MSG_CONFIG: u16 = 2;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_META: u8 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;

/// The owner of a queue that gives no verdict. When it is dropped, the kernel drops what waits in the queue.
#[derive(Debug)]
pub(super) struct SilentQueue {
    _socket: Socket,
}

impl SilentQueue {
    /// Becomes the owner of this queue in the namespace.
    pub(super) fn own(namespace: &Namespace, queue: u16) -> Result<Self, LabError> {
        let socket = namespace.run(|| bind(queue).map_err(LabError::io(format!("own netfilter queue {queue}"))))?;
        Ok(Self { _socket: socket })
    }
}

fn bind(queue: u16) -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.send(&request(queue))?;
    let mut buffer = [MaybeUninit::uninit(); 256];
    let length = socket.recv(&mut buffer)?;
    // SAFETY: the kernel wrote that many bytes.
    let answer: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    match (answer.get(4..6), answer.get(16..20)) {
        (Some(kind), Some(&[a, b, c, d])) if kind == NLMSG_ERROR.to_ne_bytes() => match c_int::from_ne_bytes([a, b, c, d]) {
            0 => Ok(socket),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

/// A netlink message: its header, netfilter's own header, the command, and that packets are wanted without their
/// data. (Without that the kernel refuses to queue anything.)
fn request(queue: u16) -> Vec<u8> {
    let kind = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG;
    [
        40_u32.to_ne_bytes().as_slice(),
        &kind.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes(),
        // Sequence number and sender: the kernel fills in what is missing.
        &[0; 8],
        // Any family, version 0.
        &[0; 2],
        &queue.to_be_bytes(),
        &8_u16.to_ne_bytes(),
        &NFQA_CFG_CMD.to_ne_bytes(),
        &[NFQNL_CFG_CMD_BIND, 0, 0, 0],
        // Its own length, without what fills it up to 12.
        &9_u16.to_ne_bytes(),
        &NFQA_CFG_PARAMS.to_ne_bytes(),
        &[0, 0, 0, 0, NFQNL_COPY_META, 0, 0, 0],
    ]
    .concat()
}
