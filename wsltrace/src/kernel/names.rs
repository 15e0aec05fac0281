//! Names for the numbers in a record, on this machine.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::KernelFacts;
use super::links::Link;
use super::symbols::Symbols;
use crate::journey::{InterfaceName, Names};

/// The names that this machine has.
pub struct MachineNames {
    facts: Arc<KernelFacts>,
    interfaces: HashMap<(u32, u32), InterfaceName>,
    symbols: Symbols,
    is_wsl: bool,
}

impl MachineNames {
    /// No interface has a name yet.
    pub fn new(facts: Arc<KernelFacts>, is_wsl: bool) -> Self {
        Self { facts, interfaces: HashMap::new(), symbols: Symbols::default(), is_wsl }
    }

    /// Learns the names of a namespace's interfaces. One that is gone keeps its name: its last packets still need it.
    pub fn learn(&mut self, netns: u32, links: &[Link]) {
        self.interfaces.extend(links.iter().map(|link| ((netns, link.index), link.name.as_str().into())));
    }
}

impl Names for MachineNames {
    fn interface(&self, netns: u32, ifindex: u32) -> Option<InterfaceName> {
        self.interfaces.get(&(netns, ifindex)).copied()
    }

    fn reason(&self, number: u32) -> Option<String> {
        self.facts.drop_reasons.get(&number).cloned()
    }

    fn location(&self, address: u64) -> Option<String> {
        self.symbols.name(address)
    }

    /// WSL's relay is a process of its root namespace whose name is `init`; a distro's own init does not connect to servers.
    fn is_relay(&self, _tgid: u32, comm: &[u8; 16]) -> bool {
        self.is_wsl && (comm.starts_with(b"init\0") || comm.starts_with(b"localhost\0"))
    }

    fn time(&self, monotonic_ns: u64) -> Timestamp {
        // In this order a delay between makes the time too early; too late, evidence from after it would pass for older.
        let now = Timestamp::now();
        let ago = i64::try_from(now_ns().saturating_sub(monotonic_ns)).unwrap_or(i64::MAX);
        now.checked_sub(jiff::SignedDuration::from_nanos(ago)).unwrap_or(Timestamp::MIN)
    }
}

/// `CLOCK_MONOTONIC`, the clock of the probes, nanoseconds.
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}
