//! The rules that stand behind what killed a SYN and would kill the next: a script that ran twice, two firewalls of which each refuses, a
//! firewall behind a routing that sends nothing on. The rules as they are now are followed, so this proves nothing.

use std::collections::HashMap;
use std::net::IpAddr;

use super::simulated::{Rules, came};
use super::watched::Watched;
use super::{Evidence, Rule};
use crate::journey::{Journey, Outcome, Stage};
use crate::simulate::{Behind, Packet, Way, further, without};

/// The most rules that are read for this: the death itself is to be told without delay, and ten thousand take a second to read.
const MAX_RULES: usize = 2000;
/// How many answers are kept at once, and found out while the rules are not read anew: many clients that meet a wall tell no more than some.
const MAX_KEPT: usize = 256;

/// The answers that were found with one reading of the rules, by the rule that killed the packet, where one did, and by whether that was
/// behind PREROUTING.
pub(super) type Answers = HashMap<(Packet, Option<RuleAt>, bool), Behind>;

/// Where packets come to without a rule, found with one reading of the rules.
pub(super) type Ways = HashMap<(Packet, RuleAt), Option<(IpAddr, u16)>>;

/// Which rule it is, of all in a namespace.
type RuleAt = (String, String, String, Option<u64>, Option<u32>);

impl Watched {
    /// The rules behind the one that is known to have killed a journey's SYN; gives the address and port of this namespace that it comes
    /// to behind them.
    pub(super) fn add_further(&mut self, journey: &Journey, evidence: &mut Evidence) -> Option<(IpAddr, u16)> {
        let rule = evidence.rule.as_ref();
        let by_rule = rule.is_some_and(|rule| is_worth_asking(journey, rule)) && evidence.table_holder.is_none();
        let in_routing = rule.is_none() && is_lost_in_routing(journey);
        if !(by_rule || in_routing) {
            return None;
        }
        if self.has_many_rules() {
            return None;
        }
        let past = is_past_prerouting(journey);
        let found = self.rules().map(|rules| kept(rules, &syn(journey), rule, past)).unwrap_or_default();
        // What stands in a program's own table nobody else can change.
        let all = found.further.len();
        evidence.further = found.further.into_iter().take_while(|further| self.holder(&further.rule).is_none()).collect();
        found.arrives_at.filter(|_| evidence.further.len() == all)
    }

    /// Where a journey's SYN would come to without the rule of this namespace that gave it another destination, as the rules are now.
    pub(super) fn way_without(&mut self, journey: &Journey, rule: &Rule) -> Option<(IpAddr, u16)> {
        if self.has_many_rules() || self.holder(rule).is_some() {
            return None;
        }
        let rules = self.rules()?;
        let key = (syn(journey), at(rule));
        if let Some(known) = rules.ways.get(&key) {
            return *known;
        }
        let way = without(&rules.rulesets, &key.0, &rules.machine, rule);
        if rules.ways.len() < MAX_KEPT {
            rules.ways.insert(key, way);
        }
        way
    }

    fn has_many_rules(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.rules() > MAX_RULES)
    }
}

fn is_worth_asking(journey: &Journey, rule: &Rule) -> bool {
    // What rejects a SYN makes an answer of its own.
    let killed = journey.outcome == Outcome::Rejected || journey.outcome == Outcome::Dropped && journey.answer.is_none();
    let stops = matches!(rule.verdict.as_str(), "drop" | "reject");
    // What would stop it behind a wall is not to be opened either.
    let to_open = stops && !rule.is_wall_of_docker();
    killed && to_open && !rule.is_limit() && !rule.remembers() && !rule.asks_for_way_back()
}

/// Whether routing kept a SYN from the chains that come behind it.
fn is_lost_in_routing(journey: &Journey) -> bool {
    journey.outcome == Outcome::Dropped && journey.died_at == Some(Stage::Routing) && journey.answer.is_none()
}

impl Watched {
    /// The rule that would stop the answer from a port of this namespace to a journey's client, where it is certain by the rules as they are
    /// and somebody may change it.
    pub(super) fn stopper_of_answer(&mut self, journey: &Journey, from: (IpAddr, u16)) -> Option<Rule> {
        let rules = self.rules()?;
        let came = syn(journey);
        let way = match came.way {
            Way::Outside { device, .. } => Way::Answer { device },
            _ => Way::LoopbackAnswer,
        };
        let answer = Packet { way, destination: from.0, destination_port: from.1, ..came };
        let rule = rules.dropper_of(&answer)?;
        let to_open = !rule.is_wall_of_docker() && !rule.is_limit() && !rule.remembers() && !rule.asks_for_way_back();
        (to_open && self.holder(&rule).is_none()).then_some(rule)
    }
}

/// Whether the SYN has passed PREROUTING where it died.
fn is_past_prerouting(journey: &Journey) -> bool {
    let here = journey.last_netns();
    journey.stages.iter().any(|visit| visit.stage == Stage::Routing && visit.netns == here)
}

fn kept(rules: &mut Rules, packet: &Packet, rule: Option<&Rule>, past_prerouting: bool) -> Behind {
    let key = (packet.clone(), rule.map(at), past_prerouting);
    if let Some(known) = rules.further.get(&key) {
        return known.clone();
    }
    if rules.further.len() == MAX_KEPT {
        return Behind::default();
    }
    let opened = past_prerouting.then(|| rules.rulesets.past_prerouting());
    let found = further(opened.as_ref().unwrap_or(&rules.rulesets), packet, &rules.machine, rule);
    rules.further.insert(key, found.clone());
    found
}

fn at(rule: &Rule) -> RuleAt {
    (rule.family.clone(), rule.table.clone(), rule.chain.clone(), rule.handle, rule.number)
}

/// The SYN as it came. A client's port is another with each attempt.
fn syn(journey: &Journey) -> Packet {
    Packet { source_port: None, ..came(journey, |device| Way::Outside { device, bridged: false }, Way::Loopback) }
}
