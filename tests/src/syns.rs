//! A generator of SYNs on a raw socket: each is a flow of its own, and how many went out is known.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use socket2::{Domain, Protocol, Socket, Type};

/// Lengths of the headers, bytes.
const IP: usize = 20;
const TCP: usize = 20;
/// Ports of one source address that are used, from the first above the privileged ones.
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 60_000;
/// Most SYNs handed to the kernel in one call: few enough that no queue on the way has to hold more.
const BATCH: u32 = 64;

/// A source of SYNs in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Syns {
    socket: Socket,
    first_source: Ipv4Addr,
    target: SocketAddrV4,
    next: u32,
    sent: u32,
}

impl Syns {
    /// SYNs to `target` from `first_source` and the addresses that follow it, [`PORTS`] flows each.
    pub fn new(first_source: Ipv4Addr, target: SocketAddrV4) -> io::Result<Self> {
        // This protocol number means that the IP header is given too; the kernel fills in its checksum and length.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.connect(&SocketAddrV4::new(*target.ip(), 0).into())?;
        Ok(Self { socket, first_source, target, next: 0, sent: 0 })
    }

    /// How many SYNs the kernel has taken.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Begins anew: what is sent next are the SYNs of the same flows, as when each is sent again.
    pub fn again(&mut self) {
        self.next = 0;
    }

    /// Sends so many at once.
    pub fn burst(&mut self, mut count: u32) -> io::Result<()> {
        while count > 0 {
            let batch = count.min(BATCH);
            count -= self.batch(batch)?;
        }
        Ok(())
    }

    /// Sends `rate` a second for `duration`; gives how long it took, which is longer where the machine cannot keep up.
    pub fn stream(&mut self, rate: u32, duration: Duration) -> io::Result<Duration> {
        let began = Instant::now();
        let before = self.sent;
        let total = (duration.as_secs_f64() * f64::from(rate)).round();
        loop {
            let due = (began.elapsed().as_secs_f64() * f64::from(rate)).min(total);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are counts of SYNs, below 2^32")]
            let (due, total) = (due as u32, total as u32);
            let done = self.sent - before;
            self.burst(due.saturating_sub(done))?;
            if self.sent - before >= total {
                return Ok(began.elapsed());
            }
            // The rate is what is asked for, so the pause between two batches is the point, not a wait for something.
            clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &Duration::from_millis(1).into())?;
        }
    }

    /// Sends at most [`BATCH`] in one call; gives how many the kernel took.
    fn batch(&mut self, count: u32) -> io::Result<u32> {
        let packets: Vec<[u8; IP + TCP]> = (0..count).map(|index| self.packet(self.next + index)).collect();
        let mut parts: Vec<libc::iovec> = packets
            .iter()
            .map(|packet| libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
        // SAFETY: each message points to one part, each part to one packet, and all of them outlive the call, which only reads.
        let taken = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        let taken = u32::try_from(taken).map_err(|_| io::Error::last_os_error())?;
        self.next += taken;
        self.sent += taken;
        Ok(taken)
    }

    /// The SYN of a number: its port and address come from the number, and its sequence number is the number's too.
    fn packet(&self, number: u32) -> [u8; IP + TCP] {
        let source = Ipv4Addr::from(u32::from(self.first_source) + number / PORTS);
        let port = u16::try_from(FIRST_PORT + number % PORTS).unwrap_or(u16::MAX);
        let mut packet = [0; IP + TCP];
        let (ip, tcp) = packet.split_at_mut(IP);
        ip[0] = 0x45;
        ip[8] = 64;
        ip[9] = 6;
        ip[12..16].copy_from_slice(&source.octets());
        ip[16..20].copy_from_slice(&self.target.ip().octets());
        tcp[0..2].copy_from_slice(&port.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.target.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = 2;
        tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let sum = checksum(&ip[12..20], tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// One message of one part, to the socket's own peer.
fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: a structure of integers and pointers, for which zeroes are a value.
    let mut message: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// TCP's checksum: over both addresses, the protocol, the length and the header.
fn checksum(addresses: &[u8], tcp: &[u8]) -> u16 {
    let words = addresses.chunks_exact(2).chain(tcp.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>() + 6 + 20;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn a_header_with_its_checksum_sums_to_nothing() {
        let addresses = [172, 28, 16, 1, 172, 28, 16, 2];
        let mut tcp = [0x04, 0, 0x1f, 0x90, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
        let sum = checksum(&addresses, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&addresses, &tcp), 0);
    }
}
