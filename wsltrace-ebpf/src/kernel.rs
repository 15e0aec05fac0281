//! The only reads of kernel memory. Trusted BTF pointers are read directly: the offset comes from a read-only global, which the
//! verifier folds to a constant and checks against the structure's type. Everything else goes through `bpf_probe_read_kernel`.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task,
    generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock},
};
use wsltrace_common::{ABSENT, Address};

use crate::maps::mapped;

/// Reads one field of `OFFSETS`.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a pointer to a field of a static. Volatile, because user space replaces the value before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::OFFSETS.$field) }
    }};
}
pub(crate) use offset;

/// Reads a field through a trusted pointer; `None` where this kernel has no such field.
macro_rules! field {
    ($pointer:expr, $offset:ident, $type:ty) => {{
        let offset = $crate::kernel::offset!($offset);
        if offset == ABSENT {
            None
        } else {
            // SAFETY: the verifier proves that the pointer is trusted (or handles its fault) and that a field of this size
            // lies at the offset. Volatile, so that the compiler does not make one load from either of two offsets, which the
            // verifier refuses.
            Some(unsafe { $pointer.add(offset as usize).cast::<$type>().read_volatile() })
        }
    }};
}

/// Where something was seen.
#[derive(Clone, Copy)]
pub struct Place {
    /// Inode number of the network namespace; 0 when not known.
    pub netns: u32,
    /// Interface index; 0 when not known.
    pub ifindex: u32,
}

impl Place {
    /// Where the packet was seen last.
    pub const SAME: Self = Self { netns: 0, ifindex: 0 };
}

/// Types for which any bytes are a value.
pub trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<const N: usize> Plain for [u8; N] {}
impl<const N: usize> Plain for [u32; N] {}

/// Copies a value from any kernel address; `false` when it cannot be read. `value` is the caller's own memory.
#[inline(always)]
pub fn read_to<T: Plain>(address: u64, value: *mut T) -> bool {
    // SAFETY: the callers pass their own memory; the helper writes `size_of::<T>()` bytes to it, zeroes when it fails.
    unsafe { bpf_probe_read_kernel(value.cast(), size_of::<T>() as u32, address as *const _) == 0 }
}

/// The same, by value.
#[inline(always)]
pub fn read<T: Plain>(address: u64) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    if !read_to(address, value.as_mut_ptr()) {
        return None;
    }
    // SAFETY: all of it was just written, with bytes of which any are a value.
    Some(unsafe { value.assume_init() })
}

/// A `struct sk_buff` given by a tracepoint or a netfilter hook.
#[derive(Clone, Copy)]
pub struct SkBuff(pub *const u8);

impl SkBuff {
    /// Its address: the identity while it lives.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Ethertype, host byte order.
    #[inline(always)]
    pub fn protocol(self) -> Option<u16> {
        field!(self.0, sk_buff_protocol, u16).map(u16::from_be)
    }

    /// Address of the network header.
    #[inline(always)]
    pub fn network_header(self) -> Option<u64> {
        let head = field!(self.0, sk_buff_head, u64)?;
        let offset = field!(self.0, sk_buff_network_header, u16)?;
        Some(head.wrapping_add(u64::from(offset)))
    }

    /// `_nfct`: address of the conntrack entry, its low 3 bits are the `enum ip_conntrack_info`.
    #[inline(always)]
    pub fn nfct(self) -> Option<u64> {
        field!(self.0, sk_buff_nfct, u64)
    }
}

/// The network namespace of a `struct net_device`.
#[inline(always)]
fn device_netns(device: u64) -> Option<u32> {
    let (net, inum) = (offset!(net_device_net), offset!(net_inum));
    if device == 0 || net == ABSENT || inum == ABSENT {
        return None;
    }
    let net: u64 = read(device + u64::from(net))?;
    read(net + u64::from(inum))
}

/// Address of the `struct net_device` of the `struct sk_buff` at this address; `None` when it cannot be read.
#[inline(always)]
fn skb_device(skb: u64) -> Option<u64> {
    let offset = offset!(sk_buff_dev);
    if offset == ABSENT { None } else { read(skb + u64::from(offset)) }
}

/// The network namespace of the device of the `struct sk_buff` at this address; `None` when it has none.
#[inline(always)]
pub fn skb_netns(skb: u64) -> Option<u32> {
    device_netns(skb_device(skb)?)
}

/// Whether the device of the `struct sk_buff` at this address may hand a frame for another's hardware address on: a port of a bridge,
/// or a device that macvlan devices stand on. False where that cannot be told, or not whether one of them took the frame.
#[inline(always)]
pub fn is_handed_on(skb: u64) -> bool {
    /// `include/linux/netdevice.h`; the low half of `priv_flags`, however wide that is.
    const IFF_MACVLAN_PORT: u32 = 1 << 8;
    const IFF_BRIDGE_PORT: u32 = 1 << 9;
    let offset = offset!(net_device_priv_flags);
    if offset == ABSENT {
        return false;
    }
    let wanted = if offset!(reason_otherhost) == ABSENT { IFF_BRIDGE_PORT } else { IFF_BRIDGE_PORT | IFF_MACVLAN_PORT };
    let flags = skb_device(skb).and_then(|device| read::<u32>(device + u64::from(offset)));
    flags.is_some_and(|flags| flags & wanted != 0)
}

/// A `struct nf_hook_state`.
#[derive(Clone, Copy)]
pub struct HookState(pub *const u8);

