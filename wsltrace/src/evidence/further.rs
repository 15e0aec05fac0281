//! The rules that stand behind the one which killed a SYN and would kill the next: a script that ran twice, or two firewalls of which
//! each refuses. The rules as they are now are followed, so this proves nothing.

use std::collections::HashMap;

use super::simulated::{Rules, came};
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Rule};
use crate::journey::{Journey, Outcome};
use crate::simulate::{Further, Packet, Way, further};

/// The most rules that are read for this: the death itself is to be told without delay, and ten thousand take a second to read.
const MAX_RULES: usize = 2000;
/// How many answers are kept at once, and found out while the rules are not read anew: many clients that meet a wall tell no more than some.
const MAX_KEPT: usize = 256;

/// The answers that were found with one reading of the rules.
pub(super) type Answers = HashMap<(Packet, RuleAt), Vec<Further>>;

/// Which rule it is, of all in a namespace.
type RuleAt = (String, String, String, Option<u64>, Option<u32>);

impl Watched {
    /// The rules behind the one that is known to have killed a journey's SYN.
    pub(super) fn add_further(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let Some(rule) = evidence.rule.as_ref().filter(|rule| is_worth_asking(journey, rule) && evidence.table_holder.is_none())
        else {
            return;
        };
        if self.trace.as_ref().is_some_and(|trace| trace.rules() > MAX_RULES) {
            return;
        }
        let rules = self.rules.get_mut(|| Rules::read(&self.netns)).or_told(self.netns.inum(), "read the firewall rules");
        let found = rules.map(|rules| kept(rules, &syn(journey), rule)).unwrap_or_default();
        // What stands in a program's own table nobody else can change.
        evidence.further = found.into_iter().take_while(|further| self.holder(&further.rule).is_none()).collect();
    }
}

fn is_worth_asking(journey: &Journey, rule: &Rule) -> bool {
    let killed = matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected) && journey.answer.is_none();
    let stops = matches!(rule.verdict.as_str(), "drop" | "reject");
    // What would stop it behind a wall is not to be opened either.
    let to_open = stops && !rule.is_wall_of_docker();
    killed && to_open && !rule.is_limit() && !rule.remembers() && !rule.asks_for_way_back()
}

fn kept(rules: &mut Rules, packet: &Packet, rule: &Rule) -> Vec<Further> {
    let [family, table, chain] = [&rule.family, &rule.table, &rule.chain].map(Clone::clone);
    let key = (packet.clone(), (family, table, chain, rule.handle, rule.number));
    if let Some(known) = rules.further.get(&key) {
        return known.clone();
    }
    if rules.further.len() == MAX_KEPT {
        return Vec::new();
    }
    let found = further(&rules.rulesets, packet, &rules.machine, rule);
    rules.further.insert(key, found.clone());
    found
}

/// The SYN as it came. A client's port is another with each attempt.
fn syn(journey: &Journey) -> Packet {
    Packet { source_port: None, ..came(journey, |device| Way::Outside { device, bridged: false }, Way::Loopback) }
}
