//! How a journey ended, by name.

use serde::{Deserialize, Serialize};

/// How a journey ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The SYN-ACK left.
    Answered,
    /// The kernel answered with RST: no listener.
    Refused,
    /// A firewall answered with RST, or with an ICMP error.
    Rejected,
    /// The kernel dropped the SYN.
    Dropped,
    /// A listener took the SYN and made no answer.
    Ignored,
    /// The SYN met an older connection and was answered by a challenge ACK.
    Challenged,
    /// An answer was made and died before it left.
    AnswerDropped,
    /// The SYN left the machine.
    Forwarded,
    /// No end was seen in time.
    Unfinished,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::Refused,
        Self::Rejected,
        Self::Dropped,
        Self::Ignored,
        Self::Challenged,
        Self::AnswerDropped,
        Self::Forwarded,
        Self::Unfinished,
    ];

    /// The name in the JSON contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
            Self::Ignored => "ignored",
            Self::Challenged => "challenged",
            Self::AnswerDropped => "answer_dropped",
            Self::Forwarded => "forwarded",
            Self::Unfinished => "unfinished",
        }
    }
}

const _: () = assert!(Outcome::Unfinished as usize + 1 == Outcome::ALL.len());
