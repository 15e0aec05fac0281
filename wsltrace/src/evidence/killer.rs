//! The firewall rule behind an end, or behind what happened to a packet on its way.

use std::io;
use std::time::Instant;

use super::readings::Span;
use super::rules::{Came, Ends, FirewallTrace, LegacyCounters, Named, table_holder};
use super::told::OrTold as _;
use super::watched::{Watched, others};
use super::{Backend, Evidence, Further, NamedBy, Rule, TableHolder, backend, way};
use crate::journey::{Family, Journey, Origin, Outcome, Stage};
use crate::probe::netfilter_programs;

/// Of more rules none is told: that one of many did it tells nothing.
pub(super) const MOST_SUSPECTS: usize = 3;

impl Watched {
    /// The rule that ended a journey, or what else is known of the firewall.
    pub(super) fn add_rule(&mut self, journey: &Journey, died_at: Option<Stage>, span: Span, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        if journey.is_unconfirmed_by_firewall() {
            if let Some((rule, port)) = self.rules().and_then(|rules| rules.dropper(journey)) {
                (evidence.rule, evidence.port_there) = (Some(rule), port);
            } else {
                self.name_by_counter(journey, filter_stage(journey), span.began, evidence);
            }
            if evidence.rule.is_none() && evidence.netfilter_programs.is_empty() {
                self.suspect(journey, evidence);
            }
            return;
        }
        self.name_rule(journey, evidence);
        if journey.has_lost_a_firewalls_reset() {
            let named = self.trace.as_mut().and_then(|trace| trace.rejecter(journey));
            let (address, port) = journey.last_destination();
            evidence.rejecter = named.map(|Named { rule, stage }| Further {
                rule,
                address: Some(address),
                port,
                forward: stage.is_some_and(Stage::is_forward),
            });
        }
        if evidence.rule.is_none()
            && let Some(stage) = died_at.filter(|_| is_firewalled(journey))
        {
            self.name_by_counter(journey, stage, span.began, evidence);
        }
        if evidence.rule.is_none() && died_at == Some(Stage::TcIngress) {
            self.follow_behind_device(journey, evidence);
        }
        if evidence.rule.is_none() && is_firewalled(journey) {
            self.follow_to_hook(journey, died_at, evidence);
        }
        if evidence.rule.as_ref().is_some_and(Rule::asks_for_way_back) {
            way::add_way_back_or_refusal(&self.netns, journey, evidence).or_told(inum, "read the routes");
        }
        let rejects = evidence.rule.as_ref().is_some_and(|rule| rule.verdict == "reject");
        if rejects && journey.outcome == Outcome::Dropped {
            self.add_way_of_answer(journey, evidence).or_told(inum, "read the routes");
        }
        if (rejects || evidence.rule.is_none()) && journey.outcome == Outcome::Dropped && is_firewalled(journey) {
            let counted = self.readings.icmp_suppressed(&self.netns, span).or_told(inum, "read the counters");
            (evidence.icmp_suppressed, evidence.dropped_by_netfilter) = counted.unwrap_or_default();
        }
    }

    /// The rules that may have dropped what confirms an answer; the only one is named.
    fn suspect(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let found = self.rules().map(|rules| rules.suspects_of_confirmation(journey)).unwrap_or_default();
        if let [only] = found.as_slice() {
            (evidence.rule, evidence.port_there) = (Some(only.rule.clone()), only.port);
        }
        if found.len() <= MOST_SUSPECTS {
            evidence.suspects = found.into_iter().map(|suspect| suspect.rule).collect();
        }
    }

    /// The program that the rule's table belongs to.
    pub(super) fn add_holder(&mut self, evidence: &mut Evidence) {
        evidence.table_holder = evidence.rule.as_ref().and_then(|rule| self.holder(rule));
    }

    /// The program that a rule's table belongs to, where no other may change it.
    pub(super) fn holder(&mut self, rule: &Rule) -> Option<TableHolder> {
        if rule.backend != Backend::Nft {
            return None;
        }
        let kept = self.table_holders.entry((rule.family.clone(), rule.table.clone())).or_default();
        let holder = kept.get(|| table_holder(&self.netns, rule)).or_told(self.netns.inum(), "see whose a table is");
        holder.cloned().flatten()
    }

    /// The rule of nftables that the kernel named for this packet, or for one like it.
    fn name_rule(&mut self, journey: &Journey, evidence: &mut Evidence) {
        if may_be_a_rule(journey)
            && let Some(named) = self.trace.as_mut().and_then(|trace| trace.killer(journey))
        {
            evidence.backend = Some(named.rule.backend);
            let generation = self.trace.as_ref().and_then(FirewallTrace::generation);
            self.twins.remember(journey, generation, &named);
            evidence.rule = Some(named.rule);
            evidence.stage = named.stage;
            return;
        }
        if is_firewalled(journey)
            && let Some(named) = self.twins.of(journey, self.trace.as_ref().and_then(FirewallTrace::generation))
        {
            evidence.backend = Some(named.rule.backend);
            evidence.rule = Some(named.rule);
            evidence.stage = named.stage;
            evidence.named_by = NamedBy::Twin;
        }
    }

