//! One SYN through the firewalls of a namespace before it came: what they would do with it. It is never guessed: where something
//! is not understood or not known both ways are followed, and when they end differently the answer is "maybe".

mod behind_device;
mod chain;
mod further;
mod hooks;
mod iptables;
mod kernel;
mod marks;
mod nft;
mod packet;
mod read;
mod ruleset;
mod search;
mod state;
mod suspects;
mod symbol;
pub mod unknown;
mod value;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use behind_device::behind_device;
pub use further::{Behind, Further, further, without};
pub use marks::{marks_back, marks_through};
pub use packet::{Machine, Packet, Part, Standing, Way};
pub use read::{Reader, Rulesets, read, read_by};
pub use ruleset::Unread;
pub use search::{Port, Search, predict_search};
pub(crate) use suspects::stopping;
pub use suspects::{Suspect, suspects, suspects_at};
pub use unknown::Because;
pub use walk::{predict, predict_as};

use crate::evidence::Rule;

/// Where a packet goes that the firewalls let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Goes {
    /// To a socket of this namespace.
    Local,
    /// To a transparent proxy's socket of this namespace, with the address and port that it has.
    Proxy,
    /// Through this namespace, to another machine.
    Forward,
    /// Out of this namespace, which it was made in.
    Out,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "end", rename_all = "snake_case", deny_unknown_fields)]
pub enum End {
    /// No firewall holds it up.
    Passes {
        /// Its destination after DNAT; `None` when it is one of several.
        address: Option<IpAddr>,
        /// The port after DNAT; `None` when it is one of several.
        port: Option<u16>,
        /// The rule that gave it another destination.
        translated_by: Option<Rule>,
        /// Where it goes.
        goes: Goes,
    },
    /// A rule or policy drops it.
    Dropped {
        /// Which.
        rule: Rule,
        /// The destination address that the packet has there; `None` when it is one of several.
        address: Option<IpAddr>,
        /// The destination port that it has there; `None` when it is one of several.
        port: Option<u16>,
        /// Whether it is on its way through this machine there.
        forward: bool,
    },
    /// A rule refuses it.
    Rejected {
        /// Which.
        rule: Rule,
        /// As of `Dropped`.
        address: Option<IpAddr>,
        /// As of `Dropped`.
        port: Option<u16>,
        /// As of `Dropped`.
        forward: bool,
    },
    /// A rule gives it to a program.
    Queued {
        /// Which.
        rule: Rule,
    },
    /// It depends on what is not known.
    Maybe {
        /// The ends that were found; there may be others.
        possible: Vec<End>,
        /// What they depend on, of the list in [`unknown::LIST`].
        because: Vec<Because>,
    },
}

impl End {
    /// The same, if it depends on one thing more.
    fn depending(self, on: Because) -> Self {
        let (possible, mut because) = match self {
            Self::Maybe { possible, because } => (possible, because),
            end => (vec![end], Vec::new()),
        };
        if let Err(place) = because.binary_search(&on) {
            because.insert(place, on);
        }
        Self::Maybe { possible, because }
    }
}

/// What the firewalls would do with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// What becomes of it.
    pub end: End,
    /// No end was left out because a rule was not understood, or more ways are there than are followed.
    #[serde(skip)]
    pub whole: bool,
}

impl Prediction {
    /// What the answer depends on, a text each; empty when it is certain.
    pub fn maybe(&self) -> Vec<String> {
        match &self.end {
            End::Maybe { because, .. } => because.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }

    /// The ends that are possible, where there are no others.
    pub fn ends(&self) -> Option<Vec<&End>> {
        match &self.end {
            End::Maybe { possible, because } => {
                (self.whole && !because.iter().any(Because::hides_ends)).then(|| possible.iter().collect())
            }
            end => Some(vec![end]),
        }
    }

    /// The ends at which it is stopped, when it is so whatever that depends on; nothing when it may pass, or when there may be ends
    /// that were not followed.
    pub fn stops(&self) -> Vec<&End> {
        let is_stop = |end: &End| matches!(end, End::Dropped { .. } | End::Rejected { .. });
        match &self.end {
            End::Maybe { possible, because } if possible.iter().all(is_stop) && !because.iter().any(Because::hides_ends) => {
                possible.iter().collect()
            }
            end if is_stop(end) => vec![end],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, place } = self;
        if place.is_empty() { write!(f, "{name}") } else { write!(f, "{name} ({place})") }
    }
}
