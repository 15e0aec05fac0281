//! The stages of a packet's way, as users know them.

use serde::{Deserialize, Serialize};
use wsltrace_common::StageCode;

/// One step of the path that a packet has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation's; `wsltrace explain STAGE` describes each")]
pub enum Stage {
    TcIngress,
    NetfilterIngress,
    Prerouting,
    PreroutingRaw,
    Conntrack,
    PreroutingMangle,
    Dnat,
    Routing,
    Input,
    InputMangle,
    InputFilter,
    InputSecurity,
    SocketLookup,
    Listener,
    SynAck,
    Established,
    Accepted,
    Forward,
    ForwardMangle,
    ForwardFilter,
    ForwardSecurity,
    Output,
    OutputRaw,
    OutputConntrack,
    OutputMangle,
    OutputNat,
    OutputFilter,
    OutputSecurity,
    Postrouting,
    PostroutingMangle,
    Snat,
    Neighbour,
    TcEgress,
}

impl Stage {
    /// Whether it is of the way through this machine, which both directions pass.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardMangle | Self::ForwardFilter | Self::ForwardSecurity)
    }

    /// Every stage, roughly in the order of a packet's way.
    pub const ALL: [Self; 33] = {
        use Stage as S;
        [
            S::TcIngress,
            S::NetfilterIngress,
            S::Prerouting,
            S::PreroutingRaw,
            S::Conntrack,
            S::PreroutingMangle,
            S::Dnat,
            S::Routing,
            S::Input,
            S::InputMangle,
            S::InputFilter,
            S::InputSecurity,
            S::SocketLookup,
            S::Listener,
            S::SynAck,
            S::Established,
            S::Accepted,
            S::Forward,
            S::ForwardMangle,
            S::ForwardFilter,
            S::ForwardSecurity,
            S::Output,
            S::OutputRaw,
            S::OutputConntrack,
            S::OutputMangle,
            S::OutputNat,
            S::OutputFilter,
            S::OutputSecurity,
            S::Postrouting,
            S::PostroutingMangle,
            S::Snat,
            S::Neighbour,
            S::TcEgress,
        ]
    };

    /// The name in the JSON contract, in `--stage` filters and in `explain`.
    pub fn name(self) -> &'static str {
        use Stage as S;
        match self {
            S::TcIngress => "tc_ingress",
            S::NetfilterIngress => "netfilter_ingress",
            S::Prerouting => "prerouting",
            S::PreroutingRaw => "prerouting_raw",
            S::Conntrack => "conntrack",
            S::PreroutingMangle => "prerouting_mangle",
            S::Dnat => "dnat",
            S::Routing => "routing",
            S::Input => "input",
            S::InputMangle => "input_mangle",
            S::InputFilter => "input_filter",
            S::InputSecurity => "input_security",
            S::SocketLookup => "socket_lookup",
            S::Listener => "listener",
            S::SynAck => "syn_ack",
            S::Established => "established",
            S::Accepted => "accepted",
            S::Forward => "forward",
            S::ForwardMangle => "forward_mangle",
            S::ForwardFilter => "forward_filter",
            S::ForwardSecurity => "forward_security",
            S::Output => "output",
            S::OutputRaw => "output_raw",
            S::OutputConntrack => "output_conntrack",
            S::OutputMangle => "output_mangle",
            S::OutputNat => "output_nat",
            S::OutputFilter => "output_filter",
            S::OutputSecurity => "output_security",
            S::Postrouting => "postrouting",
            S::PostroutingMangle => "postrouting_mangle",
            S::Snat => "snat",
            S::Neighbour => "neighbour",
            S::TcEgress => "tc_egress",
        }
    }

    /// What a probe's code means to users, or `None` for codes that mark a position and are no stage.
    pub fn from_code(code: StageCode) -> Option<Self> {
        use StageCode as C;
        Some(match code {
            C::TcIngress => Self::TcIngress,
            C::Prerouting | C::PreroutingRest => Self::Prerouting,
            C::PreroutingRaw => Self::PreroutingRaw,
            C::PreroutingConntrack => Self::Conntrack,
            C::PreroutingMangle => Self::PreroutingMangle,
            C::PreroutingDnat => Self::Dnat,
            C::Routing => Self::Routing,
            C::Input | C::InputRest => Self::Input,
            C::InputMangle => Self::InputMangle,
            C::InputFilter => Self::InputFilter,
            C::InputSecurity => Self::InputSecurity,
            C::SocketLookup => Self::SocketLookup,
            C::Forward | C::ForwardRest => Self::Forward,
            C::ForwardMangle => Self::ForwardMangle,
            C::ForwardFilter => Self::ForwardFilter,
            C::ForwardSecurity => Self::ForwardSecurity,
            C::Output | C::OutputRest => Self::Output,
            C::OutputRaw => Self::OutputRaw,
            C::OutputConntrack => Self::OutputConntrack,
            C::OutputMangle => Self::OutputMangle,
            C::OutputNat => Self::OutputNat,
            C::OutputFilter => Self::OutputFilter,
            C::OutputSecurity => Self::OutputSecurity,
            C::Postrouting | C::PostroutingRest => Self::Postrouting,
            C::PostroutingMangle => Self::PostroutingMangle,
            C::PostroutingSnat => Self::Snat,
            C::TcEgress => Self::TcEgress,
            C::Established => Self::Established,
            C::Accepted => Self::Accepted,
            C::InputEnd | C::PostroutingEnd | C::SynAckRetransmitted | C::AckSeen => return None,
        })
    }
}

const _: () = assert!(Stage::TcEgress as usize + 1 == Stage::ALL.len());

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
