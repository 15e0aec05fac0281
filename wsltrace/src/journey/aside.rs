//! Answers that were routed to the device by which their SYN came, and sent to another one there: by traffic control, by a program, or by
//! nftables' egress hook.

use std::net::IpAddr;

use super::{Journey, Origin, Outcome, Stage, StageVisit};

/// An answer that was sent to another device than it was routed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside<'a> {
    /// The device that it was routed to, by which its SYN came.
    pub from: &'a str,
    /// The device by which it was seen leaving in the end.
    pub to: &'a str,
    /// Whether it was seen leaving by the first as well: then what came to the other one may be a copy.
    pub seen_leaving: bool,
}

impl Journey {
    /// Where the answer went instead, when something at its device sent it to another one, or a copy of it.
    pub fn aside(&self) -> Option<Aside<'_>> {
        let from = self.interface.as_deref().filter(|_| self.origin == Origin::Remote)?;
        let answer = self.stages.get(self.answer?..)?.iter().filter(|visit| visit.netns == self.netns);
        let by_entrance = |visit: &StageVisit| visit.interface == self.interface;
        let (mut routed_there, mut seen_leaving) = (false, false);
        for visit in answer {
            match visit.stage {
                Stage::Postrouting => routed_there = by_entrance(visit),
                Stage::TcEgress if by_entrance(visit) => seen_leaving = true,
                Stage::TcEgress if seen_leaving || routed_there && !self.facts.answer_left => {
                    return Some(Aside { from, to: visit.interface.as_deref()?, seen_leaving });
                }
                _ => {}
            }
        }
        None
    }

    /// The address that a rule sent the SYN to, when it was sent on by the interface that it came by.
    pub fn sent_back(&self) -> Option<IpAddr> {
        let now = self.translated.as_ref().filter(|_| self.outcome == Outcome::Forwarded && self.origin == Origin::Remote)?;
        let left = self.stages.iter().rfind(|visit| visit.stage == Stage::TcEgress && visit.netns == self.netns)?;
        let back = left.interface == self.interface && now.source == self.flow.source;
        (back && now.destination != self.flow.destination).then_some(now.destination)
    }

    /// The same, where the client did not confirm it: where it left by its device too, only once it had been sent again in vain.
    pub fn lost_aside(&self) -> Option<Aside<'_>> {
        let unconfirmed = self.outcome == Outcome::Answered && !self.facts.acknowledged && !self.facts.established;
        let in_vain = self.facts.syn_ack_again || self.facts.asked_again;
        self.aside().filter(|aside| unconfirmed && (in_vain || !aside.seen_leaving))
    }
}
