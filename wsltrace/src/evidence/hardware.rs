//! What bears on a frame that left for a hardware address which nobody takes: the neighbour's entry is old, or somebody has set it.
//!
//! A bridge that does not know where an address is sends the frame by every port. That nobody has it can be said only where all that stands
//! behind them is watched.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::around::Around;
use super::gather::Gatherer;
use super::told::OrTold as _;
use super::{Evidence, routes};
use crate::journey::{Journey, Outcome, Stage};
use crate::kernel::links::Link;
use crate::kernel::neighbours::written;

/// The gateway that WSL itself sets: it is no machine's.
const OF_WSL: &str = "00:11:22:33:44:55";

/// The hardware address that a packet was sent to, where that is not its neighbour's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unclaimed {
    /// Whose it is taken for: the destination, or the gateway to it.
    pub neighbour: Option<IpAddr>,
    /// The interface behind which it is taken to be.
    pub device: String,
    /// The hardware address, as `ip` writes it; `None` where the kernel has given the entry up since.
    pub hardware: Option<String>,
    /// Somebody has set it (`nud permanent`), and the kernel never asks whether it is right.
    pub permanent: bool,
    /// The one that the neighbour has, where a namespace that is watched has its address.
    pub real: Option<String>,
    /// All that stands behind the interface is watched, and nothing there has the address.
    pub is_nobodys: bool,
}

impl Gatherer {
    /// What bears on a packet that left for a hardware address.
    pub(super) fn add_hardware(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let Some((netns, devices, to)) = sent(journey) else { return };
        self.lend_around(netns, |gatherer, around| {
            let found = gatherer.unclaimed(around, netns, &devices, to, journey.outcome);
            evidence.unclaimed = found.or_told(netns, "look for hardware addresses").flatten();
        });
    }

    fn unclaimed(
        &self,
        around: &Around,
        netns: u32,
        devices: &[&str],
        to: IpAddr,
        outcome: Outcome,
    ) -> io::Result<Option<Unclaimed>> {
        let routed = devices.iter().find_map(|device| around.routed(device));
        let Some((routed, watched)) = routed.zip(self.watched.get(&netns)) else { return Ok(None) };
        // Of an answer only what somebody has set tells something, and the route is dear to ask for in a flood.
        if outcome == Outcome::Answered && !around.neighbours.iter().any(|entry| entry.permanent && entry.index == routed.index) {
            return Ok(None);
        }
        let hop = routes::hop_by(&watched.netns, None, to, &routed.name)?;
        Ok(around.unclaimed(routed, hop.and_then(|hop| hop.gateway).unwrap_or(to)))
    }
}

/// The namespace that a packet was last seen leaving, the interfaces there, the last one first, and where it was to go: a SYN that was sent
/// on, or an answer that nobody has confirmed. Of the ports by which a bridge sent it some may be gone, as those of containers that end.
pub(super) fn sent(journey: &Journey) -> Option<(u32, Vec<&str>, IpAddr)> {
    let facts = journey.facts;
    let to = match journey.outcome {
        Outcome::Forwarded => journey.last_destination().0,
        Outcome::Answered if facts.syn_ack && facts.answer_left && !facts.acknowledged && !facts.established => {
            journey.flow.source
        }
        _ => return None,
    };
    let left = || journey.stages.iter().rev().filter(|visit| visit.stage == Stage::TcEgress);
    let netns = left().next()?.netns;
    Some((netns, left().take_while(|visit| visit.netns == netns).filter_map(|visit| visit.interface.as_deref()).collect(), to))
}

