//! By whom answers could go back to a client that no route leads to.

use std::net::IpAddr;

use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Gatherer, way};
use crate::journey::{Journey, Stage};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links::list_links;
use crate::kernel::neighbours::{Neighbour, neighbours};

impl Gatherer {
    /// Adds it, where the end's namespace has no way back to the client.
    pub(super) fn add_router(&self, journey: &Journey, evidence: &mut Evidence) {
        let here = journey.last_netns();
        if here == journey.netns {
            evidence.router = self.neighbour_before(journey, evidence);
            return;
        }
        let mut syn = journey.stages.iter().take(journey.answer.unwrap_or(usize::MAX));
        // POSTROUTING knows the bridge, and tc its ports.
        let last = syn.rfind(|visit| visit.netns != here && visit.stage == Stage::Postrouting);
        let before = last.and_then(|visit| Some((visit.interface?, self.watched.get(&visit.netns)?)));
        let (Some((interface, before)), Some(behind)) = (before, self.watched.get(&here)) else { return };
        let of = |watched: &Watched| list_addresses(&watched.netns).or_told(watched.netns.inum(), "list the addresses");
        let (Some(of_router), Some(own)) = (of(before), of(behind)) else { return };
        evidence.router = way::router(&of_router, &interface, &own, journey.answer_destination());
    }

    /// The neighbour that the SYN came from, where its client is of another network than its interface and only one can have sent it: as
    /// Windows is, which stands before WSL alone.
    fn neighbour_before(&self, journey: &Journey, evidence: &Evidence) -> Option<IpAddr> {
        let client = journey.answer_destination();
        let entrance = journey.entrance()?;
        let netns = &self.watched.get(&journey.netns)?.netns;
        let networks: Vec<_> = evidence.addresses.iter().filter(|own| own.interface == entrance).collect();
        let is_near = |address| networks.iter().any(|own| own.covers(address));
        if networks.is_empty() || is_near(client) {
            return None;
        }
        let index =
            list_links(netns).or_told(netns.inum(), "look at the devices")?.iter().find(|link| link.name == entrance)?.index;
        let known = neighbours(netns).or_told(netns.inum(), "list the neighbours")?;
        let near = |one: &&Neighbour| one.index == index && one.address.is_ipv4() == client.is_ipv4() && is_near(one.address);
        the_only_one(known.iter().filter(near))
    }
}

/// The one machine that has all of these addresses; of two the one that stays when its network has another number.
fn the_only_one<'a>(known: impl Iterator<Item = &'a Neighbour> + Clone) -> Option<IpAddr> {
    let hardware = &known.clone().next()?.hardware;
    let lasts = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let alone = known.clone().all(|one| one.hardware == *hardware);
    known.map(|one| one.address).filter(|_| alone).max_by_key(lasts)
}

#[cfg(test)]
mod tests {
    use super::{Neighbour, the_only_one};
    use crate::output::samples::ip;

    #[test]
    fn only_one_machine_can_have_sent_it() {
        let of = |ends: &[(&str, u8)]| -> Option<String> {
            let known: Vec<_> = ends
                .iter()
                .map(|(address, last)| Neighbour {
                    address: ip(address),
                    index: 2,
                    hardware: vec![2, 0, 0, 0, 0, *last],
                    permanent: false,
                })
                .collect();
            the_only_one(known.iter()).map(|address| address.to_string())
        };
        assert_eq!(of(&[("172.28.16.1", 1)]).as_deref(), Some("172.28.16.1"));
        assert_eq!(of(&[("fd00:28::1", 1), ("fe80::1", 1), ("fd00:28::7", 1)]).as_deref(), Some("fe80::1"));
        assert_eq!(of(&[("172.28.16.1", 1), ("172.28.16.9", 2)]), None);
        assert_eq!(of(&[]), None);
    }
}
