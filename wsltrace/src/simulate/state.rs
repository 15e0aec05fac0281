//! The packet on its way: what it has by now, and what a field of it is at a hook.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::packet::{Machine, Part, Standing};
use super::ruleset::Hook;
use super::symbol::{
    ACK, ARP, ARP_REPLY, ARP_REQUEST, ECN, ESTABLISHED, ICMPV6, INVALID, IPV4, IPV6, LOCAL, NEW, PSH, STATUS_DNAT, STATUS_SNAT,
    SYN, TCP, UNTRACKED, XT_DNAT, XT_SNAT,
};
use super::unknown::{self, Because};
use super::value::{Arp, Field, Operand, Seen, number_of};
use crate::journey::Family;

/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;

/// What connection tracking makes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracked {
    /// It has not seen it yet.
    NotYet,
    /// Whether it has seen it yet depends on the order of hooks of equal priority.
    Unclear,
    New,
    /// The packet answers a new one, or the answer.
    Established,
    /// The packet belongs to no connection that it knows.
    Invalid,
    /// The packet is exempt.
    Untracked,
}

/// A rule, or the policy where there is no number: which chain, which base chain it was reached by, and the index of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) chain: super::ruleset::Place,
    pub(super) base: String,
    pub(super) rule: Option<usize>,
}

/// The packet as it is by now. Two are the same whatever they depended on.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) source: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination: Option<IpAddr>,
    /// Whether the destination is this machine, where its address does not tell.
    pub(super) local: Option<bool>,
    pub(super) destination_port: Option<u16>,
    pub(super) mark: Option<u32>,
    pub(super) connection_mark: Option<u32>,
    pub(super) tracked: Tracked,
    pub(super) translated_by: Option<Site>,
    /// Whether the destination is another than the client's; `None` when it is not known.
    pub(super) moved: Option<bool>,
    pub(super) source_moved: bool,
    /// Whether a chain of NAT at this hook has decided.
    pub(super) bound: bool,
    /// The port of the proxy whose socket takes the packet, whatever address and port it has; `None` within when it is not known.
    pub(super) handed_to: Option<(Option<u16>, Site)>,
    pub(super) because: BTreeSet<Because>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for State {}

impl From<Standing> for Tracked {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Established => Self::Established,
            Standing::Invalid => Self::Invalid,
            Standing::Untracked => Self::Untracked,
        }
    }
}

impl State {
    #[expect(clippy::type_complexity, reason = "every part but one")]
    fn parts(
        &self,
    ) -> (
        (Option<IpAddr>, Option<u16>, Option<IpAddr>, Option<u16>, Option<bool>),
        (Option<u32>, Option<u32>, Tracked),
        (&Option<Site>, &Option<(Option<u16>, Site)>, Option<bool>, bool, bool),
    ) {
        (
            (self.source, self.source_port, self.destination, self.destination_port, self.local),
            (self.mark, self.connection_mark, self.tracked),
            (&self.translated_by, &self.handed_to, self.moved, self.source_moved, self.bound),
        )
    }

    /// The same, depending on one thing more.
    pub(super) fn depending(&self, name: &str, place: &str) -> Self {
        let mut state = self.clone();
        state.because.insert(Because { name: name.to_owned(), place: place.to_owned() });
        state
    }

    /// Whether the destination is this machine.
    pub(super) fn is_local(&self, machine: &Machine) -> Option<bool> {
        self.destination.map(|address| machine.has(address)).or(self.local)
    }
}

/// Where the packet is.
#[derive(Clone, Debug)]
pub(super) struct Here<'a> {
    pub(super) hook: Hook,
    pub(super) family: Family,
    pub(super) machine: &'a Machine,
    /// The device that it came in by; `None` where it is not known.
    pub(super) input: Option<String>,
    pub(super) output: Option<String>,
    /// Whether it is on its way over `lo`.
    pub(super) loopback: bool,
    /// The address and port that the packet came with.
    pub(super) asked: (IpAddr, u16),
    /// Which packet of the handshake it is.
    pub(super) part: Part,
    /// What connection tracking makes of it where it follows a SYN.
    pub(super) standing: Standing,
    /// Whether it asks for congestion notification.
    pub(super) ecn: Option<bool>,
    /// Whose chains see it.
    pub(super) layer: Layer,
}

