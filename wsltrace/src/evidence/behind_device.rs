//! Which rule dropped a packet that had come in by a device and to no hook of the machine's own yet: there the kernel's trace does not begin
//! for answers, and for chains that come before ours. The rules as they are now are followed, so this proves nothing.

use super::simulated::came;
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, NamedBy};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::kernel::links::list_links;
use crate::simulate::{Packet, Way, behind_device};

impl Watched {
    /// The only rule there that may have stopped a packet.
    pub(super) fn follow_behind_device(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        // Since Linux 6.7 only chains of nftables free there.
        let in_chain = journey.location.as_deref().is_some_and(|place| symbol(place) == "nft_do_chain");
        let device = journey.death.as_ref().and_then(|death| death.interface.as_deref()).filter(|_| in_chain);
        let Some(device) = device.filter(|_| journey.reason.as_deref() == Some("NETFILTER_DROP")) else { return };
        let Some(links) = list_links(&self.netns).or_told(inum, "look at the devices") else { return };
        let master = links.iter().find(|link| link.name == device).and_then(|link| link.master);
        let is_port = links.iter().any(|link| Some(link.index) == master && link.kind.as_deref() == Some("bridge"));
        let found =
            self.rules().and_then(|rules| behind_device(&rules.rulesets, &packet(journey), &rules.machine, (device, is_port)));
        let Some([only]) = found.as_deref() else { return };
        evidence.stage = (only.rule.family == "netdev").then_some(Stage::NetfilterIngress);
        (evidence.rule, evidence.named_by) = (Some(only.rule.clone()), NamedBy::Rules);
    }
}

/// What came in by that device: a container's answer, or the SYN.
fn packet(journey: &Journey) -> Packet {
    if journey.outcome != Outcome::AnswerDropped {
        return came(journey, |device| Way::Outside { device, bridged: false }, Way::Loopback);
    }
    let (destination, destination_port) = journey.last_destination();
    let (source, way) = (Some(journey.last_source()), Way::ForwardedAnswer { device: None });
    Packet { way, source, source_port: None, destination, destination_port, ecn: None }
}
