//! The rules behind one that stops a packet: the rulesets as they would be once somebody has done what lets it through, followed again.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::packet::{Machine, Packet};
use super::read::Rulesets;
use super::ruleset::{Chain, Hook, Place, Statement, Verdict};
use super::walk::predict;
use super::{End, Goes};
use crate::evidence::{Backend, Owner, Rule};

/// How many rules are told of.
const MAX_FURTHER: usize = 8;

/// A rule behind the one that killed a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Further {
    /// The rule.
    pub rule: Rule,
    /// The destination address that the packet would have there, where it is known; older recordings do not tell it.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The destination port that it would have there.
    pub port: u16,
    /// Whether it would be on its way through this machine there.
    pub forward: bool,
}

/// What stands behind the rule that killed a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The rules that stop it one after the other, once what stopped it before is mended.
    pub further: Vec<Further>,
    /// The address and port of this namespace that it comes to behind them all, where nothing gives it to a proxy.
    pub arrives_at: Option<(IpAddr, u16)>,
}

/// What is done about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    /// It is deleted.
    Delete,
    /// An exception comes before it, which lets the packet through its base chain; in front of a policy likewise.
    Except,
}

impl Rulesets {
    /// With this done about a rule or policy; `None` where they do not have it.
    fn mended(&self, rule: &Rule, how: Mend) -> Option<Self> {
        let place = Place {
            legacy: rule.backend == Backend::IptablesLegacy,
            family: rule.family.clone(),
            table: rule.table.clone(),
            chain: rule.chain.clone(),
        };
        let chains = self.chains.with(&place, |chain| change(chain, rule, how))?;
        Some(Self { chains, ..self.clone() })
    }
}

impl Rulesets {
    /// As a packet has met them that is past PREROUTING: no rule of its base chains, and none before it, has stopped it, whatever that asks
    /// for.
    #[must_use]
    pub fn past_prerouting(&self) -> Self {
        let is_before =
            |chain: &Chain| chain.base.as_ref().is_some_and(|base| matches!(base.hook, Hook::Ingress | Hook::Prerouting));
        let open = |chain: &mut Chain| {
            if let Some(base) = &mut chain.base {
                base.drops = false;
            }
            for line in &mut chain.rules {
                if let Some(Statement::Verdict(verdict @ (Verdict::Drop | Verdict::Reject))) = line.statements.last_mut() {
                    *verdict = Verdict::Continue;
                }
            }
        };
        Self { chains: self.chains.changed(is_before, open), ..self.clone() }
    }
}

/// What stands behind the first rule that stops a packet; nothing where the rules as they are would not have stopped it by that one.
/// Without such a rule something else stopped it, and all stand behind that.
pub fn further(rulesets: &Rulesets, packet: &Packet, machine: &Machine, first: Option<&Rule>) -> Behind {
    let mut found: Vec<Further> = Vec::new();
    let mut arrives_at = None;
    let mut rulesets = rulesets.clone();
    while found.len() <= MAX_FURTHER {
        let end = match (predict(&rulesets, packet, machine).end, first) {
            // Which of them it is, its death has told.
            (End::Maybe { possible, .. }, Some(first)) if found.is_empty() => {
                let Some(end) = possible.into_iter().find(|end| stops_by(end, first)) else { break };
                end
            }
            (end, _) => end,
        };
        let (rule, address, port, forward) = match end {
            End::Dropped { rule, address, port: Some(port), forward }
            | End::Rejected { rule, address, port: Some(port), forward } => (rule, address, port, forward),
            End::Passes { address, port, goes: Goes::Local, .. } if first.is_none() || !found.is_empty() => {
                arrives_at = address.zip(port);
                break;
            }
            _ => break,
        };
        let known = found.iter().any(|known| known.rule.is(&rule));
        if known || found.is_empty() && first.is_some_and(|first| !rule.is(first)) {
            break;
        }
        let own = rule.owner == Owner::User && rule.names_port(port, false);
        let Some(mended) = rulesets.mended(&rule, if own { Mend::Delete } else { Mend::Except }) else { break };
        rulesets = mended;
        found.push(Further { rule, address, port, forward });
    }
    Behind { further: found.into_iter().skip(usize::from(first.is_some())).collect(), arrives_at }
}

/// Where a packet comes to once a rule is gone; `None` where that is not certain, or there is no such rule.
pub fn without(rulesets: &Rulesets, packet: &Packet, machine: &Machine, rule: &Rule) -> Option<(IpAddr, u16)> {
    let rulesets = rulesets.mended(rule, Mend::Delete)?;
    let End::Passes { address, port, .. } = predict(&rulesets, packet, machine).end else { return None };
    address.zip(port)
}

fn stops_by(end: &End, by: &Rule) -> bool {
    matches!(end, End::Dropped { rule, .. } | End::Rejected { rule, .. } if rule.is(by))
}

