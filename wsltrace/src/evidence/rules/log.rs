//! Which rule killed which packet: the kernel's messages, kept for the journeys that will ask. Pure bookkeeping.
//!
//! A message names its packet only at the first rule of each base chain that the packet meets; the later ones carry the same
//! number. Numbers come again with other packets, but not before the one that has it has left netfilter.

use std::collections::{HashMap, VecDeque};

use super::event::{Identity, RuleRef, TraceEvent, Verdict};

/// How many packets are remembered. They come at a limited rate, and journeys ask within seconds.
const MAX_PACKETS: usize = 4096;
/// How many rules are remembered that let a packet go on.
const MAX_PASSED: usize = 64;

/// A rule that decided about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The rule.
    pub(crate) rule: RuleRef,
    /// The base chain by which the packet came to it.
    pub(crate) base_chain: String,
    /// What it answered.
    pub(crate) verdict: Verdict,
}

/// A packet that somebody may ask for.
#[derive(Clone, Debug)]
struct Packet {
    id: u32,
    identity: Identity,
    /// The base chain that it is in.
    base: (&'static str, String, String),
    /// Rules that matched it and let it go on, in order: one of them may have rewritten it.
    passed: Vec<Decision>,
    /// The end.
    fatal: Option<Decision>,
}

/// The messages of one namespace.
#[derive(Debug, Default)]
pub(crate) struct TraceLog {
    /// Oldest first.
    packets: VecDeque<Packet>,
    /// Where the newest packet with a number stands, counted from the very first.
    by_id: HashMap<u32, u64>,
    dropped: u64,
}

impl TraceLog {
    /// Takes a message.
    pub(crate) fn add(&mut self, event: TraceEvent) {
        let known = self.by_id.get(&event.id).and_then(|at| usize::try_from(at.checked_sub(self.dropped)?).ok());
        let known = known.filter(|at| *at < self.packets.len());
        let at = match (known, event.packet) {
            // A dead packet's number has gone to another one.
            (Some(at), Some(identity)) if self.packets[at].identity != identity || self.packets[at].fatal.is_some() => {
                self.begin(event.id, identity)
            }
            (None, Some(identity)) => self.begin(event.id, identity),
            (Some(at), _) => at,
            // Its beginning was lost.
            (None, None) => return,
        };
        let packet = &mut self.packets[at];
        if event.packet.is_some() {
            packet.base = (event.rule.family, event.rule.table.clone(), event.rule.chain.clone());
        }
        let decision = Decision { rule: event.rule, base_chain: packet.base.2.clone(), verdict: event.verdict };
        match event.verdict {
            Verdict::Drop | Verdict::Stolen | Verdict::Queue => packet.fatal = Some(decision),
            Verdict::Accept | Verdict::Continue if packet.passed.len() < MAX_PASSED => packet.passed.push(decision),
            Verdict::Accept | Verdict::Continue => {}
        }
    }

    fn begin(&mut self, id: u32, identity: Identity) -> usize {
        if self.packets.len() == MAX_PACKETS
            && let Some(oldest) = self.packets.pop_front()
        {
            if self.by_id.get(&oldest.id) == Some(&self.dropped) {
                self.by_id.remove(&oldest.id);
            }
            self.dropped += 1;
        }
        let base = ("", String::new(), String::new());
        self.packets.push_back(Packet { id, identity, base, passed: Vec::new(), fatal: None });
        self.by_id.insert(id, self.dropped + self.packets.len() as u64 - 1);
        self.packets.len() - 1
    }

    /// What ended a packet of this identity, by a verdict that may be it. Attempts of one flow have the same: each takes the oldest
    /// that is left, as they are asked for in the order of their deaths.
    pub(crate) fn take_fatal(&mut self, identity: &Identity, may_be: impl Fn(Verdict) -> bool) -> Option<Decision> {
        let mut of_it = self.packets.iter_mut().filter(|packet| packet.identity == *identity);
        of_it.find_map(|packet| packet.fatal.take_if(|decision| may_be(decision.verdict)))
    }

    /// The rules that packets of this identity met and passed, newest packet last.
    pub(crate) fn passed(&self, identity: &Identity) -> impl Iterator<Item = &Decision> {
        self.packets.iter().filter(move |packet| packet.identity == *identity).flat_map(|packet| &packet.passed)
    }

