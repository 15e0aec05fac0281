//! An XDP program at the other end of a veth: it takes packets before any probe there, and what it drops is never seen.

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::around::Around;
use super::gather::Gatherer;
use super::told::OrTold as _;
use crate::journey::{Journey, Outcome, Stage};

/// The end of a veth that an XDP program guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XdpBeyond {
    /// The inode number of its network namespace.
    pub netns: u32,
    /// The words before a command that run it there.
    pub entrance: Option<String>,
    /// Its interface.
    pub device: String,
}

impl Gatherer {
    /// The XDP program behind the device by which a SYN left that was not seen again.
    pub(super) fn add_beyond(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let last = journey.stages.last().filter(|visit| visit.stage == Stage::TcEgress);
        let left = last.filter(|_| journey.outcome == Outcome::Unfinished && journey.answer.is_none());
        let Some((netns, device)) = left.and_then(|visit| Some((visit.netns, visit.interface.as_deref()?))) else { return };
        let found = self.lend_around(netns, |_, around| guarded(around, device)).flatten();
        let Some((netns, device)) = found else { return };
        let Some(watched) = self.watched.get_mut(&netns) else { return };
        let entrance = watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(netns, "look for processes").cloned();
        evidence.xdp_beyond = Some(XdpBeyond { netns, entrance: entrance.flatten(), device });
    }
}

/// The other end of a device, where an XDP program is there.
fn guarded(around: &Around, device: &str) -> Option<(u32, String)> {
    let link = around.links.iter().find(|link| link.name == device)?;
    let end = around.others.iter().find_map(|other| Some((other.netns, other.end_of(link)?)));
    end.filter(|(_, end)| end.xdp).map(|(netns, end)| (netns, end.name.clone()))
}
