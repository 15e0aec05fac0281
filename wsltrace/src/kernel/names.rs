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
        let (now, monotonic_now) = both_clocks();
        let ago = i64::try_from(monotonic_now.saturating_sub(monotonic_ns)).unwrap_or(i64::MAX);
        now.checked_sub(jiff::SignedDuration::from_nanos(ago)).unwrap_or(Timestamp::MIN)
    }
}

/// The time of day and `CLOCK_MONOTONIC` at one moment. Another program may get the processor between two looks at a clock, so they
/// are read until they lie close together.
fn both_clocks() -> (Timestamp, u64) {
    const CLOSE_NS: u64 = 10_000;
    const TRIES: usize = 5;
    let read = || {
        let before = now_ns();
        // In this order a delay makes times too early; too late, evidence from after them would pass for older.
        let (now, after) = (Timestamp::now(), now_ns());
        (after.saturating_sub(before), now, after)
    };
    let mut best = read();
    for _ in 1..TRIES {
        if best.0 < CLOSE_NS {
            break;
        }
        let next = read();
        if next.0 < best.0 {
            best = next;
        }
    }
    (best.1, best.2)
}

/// `CLOCK_MONOTONIC`, the clock of the probes, nanoseconds.
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}
