//! What the kernel named of a journey's packets: the rules that decided about them, as they are told.

use super::event::{Identity, RuleRef, Verdict};
use super::listing::{Base, Chain, Listing};
use super::log::Decision;
use super::questions::details;
use super::targets::{self, rewrites_end, translates};
use super::{FirewallTrace, inside, owner};
use crate::evidence::Rule;
use crate::journey::{Conntrack, Journey, Origin, Outcome, Stage};

/// WSL's chain that marks what leaves this machine, in mirrored mode.
const WSL_MARKS: &str = "WSLOUTPUT";

/// A rule that decided about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::evidence) struct Named {
    /// The rule.
    pub(in crate::evidence) rule: Rule,
    /// The stage of the chain that it was reached by, when the ruleset tells.
    pub(in crate::evidence) stage: Option<Stage>,
}

impl FirewallTrace {
    /// The rule that ended this journey, when the kernel named one for this very packet.
    pub(in crate::evidence) fn killer(&mut self, journey: &Journey) -> Option<Named> {
        if let Err(error) = self.drain() {
            ::log::warn!("cannot read the firewall trace of network namespace {}: {error}", self.netns.label());
        }
        let answer = journey.outcome == Outcome::AnswerDropped;
        // A program may have given the packet back to the chains, and then it is they that dropped it.
        let by_chain = journey.outcome == Outcome::Rejected || journey.reason.as_deref() == Some("NETFILTER_DROP");
        let may_be = |verdict| !by_chain || verdict != Verdict::Queue;
        let decision = identities(journey, answer).into_iter().find_map(|identity| self.log.take_fatal(&identity, may_be))?;
        // Handles are counted anew in a table that was replaced: only the ruleset as it is now gives the right text.
        if let Err(error) = self.refresh() {
            ::log::warn!("cannot list the firewall rules of network namespace {}: {error}", self.netns.label());
        }
        Some(self.named(&decision))
    }

    /// The rule that rejected this journey's SYN, when the kernel named one for this very packet: of a journey whose answer died.
    pub(in crate::evidence) fn rejecter(&mut self, journey: &Journey) -> Option<Named> {
        self.drain().ok()?;
        let decision = identities(journey, false).into_iter().find_map(|identity| self.log.take_fatal(&identity, |_| true))?;
        Some(self.named(&decision)).filter(|named| named.rule.verdict == "reject")
    }

    /// The rule that gave this journey's packet another address: the one that changed where it goes, where several did.
    pub(in crate::evidence) fn translator(&mut self, journey: &Journey) -> Option<Rule> {
        self.translating(journey, journey.is_led_elsewhere())
    }

    /// The rule that gave a packet another source, where connection tracking refused the connection that came of it.
    pub(in crate::evidence) fn source_translator(&mut self, journey: &Journey) -> Option<Rule> {
        if journey.facts.at_confirmation { self.translating(journey, false) } else { None }
    }

    fn translating(&mut self, journey: &Journey, led_elsewhere: bool) -> Option<Rule> {
        journey.translated.as_ref()?;
        self.drain().ok()?;
        let decisions = self.passed(journey);
        let translates = |decision: &&Decision| {
            let Some(text) = self.listing.as_ref().and_then(|listing| listing.text(&decision.rule)) else { return false };
            // NAT accepts what it translates; what writes an address into the packet lets it go on.
            decision.verdict == Verdict::Accept && translates(text, led_elsewhere) || rewrites_end(text, led_elsewhere)
        };
        let decision = decisions.iter().rev().find(translates)?;
        Some(self.named(decision).rule)
    }

    /// The rule that wrote another source into this journey's packet, outside of NAT.
    pub(in crate::evidence) fn source_rewriter(&mut self, journey: &Journey) -> Option<Rule> {
        journey.translated.as_ref().filter(|now| now.source != journey.flow.source)?;
        self.drain().ok()?;
        let decisions = self.passed(journey);
        let writes = |decision: &&Decision| {
            let text = self.listing.as_ref().and_then(|listing| listing.text(&decision.rule));
            text.is_some_and(|text| rewrites_end(text, false))
        };
        let decision = decisions.iter().rev().find(writes)?;
        Some(self.named(decision).rule)
    }

