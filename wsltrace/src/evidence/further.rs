//! The rules that stand behind the one which killed a SYN and would kill the next: a script that ran twice, or two firewalls of which
//! each refuses. The rules as they are now are followed, so this proves nothing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::simulated::Rules;
use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, Owner, Rule};
use crate::journey::{Journey, Origin, Outcome};
use crate::simulate::{End, Mend, Packet, Way, predict};

/// How many rules are told of.
const MAX_FURTHER: usize = 8;
/// The most rules that are read for this: the death itself is to be told without delay, and ten thousand take a second to read.
const MAX_RULES: usize = 2000;
/// How many answers are kept at once, and found out while the rules are not read anew: many clients that meet a wall tell no more than some.
const MAX_KEPT: usize = 256;

/// A rule behind the one that killed a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Further {
    /// The rule.
    pub rule: Rule,
    /// The destination port that the packet would have there.
    pub port: u16,
    /// Whether it would be on its way through this machine there.
    pub forward: bool,
}

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
        evidence.further = rules.map(|rules| kept(rules, &packet(journey), rule)).unwrap_or_default();
    }
}

fn is_worth_asking(journey: &Journey, rule: &Rule) -> bool {
    let killed = matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected) && journey.answer.is_none();
    let stops = matches!(rule.verdict.as_str(), "drop" | "reject");
    killed && stops && !rule.is_limit() && !rule.remembers() && !rule.asks_for_way_back()
}

fn kept(rules: &mut Rules, packet: &Packet, rule: &Rule) -> Vec<Further> {
    let place = [&rule.family, &rule.table, &rule.chain].map(Clone::clone);
    let [family, table, chain] = place;
    let key = (packet.clone(), (family, table, chain, rule.handle, rule.number));
    if let Some(known) = rules.further.get(&key) {
        return known.clone();
    }
    if rules.further.len() == MAX_KEPT {
        return Vec::new();
    }
    let found = further(rules, packet, rule);
    rules.further.insert(key, found.clone());
    found
}

/// The rules that stop a packet one after the other, once what stopped it before is mended; none where the rules as they are would not
/// have stopped it by the first.
fn further(rules: &Rules, packet: &Packet, first: &Rule) -> Vec<Further> {
    let mut found: Vec<Further> = Vec::new();
    let mut rulesets = rules.rulesets.clone();
    while found.len() <= MAX_FURTHER {
        let end = predict(&rulesets, packet, &rules.machine).end;
        let (End::Dropped { rule, port: Some(port), forward } | End::Rejected { rule, port: Some(port), forward }) = end else {
            break;
        };
        let known = found.iter().any(|known| known.rule.is(&rule));
        if known || found.is_empty() && !rule.is(first) {
            break;
        }
        let own = rule.owner == Owner::User && rule.names_port(port, false);
        let Some(mended) = rulesets.mended(&rule, if own { Mend::Delete } else { Mend::Except }) else { break };
        rulesets = mended;
        found.push(Further { rule, port, forward });
    }
    found.into_iter().skip(1).collect()
}

/// The SYN as it came into the namespace where it died.
fn packet(journey: &Journey) -> Packet {
    let behind = journey.last_netns() != journey.netns;
    let way = match (journey.origin, behind) {
        (Origin::Remote, _) | (_, true) => Way::Outside { device: journey.entrance().map(str::to_owned), bridged: false },
        _ => Way::Loopback,
    };
    let flow = &journey.flow;
    let (source, (destination, destination_port)) = if behind {
        (journey.last_source(), journey.last_destination())
    } else {
        (flow.source, (flow.destination, flow.destination_port))
    };
    // A client's port is another with each attempt.
    Packet { way, source: Some(source), source_port: None, destination, destination_port, ecn: None }
}

#[cfg(test)]
mod tests {
    use super::{Rules, further};
    use crate::simulate::tests::{chain, machine, rule, syn, told_rulesets};

    const DROP: &str = r#"{"drop": null}"#;

    fn of_port(then: &str) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "tcp", "field": "dport"}}}}, "right": 8080}}}}, {then}"#
        )
    }

    /// The handles of what is found behind the rule with handle 2, 0 for a policy.
    fn behind(objects: &[String]) -> Vec<u64> {
        let rulesets = told_rulesets(&objects.join(","), &["c", "d"], 2..9, "tcp dport 8080 drop");
        let rules = Rules::of(rulesets, machine());
        let first =
            crate::evidence::Rule { handle: Some(2), ..rules.dropper_of(&syn()).unwrap_or_else(|| unreachable!("all drop")) };
        further(&rules, &syn(), &first).iter().map(|further| further.rule.handle.unwrap_or_default()).collect()
    }

    #[test]
    fn twins_and_other_chains_are_found_in_their_order() {
        let twice = [chain("c", 1, "input", 0, "accept"), rule("c", 2, &of_port(DROP)), rule("c", 3, &of_port(DROP))];
        assert_eq!(behind(&twice), [3]);
        let two = [twice.as_slice(), &[chain("d", 1, "input", 5, "drop"), rule("d", 4, &of_port(DROP))]].concat();
        assert_eq!(behind(&two), [3, 4, 0]);
        assert!(behind(&twice[..2]).is_empty());
    }

    #[test]
    fn what_depends_on_something_unknown_is_not_told() {
        let strange = rule("c", 3, &format!(r#"{{"something": "new"}}, {DROP}"#));
        let rules = [chain("c", 1, "input", 0, "accept"), rule("c", 2, &of_port(DROP)), strange, rule("c", 4, &of_port(DROP))];
        assert!(behind(&rules).is_empty());
    }

    #[test]
    fn nothing_is_told_where_the_rules_do_not_explain_the_death() {
        let rules = [chain("c", 1, "input", 0, "accept"), rule("c", 3, &of_port(DROP)), rule("c", 4, &of_port(DROP))];
        assert!(behind(&rules).is_empty());
    }
}
