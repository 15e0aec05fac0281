//! Codes of the stages as the probes report them.

/// A place that a probe reports. Codes ending in `Rest` and `End` mark positions behind the named chains: user space shows
/// a `Rest` under its hook's name, and only when the packet died there; an `End` shows nowhere, but tells how far it came.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the stages in the documentation")]
pub enum StageCode {
    TcIngress = 1,
    Prerouting,
    PreroutingRaw,
    PreroutingConntrack,
    PreroutingMangle,
    PreroutingDnat,
    PreroutingRest,
    /// The last PREROUTING position: the packet goes to routing.
    Routing,
    Input,
    InputMangle,
    InputFilter,
    InputSecurity,
    InputRest,
    InputEnd,
    SocketLookup,
    Forward,
    ForwardMangle,
    ForwardFilter,
    ForwardSecurity,
    ForwardRest,
    Output,
    OutputRaw,
    OutputConntrack,
    OutputMangle,
    OutputNat,
    OutputFilter,
    OutputSecurity,
    OutputRest,
    Postrouting,
    PostroutingMangle,
    PostroutingSnat,
    PostroutingRest,
    /// The last POSTROUTING position: the packet goes to the neighbour and its device.
    PostroutingEnd,
    TcEgress,
    /// The kernel sent its SYN-ACK again.
    SynAckRetransmitted,
    /// The client's acknowledgement of the SYN-ACK came in.
    AckSeen,
    Established,
    Accepted,
}

impl StageCode {
    /// Every code, in the order of their numbers; the first has number 1.
    pub const ALL: [Self; 38] = {
        use StageCode as S;
        [
            S::TcIngress,
            S::Prerouting,
            S::PreroutingRaw,
            S::PreroutingConntrack,
            S::PreroutingMangle,
            S::PreroutingDnat,
            S::PreroutingRest,
            S::Routing,
            S::Input,
            S::InputMangle,
            S::InputFilter,
            S::InputSecurity,
            S::InputRest,
            S::InputEnd,
            S::SocketLookup,
            S::Forward,
            S::ForwardMangle,
            S::ForwardFilter,
            S::ForwardSecurity,
            S::ForwardRest,
            S::Output,
            S::OutputRaw,
            S::OutputConntrack,
            S::OutputMangle,
            S::OutputNat,
            S::OutputFilter,
            S::OutputSecurity,
            S::OutputRest,
            S::Postrouting,
            S::PostroutingMangle,
            S::PostroutingSnat,
            S::PostroutingRest,
            S::PostroutingEnd,
            S::TcEgress,
            S::SynAckRetransmitted,
            S::AckSeen,
            S::Established,
            S::Accepted,
        ]
    };

    /// Whether a packet was somewhere; the others tell of an event.
    pub fn is_place(self) -> bool {
        !matches!(self, Self::SynAckRetransmitted | Self::AckSeen)
    }

    /// The code with this number, or `None` for a number that no probe sends.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }
}

// Recordings keep the numbers, so a new code stands behind these. Where a hook is told by a range of numbers (`journey/pass.rs` of the
// kernel side, `journey/end.rs` of user space), one of that hook's is to be named beside it.
const _: () = assert!(StageCode::TcEgress as u8 == 34 && StageCode::Accepted as u8 == 38);
const _: () = assert!(StageCode::Accepted as usize == StageCode::ALL.len());
