//! What bears on a refusal: whether the listeners' addresses are this machine's, settings, and what decides who gets a connection.

use super::watched::{Watched, others};
use super::{Evidence, addresses, routes, sysctls, way};
use crate::journey::Journey;
use crate::probe::{choosing_programs, lookup_programs};

impl Watched {
    /// Adds it.
    pub(super) fn add_refusal(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        self.add_local_by_route(evidence);
        match self.refusal_settings.get(|| sysctls::of_refusals(&self.netns)) {
            Ok(settings) => evidence.sysctls.clone_from(settings),
            Err(error) => log::warn!("cannot read the settings of network namespace {inum}: {error}"),
        }
        match self.lookup_programs.get(|| lookup_programs(&self.netns)) {
            Ok(names) => evidence.lookup_programs = others(names),
            Err(error) => log::warn!("cannot list the programs that look for listeners in network namespace {inum}: {error}"),
        }
        if evidence.sockets.as_ref().is_some_and(|sockets| !sockets.listeners.is_empty()) {
            match self.choosing_programs.get(choosing_programs) {
                Ok(names) => evidence.choosing_programs.clone_from(names),
                Err(error) => log::warn!("cannot list the programs that choose among sockets: {error}"),
            }
            match way::vrf(&self.netns, journey) {
                Ok(vrf) => evidence.vrf = vrf,
                Err(error) => log::warn!("cannot look at the devices of network namespace {inum}: {error}"),
            }
        }
    }

    /// Lists the addresses of the namespace; none where that fails, which is logged.
    pub(super) fn add_addresses(&mut self, evidence: &mut Evidence) {
        match self.addresses.get(|| addresses::of(&self.netns)) {
            Ok(own) => evidence.addresses.clone_from(own),
            Err(error) => log::warn!("cannot list the addresses of network namespace {}: {error}", self.netns.inum()),
        }
    }

    /// A whole network may be this machine's without any interface that has its addresses, by `ip route add local`.
    fn add_local_by_route(&self, evidence: &mut Evidence) {
        let listeners = evidence.sockets.iter().flat_map(|sockets| &sockets.listeners);
        let bound = listeners.map(|listener| listener.address.to_canonical());
        let unknown: Vec<_> = bound.filter(|address| !address.is_unspecified() && !evidence.has_address(*address)).collect();
        for address in unknown {
            match routes::is_local(&self.netns, address) {
                Ok(true) => evidence.local_by_route.push(address),
                Ok(false) => {}
                Err(error) => log::warn!("cannot read the routes of network namespace {}: {error}", self.netns.inum()),
            }
        }
    }
}
