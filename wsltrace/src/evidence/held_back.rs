//! What stands behind our place at a device's egress, so that a packet which it stopped or changed was seen to leave: a queueing discipline
//! that holds back what was given to the device, and filters of traffic control.

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::gather::Gatherer;
use super::hardware::sent;
use super::told::OrTold as _;
use crate::journey::{Journey, Outcome, Stage, StageVisit};
use crate::kernel::links::{filters_egress, list_links, shaper};
use crate::kernel::netns::Netns;

/// A queueing discipline with packets in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldBack {
    /// The inode number of the device's namespace.
    pub netns: u32,
    /// The words before a command that run it there, where that is not the namespace into which the SYN came.
    pub entrance: Option<String>,
    /// The device.
    pub device: String,
    /// `htb`, `tbf`, `netem`, ...
    pub kind: String,
    /// How many packets wait in it.
    pub packets: u32,
}

/// A device with filters of traffic control at its egress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilteredEgress {
    /// The inode number of the device's namespace.
    pub netns: u32,
    /// The words before a command that run it there, where that is not the namespace into which the SYN came.
    pub entrance: Option<String>,
    /// The device.
    pub device: String,
}

impl Gatherer {
    /// What still holds packets back at the device by which a packet was last seen to leave.
    pub(super) fn add_held_back(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let Some((netns, device)) = left_in_vain(journey) else { return };
        let Some(watched) = self.watched.get_mut(&netns) else { return };
        let behind = behind(&watched.netns, device).or_told(netns, "look at the queue of a device").flatten();
        let Some(behind) = behind else { return };
        let entrance = if netns == journey.netns {
            None
        } else {
            watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(netns, "look for processes").cloned().flatten()
        };
        let device = device.to_owned();
        match behind {
            Behind::Holds(kind, packets) => {
                evidence.held_back = Some(HeldBack { netns, entrance, device, kind, packets });
            }
            Behind::Filters => evidence.filtered_egress = Some(FilteredEgress { netns, entrance, device }),
        }
    }
}

/// The namespace and the device by which something was last seen to leave that came to nothing: a SYN that was sent on, an answer that was
/// sent again or not seen again, or what confirmed an answer, which goes the way of its SYN.
fn left_in_vain(journey: &Journey) -> Option<(u32, &str)> {
    let facts = journey.facts;
    let of = |visit: &'_ StageVisit| (visit.stage == Stage::TcEgress).then_some(visit.netns);
    if journey.outcome == Outcome::Unfinished {
        let last = journey.stages.last().filter(|_| facts.syn_ack)?;
        return of(last).zip(last.interface.as_deref());
    }
    if journey.is_confirmed_in_vain() {
        let syn = journey.stages.get(..journey.answer?)?;
        let last = syn.iter().rfind(|visit| visit.stage == Stage::TcEgress)?;
        return of(last).zip(last.interface.as_deref());
    }
    let in_vain = journey.outcome == Outcome::Forwarded || facts.syn_ack_again;
    sent(journey).filter(|_| in_vain).and_then(|(netns, devices, _)| Some((netns, *devices.first()?)))
}

/// What may have kept a packet behind our place.
enum Behind {
    /// A queueing discipline of this kind, with so many packets in it.
    Holds(String, u32),
    /// Filters.
    Filters,
}

fn behind(netns: &Netns, device: &str) -> std::io::Result<Option<Behind>> {
    let Some(link) = list_links(netns)?.into_iter().find(|link| link.name == device) else { return Ok(None) };
    if let Some((kind, packets)) = shaper(netns, link.index)?.filter(|(_, packets)| *packets > 0) {
        return Ok(Some(Behind::Holds(kind, packets)));
    }
    Ok(filters_egress(netns, link.index)?.then_some(Behind::Filters))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Stage, left_in_vain};
    use crate::journey::Facts;
    use crate::output::samples::{self, CONTAINER, NETNS};

    #[test]
    fn what_left_last_is_looked_at() {
        let stages = [Stage::TcIngress, Stage::TcEgress, Stage::TcIngress, Stage::SynAck, Stage::TcEgress];
        let mut journey = samples::journey(&stages, Outcome::Unfinished, None, None);
        journey.stages.iter_mut().skip(2).for_each(|visit| visit.netns = CONTAINER);
        assert_eq!(left_in_vain(&journey), None, "whether it was answered is not known");
        journey.facts = Facts { syn_ack: true, ..Facts::default() };
        assert_eq!(left_in_vain(&journey), Some((CONTAINER, "eth0")));
        // What the client sent to confirm it goes the way of its SYN.
        journey.outcome = Outcome::Answered;
        journey.facts = Facts { syn_ack: true, syn_ack_again: true, answer_left: true, acknowledged: true, ..Facts::default() };
        assert!(journey.is_confirmed_in_vain());
        assert_eq!(left_in_vain(&journey), Some((NETNS, "eth0")));
        journey.facts.established = true;
        assert_eq!(left_in_vain(&journey), None, "it is healthy");
    }
}