    /// The rule that exempted this journey's packet from connection tracking.
    pub(in crate::evidence) fn exempter(&mut self, journey: &Journey) -> Option<Rule> {
        journey.conntrack.filter(|state| *state == Conntrack::Untracked)?;
        self.drain().ok()?;
        let exempts = |decision: &&Decision| {
            let rule = &decision.rule;
            let details = rule.handle.and_then(|handle| inside(&self.netns, || details(rule, handle)).ok());
            details.is_some_and(|details| details.exempts)
        };
        let decisions = self.passed(journey);
        let decision = decisions.iter().rev().find(exempts)?;
        Some(Rule { verdict: "notrack".to_owned(), ..self.named(decision).rule })
    }

    /// The rule of WSL that gave this journey's packet its mark, where another rule masquerades by the mark.
    pub(in crate::evidence) fn marker(&mut self, journey: &Journey) -> Option<Rule> {
        journey.translated.as_ref().filter(|_| journey.origin != Origin::Remote)?;
        self.drain().ok()?;
        let by_mark = |text: &str| text.contains("mark") && text.to_ascii_lowercase().contains("masquerade");
        self.listing.as_ref()?.texts().find(|text| by_mark(text))?;
        let marks = |decision: &Decision| decision.rule.chain == WSL_MARKS && decision.rule.handle.is_some();
        let decision = self.passed(journey).into_iter().rev().find(marks)?;
        Some(self.named(&decision).rule)
    }

    /// The rule that gave this journey's answer another address or port, without NAT's turning it back.
    pub(in crate::evidence) fn rewriter(&mut self, journey: &Journey) -> Option<Rule> {
        self.drain().ok()?;
        let rewrites = |decision: &Decision| {
            self.listing.as_ref().and_then(|listing| listing.text(&decision.rule)).is_some_and(targets::rewrites)
        };
        let decision = self.log.passed_by_answer(journey.flow.sequence).filter(|decision| rewrites(decision)).last()?;
        Some(self.named(decision).rule)
    }

    /// The rule that gave this journey's packet to a transparent proxy (`tproxy`), and let it go on.
    pub(in crate::evidence) fn proxying(&mut self, journey: &Journey) -> Option<Rule> {
        self.drain().ok()?;
        let proxies = |decision: &&Decision| {
            let text = self.listing.as_ref().and_then(|listing| listing.text(&decision.rule));
            text.map(without_comment).is_some_and(|text| text.split(' ').any(|word| matches!(word, "tproxy" | "TPROXY")))
        };
        let decisions = self.passed(journey);
        let decision = decisions.iter().rev().find(proxies)?;
        Some(self.named(decision).rule)
    }

    /// The only rule that sends what leaves by a device out by another one (`fwd to`). The kernel's trace does not tell of it: by the time
    /// of its message the packet is gone.
    pub(in crate::evidence) fn forwarder(&self, from: &str, to: &str) -> Option<Rule> {
        let listing = self.listing.as_ref()?;
        let (rule, base_chain) = listing.forwarder(from, to)?;
        Some(told(&rule, &base_chain, "stolen", Some(listing)))
    }

    /// The rules that this journey's packet met and passed.
    fn passed(&self, journey: &Journey) -> Vec<Decision> {
        identities(journey, false).iter().flat_map(|identity| self.log.passed(identity)).cloned().collect()
    }

    pub(super) fn named(&self, decision: &Decision) -> Named {
        let rule = &decision.rule;
        let known = [&self.listing, &self.previous].into_iter().flatten().find(|listing| listing.chain_of(rule).is_some());
        let details = rule.handle.and_then(|handle| inside(&self.netns, || details(rule, handle)).ok()).unwrap_or_default();
        let text = known.and_then(|listing| listing.text(rule));
        let base = known.and_then(|listing| listing.chain(rule.family, &rule.table, &decision.base_chain)?.base.as_ref());
        let verdict = match decision.verdict {
            Verdict::Queue => "queue",
            Verdict::Accept => "accept",
            Verdict::Stolen => "stolen",
            Verdict::Continue => "continue",
            Verdict::Drop if details.rejects || text.is_some_and(is_reject) => "reject",
            Verdict::Drop => "drop",
        };
        let rule = told(rule, &decision.base_chain, verdict, known);
        let comment = details.comment.or_else(|| rule.comment.clone());
        // No stage is named after the hooks of bridges, which have the names of others.
        let base = base.filter(|_| rule.family != "bridge");
        Named { stage: base.and_then(stage_of), rule: Rule { comment, ..rule } }
    }
}

