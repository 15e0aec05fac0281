//! An answer that goes on inside of another packet, which is not followed: one that `IPsec` protects, or that its route wraps (`encap`). It
//! leaves POSTROUTING, or OUTPUT, and no device sees it as it is, as if it waited for its neighbour (6.12).

use std::io;

use serde::{Deserialize, Serialize};

use super::routes::{self, Question};
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, IpsecPolicy, ipsec, way};
use crate::journey::{Journey, Outcome, Stage};

/// What an answer goes on in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wrapped {
    /// A packet that is protected as this policy wants it.
    Ipsec(IpsecPolicy),
    /// What its route makes of it.
    Route,
}

impl Watched {
    /// Adds it, of an answer that was made here and not seen to leave.
    pub(super) fn add_wrapped(&self, journey: &Journey, evidence: &mut Evidence) {
        let lost = journey.outcome == Outcome::Unfinished && journey.facts.syn_ack && journey.last_netns() == journey.netns;
        let left = journey.stages.last().is_some_and(|visit| visit.stage == Stage::TcEgress);
        if lost && !left {
            evidence.wrapped = self.wrapped(journey).or_told(self.netns.inum(), "ask how an answer leaves").flatten();
        }
    }

    fn wrapped(&self, journey: &Journey) -> io::Result<Option<Wrapped>> {
        let ends = way::answer_ends(journey);
        let question = Question { from: ends.from.0, to: ends.to.0, came_by: None };
        if routes::is_wrapped(&self.netns, question)? {
            return Ok(Some(Wrapped::Route));
        }
        Ok(ipsec::refusing(&self.netns, ends, "out")?.filter(|policy| !policy.blocks).map(Wrapped::Ipsec))
    }
}
