//! Which rule dropped a packet that the kernel named none for: it was not asked yet when the first rule came, or somebody took its mark off
//! the packet (`meta nftrace set 0`), or the user wants no trace. The rules as they are now are followed, so this proves nothing.

use std::collections::HashMap;

use super::killer::MOST_SUSPECTS;
use super::simulated::{Rules, came};
use super::told::OrTold as _;
use super::watched::{Watched, others};
use super::{Backend, Evidence, NamedBy, Rule, backend};
use crate::journey::{Journey, Outcome, Stage, symbol};
use crate::probe::netfilter_programs;
use crate::simulate::{Packet, Suspect, Way, suspects_at};

/// More rules are not followed: that takes time, and the death itself is to be told without delay.
const MAX_RULES: usize = 2000;
/// How many answers are kept at once, and found out while the rules are not read anew: a flood is not to be followed packet by packet.
const MAX_KEPT: usize = 256;

/// What was found with one reading of the rules, by the packet and the hook.
pub(super) type Suspects = HashMap<(Packet, &'static str), Vec<Suspect>>;

impl Watched {
    /// The only rule of the hook where a packet died that may have done it, or the few of which one did.
    pub(super) fn follow_to_hook(&mut self, journey: &Journey, died_at: Option<Stage>, evidence: &mut Evidence) {
        let Some(hook) = died_at.and_then(backend::hook) else { return };
        if self.trace.as_ref().is_some_and(|trace| trace.rules() > MAX_RULES) || self.may_be_a_program(journey, evidence) {
            return;
        }
        let Some(packet) = packet(journey) else { return };
        let found = self.rules().map(|rules| kept(rules, &packet, hook)).unwrap_or_default();
        let mut fitting: Vec<Rule> =
            found.into_iter().map(|suspect| suspect.rule).filter(|rule| fits(journey, evidence, rule)).collect();
        if fitting.len() == 1 {
            evidence.rule = fitting.pop();
            (evidence.backend, evidence.named_by) = (evidence.rule.as_ref().map(|only| only.backend), NamedBy::Rules);
        } else if fitting.len() <= MOST_SUSPECTS {
            evidence.suspects = fitting;
        }
    }

    /// Whether somebody's BPF program at netfilter may have done it: they leave the packet to the hook, as the old iptables does.
    fn may_be_a_program(&mut self, journey: &Journey, evidence: &Evidence) -> bool {
        if is_freed_by_nft(journey) {
            return false;
        }
        if !evidence.netfilter_programs.is_empty() {
            return true;
        }
        let names = self.netfilter_programs.get(netfilter_programs);
        let names = names.or_told(self.netns.inum(), "see which BPF programs are at netfilter");
        names.is_none_or(|names| !others(names).is_empty())
    }
}

fn kept(rules: &mut Rules, packet: &Packet, hook: &'static str) -> Vec<Suspect> {
    let key = (packet.clone(), hook);
    if let Some(known) = rules.suspects.get(&key) {
        return known.clone();
    }
    if rules.suspects.len() == MAX_KEPT {
        return Vec::new();
    }
    let found = suspects_at(&rules.rulesets, packet, &rules.machine, hook).unwrap_or_default();
    rules.suspects.insert(key, found.clone());
    found
}

/// Since Linux 6.7 only chains of nftables free there.
fn is_freed_by_nft(journey: &Journey) -> bool {
    journey.location.as_deref().is_some_and(|place| symbol(place) == "nft_do_chain")
}

/// Whether a rule is of the kind that did it, as far as that is known.
fn fits(journey: &Journey, evidence: &Evidence, rule: &Rule) -> bool {
    let legacy = rule.backend == Backend::IptablesLegacy;
    let of_kind = match evidence.backend {
        Some(kind) => rule.backend == kind,
        // Connection tracking leaves a packet to the hook, too.
        None => is_freed_by_nft(journey) && !legacy,
    };
    of_kind && (journey.outcome != Outcome::Rejected || rule.verdict == "reject")
}

/// The SYN as it came, or the SYN-ACK to it. A client's port is another with each attempt.
fn packet(journey: &Journey) -> Option<Packet> {
    let syn = Packet { source_port: None, ..came(journey, |device| Way::Outside { device, bridged: false }, Way::Loopback) };
    if journey.outcome != Outcome::AnswerDropped {
        return Some(syn);
    }
    // What is followed is a SYN-ACK: rules tell a reset from it by its flags.
    if !journey.facts.syn_ack {
        return None;
    }
    let there = journey.death.as_ref()?.netns;
    let answer = journey.answer.and_then(|at| journey.stages.get(at..))?;
    let from = journey.last_destination();
    // An answer that came in there is another namespace's.
    let came_in = answer.iter().find(|visit| visit.netns == there)?.stage == Stage::TcIngress;
    let way = match syn.way {
        Way::Outside { .. } if came_in => Way::ForwardedAnswer { device: None },
        Way::Outside { device, .. } => Way::Answer { device },
        _ if came_in => return None,
        _ => Way::LoopbackAnswer,
    };
    Some(Packet { way, destination: from.0, destination_port: from.1, ..syn })
}