    /// The kind of firewall by its chains and the place of the death, and the rule of the old iptables by its counter.
    fn name_by_counter(&mut self, journey: &Journey, stage: Stage, began: Instant, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        let firewalls = self.firewalls.get(|| backend::firewalls(&self.netns)).or_told(inum, "look at the firewalls");
        evidence.backend =
            firewalls.and_then(|found| backend::decide(found, journey.flow.family, stage, journey.location.as_deref()));
        // Beside rules of nftables, only a counter tells that it was the old iptables.
        let left_to_the_hook =
            journey.was_dropped_by_reader() || journey.location.as_deref().is_some_and(|place| place.starts_with("nf_hook_slow"));
        if evidence.backend == Some(Backend::IptablesLegacy) || evidence.backend.is_none() && left_to_the_hook {
            let rule = self.legacy_killer(journey, stage, began).or_told(inum, "read the counters of iptables-legacy").flatten();
            evidence.backend = rule.as_ref().map(|rule| rule.backend).or(evidence.backend);
            evidence.rule = rule;
        }
        // No chain did it, then: what else hooks in there is programs.
        if evidence.backend.is_none() && left_to_the_hook {
            let names = self.netfilter_programs.get(netfilter_programs).or_told(inum, "see which BPF programs are at netfilter");
            evidence.netfilter_programs = names.map(|names| others(names)).unwrap_or_default();
        }
    }

    /// The rules of the old iptables that gave this journey's packet other addresses, where none of nftables did.
    pub(super) fn add_translators(&mut self, journey: &Journey, began: Instant, evidence: &mut Evidence) {
        const WHAT: &str = "read the counters of iptables-legacy";
        let inum = self.netns.inum();
        if evidence.translator.is_none() {
            evidence.translator = self.legacy_translator(journey, began).or_told(inum, WHAT).flatten();
        }
        if evidence.source_translator.is_none() {
            evidence.source_translator = self.legacy_source_translator(journey, began).or_told(inum, WHAT).flatten();
        }
    }

    /// The rule of the old iptables whose counter this journey's packet moved.
    fn legacy_killer(&mut self, journey: &Journey, stage: Stage, began: Instant) -> io::Result<Option<Rule>> {
        let (Some(table), Some(hook)) = (backend::legacy_table(stage), backend::hook(stage)) else { return Ok(None) };
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let hook = hook.to_ascii_uppercase();
        counters.as_mut().map_or(Ok(None), |counters| counters.killer(table, &hook, &came(journey, began)))
    }

    /// The rule of the old iptables that gave this journey's packet another address.
    fn legacy_translator(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        let Some(translated) = &journey.translated else { return Ok(None) };
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let of_destination =
            (translated.destination, translated.destination_port) != (journey.flow.destination, journey.flow.destination_port);
        let hook = match (of_destination, journey.origin) {
            (true, Origin::Remote) => "PREROUTING",
            (true, _) => "OUTPUT",
            (false, _) => "POSTROUTING",
        };
        counters.as_mut().map_or(Ok(None), |counters| counters.translator(hook, &came(journey, began)))
    }

    /// The rule of the old iptables that gave this journey's packet another source, where connection tracking refused what came of it.
    fn legacy_source_translator(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        if !journey.facts.at_confirmation || journey.translated.is_none() {
            return Ok(None);
        }
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        counters.as_mut().map_or(Ok(None), |counters| counters.translator("POSTROUTING", &came(journey, began)))
    }

    /// The rule of the old iptables that exempted this journey's packet from connection tracking.
    pub(super) fn legacy_exempter(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let hook = if journey.origin == Origin::Remote { "PREROUTING" } else { "OUTPUT" };
        counters.as_mut().map_or(Ok(None), |counters| counters.exempter(hook, &came(journey, began)))
    }

    /// Begins to read the counters of the old iptables where it is in use, and reads them again where its rules have changed.
    pub(super) fn look_at_legacy(&mut self) -> io::Result<()> {
        for (counters, family) in self.legacy.iter_mut().zip([Family::Ipv4, Family::Ipv6]) {
            match counters {
                Some(counters) => counters.tick()?,
                none => *none = LegacyCounters::start(&self.netns, family)?,
            }
        }
        let old = self.legacy.iter().flatten().any(LegacyCounters::has_rules);
        let new = self.trace.as_ref().is_some_and(FirewallTrace::has_rules);
        if old && new && !std::mem::replace(&mut self.both_told, true) {
            log::warn!(
                "two firewalls are at work in network namespace {}, and every packet meets both: nftables ('sudo nft list \
                 ruleset' shows its rules, those of iptables-nft too) and iptables-legacy ('sudo iptables-legacy-save', \
                 'sudo ip6tables-legacy-save')",
                self.netns.label()
            );
        }
        Ok(())
    }
}

fn came(journey: &Journey, began: Instant) -> Came {
    Came { began, ends: Ends::of(journey) }
}

/// Where most rules stand that what a client sends on an answered connection can meet in the namespace where it died.
fn filter_stage(journey: &Journey) -> Stage {
    let there = journey.last_netns();
    let sent_on = journey.stages.iter().any(|visit| visit.netns == there && visit.stage == Stage::Forward);
    if sent_on { Stage::ForwardFilter } else { Stage::InputFilter }
}

/// Whether a rule may have ended it: then the kernel is asked, whatever the reason of the drop says.
fn may_be_a_rule(journey: &Journey) -> bool {
    matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected | Outcome::AnswerDropped | Outcome::Unfinished)
}

fn is_firewalled(journey: &Journey) -> bool {
    journey.outcome == Outcome::Rejected || journey.reason.as_deref() == Some("NETFILTER_DROP") || journey.was_dropped_by_reader()
}