impl Around {
    pub(super) fn unclaimed(&self, device: &Link, neighbour: IpAddr) -> Option<Unclaimed> {
        let Some(entry) = self.neighbours.iter().find(|entry| entry.index == device.index && entry.address == neighbour) else {
            return self.given_up(device, neighbour);
        };
        let theirs = self.others.iter().flat_map(|other| &other.links);
        let has = |link: &Link| link.address == entry.hardware;
        let hardware = written(&entry.hardware);
        if self.links.iter().chain(theirs).any(has) || hardware == OF_WSL {
            return None;
        }
        let ports = self.ports_of(device);
        let known = self
            .learned
            .iter()
            .any(|learned| learned.hardware == entry.hardware && ports.iter().any(|port| port.index == learned.port));
        Some(Unclaimed {
            neighbour: Some(neighbour),
            device: device.name.clone(),
            hardware: Some(hardware),
            permanent: entry.permanent,
            real: self.others.iter().find_map(|other| other.hardware_of(neighbour)),
            is_nobodys: self.all_seen(device) && !known,
        })
    }

    /// Behind a bridge there is nobody with the address, and the entry by which the packet left is gone: the kernel asked again in vain.
    fn given_up(&self, device: &Link, neighbour: IpAddr) -> Option<Unclaimed> {
        let is_there = self.others.iter().flat_map(|other| &other.addresses).any(|own| own.address == neighbour);
        let is_nobodys = is_bridge(device) && self.all_seen(device) && !is_there;
        is_nobodys.then(|| Unclaimed {
            neighbour: Some(neighbour),
            device: device.name.clone(),
            is_nobodys,
            ..Unclaimed::default()
        })
    }

    /// The ports of a bridge that are switched on.
    fn ports_of(&self, device: &Link) -> Vec<&Link> {
        self.links.iter().filter(|link| link.up && link.master == Some(device.index)).collect()
    }

    /// Whether all that stands behind an interface is watched.
    fn all_seen(&self, device: &Link) -> bool {
        let is_seen = |link: &Link| self.others.iter().any(|other| other.end_of(link).is_some());
        if is_bridge(device) { self.ports_of(device).into_iter().all(is_seen) } else { is_seen(device) }
    }
}

fn is_bridge(device: &Link) -> bool {
    device.kind.as_deref() == Some("bridge")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::evidence::around::tests::around;
    use crate::kernel::neighbours::Learned;
    use crate::output::samples::ip;

    fn found(around: &Around) -> Option<(Option<String>, bool)> {
        let found = around.unclaimed(around.routed("vk2").unwrap(), ip("10.9.0.2"))?;
        assert_eq!((found.device.as_str(), found.hardware?.len()), ("br0", 17));
        Some((found.real, found.is_nobodys))
    }

    #[test]
    fn an_address_is_nobodys_only_where_all_behind_the_bridge_is_seen() {
        assert_eq!(found(&around(15)), None, "the container has it");
        assert_eq!(found(&around(99)), Some((Some("02:00:00:00:00:0f".to_owned()), true)));
        let mut gone = around(99);
        gone.others.pop();
        // Its veth is still there, and leads where nobody looks.
        assert_eq!(found(&gone), Some((None, false)));
        gone.links.pop();
        let stopped = gone.unclaimed(gone.routed("vk").unwrap(), ip("10.9.0.2")).unwrap();
        assert_eq!((stopped.real, stopped.is_nobodys), (None, true));
        let mut learned = around(99);
        learned.learned.push(Learned { port: 4, hardware: vec![2, 0, 0, 0, 0, 99] });
        assert!(!found(&learned).unwrap().1);
    }

    #[test]
    fn an_entry_that_is_gone_was_nobodys_where_nobody_has_the_address() {
        let mut gone = around(99);
        gone.neighbours.clear();
        let unclaimed = |around: &Around| around.unclaimed(around.routed("vk")?, ip("10.9.0.2"));
        assert_eq!(unclaimed(&gone), None, "the container is there");
        gone.others.pop();
        assert_eq!(unclaimed(&gone), None, "where its veth leads nobody looks");
        gone.links.pop();
        let found = unclaimed(&gone).unwrap();
        assert_eq!((found.hardware, found.real, found.is_nobodys), (None, None, true));
    }
}
