//! What keeps the programs at their places, by namespace and device: dropping it takes them away from there.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::sk_lookup::SkLookupLink;
use aya::programs::tc::SchedClassifierLink;

/// The links of programs that are not netfilter's.
#[derive(Default)]
pub(super) struct Attached {
    namespaces: BTreeMap<u32, Held>,
}

#[derive(Default)]
struct Held {
    lookup: Option<SkLookupLink>,
    devices: BTreeMap<u32, Vec<SchedClassifierLink>>,
}

impl Attached {
    pub(super) fn keep_lookup(&mut self, netns: u32, link: SkLookupLink) {
        self.namespaces.entry(netns).or_default().lookup = Some(link);
    }

    pub(super) fn keep_device(&mut self, netns: u32, ifindex: u32, link: SchedClassifierLink) {
        self.namespaces.entry(netns).or_default().devices.entry(ifindex).or_default().push(link);
    }

    /// Whether a device has its programs.
    pub(super) fn has_device(&self, netns: u32, ifindex: u32) -> bool {
        self.namespaces.get(&netns).is_some_and(|held| held.devices.contains_key(&ifindex))
    }

    /// Lets go of the devices of a namespace that are not there any longer: their numbers may be others' next.
    pub(super) fn keep_only(&mut self, netns: u32, ifindexes: &BTreeSet<u32>) {
        if let Some(held) = self.namespaces.get_mut(&netns) {
            held.devices.retain(|ifindex, _| ifindexes.contains(ifindex));
        }
    }

    /// Lets go of a device.
    pub(super) fn forget_device(&mut self, netns: u32, ifindex: u32) {
        if let Some(held) = self.namespaces.get_mut(&netns) {
            held.devices.remove(&ifindex);
        }
    }

    /// Lets go of a namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.namespaces.remove(&netns);
    }
}