    /// The rules that answers to a SYN of this number met and passed, whomever they were for by then: a message tells where a packet
    /// goes behind the rule that it is about.
    pub(crate) fn passed_by_answer(&self, sequence: u32) -> impl Iterator<Item = &Decision> {
        let is_it = move |packet: &&Packet| packet.identity.answer && packet.identity.sequence == sequence;
        self.packets.iter().filter(is_it).flat_map(|packet| &packet.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(port: u16) -> Identity {
        Identity { client: [10, 0, 0, 1].into(), port, sequence: 7, answer: false }
    }

    fn event(id: u32, chain: &str, handle: u64, verdict: Verdict, packet: Option<Identity>) -> TraceEvent {
        let rule = RuleRef { family: "ip", table: "t".to_owned(), chain: chain.to_owned(), handle: Some(handle) };
        TraceEvent { id, rule, verdict, packet, ports: None }
    }

    #[test]
    fn the_rule_after_a_jump_is_named_with_its_base_chain() {
        let mut log = TraceLog::default();
        log.add(event(1, "input", 3, Verdict::Continue, Some(identity(5))));
        log.add(event(1, "web", 9, Verdict::Drop, None));
        let fatal = log.take_fatal(&identity(5), |_| true);
        assert_eq!(
            fatal.as_ref().map(|f| (f.rule.handle, f.rule.chain.as_str(), f.base_chain.as_str())),
            Some((Some(9), "web", "input"))
        );
        assert_eq!(log.take_fatal(&identity(5), |_| true), None, "each death is given once");
        assert_eq!(log.take_fatal(&identity(6), |_| true), None);
    }

    #[test]
    fn what_a_queue_gave_back_died_later() {
        let mut log = TraceLog::default();
        log.add(event(1, "input", 3, Verdict::Queue, Some(identity(5))));
        log.add(event(1, "later", 9, Verdict::Drop, Some(identity(5))));
        let by_chain = log.take_fatal(&identity(5), |verdict| verdict != Verdict::Queue);
        assert_eq!(by_chain.and_then(|fatal| fatal.rule.handle), Some(9));
        assert_eq!(log.take_fatal(&identity(5), |_| true).and_then(|fatal| fatal.rule.handle), Some(3));
    }

    #[test]
    fn a_number_that_comes_again_belongs_to_the_new_packet() {
        let mut log = TraceLog::default();
        log.add(event(1, "input", 3, Verdict::Drop, Some(identity(5))));
        log.add(event(1, "input", 4, Verdict::Continue, Some(identity(6))));
        log.add(event(1, "input", 5, Verdict::Drop, None));
        assert_eq!(log.take_fatal(&identity(5), |_| true).and_then(|f| f.rule.handle), Some(3));
        assert_eq!(log.take_fatal(&identity(6), |_| true).and_then(|f| f.rule.handle), Some(5));
    }

    #[test]
    fn the_answer_is_found_though_a_rule_has_sent_it_to_somebody_else() {
        let mut log = TraceLog::default();
        let answer = |client: [u8; 4]| Some(Identity { client: client.into(), answer: true, ..identity(5) });
        log.add(event(1, "ours", 3, Verdict::Continue, answer([10, 0, 0, 1])));
        log.add(event(1, "mangle", 4, Verdict::Continue, answer([10, 0, 0, 9])));
        log.add(event(2, "input", 5, Verdict::Continue, Some(identity(5))));
        let passed: Vec<_> = log.passed_by_answer(7).map(|decision| decision.rule.handle).collect();
        assert_eq!(passed, [Some(3), Some(4)]);
        assert_eq!(log.passed_by_answer(8).count(), 0);
    }

    #[test]
    fn attempts_of_one_flow_take_their_deaths_in_order() {
        let mut log = TraceLog::default();
        for handle in [3, 4] {
            log.add(event(1, "input", handle, Verdict::Drop, Some(identity(5))));
        }
        let taken: Vec<_> = (0..3).map(|_| log.take_fatal(&identity(5), |_| true).and_then(|f| f.rule.handle)).collect();
        assert_eq!(taken, [Some(3), Some(4), None]);
    }

    #[test]
    fn a_message_whose_beginning_was_lost_names_nobody_and_the_oldest_go_first() {
        let mut log = TraceLog::default();
        log.add(event(1, "input", 3, Verdict::Drop, None));
        for number in 0..=u32::try_from(MAX_PACKETS).unwrap_or(0) {
            log.add(event(number, "input", 3, Verdict::Drop, Some(identity(u16::try_from(number).unwrap_or(0)))));
        }
        assert_eq!(log.packets.len(), MAX_PACKETS);
        assert_eq!(log.take_fatal(&identity(0), |_| true), None);
        assert!(log.take_fatal(&identity(1), |_| true).is_some());
        log.add(event(0, "input", 4, Verdict::Drop, None));
    }
}
