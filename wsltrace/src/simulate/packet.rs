//! The packet: one SYN, and what is known of the machine that it comes to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::journey::Family;

/// Which packet of the handshake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The SYN.
    Syn,
    /// The server's answer to it.
    Answer,
    /// The client's answer to that.
    Confirmation,
    /// What the client sends once the connection stands.
    Data,
    /// None: the question of IPv6 for the hardware address, which comes before all of these.
    Solicitation,
    /// The answer to that question.
    Advertisement,
    /// The same of IPv4 (ARP).
    ArpQuestion,
    /// The answer to that.
    ArpAnswer,
}

impl Part {
    /// Whether it belongs to the search for a hardware address.
    pub(super) fn is_of_neighbours(self) -> bool {
        matches!(self, Self::Solicitation | Self::Advertisement)
    }

    /// Whether it is one of ARP, which no rule of IP sees.
    pub(super) fn is_arp(self) -> bool {
        matches!(self, Self::ArpQuestion | Self::ArpAnswer)
    }

    /// The type of its `ICMPv6` message, for what is one (RFC 4861); its code is 0.
    pub(super) fn icmpv6(self) -> u16 {
        if self == Self::Advertisement { 136 } else { 135 }
    }
}

/// What connection tracking makes of a packet that follows a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to the connection that the SYN began.
    Established,
    /// It belongs to none: connection tracking saw the SYN and not the answer, or neither.
    Invalid,
    /// It is exempt.
    Untracked,
}

/// How a SYN comes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From outside.
    Outside {
        /// The name of the device that it comes in by; `None` when it is not known.
        device: Option<String>,
        /// Whether that device is a bridge or belongs to one.
        bridged: bool,
    },
    /// From this machine to itself, over `lo`.
    Loopback,
    /// Not the SYN itself, but the acknowledgement by which the client confirms the answer, from outside.
    Confirmation {
        /// As of `Outside`.
        device: Option<String>,
        /// As of `Outside`.
        bridged: bool,
    },
    /// The same over `lo`.
    LoopbackConfirmation,
    /// Not the SYN itself, but data that the client sends once its connection stands, from outside.
    Data {
        /// As of `Outside`.
        device: Option<String>,
    },
    /// The same over `lo`.
    LoopbackData,
    /// Not the SYN itself, but a question for a hardware address (`ICMPv6`): a client begins with one, and this machine asks before it
    /// answers.
    Solicitation {
        /// The name of the device that it comes in or leaves by; `None` when it is not known.
        device: Option<String>,
        /// Whether this machine sends it.
        own: bool,
    },
    /// The answer to such a question.
    Advertisement {
        /// As of `Solicitation`.
        device: Option<String>,
        /// As of `Solicitation`.
        own: bool,
    },
    /// Not the SYN itself, but the answer of a server in this machine (a SYN-ACK) to one that came from outside.
    Answer {
        /// The name of the device that it leaves by; `None` when it is not known.
        device: Option<String>,
    },
    /// The same over `lo`.
    LoopbackAnswer,
    /// The answer of a server behind this machine, such as a container, on its way through.
    ForwardedAnswer {
        /// The name of the device that it leaves by; `None` when it is not known.
        device: Option<String>,
    },
}

impl Way {
    /// Which packet of the handshake it is.
    pub(super) fn part(&self) -> Part {
        match self {
            Self::Outside { .. } | Self::Loopback => Part::Syn,
            Self::Answer { .. } | Self::LoopbackAnswer | Self::ForwardedAnswer { .. } => Part::Answer,
            Self::Confirmation { .. } | Self::LoopbackConfirmation => Part::Confirmation,
            Self::Data { .. } | Self::LoopbackData => Part::Data,
            Self::Solicitation { .. } => Part::Solicitation,
            Self::Advertisement { .. } => Part::Advertisement,
        }
    }

    /// Whether it is on `lo`.
    pub(super) fn is_loopback(&self) -> bool {
        matches!(self, Self::Loopback | Self::LoopbackAnswer | Self::LoopbackConfirmation | Self::LoopbackData)
    }
}

/// A SYN that opens a new connection, or what follows it in the handshake: the addresses and ports are those of the SYN. A match on what is `None` is not
/// known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// How it comes.
    pub way: Way,
    /// The client's address.
    pub source: Option<IpAddr>,
    /// The client's port.
    pub source_port: Option<u16>,
    /// Where it goes, before any DNAT.
    pub destination: IpAddr,
    /// The port.
    pub destination_port: u16,
    /// Whether it asks for congestion notification (ECN).
    pub ecn: Option<bool>,
}

impl Packet {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// The addresses and routes of the namespace, as far as the simulation needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Every address of every device, in the kernel's order.
    pub addresses: Vec<(String, IpAddr)>,
    /// The device by which packets to an address elsewhere leave, where it is known.
    pub ways: BTreeMap<IpAddr, String>,
    /// Of the ports that have a listener: whether one takes what a rule hands to it (TPROXY), where that is known. `None` where the
    /// listeners are not.
    pub proxies: Option<BTreeMap<u16, Option<bool>>>,
}

impl Machine {
    /// Whether packets to this address stay here.
    pub fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|(_, own)| *own == address)
    }

    /// Whether a proxy's socket takes what a rule hands to this port; `None` where that is not known.
    pub fn is_proxy(&self, port: u16) -> Option<bool> {
        self.proxies.as_ref()?.get(&port).copied().unwrap_or(Some(false))
    }

    /// The address to which `redirect` sends what comes in by a device: the first that the device has (`nf_nat_redirect_ipv4` and
    /// `_ipv6`, seen on 6.18). The kernel keeps those of IPv6 with the widest scope first, so that one of the link alone comes first
    /// only where there is no other.
    pub(super) fn redirected(&self, device: Option<&str>, family: Family) -> Option<IpAddr> {
        let of_family = |address: &IpAddr| address.is_ipv4() == (family == Family::Ipv4);
        self.addresses.iter().find(|(name, own)| Some(name.as_str()) == device && of_family(own)).map(|(_, own)| *own)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_the_first_address_of_the_device() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let own = |name: &str, text: &str| (name.to_owned(), address(text));
        let addresses = vec![own("eth0", "10.0.0.1"), own("eth1", "10.0.1.1"), own("eth1", "10.0.1.2"), own("eth0", "fd00::1")];
        let machine = Machine { addresses, ..Machine::default() };
        assert_eq!(machine.redirected(Some("eth0"), Family::Ipv4), Some(address("10.0.0.1")));
        assert_eq!(machine.redirected(Some("eth1"), Family::Ipv4), Some(address("10.0.1.1")));
        assert_eq!(machine.redirected(Some("eth0"), Family::Ipv6), Some(address("fd00::1")));
        assert_eq!(machine.redirected(Some("eth1"), Family::Ipv6), None);
        assert_eq!(machine.redirected(None, Family::Ipv4), None);
        assert!(machine.has(address("127.9.9.9")) && machine.has(address("fd00::1")) && !machine.has(address("10.0.0.9")));
    }
}
