//! An address that was left on an interface which has become a port of a bridge: what comes in comes by the bridge, and what the port itself
//! asks for is answered to the bridge.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, way};
use crate::journey::{Journey, Outcome};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links::list_links;

/// A port with an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BridgePort {
    /// The port.
    pub device: String,
    /// Its bridge.
    pub bridge: String,
    /// The address.
    pub address: IpAddr,
    /// The length of its network's prefix, bits.
    pub prefix: u8,
}

impl Watched {
    /// The port with the server's address, where its answer waited for a neighbour on it and the SYN came by its bridge.
    pub(super) fn add_bridge_port(&mut self, journey: &Journey, evidence: &mut Evidence) {
        if journey.outcome == Outcome::AnswerDropped && journey.netns == self.netns.inum() {
            evidence.bridge_port = self.bridge_port(journey).or_told(self.netns.inum(), "look at the devices").flatten();
        }
    }

    fn bridge_port(&self, journey: &Journey) -> io::Result<Option<BridgePort>> {
        let failed = journey.reason.as_deref() == Some("NEIGH_FAILED");
        let died = journey.death.as_ref().filter(|_| failed).and_then(|death| death.interface.as_deref());
        let device = died.or_else(|| way::waited_for(journey).map(|(_, device)| device));
        let (Some(device), Some(came_by)) = (device, journey.entrance()) else { return Ok(None) };
        let links = list_links(&self.netns)?;
        let Some(port) = links.iter().find(|link| link.name == device) else { return Ok(None) };
        let bridge = links.iter().find(|link| Some(link.index) == port.master && link.kind.as_deref() == Some("bridge"));
        let Some(bridge) = bridge.filter(|bridge| bridge.name == came_by) else { return Ok(None) };
        let own = list_addresses(&self.netns)?.into_iter();
        let own = own.filter(|own| own.interface == device).find(|own| own.address == journey.last_destination().0);
        let (device, bridge) = (device.to_owned(), bridge.name.clone());
        Ok(own.map(|own| BridgePort { device, bridge, address: own.address, prefix: own.prefix }))
    }
}