impl HookState {
    /// The namespace and one of the two interfaces.
    #[inline(always)]
    pub fn place(self, incoming: bool) -> Place {
        let ifindex = if incoming { self.incoming() } else { self.outgoing() };
        Place { netns: self.netns().unwrap_or(0), ifindex: ifindex.unwrap_or(0) }
    }

    #[inline(always)]
    fn netns(self) -> Option<u32> {
        let net = field!(self.0, nf_hook_state_net, *const u8)?;
        field!(net, net_inum, u32)
    }

    #[inline(always)]
    fn incoming(self) -> Option<u32> {
        let device = field!(self.0, nf_hook_state_in, *const u8)?;
        if device.is_null() { None } else { field!(device, net_device_ifindex, u32) }
    }

    #[inline(always)]
    fn outgoing(self) -> Option<u32> {
        let device = field!(self.0, nf_hook_state_out, *const u8)?;
        if device.is_null() { None } else { field!(device, net_device_ifindex, u32) }
    }

    /// Whether the sending socket is in `TCP_SYN_SENT`: what it sends now is a SYN. True as well where this cannot be told.
    #[inline(always)]
    pub fn may_connect(self) -> bool {
        const TCP_SYN_SENT: u8 = 2;
        let Some(socket) = field!(self.0, nf_hook_state_sk, *const u8) else { return true };
        if socket.is_null() {
            return false;
        }
        field!(socket, sock_state, u8).is_none_or(|state| state == TCP_SYN_SENT)
    }
}

/// A `struct tcp_sock`. It begins with its `struct sock`, so that one's fields lie at the same offsets.
#[derive(Clone, Copy)]
pub struct TcpSocket(*const u8);

impl TcpSocket {
    /// Of the `struct sock` that a tracepoint or a function was given; `None` when there is none, when it is not of TCP, and when it is
    /// a mere request. The kernel looks whether the pointer is null even where its verifier thinks that it never is.
    #[inline(always)]
    pub fn of(socket: *const u8) -> Option<Self> {
        // SAFETY: the verifier proves that this is a pointer to a socket.
        let socket = unsafe { bpf_skc_to_tcp_sock(socket.cast_mut().cast()) };
        if socket.is_null() { None } else { Some(Self(socket.cast())) }
    }

    /// Inode number of its network namespace.
    #[inline(always)]
    pub fn netns(self) -> Option<u32> {
        let net = field!(self.0, sock_net, *const u8)?;
        field!(net, net_inum, u32)
    }

    /// Its state, `TCP_...`.
    #[inline(always)]
    pub fn state(self) -> Option<u8> {
        field!(self.0, sock_state, u8)
    }

    /// Whether something has befallen it, as a reset of the other end does; giving it up here is no error.
    #[inline(always)]
    pub fn has_failed(self) -> Option<bool> {
        Some(field!(self.0, sock_err, u32)? != 0)
    }

    /// The other end's address.
    #[inline(always)]
    pub fn remote_address(self) -> Option<Address> {
        const AF_INET: u16 = 2;
        const AF_INET6: u16 = 10;
        match field!(self.0, sock_family, u16)? {
            AF_INET => field!(self.0, sock_daddr, u32).map(mapped),
            AF_INET6 => field!(self.0, sock_v6_daddr, Address),
            _ => None,
        }
    }

    /// The other end's port.
    #[inline(always)]
    pub fn remote_port(self) -> Option<u16> {
        field!(self.0, sock_dport, u16).map(u16::from_be)
    }

    /// The sequence number that the other end began with, if it has not closed: what is expected next, less what came and one.
    #[inline(always)]
    pub fn first_sequence(self) -> Option<u32> {
        let next = field!(self.0, tcp_sock_rcv_nxt, u32)?;
        let received = field!(self.0, tcp_sock_bytes_received, u64)?;
        Some(next.wrapping_sub(1).wrapping_sub(received as u32))
    }

    /// How many bytes it has sent.
    #[inline(always)]
    pub fn bytes_sent(self) -> Option<u64> {
        field!(self.0, tcp_sock_bytes_sent, u64)
    }

    /// Whether nothing that was written waits to be sent.
    #[inline(always)]
    pub fn all_sent(self) -> Option<bool> {
        Some(field!(self.0, tcp_sock_write_seq, u32)? == field!(self.0, tcp_sock_snd_nxt, u32)?)
    }

    /// Whether it carries a connection of MPTCP.
    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        field!(self.0, tcp_sock_is_mptcp, u8).is_some_and(|is_mptcp| is_mptcp != 0)
    }
}

/// Whether the current task, which an interrupt may have only come over, is one of process 1.
#[inline(always)]
pub fn is_over_process_1() -> bool {
    bpf_get_current_pid_tgid() >> u32::BITS == 1
}

/// Thread group and name of the current task; zeroes where they cannot be read.
#[inline(always)]
pub fn current_task() -> (u32, [u8; 16]) {
    let (tgid, comm) = (offset!(task_tgid), offset!(task_comm));
    if tgid == ABSENT || comm == ABSENT {
        return (0, [0; 16]);
    }
    // SAFETY: the helper has no arguments and cannot fail.
    let task = unsafe { bpf_get_current_task() };
    let id = read(task + u64::from(tgid)).unwrap_or(0);
    (id, read(task + u64::from(comm)).unwrap_or([0; 16]))
}
