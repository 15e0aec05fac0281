//! SYNs made by hand: no socket stands behind them, and the kernel that sent them knows nothing of a connection.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::{LabError, Namespace};

const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;

/// A SYN over IPv4.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawSyn {
    /// Where it claims to come from.
    pub(super) from: SocketAddrV4,
    /// Where it goes.
    pub(super) to: SocketAddrV4,
    /// Its initial sequence number.
    pub(super) sequence: u32,
    /// What is added to its checksum: 0 leaves it right.
    pub(super) spoil: u16,
}

impl RawSyn {
    /// Sends it from this namespace.
    pub(super) fn send(&self, namespace: &Namespace) -> Result<(), LabError> {
        namespace.run(|| self.try_send().map_err(LabError::io(format!("send a raw SYN to {}", self.to))))
    }

    fn try_send(&self) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.send_to(&self.bytes(), &self.to.into())?;
        Ok(())
    }

    /// The kernel fills in the length, the identification and the checksum of the IP header.
    fn bytes(&self) -> Vec<u8> {
        const TTL: u8 = 64;
        const WINDOW: u16 = 65535;
        const SYN: u8 = 2;
        let header_words = |bytes: usize| u8::try_from(bytes / 4).unwrap_or(u8::MAX);
        let mut packet = vec![0x40 | header_words(IP_BYTES), 0, 0, 0, 0, 0, 0, 0, TTL, 6, 0, 0];
        packet.extend(self.from.ip().octets());
        packet.extend(self.to.ip().octets());
        let mut tcp = Vec::with_capacity(TCP_BYTES);
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend([header_words(TCP_BYTES) << 4, SYN]);
        tcp.extend(WINDOW.to_be_bytes());
        tcp.extend([0; 4]);
        let sum = checksum(*self.from.ip(), *self.to.ip(), &tcp);
        tcp[16..18].copy_from_slice(&sum.wrapping_add(self.spoil).to_be_bytes());
        packet.extend(tcp);
        packet
    }
}

/// Sends one SYN by hand from the calling thread's namespace, and waits until so many SYN-ACKs have come for it, which nobody
/// confirms (the namespace's firewall has to hold back the kernel's own resets). Gives the end that the SYN came from.
pub(super) fn connect_by_hand(to: SocketAddr, spoil: u16, answers: u32, patience: Duration) -> io::Result<SocketAddr> {
    const SEQUENCE: u32 = 0x5eed_0001;
    // The kernel chooses the address and a port that nobody has.
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    probe.connect(to)?;
    let from = probe.local_addr()?;
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        return Err(io::Error::other("SYNs are made by hand for IPv4 only"));
    };
    let ear = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    ear.set_read_timeout(Some(patience))?;
    RawSyn { from, to, sequence: SEQUENCE, spoil }.try_send()?;
    let mut heard = 0;
    while heard < answers {
        let mut packet = [0; IP_BYTES + TCP_BYTES];
        let read = match (&ear).read(&mut packet) {
            // With a time limit a read ends so when the process was stopped or frozen (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        heard += u32::from(read == packet.len() && answers_to(&packet, from.port()));
    }
    Ok(from.into())
}

/// Whether a packet with plain headers is a SYN-ACK to this port.
fn answers_to(packet: &[u8; IP_BYTES + TCP_BYTES], port: u16) -> bool {
    const SYN_ACK: u8 = 0x12;
    packet[0] == 0x45 && packet[IP_BYTES + 2..IP_BYTES + 4] == port.to_be_bytes() && packet[IP_BYTES + 13] & 0x17 == SYN_ACK
}

/// TCP's checksum over its pseudo header and a segment of even length whose checksum field is 0.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
    let pseudo = [&from.octets()[..], &to.octets()[..], &[0, 6], &length.to_be_bytes()[..]].concat();
    let words = pseudo.iter().chain(segment).collect::<Vec<_>>();
    let mut sum: u32 = words.chunks(2).map(|pair| u32::from(*pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(**low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_finds_the_checksum_right() {
        let syn = RawSyn {
            from: "10.1.2.3:40001".parse().unwrap(),
            to: "10.9.8.7:8080".parse().unwrap(),
            sequence: 0xdead_beef,
            spoil: 0,
        };
        let bytes = syn.bytes();
        assert_eq!(bytes.len(), IP_BYTES + TCP_BYTES);
        // The sum over everything, the checksum included, has all bits set.
        assert_eq!(checksum(*syn.from.ip(), *syn.to.ip(), &bytes[IP_BYTES..]), 0);
        assert_ne!(bytes[IP_BYTES + 16..IP_BYTES + 18], [0, 0]);
        let spoilt = RawSyn { spoil: 1, ..syn }.bytes();
        assert_ne!(checksum(*syn.from.ip(), *syn.to.ip(), &spoilt[IP_BYTES..]), 0);
    }
}
