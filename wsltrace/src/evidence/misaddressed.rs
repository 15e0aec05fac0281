//! A frame that went to a hardware address which is not its next hop's: the interface that sent it asks for none (NOARP), and takes its own,
//! or the sender has a wrong one for the next hop.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use super::hardware::sent;
use super::isolated::BRIDGE_FREES;
use super::told::OrTold as _;
use super::{Evidence, Unclaimed, routes};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::links::{ARPHRD_ETHER, Link};

/// The device of mirrored mode and consomme, whose other end is in a table and never asked for.
const TOLD: &str = "loopback0";
/// Kinds of interfaces that ask for hardware addresses unless somebody has told them not to; hardware has none. ipvlan, VRFs and tunnels
/// do without.
const ASKING: [&str; 6] = ["veth", "bridge", "vlan", "bond", "team", "macvlan"];

/// Where it was sent, and why that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Misaddressed {
    /// The inode number of the sender's namespace.
    pub netns: u32,
    /// The words before a command that run it there, where that is not the namespace into which the SYN came.
    pub entrance: Option<String>,
    /// The sender's interface.
    pub device: String,
    /// The next hop.
    pub neighbour: IpAddr,
    /// Why.
    pub why: Misaddress,
}

/// Why a frame went to a wrong hardware address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Misaddress {
    /// The interface asks for none, and sends to its own.
    NoArp,
    /// It has this one for the next hop.
    Wrong {
        /// As `ip` writes it.
        hardware: String,
        /// Somebody has set it, and the kernel never asks whether it is right.
        permanent: bool,
        /// The one that the next hop has, where that is seen.
        real: Option<String>,
    },
}

impl Gatherer {
    /// What was wrong with where a packet was sent that nobody took, or that a bridge did not hand on.
    pub(super) fn add_misaddressed(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let by_bridge = is_freed_by_bridge(journey);
        let Some((netns, devices, to)) = sent(journey).or_else(|| by_bridge.then(|| sent_to_bridge(journey)).flatten()) else {
            return;
        };
        let found = self.lend_around(netns, |gatherer, around| {
            let routed = devices.iter().find_map(|device| around.routed(device))?;
            if !is_silent(routed) && !by_bridge {
                return None;
            }
            let hop = routes::hop_by(&gatherer.watched.get(&netns)?.netns, None, to, &routed.name);
            let neighbour = hop.or_told(netns, "read the routes").flatten().and_then(|hop| hop.gateway).unwrap_or(to);
            let why = if is_silent(routed) {
                Misaddress::NoArp
            } else {
                let Unclaimed { hardware, permanent, real, .. } = around.unclaimed(routed, neighbour)?;
                Misaddress::Wrong { hardware: hardware?, permanent, real }
            };
            Some((routed.name.clone(), neighbour, why))
        });
        let Some((device, neighbour, why)) = found.flatten() else { return };
        let entrance = self.watched.get_mut(&netns).filter(|_| netns != journey.netns).and_then(|watched| {
            watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(netns, "look for processes").cloned().flatten()
        });
        evidence.misaddressed = Some(Misaddressed { netns, entrance, device, neighbour, why });
    }
}

/// Whether a bridge did not hand an answer on.
fn is_freed_by_bridge(journey: &Journey) -> bool {
    let freed = journey.location.as_deref().is_some_and(|place| BRIDGE_FREES.contains(&symbol(place)));
    freed && journey.outcome == Outcome::AnswerDropped
}

/// The namespace and the interface by which an answer left for a bridge, and where it was to go.
fn sent_to_bridge(journey: &Journey) -> Option<(u32, Vec<&str>, IpAddr)> {
    let answer = journey.stages.get(journey.answer?..)?;
    let left = answer.iter().rfind(|visit| visit.stage == Stage::TcEgress)?;
    Some((left.netns, vec![left.interface.as_deref()?], journey.last_source()))
}

/// Whether it does not ask for hardware addresses, though its like do.
fn is_silent(link: &Link) -> bool {
    let asks = link.kind.as_deref().is_none_or(|kind| ASKING.contains(&kind));
    link.no_arp && asks && link.arphrd == ARPHRD_ETHER && link.name != TOLD
}

#[cfg(test)]
mod tests {
    use super::{ARPHRD_ETHER, Link, is_silent, sent_to_bridge};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples::{self, CONTAINER};

    #[test]
    fn only_what_asks_by_itself_is_told_as_silent() {
        let link = |name: &str, kind: Option<&str>, no_arp| Link {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            no_arp,
            arphrd: ARPHRD_ETHER,
            ..Link::default()
        };
        assert!(is_silent(&link("eth0", None, true)) && is_silent(&link("eth0", Some("veth"), true)));
        assert!(!is_silent(&link("eth0", None, false)) && !is_silent(&link("loopback0", None, true)));
        assert!(!is_silent(&link("eth0", Some("ipvlan"), true)) && !is_silent(&link("v1", Some("vrf"), true)));
        assert!(!is_silent(&Link { arphrd: 65534, ..link("tun0", None, true) }), "a tunnel has none");
    }

    #[test]
    fn an_answer_is_followed_to_where_it_left_for_the_bridge() {
        let stages = [Stage::TcIngress, Stage::SynAck, Stage::TcEgress, Stage::TcIngress];
        let mut journey = samples::journey(&stages, Outcome::AnswerDropped, Some(Stage::TcIngress), None);
        journey.stages[2].netns = CONTAINER;
        assert_eq!(sent_to_bridge(&journey), Some((CONTAINER, vec!["eth0"], journey.flow.source)));
        journey.answer = None;
        assert_eq!(sent_to_bridge(&journey), None);
    }
}
