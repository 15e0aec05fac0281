//! Connections that were made and do not get on: all of their packets are traced, some in a second, and the rules that drop them kept.

use std::collections::HashMap;
use std::io;

use super::event::{Ports, TraceEvent, Verdict};
use super::log::Decision;
use super::marking::{Marking, PREFIX};
use super::socket::{Listener, OwnTable};
use super::{FirewallTrace, Named, generation, inside};

/// How many packets are known at once. They come at a limited rate, and die within moments.
const MAX_PACKETS: usize = 1024;

/// What of a connection a rule has dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dropping {
    /// The packets' ports at that rule, source and destination.
    pub(crate) ports: Ports,
    /// The rule.
    pub(crate) decision: Decision,
    /// How many packets.
    pub(crate) packets: u32,
}

/// The drops among the kernel's messages. Pure bookkeeping.
#[derive(Debug, Default)]
struct Drops {
    /// The base chain that a packet is in, and its ports there.
    packets: HashMap<u32, (String, Ports)>,
    found: Vec<Dropping>,
}

impl Drops {
    /// Takes a message.
    fn add(&mut self, event: TraceEvent) {
        if let Some(ports) = event.ports {
            if self.packets.len() == MAX_PACKETS {
                self.packets.clear();
            }
            self.packets.insert(event.id, (event.rule.chain.clone(), ports));
        }
        if event.verdict != Verdict::Drop {
            return;
        }
        // Its beginning was lost, or it is none of a connection.
        let Some((base_chain, ports)) = self.packets.remove(&event.id) else { return };
        if let Some(known) = self.found.iter_mut().find(|known| known.ports == ports && known.decision.rule == event.rule) {
            known.packets += 1;
            return;
        }
        let decision = Decision { rule: event.rule, base_chain, verdict: event.verdict };
        self.found.push(Dropping { ports, decision, packets: 1 });
    }
}

/// The connections that are followed in a namespace, until this is dropped.
#[derive(Debug)]
pub(super) struct Followed {
    connections: Vec<Ports>,
    _table: OwnTable,
    listener: Listener,
    drops: Drops,
}

impl FirewallTrace {
    /// Follows the packets with these ports from now on, and no others. Where nobody has rules, or the kernel cannot keep the rate, none.
    pub(in crate::evidence) fn follow(&mut self, connections: &[Ports]) -> io::Result<()> {
        let wanted =
            if connections.is_empty() || !self.has_rules() || !self.pace.is_kept_by_kernel() { &[] } else { connections };
        if self.followed.as_ref().map_or(&[][..], |followed| &followed.connections) == wanted {
            return Ok(());
        }
        // A table of ours is no reason to list the rules anew.
        let is_known = inside(&self.netns, generation)? == self.generation;
        let made = self.follow_now(wanted);
        if is_known {
            self.generation = inside(&self.netns, generation)?;
        }
        made
    }

    fn follow_now(&mut self, connections: &[Ports]) -> io::Result<()> {
        // Two tables of one name cannot be; what was found is kept.
        let before = self.followed.take().map(|followed| followed.drops);
        if connections.is_empty() {
            return Ok(());
        }
        let listener = inside(&self.netns, Listener::open)?;
        let messages = Marking::of_connections(format!("{PREFIX}{}-connections", std::process::id()), connections);
        let table = inside(&self.netns, || OwnTable::make(messages))?;
        let drops = before.unwrap_or_default();
        self.followed = Some(Followed { connections: connections.to_vec(), _table: table, listener, drops });
        Ok(())
    }

    /// The rule that has dropped most of the packets with one of these pairs of ports, with their ports there and their number.
    pub(in crate::evidence) fn dropping(&mut self, connections: &[Ports]) -> io::Result<Option<(Named, Ports, u32)>> {
        let Some(Followed { listener, drops, .. }) = &mut self.followed else { return Ok(None) };
        listener.drain(|event| {
            if !event.rule.table.starts_with(PREFIX) {
                drops.add(event);
            }
        })?;
        let of_it = drops.found.iter().filter(|found| connections.contains(&found.ports));
        let Some(most) = of_it.max_by_key(|found| found.packets).cloned() else { return Ok(None) };
        Ok(Some((self.named(&most.decision), most.ports, most.packets)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::RuleRef;
    use super::*;

    fn event(id: u32, handle: u64, verdict: Verdict, ports: Option<Ports>) -> TraceEvent {
        let rule = RuleRef { family: "ip", table: "t".to_owned(), chain: "c".to_owned(), handle: Some(handle) };
        TraceEvent { id, rule, verdict, packet: None, ports }
    }

    #[test]
    fn drops_are_counted_by_rule_and_ports() {
        let mut drops = Drops::default();
        let (there, back) = ((50_000, 80), (80, 50_000));
        drops.add(event(1, 2, Verdict::Continue, Some(there)));
        drops.add(event(1, 3, Verdict::Drop, None));
        drops.add(event(2, 3, Verdict::Drop, Some(there)));
        drops.add(event(3, 3, Verdict::Drop, Some(back)));
        drops.add(event(4, 3, Verdict::Accept, Some(back)));
        drops.add(event(9, 3, Verdict::Drop, None));
        let found: Vec<_> = drops.found.iter().map(|found| (found.ports, found.decision.rule.handle, found.packets)).collect();
        assert_eq!(found, [(there, Some(3), 2), (back, Some(3), 1)]);
        drops.add(event(2, 3, Verdict::Drop, None));
        assert_eq!(drops.found[0].packets, 2, "its number belongs to a packet that is not known");
    }
}