fn change(chain: &mut Chain, rule: &Rule, how: Mend) -> Option<()> {
    if rule.handle.is_none() && rule.number.is_none() {
        chain.base.as_mut()?.drops = false;
        return Some(());
    }
    // Its line stays, since rules are told by their places.
    let line = chain.rules.iter_mut().find(|line| match rule.number {
        Some(number) => line.number == Some(number),
        None => line.handle == rule.handle,
    })?;
    line.statements = match how {
        Mend::Delete => vec![Statement::Verdict(Verdict::Continue)],
        Mend::Except => vec![Statement::Verdict(Verdict::Accept)],
    };
    Some(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{Behind, End, Rule, Rulesets, further, predict};
    use crate::simulate::tests::{chain, machine, rule, syn, told_rulesets};

    const DROP: &str = r#"{"drop": null}"#;

    fn of_port(then: &str) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "tcp", "field": "dport"}}}}, "right": 8080}}}}, {then}"#
        )
    }

    /// What is found behind the rule with handle 2.
    fn all_behind(objects: &[String]) -> Behind {
        let rulesets = told_rulesets(&objects.join(","), &["c", "d"], 2..9, "tcp dport 8080 drop");
        let End::Dropped { rule, .. } = predict(&rulesets, &syn(), &machine()).end else { unreachable!("all drop") };
        let first = Rule { handle: Some(2), ..rule };
        further(&rulesets, &syn(), &machine(), Some(&first))
    }

    /// The handles of the rules, 0 for a policy.
    fn behind(objects: &[String]) -> Vec<u64> {
        all_behind(objects).further.iter().map(|further| further.rule.handle.unwrap_or_default()).collect()
    }

    #[test]
    fn behind_the_last_rule_it_comes_to_a_port_of_this_machine() {
        let once = [chain("c", 1, "input", 0, "accept"), rule("c", 2, &of_port(DROP))];
        let syn = syn();
        assert_eq!(all_behind(&once).arrives_at, Some((syn.destination, syn.destination_port)));
        let [strange, other] = [rule("c", 3, &format!(r#"{{"something": "new"}}, {DROP}"#)), rule("c", 3, &of_port(DROP))];
        // Not where it may be stopped again, nor where another rule than the one told of stopped it.
        assert_eq!(all_behind(&[once.as_slice(), &[strange]].concat()).arrives_at, None);
        assert_eq!(all_behind(&[once[0].clone(), other]).arrives_at, None);
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

    /// What is found behind the rule with handle 2, which the packet has met though not every such packet does: handles, 0 for a policy.
    fn behind_what_was_met(objects: &[String]) -> Vec<u64> {
        let rulesets = told_rulesets(&objects.join(","), &["c", "d"], 2..9, "tcp dport 8080 drop");
        let End::Maybe { possible, .. } = predict(&rulesets, &syn(), &machine()).end else { unreachable!("it depends") };
        let stopping = possible.into_iter().filter_map(|end| if let End::Dropped { rule, .. } = end { Some(rule) } else { None });
        let met = stopping.into_iter().find(|rule| rule.handle == Some(2)).unwrap();
        let found = further(&rulesets, &syn(), &machine(), Some(&met)).further;
        found.iter().map(|further| further.rule.handle.unwrap_or_default()).collect()
    }

    #[test]
    fn what_stands_behind_a_rule_that_was_met_is_told_though_not_all_meet_it() {
        let socket = format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "cgroup"}}}}, "right": 0}}}}, {DROP}"#);
        let uncertain = [chain("c", 1, "input", 0, "accept"), rule("c", 2, &socket)];
        assert!(behind_what_was_met(&uncertain).is_empty());
        assert_eq!(behind_what_was_met(&[uncertain.as_slice(), &[rule("c", 3, &of_port(DROP))]].concat()), [3]);
    }

    #[test]
    fn what_the_packet_has_passed_is_no_doubt() {
        let strange =
            rule("c", 2, &format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "cgroup"}}}}, "right": 0}}}}, {DROP}"#));
        let of_routing = |hook: &str| {
            let objects = [
                chain("c", 1, hook, 0, "accept"),
                strange.clone(),
                chain("d", 1, "input", 5, "accept"),
                rule("d", 3, &of_port(DROP)),
            ];
            let rulesets = told_rulesets(&objects.join(","), &["c", "d"], 2..9, "tcp dport 8080 drop");
            let found = |rulesets: &Rulesets| further(rulesets, &syn(), &machine(), None).further.len();
            (found(&rulesets), found(&rulesets.past_prerouting()))
        };
        assert_eq!(of_routing("prerouting"), (0, 1));
        assert_eq!(of_routing("input"), (0, 0));
    }

    #[test]
    fn nothing_is_told_where_the_rules_do_not_explain_the_death() {
        let rules = [chain("c", 1, "input", 0, "accept"), rule("c", 3, &of_port(DROP)), rule("c", 4, &of_port(DROP))];
        assert!(behind(&rules).is_empty());
    }
}
