//! What the kernel tells of packets' ends and of TCP's decisions.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use wsltrace_common::{Address, Counter, Flags, Key, StageCode};

use crate::{
    journey,
    kernel::{Place, SkBuff, TcpSocket, offset, read},
    maps::{NETWORK_NAMESPACES, all_settled, asleep, count, mapped, nobody_waits, port_is_traced},
    packet::{self, Kind, Room},
};

/// The kernel's TCP sends a RST. Argument 1 is the packet that it answers; null where none does: then the socket of argument 0 is
/// given up by its owner.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(context: BtfTracePointContext) -> i32 {
    // An answer that left may be confirmed in vain.
    if asleep() && nobody_waits() && all_settled() {
        return 0;
    }
    let _: Option<()> = reset_sent(&context);
    0
}

#[inline(always)]
fn reset_sent(context: &BtfTracePointContext) -> Option<()> {
    // Read as a number, by precaution: a verifier that does not mark this argument as nullable may take it for one that is never
    // null, and drop the branch. With 6.12.117 and 6.18 a plain check works, too; older kernels were not tried.
    let answered: u64 = read(context.as_ptr() as u64 + size_of::<u64>() as u64)?;
    let (socket, skb) = (context.arg::<*const u8>(0), SkBuff(context.arg(1)));
    if answered == 0 {
        // Where they are marked, it has to be asked.
        return if socket.is_null() { None } else { given_up(TcpSocket::of(socket)?) };
    }
    if skb.0.is_null() { None } else { kernel_reset(skb) }
}

#[inline(always)]
fn given_up(socket: TcpSocket) -> Option<()> {
    if socket.bytes_sent()? == 0 {
        let (key, netns) = key_of(socket)?;
        journey::reset_by_server(&key, netns);
    }
    Some(())
}

#[inline(always)]
fn kernel_reset(skb: SkBuff) -> Option<()> {
    let mut room = Room::new();
    let packet = packet::from_skb(skb, &mut room)?;
    if packet.kind == Kind::SYN {
        journey::find(packet)?.record().flags |= Flags::KERNEL_RESET;
    } else if packet.kind == Kind::ACK {
        journey::confirmation_reset(&packet.key);
    }
    Some(())
}

/// A packet is freed as dropped.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(context: BtfTracePointContext) -> i32 {
    // An answer that left may still be dropped by its device's traffic control, and what the client sends first by a firewall.
    if asleep() && nobody_waits() && all_settled() {
        return 0;
    }
    let skb = SkBuff(context.arg(0));
    if let Some(packet) = packet::from_skb(skb, &mut Room::new()) {
        journey::dropped(packet, context.arg(1), context.arg(2));
    }
    0
}

/// A packet is freed as consumed.
#[btf_tracepoint(function = "consume_skb")]
pub fn consume_skb(context: BtfTracePointContext) -> i32 {
    if asleep() {
        return 0;
    }
    let skb = SkBuff(context.arg(0));
    if let Some(packet) = packet::from_skb(skb, &mut Room::new()) {
        let location = if offset!(consume_skb_location_argument) == 1 { context.arg(1) } else { 0 };
        journey::consumed(packet, location);
    }
    0
}

/// The kernel sends its SYN-ACK again, because the client did not acknowledge the first.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(context: BtfTracePointContext) -> i32 {
    if !(nobody_waits() && asleep()) {
        let _: Option<()> = syn_ack_again(context.arg(1));
    }
    0
}

#[inline(always)]
fn syn_ack_again(request: u64) -> Option<()> {
    let family: u16 = read(request + u64::from(offset!(inet_request_sock_family)))?;
    let key = Key {
        address: address_of(family, request, offset!(inet_request_sock_rmt_addr), offset!(inet_request_sock_v6_rmt_addr))?,
        sequence: read(request + u64::from(offset!(tcp_request_sock_rcv_isn)))?,
        port: u16::from_be(read(request + u64::from(offset!(inet_request_sock_rmt_port)))?),
        slot: 0,
    };
    let found = journey::newest(&key)?;
    let record = found.record();
    record.flags |= Flags::SYN_ACK_AGAIN;
    // Not a place of its own: the first answer may still be under way where it was last seen.
    let place = Place { netns: record.answer_netns, ifindex: record.answer_ifindex };
    journey::push(record, StageCode::SynAckRetransmitted as u8, true, place);
    Some(())
}

/// A connection sends a segment again. Only `bench` has this one on.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(context: BtfTracePointContext) -> i32 {
    let _: Option<()> = sent_again(context.arg(0));
    0
}

