//! What bears on a refusal: whether the listeners' addresses are this machine's, settings, and what decides who gets a connection.

use super::told::OrTold as _;
use super::watched::{Watched, others};
use super::{Evidence, routes, sysctls, way};
use crate::journey::Journey;
use crate::kernel::addresses::list_addresses;
use crate::probe::{choosing_programs, lookup_programs};

impl Watched {
    /// Adds it.
    pub(super) fn add_refusal(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        self.add_local_by_route(evidence);
        let settings = self.refusal_settings.get(|| sysctls::of_refusals(&self.netns)).or_told(inum, "read the settings");
        evidence.sysctls = settings.cloned().unwrap_or_default();
        let lookup = self.lookup_programs.get(|| lookup_programs(&self.netns));
        evidence.lookup_programs =
            lookup.or_told(inum, "list the programs that look for listeners").map(|names| others(names)).unwrap_or_default();
        if evidence.sockets.as_ref().is_some_and(|sockets| !sockets.listeners.is_empty()) {
            let choosing = self.choosing_programs.get(choosing_programs);
            evidence.choosing_programs =
                choosing.or_told(inum, "list the programs that choose among sockets").cloned().unwrap_or_default();
            evidence.vrf = way::vrf(&self.netns, journey).or_told(inum, "look at the devices").flatten();
        }
        // It says nothing to anybody else.
        if evidence.vrf.is_none() {
            evidence.sysctls.retain(|(name, _)| name != sysctls::ACCEPTS_FROM_VRF);
        }
    }

    /// Lists the addresses of the namespace; none where that fails, which is logged.
    pub(super) fn add_addresses(&mut self, evidence: &mut Evidence) {
        let own = self.addresses.get(|| list_addresses(&self.netns)).or_told(self.netns.inum(), "list the addresses");
        evidence.addresses = own.cloned().unwrap_or_default();
    }

    /// A whole network may be this machine's without any interface that has its addresses, by `ip route add local`.
    fn add_local_by_route(&self, evidence: &mut Evidence) {
        let listeners = evidence.sockets.iter().flat_map(|sockets| &sockets.listeners);
        let bound = listeners.map(|listener| listener.address.to_canonical());
        let unknown: Vec<_> = bound.filter(|address| !address.is_unspecified() && !evidence.has_address(*address)).collect();
        for address in unknown {
            if routes::is_local(&self.netns, address).or_told(self.netns.inum(), "read the routes") == Some(true) {
                evidence.local_by_route.push(address);
            }
        }
    }
}