/// Whose chains see a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// IP's.
    Network,
    /// Those of the family `arp`.
    Arp,
    /// Those of the family `bridge`.
    Bridge,
}

impl Here<'_> {
    /// What an operand has.
    pub(super) fn see(&self, state: &State, operand: &Operand) -> Seen {
        self.field(state, operand.field).after(&operand.steps)
    }

    fn field(&self, state: &State, field: Field) -> Seen {
        let ipv4 = self.family == Family::Ipv4;
        let address = |wanted: bool, address: Option<IpAddr>, name| match address {
            _ if wanted != ipv4 => Seen::Absent,
            Some(address) => Seen::number(number_of(address)),
            None => Seen::Unknown(name),
        };
        let port = |port: Option<u16>, name| port.map_or(Seen::Unknown(name), Seen::number);
        if self.part.is_arp() {
            return self.arp(state, field);
        }
        match field {
            Field::Arp(_) => Seen::Absent,
            // Who asks the bridge for connections is not followed.
            Field::State | Field::XtState | Field::Status if self.layer == Layer::Bridge => Seen::Unknown(unknown::CT),
            Field::NetworkFamily if self.layer == Layer::Bridge => Seen::number(BRIDGE),
            // Where TCP has the client's port, ICMPv6 has its type and code.
            Field::SourcePort if self.part.is_of_neighbours() => Seen::number(self.part.icmpv6() << 8),
            // What else stands there is not followed.
            Field::DestinationPort | Field::TcpFlags | Field::Absent if self.part.is_of_neighbours() => {
                Seen::Unknown(unknown::named("payload", unknown::EXPRESSION))
            }
            Field::TransportProtocol | Field::NextHeader { ipv4: false } if self.part.is_of_neighbours() => Seen::number(ICMPV6),
            // No router has passed it on (RFC 4861), and it has no header before its own (RFC 6980).
            Field::HopLimit if self.part.is_of_neighbours() => Seen::number(255u8),
            Field::HopLimit if ipv4 => Seen::Absent,
            Field::HopLimit => Seen::Unknown(unknown::named("hl", unknown::EXPRESSION)),
            Field::PacketType | Field::DestinationType { .. } if self.part.is_of_neighbours() => Seen::Unknown(unknown::FIB),
            Field::Source { ipv4 } => address(ipv4, state.source, unknown::SOURCE),
            Field::Destination { ipv4 } if self.part == Part::Answer => address(ipv4, state.destination, unknown::SOURCE),
            Field::Destination { ipv4 } => address(ipv4, state.destination, unknown::DESTINATION),
            Field::SourcePort => port(state.source_port, unknown::SOURCE_PORT),
            // An answer goes to the client's.
            Field::DestinationPort if self.part == Part::Answer => port(state.destination_port, unknown::SOURCE_PORT),
            Field::DestinationPort => port(state.destination_port, unknown::DESTINATION_PORT),
            Field::TcpFlags => self.flags(),
            Field::TransportProtocol => Seen::number(TCP),
            Field::NextHeader { ipv4: wanted } if wanted == ipv4 => Seen::number(TCP),
            Field::IpVersion { ipv4: wanted } if wanted == ipv4 => Seen::number(if ipv4 { 4u8 } else { 6 }),
            // It is whole; whether it may be cut on its way is not known.
            Field::FragmentOffset if ipv4 => {
                Seen::Bits { value: 0, known: !0x4000, open: unknown::named("payload", unknown::EXPRESSION) }
            }
            Field::NextHeader { .. } | Field::IpVersion { .. } | Field::FragmentOffset | Field::Extension | Field::Absent => {
                Seen::Absent
            }
            Field::NetworkFamily if matches!(self.hook, Hook::Ingress | Hook::Egress) => Seen::Unknown(unknown::EXPRESSION),
            Field::NetworkFamily => Seen::number(if ipv4 { 2u8 } else { 10 }),
            Field::EtherType => Seen::number(if ipv4 { IPV4 } else { IPV6 }),
            Field::InputName => self.input(),
            Field::OutputName => self.output(),
            Field::Mark => state.mark.map_or(Seen::Unknown(unknown::MARK), Seen::number),
            Field::State => self.state(state, 0, 0),
            Field::XtState => self.state(state, XT_DNAT, XT_SNAT),
            Field::Status => Self::status(state),
            Field::Direction | Field::ConnectionMark | Field::AskedAddress { .. } | Field::AskedPort
                if state.tracked == Tracked::Unclear =>
            {
                Seen::Unknown(unknown::CT)
            }
            Field::Direction | Field::ConnectionMark | Field::AskedAddress { .. } | Field::AskedPort
                if !matches!(state.tracked, Tracked::New | Tracked::Established) =>
            {
                Seen::Absent
            }
            // An answer is told by the server's end, to which rules may have led it.
            Field::AskedAddress { .. } | Field::AskedPort if self.part == Part::Answer => Seen::Unknown(unknown::CT),
            Field::AskedAddress { ipv4 } => address(ipv4, Some(self.asked.0), unknown::CT),
            Field::AskedPort => Seen::number(self.asked.1),
            Field::Direction if self.part == Part::Answer => Seen::number(1u8),
            Field::ConnectionMark => state.connection_mark.map_or(Seen::Unknown(unknown::MARK), Seen::number),
            Field::PacketType if self.loopback || self.part == Part::Answer => {
                Seen::Unknown(unknown::named("pkttype", unknown::EXPRESSION))
            }
            // The original direction, and a frame for this machine alone.
            Field::Direction | Field::PacketType => Seen::number(0u8),
            Field::DestinationType { device } => match state.is_local(self.machine) {
                Some(true) if !device => Seen::number(LOCAL),
                Some(false) => Seen::Not(LOCAL, unknown::FIB),
                _ => Seen::Unknown(unknown::FIB),
            },
            Field::SourceType => match state.source.map(|address| self.machine.has(address)) {
                Some(true) => Seen::number(LOCAL),
                Some(false) => Seen::Not(LOCAL, unknown::FIB),
                None => Seen::Unknown(unknown::SOURCE),
            },
            Field::Between { first, last, name } => Seen::Between(first.into(), last.into(), name),
            Field::Unknown(name) => Seen::Unknown(name),
        }
    }

    /// A field of a question of ARP, or of its answer: what is IP's it has not.
    fn arp(&self, state: &State, field: Field) -> Seen {
        let address = |address: Option<IpAddr>, name| address.map_or(Seen::Unknown(name), |one| Seen::number(number_of(one)));
        match field {
            Field::EtherType => Seen::number(ARP),
            Field::Arp(Arp::HardwareType) => Seen::number(1u8),
            Field::Arp(Arp::ProtocolType) => Seen::number(IPV4),
            Field::Arp(Arp::HardwareLength) => Seen::number(6u8),
            Field::Arp(Arp::ProtocolLength) => Seen::number(4u8),
            Field::Arp(Arp::Operation) => Seen::number(if self.part == Part::ArpQuestion { ARP_REQUEST } else { ARP_REPLY }),
            Field::Arp(Arp::Sender) => address(state.source, unknown::SOURCE),
            Field::Arp(Arp::Target) => address(state.destination, unknown::DESTINATION),
            Field::InputName => self.input(),
            Field::OutputName => self.output(),
            Field::Mark => state.mark.map_or(Seen::Unknown(unknown::MARK), Seen::number),
            Field::Between { first, last, name } => Seen::Between(first.into(), last.into(), name),
            Field::Unknown(name) => Seen::Unknown(name),
            Field::NetworkFamily => Seen::Unknown(unknown::EXPRESSION),
            Field::PacketType => Seen::Unknown(unknown::named("pkttype", unknown::EXPRESSION)),
            Field::DestinationType { .. } | Field::SourceType => Seen::Unknown(unknown::FIB),
            Field::State | Field::XtState | Field::Status | Field::Direction | Field::ConnectionMark => {
                Seen::Unknown(unknown::CT)
            }
            _ => Seen::Absent,
        }
    }

    fn flags(&self) -> Seen {
        match self.part {
            Part::Syn | Part::Solicitation | Part::Advertisement | Part::ArpQuestion | Part::ArpAnswer => {}
            // It may agree to congestion notification.
            Part::Answer => return Seen::Bits { value: SYN | ACK, known: !ECN, open: unknown::FLAGS },
            Part::Confirmation => return Seen::Bits { value: ACK, known: !ECN, open: unknown::FLAGS },
            // The last packet of what was written at once has the flag PSH.
            Part::Data => return Seen::Bits { value: ACK, known: !(ECN | PSH), open: unknown::FLAGS },
        }
        // A SYN that asks for congestion notification has two flags more.
        let ecn = if self.ecn == Some(true) { ECN } else { 0 };
        let known = if self.ecn.is_some() { u128::MAX } else { !ECN };
        Seen::Bits { value: SYN | ecn, known, open: unknown::FLAGS }
    }

    fn input(&self) -> Seen {
        match (self.hook, &self.input) {
            (Hook::Output, _) => Seen::Name(String::new()),
            // Kernels differ in what they remember here.
            (Hook::Postrouting | Hook::Egress, _) | (_, None) => Seen::Unknown(unknown::INPUT_DEVICE),
            (_, Some(name)) => Seen::Name(name.clone()),
        }
    }

    fn output(&self) -> Seen {
        match (self.hook, &self.output) {
            (Hook::Ingress | Hook::Prerouting | Hook::Input, _) => Seen::Name(String::new()),
            (_, Some(name)) => Seen::Name(name.clone()),
            (_, None) => Seen::Unknown(unknown::OUTPUT_DEVICE),
        }
    }

    /// The state, with the bits that tell translations.
    fn state(&self, state: &State, dnat: u128, snat: u128) -> Seen {
        match state.tracked {
            _ if self.hook == Hook::Ingress => Seen::Unknown(unknown::CT),
            Tracked::NotYet | Tracked::Invalid => Seen::number(INVALID),
            Tracked::Untracked => Seen::number(UNTRACKED),
            Tracked::Unclear => Seen::Unknown(unknown::CT),
            Tracked::New => translations(state, NEW, u128::MAX, dnat, snat),
            // Whether the connection is translated is not followed.
            Tracked::Established => Seen::Bits { value: ESTABLISHED, known: !(dnat | snat), open: unknown::CT },
        }
    }

    fn status(state: &State) -> Seen {
        match state.tracked {
            Tracked::Unclear | Tracked::Established => Seen::Unknown(unknown::CT),
            Tracked::NotYet | Tracked::Invalid | Tracked::Untracked => Seen::Absent,
            // Expected, answered and assured it is not; more is not followed.
            Tracked::New => translations(state, 0, 7, STATUS_DNAT, STATUS_SNAT),
        }
    }
}

fn translations(state: &State, value: u128, known: u128, dnat: u128, snat: u128) -> Seen {
    let to = if state.moved == Some(true) { dnat } else { 0 };
    let from = if state.source_moved { snat } else { 0 };
    let open = if state.moved.is_none() { dnat } else { 0 };
    // Whether the new source differs from the old one is not known.
    let open = open | from;
    Seen::Bits { value: value | to, known: (known | dnat | snat) & !open, open: unknown::CT }
}