#[inline(always)]
fn sent_again(socket: u64) -> Option<()> {
    let own_port: u16 = read(socket + u64::from(offset!(sock_num)))?;
    if port_is_traced(own_port) && watched_netns(socket).is_some() {
        count(Counter::SentAgain);
    }
    Some(())
}

/// The network namespace of a socket, if it is watched.
#[inline(always)]
fn watched_netns(socket: u64) -> Option<u32> {
    let net: u64 = read(socket + u64::from(offset!(sock_net)))?;
    let netns: u32 = read(net + u64::from(offset!(net_inum)))?;
    // SAFETY: only whether there is such an element matters.
    unsafe { NETWORK_NAMESPACES.get(netns) }.map(|_| netns)
}

/// The remote address of a socket or request, by its family.
#[inline(always)]
fn address_of(family: u16, base: u64, v4: u32, v6: u32) -> Option<Address> {
    const AF_INET: u16 = 2;
    if family == AF_INET { read(base + u64::from(v4)).map(mapped) } else { read(base + u64::from(v6)) }
}

/// A socket changes its state. A server's connection becomes established from `SYN_RECV`, a client's from `SYN_SENT`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    const TCP_ESTABLISHED: i32 = 1;
    const TCP_SYN_RECV: i32 = 3;
    const TCP_FIN_WAIT1: i32 = 4;
    const TCP_CLOSE: i32 = 7;
    const TCP_CLOSE_WAIT: i32 = 8;
    if all_settled() && nobody_waits() && asleep() {
        return 0;
    }
    // A client that closes counts one more: its FIN; one that resets does not.
    let sequences = match (context.arg::<i32>(1), context.arg::<i32>(2)) {
        (TCP_SYN_RECV, TCP_ESTABLISHED) => 0,
        (TCP_ESTABLISHED, TCP_FIN_WAIT1 | TCP_CLOSE) if !all_settled() => 1,
        (TCP_ESTABLISHED, TCP_CLOSE_WAIT) if !all_settled() => 2,
        _ => return 0,
    };
    let (by_server, at_once) = (context.arg::<i32>(2) == TCP_FIN_WAIT1, context.arg::<i32>(2) == TCP_CLOSE);
    let Some(socket) = TcpSocket::of(context.arg(0)) else { return 0 };
    // A server that gives its client up takes the state away before it resets (`tcp_close`, `tcp_disconnect`; 6.18): its reset is still to
    // be told of. What its client does to a connection is written into the socket before (`tcp_reset`).
    if at_once && socket.has_failed() != Some(true) {
        return 0;
    }
    let _: Option<()> = changed(socket, sequences, by_server);
    0
}

/// The connection became established when `sequences` is 0, and was closed or reset otherwise.
#[inline(always)]
fn changed(socket: TcpSocket, sequences: u32, by_server: bool) -> Option<()> {
    let (key, netns) = key_of(socket)?;
    if sequences > 0 {
        journey::closed(&key, netns, sequences, by_server && said_nothing(socket) == Some(true));
        return Some(());
    }
    // A connection of MPTCP is given to the application behind another socket, by which it is not known here.
    journey::established(&key, netns, !socket.is_mptcp());
    Some(())
}

/// Whether a connection has sent no byte, and none waits to be sent.
#[inline(always)]
fn said_nothing(socket: TcpSocket) -> Option<bool> {
    Some(socket.bytes_sent()? == 0 && socket.all_sent()?)
}

/// `accept` joins a connection with the socket that it returns to the application. Optional: not every kernel lets such programs
/// in. Not the end of `inet_csk_accept`: an application that has waited in there since before the probe was put on would leave
/// unseen.
#[fentry(function = "security_sock_graft")]
pub fn security_sock_graft(context: FEntryContext) -> i32 {
    if !(all_settled() && nobody_waits() && asleep()) {
        // Sockets of other protocols are joined as well.
        let _: Option<()> = TcpSocket::of(context.arg(0)).and_then(was_accepted);
    }
    0
}

#[inline(always)]
fn was_accepted(socket: TcpSocket) -> Option<()> {
    const TCP_ESTABLISHED: u8 = 1;
    let (key, netns) = key_of(socket)?;
    // A client that left before counts one more: its FIN.
    let sequences = if socket.state()? == TCP_ESTABLISHED { 1 } else { 2 };
    journey::accepted(&key, netns, sequences);
    Some(())
}

/// The key of the journey that led to a server's connection, and its namespace.
#[inline(always)]
fn key_of(socket: TcpSocket) -> Option<(Key, u32)> {
    let netns = socket.netns()?;
    let key = Key { address: socket.remote_address()?, sequence: socket.first_sequence()?, port: socket.remote_port()?, slot: 0 };
    Some((key, netns))
}