/// A rule or policy of nftables as it is told, by its place in a listing.
pub(crate) fn told(rule: &RuleRef, base_chain: &str, verdict: &str, listing: Option<&Listing>) -> Rule {
    let text = match rule.handle {
        Some(_) => listing.and_then(|listing| listing.text(rule)),
        None => Some("policy drop"),
    };
    let owner = owner::owner(rule, listing);
    Rule {
        backend: owner::backend(rule, base_chain),
        family: rule.family.to_owned(),
        table: rule.table.clone(),
        chain: rule.chain.clone(),
        handle: rule.handle,
        number: None,
        text: text.map(|text| without_comment(text).to_owned()),
        comment: text.and_then(comment_of).map(str::to_owned),
        verdict: verdict.to_owned(),
        owner,
        without_users_chain: owner::lacks_users_chain(rule, owner, listing),
        at_chains_end: rule.handle.is_none()
            && listing.and_then(|listing| listing.chain_of(rule)).is_some_and(is_passed_to_its_end),
    }
}

/// Whether what comes to a chain's policy has met all of its rules: none of them returns, goes on to a chain which would, or may do so by a
/// map whose elements are not part of its text.
fn is_passed_to_its_end(chain: &Chain) -> bool {
    let may_return = |text: &str| {
        without_comment(text).split([' ', ',']).any(|word| matches!(word, "return" | "goto")) || text.contains("vmap @")
    };
    !chain.rules.iter().any(|(_, text)| may_return(text))
}

/// The client's ends that the journey's packet had, with its sequence number.
fn identities(journey: &Journey, answer: bool) -> Vec<Identity> {
    let flow = &journey.flow;
    let mut ends = vec![(flow.source, flow.source_port)];
    ends.extend(journey.translated.as_ref().map(|now| (now.source, now.source_port)));
    ends.dedup();
    ends.into_iter().map(|(client, port)| Identity { client, port, sequence: flow.sequence, answer }).collect()
}

/// The stage of a base chain's place.
fn stage_of(base: &Base) -> Option<Stage> {
    let within = |from: i32, to: i32| (from..to).contains(&base.priority);
    Some(match base.hook.as_str() {
        "ingress" => Stage::NetfilterIngress,
        "prerouting" if within(-350, -250) => Stage::PreroutingRaw,
        "prerouting" if within(-250, -175) => Stage::Conntrack,
        "prerouting" if within(-175, -125) => Stage::PreroutingMangle,
        "prerouting" if within(-125, -50) => Stage::Dnat,
        "prerouting" => Stage::Prerouting,
        "input" if within(-200, -75) => Stage::InputMangle,
        "input" if within(-75, 25) => Stage::InputFilter,
        "input" if within(25, 75) => Stage::InputSecurity,
        "input" => Stage::Input,
        "forward" if within(-200, -75) => Stage::ForwardMangle,
        "forward" if within(-75, 25) => Stage::ForwardFilter,
        "forward" if within(25, 75) => Stage::ForwardSecurity,
        "forward" => Stage::Forward,
        _ => return None,
    })
}

fn is_reject(text: &str) -> bool {
    text.split(' ').any(|word| word == "reject")
}

fn comment_of(text: &str) -> Option<&str> {
    text.rsplit_once(" comment \"")?.1.strip_suffix('"')
}

pub(super) fn without_comment(text: &str) -> &str {
    comment_of(text).map_or(text, |_| text.rsplit_once(" comment \"").map_or(text, |(rule, _)| rule))
}
