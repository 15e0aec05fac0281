//! Interfaces that are switched off: of the container behind a bridge without a carrier, and of the network that a packet should have gone to.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::gather::Gatherer;
use super::told::OrTold as _;
use crate::journey::{Journey, Outcome};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links;
use crate::kernel::netns::Netns;

/// An interface in another namespace that is switched off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Down {
    /// The inode number of its network namespace.
    pub netns: u32,
    /// The words before a command that run it there.
    pub entrance: Option<String>,
    /// Its name.
    pub device: String,
}

impl Gatherer {
    /// The interface with the packet's destination, where it died at a bridge that has no carrier.
    pub(super) fn add_down(&mut self, journey: &Journey, evidence: &mut Evidence) {
        if journey.outcome == Outcome::Forwarded && journey.is_turned_back() {
            evidence.down_here = self.watched.get(&journey.netns).and_then(|watched| {
                let found = network_switched_off(&watched.netns, journey.last_destination().0);
                found.or_told(journey.netns, "look at the devices").flatten()
            });
        }
        if !evidence.queue.as_ref().is_some_and(|queue| queue.is_bridge && !queue.carrier) {
            return;
        }
        let (here, to) = (journey.last_netns(), journey.last_destination().0);
        let mut others = self.watched.iter_mut().filter(|(inum, _)| **inum != here);
        evidence.down = others.find_map(|(inum, watched)| {
            let device = switched_off(&watched.netns, to).or_told(*inum, "look at the devices").flatten()?;
            let entrance = watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(*inum, "look for processes");
            Some(Down { netns: *inum, entrance: entrance.cloned().flatten(), device })
        });
    }
}

/// The interface that has an address and is switched off.
fn switched_off(netns: &Netns, address: IpAddr) -> std::io::Result<Option<String>> {
    let Some(own) = list_addresses(netns)?.into_iter().find(|own| own.address == address) else { return Ok(None) };
    let off = links::list_links(netns)?.iter().any(|link| link.name == own.interface && !link.up);
    Ok(off.then_some(own.interface))
}

/// The interface that is switched off, and in whose network an address is: the kernel has taken its route away.
fn network_switched_off(netns: &Netns, address: IpAddr) -> std::io::Result<Option<String>> {
    let own = list_addresses(netns)?;
    let links = links::list_links(netns)?;
    let is_off = |name: &str| links.iter().any(|link| link.name == name && !link.up);
    let found = own.iter().find(|own| is_off(&own.interface) && own.covers(address));
    Ok(found.map(|own| own.interface.clone()))
}
