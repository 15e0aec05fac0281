//! Readers of raw packets, as tcpdump is one: what they take is a copy, or a reference more, of every packet.

use std::ffi::{c_int, c_void};
use std::io::{self, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::{LabError, Namespace};

/// A thread that does something whenever its socket can be read; ends when dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Closed to end the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Watcher {
    /// Starts it.
    pub(super) fn start(
        socket: Socket,
        mut on_readable: impl FnMut(&Socket) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, LabError> {
        let (stopped, stop) = io::pipe().map_err(LabError::io("make a pipe"))?;
        let thread = thread::spawn(move || {
            loop {
                let mut watched =
                    [PollFd::new(stopped.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut watched, PollTimeout::NONE)?;
                if watched[0].any().unwrap_or(true) {
                    return Ok(());
                }
                on_readable(&socket)?;
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        // What fails here has already made the scenario fail: the client sees it.
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Reads the packets of one device, or of all, one by one: each is a clone that the kernel frees when it was read.
pub(super) fn copying(namespace: &Namespace, device: Option<&'static str>) -> Result<Watcher, LabError> {
    read(namespace, device, libc::ETH_P_ALL)
}

/// The same for IPv4 only, as a DHCP client does: the kernel gives this reader the packet itself, and IP a clone.
pub(super) fn of_ipv4(namespace: &Namespace, device: Option<&'static str>) -> Result<Watcher, LabError> {
    read(namespace, device, libc::ETH_P_IP)
}

fn read(namespace: &Namespace, device: Option<&'static str>, protocol: c_int) -> Result<Watcher, LabError> {
    let socket = namespace.run(|| open(device, protocol).map_err(LabError::io("open a packet socket")))?;
    Watcher::start(socket, |socket| socket.recv(&mut [MaybeUninit::uninit(); 2048]).map(drop))
}

/// Has the packets of one device, or of all, copied into a ring, as tcpdump does: the kernel frees them at once.
pub(super) fn ring(namespace: &Namespace, device: Option<&'static str>) -> Result<Socket, LabError> {
    namespace.run(|| {
        let socket = open(device, libc::ETH_P_ALL).map_err(LabError::io("open a packet socket"))?;
        make_ring(&socket).map_err(LabError::io("give a packet socket a ring"))?;
        Ok(socket)
    })
}

/// Opens a packet socket for this protocol.
fn open(device: Option<&str>, protocol: c_int) -> io::Result<Socket> {
    let protocol = u16::try_from(protocol).map_err(io::Error::other)?.to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(c_int::from(protocol))))?;
    if let Some(device) = device {
        let index = nix::net::if_::if_nametoindex(device)?;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: `sockaddr_ll` is one of the addresses that the storage is made for, and any bytes are one.
        let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_protocol = protocol;
        address.sll_ifindex = c_int::try_from(index).map_err(io::Error::other)?;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
        // SAFETY: the storage holds an address of this length.
        socket.bind(&unsafe { SockAddr::new(storage, length) })?;
    }
    Ok(socket)
}

/// A ring with more room than a scenario has packets; nobody looks into it.
fn make_ring(socket: &Socket) -> io::Result<()> {
    const BLOCKS: u32 = 64;
    const BLOCK_BYTES: u32 = 1 << 16;
    const FRAME_BYTES: u32 = 1 << 11;
    let version = libc::tpacket_versions::TPACKET_V3 as c_int;
    let ring = libc::tpacket_req3 {
        tp_block_size: BLOCK_BYTES,
        tp_block_nr: BLOCKS,
        tp_frame_size: FRAME_BYTES,
        tp_frame_nr: BLOCKS * (BLOCK_BYTES / FRAME_BYTES),
        tp_retire_blk_tov: 0,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    set_option(socket, libc::PACKET_VERSION, &version)?;
    set_option(socket, libc::PACKET_RX_RING, &ring)
}

fn set_option<T>(socket: &Socket, option: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a value that outlives the call, which only reads it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast::<c_void>(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
