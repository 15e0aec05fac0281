//! The tunnel by which an answer left: what carries it is another packet, which this machine sends too, and which nobody here follows.

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::told::OrTold as _;
use super::watched::Watched;
use crate::journey::{Journey, Outcome};
use crate::kernel::links::list_links;

/// Kinds of devices that put packets into others.
const TUNNELS: [&str; 13] =
    ["vxlan", "geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ipip", "sit", "ip6tnl", "vti", "vti6", "wireguard", "tun"];

/// A tunnel's device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Its name.
    pub device: String,
    /// `vxlan`, `wireguard`, ...
    pub kind: String,
}

impl Watched {
    /// The tunnel by which an answer left that was sent again in vain.
    pub(super) fn add_tunnel(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let facts = &journey.facts;
        let in_vain = journey.outcome == Outcome::Answered && facts.syn_ack_again && !facts.acknowledged && !facts.established;
        let Some(device) = journey.interface.filter(|_| in_vain && facts.answer_left && journey.netns == self.netns.inum())
        else {
            return;
        };
        let links = list_links(&self.netns).or_told(self.netns.inum(), "look at the devices").unwrap_or_default();
        let kind = links.into_iter().find(|link| link.name == *device).and_then(|link| link.kind);
        let tunnel = kind.filter(|kind| TUNNELS.contains(&kind.as_str()));
        evidence.tunnel = tunnel.map(|kind| Tunnel { device: device.to_string(), kind });
    }
}
