//! The parts of a handshake: what the stages of a journey are summed up to, so that they can be put on top of one another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::journey::{Journey, Stage};

/// A part of the time from a SYN's first sight to the connection's acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// From one device or program to the next: OUTPUT, FORWARD and POSTROUTING but for their tables named below, and queues.
    Way,
    /// From the device to PREROUTING.
    Tc,
    /// Connection tracking.
    Conntrack,
    /// Address translation.
    Nat,
    /// Filter chains.
    Filter,
    /// All other chains of PREROUTING and INPUT, and those of raw, mangle and security.
    Chains,
    /// The routing decision.
    Routing,
    /// The search for the socket, and what TCP does until its answer is made.
    Socket,
    /// The answer's way to the device, or on `lo` to the client's socket.
    SynAck,
    /// Until the client's ACK has come in.
    ClientAck,
    /// Until the application has taken the connection.
    Accept,
}

impl Part {
    /// All of them, in the order of a packet's way.
    pub const ALL: [Self; 11] = [
        Self::Way,
        Self::Tc,
        Self::Conntrack,
        Self::Nat,
        Self::Filter,
        Self::Chains,
        Self::Routing,
        Self::Socket,
        Self::SynAck,
        Self::ClientAck,
        Self::Accept,
    ];

    /// In words, and the letter that stands for it in a picture.
    pub fn words(self) -> (&'static str, char) {
        match self {
            Self::Way => ("out and onward", 'o'),
            Self::Tc => ("tc to prerouting", 't'),
            Self::Conntrack => ("conntrack", 'c'),
            Self::Nat => ("nat", 'n'),
            Self::Filter => ("filter", 'f'),
            Self::Chains => ("other chains", 'x'),
            Self::Routing => ("routing", 'r'),
            Self::Socket => ("socket lookup", 'l'),
            Self::SynAck => ("SYN-ACK", 's'),
            Self::ClientAck => ("client's ACK", 'a'),
            Self::Accept => ("accept", 'w'),
        }
    }

    /// What the time spent in a stage of the SYN belongs to.
    fn of(stage: Stage) -> Self {
        use Stage as S;
        match stage {
            S::TcIngress => Self::Tc,
            S::Conntrack | S::OutputConntrack => Self::Conntrack,
            S::Dnat | S::OutputNat | S::Snat => Self::Nat,
            S::InputFilter | S::ForwardFilter | S::OutputFilter => Self::Filter,
            S::NetfilterIngress
            | S::Prerouting
            | S::PreroutingRaw
            | S::PreroutingMangle
            | S::Input
            | S::InputMangle
            | S::InputSecurity
            | S::ForwardMangle
            | S::ForwardSecurity
            | S::OutputRaw
            | S::OutputMangle
            | S::OutputSecurity
            | S::PostroutingMangle => Self::Chains,
            S::Routing => Self::Routing,
            S::SocketLookup | S::Listener => Self::Socket,
            S::SynAck => Self::SynAck,
            S::Established | S::Accepted => Self::Accept,
            S::Output | S::Forward | S::Postrouting | S::Neighbour | S::TcEgress => Self::Way,
        }
    }
}

/// Nanoseconds by part, in the order of [`Part::ALL`].
pub type Spent = [u64; Part::ALL.len()];

/// The time that a journey spent in each part; `None` when its handshake was not seen to its end. The sum is the whole handshake.
pub fn spent(journey: &Journey) -> Option<Spent> {
    if !journey.complete || !journey.facts.established {
        return None;
    }
    let mut spent = Spent::default();
    for (index, pair) in journey.stages.windows(2).enumerate() {
        let [stage, next] = pair else { continue };
        let part = match (journey.answer.is_some_and(|answer| index >= answer), next.stage) {
            (true, Stage::Established) => Part::ClientAck,
            (true, Stage::Accepted) => Part::Accept,
            (true, _) => Part::SynAck,
            (false, _) => Part::of(stage.stage),
        };
        if let Some(spent) = spent.get_mut(part as usize) {
            *spent += next.ns.saturating_sub(stage.ns);
        }
    }
    Some(spent)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::journey::StageVisit;
    use crate::output::samples;

    #[test]
    fn the_parts_are_the_whole_and_the_answer_is_one_of_them() {
        let mut journey = samples::healthy().journey;
        let visits = [
            (Stage::TcIngress, 0),
            (Stage::Prerouting, 2),
            (Stage::Conntrack, 5),
            (Stage::Dnat, 9),
            (Stage::Routing, 14),
            (Stage::Input, 20),
            (Stage::InputFilter, 27),
            (Stage::SocketLookup, 35),
            (Stage::SynAck, 44),
            (Stage::OutputFilter, 54),
            (Stage::TcEgress, 65),
            (Stage::Established, 77),
            (Stage::Accepted, 90),
        ];
        journey.stages = visits.iter().map(|&(stage, ns)| StageVisit { stage, ns, interface: None, netns: 1 }).collect();
        journey.answer = Some(8);
        journey.facts.established = true;
        let found = spent(&journey).unwrap();
        let named: Vec<(Part, u64)> = Part::ALL.into_iter().zip(found).filter(|(_, ns)| *ns > 0).collect();
        let expected = [
            (Part::Tc, 2),
            (Part::Conntrack, 4),
            (Part::Nat, 5),
            (Part::Filter, 8),
            (Part::Chains, 3 + 7),
            (Part::Routing, 6),
            (Part::Socket, 9),
            (Part::SynAck, 10 + 11),
            (Part::ClientAck, 12),
            (Part::Accept, 13),
        ];
        assert_eq!(named, expected);
        assert_eq!(found.iter().sum::<u64>(), 90);
        journey.facts.established = false;
        assert_eq!(spent(&journey), None);
    }

    #[test]
    fn parts_stand_where_their_number_says_and_have_letters_of_their_own() {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, index);
        }
        let letters: std::collections::BTreeSet<char> = Part::ALL.into_iter().map(|part| part.words().1).collect();
        assert_eq!(letters.len(), Part::ALL.len());
    }
}
