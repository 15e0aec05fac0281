//! Interfaces that are switched off: of the container behind a bridge without a carrier, and of the network that a packet should have gone to.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::gather::Gatherer;
use super::told::OrTold as _;
use crate::journey::{Journey, Outcome, symbol};
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
        if is_freed_by_vlan(journey) {
            evidence.down_here = self.watched.get(&journey.last_netns()).and_then(|watched| {
                let found = vlan_switched_off(&watched.netns, journey.death.as_ref()?.interface.as_deref()?);
                found.or_told(journey.last_netns(), "look at the devices").flatten()
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

/// Whether it was for a VLAN's interface that is switched off: nothing else has this function free a packet without a reason (6.12).
pub fn is_freed_by_vlan(journey: &Journey) -> bool {
    let unreasoned = journey.reason.as_deref().is_none_or(|reason| reason == "NOT_SPECIFIED");
    unreasoned && journey.location.as_deref().map(symbol) == Some("vlan_do_receive")
}

/// The VLAN's interface on another that is switched off, where there is but one.
fn vlan_switched_off(netns: &Netns, on: &str) -> std::io::Result<Option<String>> {
    let links = links::list_links(netns)?;
    let Some(lower) = links.iter().find(|link| link.name == on) else { return Ok(None) };
    let is_off = |link: &&links::Link| {
        link.kind.as_deref() == Some("vlan") && link.peer_index == Some(lower.index) && link.peer_nsid.is_none() && !link.up
    };
    let mut off = links.iter().filter(is_off);
    let one = off.next().filter(|_| off.next().is_none());
    Ok(one.map(|link| link.name.clone()))
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
