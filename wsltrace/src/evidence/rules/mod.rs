//! Which rule did it: the kernel's own trace of the packets in question (`meta nftrace`), and the rulesets that give the named
//! rules their texts. No ruleset is simulated here: a rule is named only when the kernel said that it decided about this
//! very packet.

pub(crate) mod event;
mod followed;
mod held;
pub(crate) mod legacy;
mod listing;
mod log;
mod marking;
mod owner;
mod pace;
mod plain;
mod questions;
mod socket;
mod targets;
mod twins;

use std::io;
use std::process::Command;

pub(crate) use self::event::family_name;
use self::event::{Identity, RuleRef, Verdict};
use self::followed::Followed;
pub use self::held::TableHolder;
pub(crate) use self::held::held_tables;
pub(super) use self::held::table_holder;
pub(super) use self::legacy::{Came, LegacyCounters};
pub(crate) use self::legacy::{arp_tables, tables as legacy_tables};
use self::listing::Base;
pub(crate) use self::listing::Listing;
use self::log::{Decision, TraceLog};
use self::marking::Marking;
pub(crate) use self::marking::PREFIX as OWN_PREFIX;
pub(crate) use self::owner::backend as owner_backend;
use self::pace::Pace;
pub(super) use self::plain::Ends;
use self::questions::details;
pub(crate) use self::questions::{generation, message, present, text_of, user_comment};
use self::socket::Listener;
pub(crate) use self::socket::OwnTable;
pub use self::targets::dnat_targets;
pub(crate) use self::targets::{leading_to, leads_on, one_sends_to, sends_elsewhere, translating_rules};
use self::targets::{translated_port, translates};
pub(super) use self::twins::Twins;
use super::Rule;
use crate::journey::{Conntrack, Journey, Origin, Outcome, Stage};
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::netns::Netns;

/// WSL's chain that marks what leaves this machine, in mirrored mode.
const WSL_MARKS: &str = "WSLOUTPUT";

/// Which packets are to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The traced ports; `None` in a container's namespace, where DNAT may lead to any.
    pub ports: Option<Vec<(u16, u16)>>,
    /// The interfaces.
    pub devices: Vec<String>,
}

/// The trace of one namespace's firewalls.
#[derive(Debug)]
pub(super) struct FirewallTrace {
    netns: Netns,
    scope: Scope,
    table: Option<(Marking, OwnTable)>,
    listener: Option<Listener>,
    log: TraceLog,
    /// Connections that do not get on.
    followed: Option<Followed>,
    pace: Pace,
    generation: Option<u32>,
    listing: Option<Listing>,
    /// The ruleset before it was changed last: what killed a packet may be gone by the time that its name is asked for.
    previous: Option<Listing>,
}

/// A rule that decided about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The rule.
    pub(super) rule: Rule,
    /// The stage of the chain that it was reached by, when the ruleset tells.
    pub(super) stage: Option<Stage>,
}

impl FirewallTrace {
    /// Begins to trace. Without nftables in the kernel, or without any table, there is nothing to trace yet, and nothing is
    /// put in anybody's way.
    pub(super) fn start(netns: &Netns, scope: Scope) -> io::Result<Self> {
        let mut trace = Self {
            netns: netns.clone(),
            scope,
            table: None,
            listener: None,
            log: TraceLog::default(),
            followed: None,
            pace: Pace::default(),
            generation: None,
            listing: None,
            previous: None,
        };
        trace.refresh()?;
        Ok(trace)
    }

    /// Counts the ruleset's changes, as of the last look.
    pub(super) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Whether somebody has rules in nftables.
    pub(super) fn has_rules(&self) -> bool {
        self.listing.as_ref().is_some_and(|listing| listing.texts().next().is_some())
    }

    /// Traces these from now on.
    pub(super) fn set_scope(&mut self, scope: Scope) -> io::Result<()> {
        if self.scope == scope {
            return Ok(());
        }
        self.scope = scope;
        self.generation = None;
        self.refresh()
    }

    /// Looks whether the ruleset changed, and takes in what the kernel said.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        self.drain()?;
        if self.pace.tick() {
            self.generation = None;
        }
        self.refresh()
    }

    fn drain(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let (log, mut messages) = (&mut self.log, 0);
        listener.drain(|event| {
            messages += 1;
            if !event.rule.table.starts_with(OWN_PREFIX) {
                log.add(event);
            }
        })?;
        if self.pace.hear(messages) {
            self.table = None;
        }
        Ok(())
    }

    fn refresh(&mut self) -> io::Result<()> {
        let generation = inside(&self.netns, generation)?;
        if generation.is_some() && generation == self.generation {
            return Ok(());
        }
        self.previous = self.listing.take().or_else(|| self.previous.take());
        let present = inside(&self.netns, present)?;
        if present.tables {
            self.read_listing();
            self.mark(present.devices)?;
        } else {
            self.table = None;
        }
        // Our own table counts as a change.
        self.generation = inside(&self.netns, self::generation)?;
        Ok(())
    }

    fn read_listing(&mut self) {
        // Without the program a rule is still named by table, chain and handle.
        self.listing = list(&self.netns).inspect_err(|error| ::log::debug!("nft list ruleset: {error}")).ok();
    }

    fn mark(&mut self, devices: bool) -> io::Result<()> {
        if self.pace.is_resting() {
            return Ok(());
        }
        let all = vec![(0, u16::MAX)];
        let mut marking = Marking {
            table: format!("{OWN_PREFIX}{}", std::process::id()),
            ports: self.scope.ports.clone().unwrap_or_else(|| all.clone()),
            answers: if self.scope.ports.is_some() { self.targets() } else { Vec::new() },
            devices: if devices { self.scope.devices.clone() } else { Vec::new() },
            outgoing: self.listing.as_ref().is_none_or(|listing| listing.hooks().any(is_outgoing)),
            limited: self.pace.is_kept_by_kernel(),
        };
        if self.table.as_ref().is_some_and(|(made, _)| *made == marking) {
            return Ok(());
        }
        // Two tables of one name cannot be.
        self.table = None;
        if self.listener.is_none() {
            self.listener = Some(inside(&self.netns, Listener::open)?);
        }
        let made = match inside(&self.netns, || OwnTable::make(marking.messages())) {
            Err(error) if marking.limited && error.raw_os_error() == Some(libc::ENOENT) => {
                ::log::debug!("the kernel has no limit for nftables: the rate of its trace is kept by hand");
                self.pace.keep_by_hand();
                marking.limited = false;
                inside(&self.netns, || OwnTable::make(marking.messages()))
            }
            made => made,
        };
        self.table = Some((marking, made?));
        Ok(())
    }

    /// Ports that DNAT leads to: answers come from there.
    fn targets(&self) -> Vec<(u16, u16)> {
        let texts = self.listing.iter().flat_map(Listing::texts);
        let mut ports: Vec<u16> = texts.filter_map(translated_port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().map(|port| (port, port)).collect()
    }

    /// The rule that ended this journey, when the kernel named one for this very packet.
    pub(super) fn killer(&mut self, journey: &Journey) -> Option<Named> {
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

    /// The rule that gave this journey's packet another address: the one that changed where it goes, where several did.
    pub(super) fn translator(&mut self, journey: &Journey) -> Option<Rule> {
        let led_elsewhere = journey.last_destination() != (journey.flow.destination, journey.flow.destination_port);
        self.translating(journey, led_elsewhere)
    }

    /// The rule that gave a packet another source, where connection tracking refused the connection that came of it.
    pub(super) fn source_translator(&mut self, journey: &Journey) -> Option<Rule> {
        if journey.facts.at_confirmation { self.translating(journey, false) } else { None }
    }

    fn translating(&mut self, journey: &Journey, led_elsewhere: bool) -> Option<Rule> {
        journey.translated.as_ref()?;
        self.drain().ok()?;
        let decisions = self.passed(journey);
        let translates = |decision: &&Decision| {
            // A rule that merely let it go on may have the word in its comment.
            if decision.verdict != Verdict::Accept {
                return false;
            }
            let listing = self.listing.as_ref();
            listing.and_then(|listing| listing.text(&decision.rule)).is_some_and(|text| translates(text, led_elsewhere))
        };
        let decision = decisions.iter().rev().find(translates)?;
        Some(self.named(decision).rule)
    }

    /// The rule that exempted this journey's packet from connection tracking.
    pub(super) fn exempter(&mut self, journey: &Journey) -> Option<Rule> {
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
    pub(super) fn marker(&mut self, journey: &Journey) -> Option<Rule> {
        journey.translated.as_ref().filter(|_| journey.origin != Origin::Remote)?;
        self.drain().ok()?;
        let by_mark = |text: &str| text.contains("mark") && text.to_ascii_lowercase().contains("masquerade");
        self.listing.as_ref()?.texts().find(|text| by_mark(text))?;
        let marks = |decision: &Decision| decision.rule.chain == WSL_MARKS && decision.rule.handle.is_some();
        let decision = self.passed(journey).into_iter().rev().find(marks)?;
        Some(self.named(&decision).rule)
    }

    /// The rule that gave this journey's answer another address or port, without NAT's turning it back.
    pub(super) fn rewriter(&mut self, journey: &Journey) -> Option<Rule> {
        self.drain().ok()?;
        let rewrites = |decision: &Decision| {
            self.listing.as_ref().and_then(|listing| listing.text(&decision.rule)).is_some_and(targets::rewrites)
        };
        let decision = self.log.passed_by_answer(journey.flow.sequence).filter(|decision| rewrites(decision)).last()?;
        Some(self.named(decision).rule)
    }

    /// The rules that this journey's packet met and passed.
    fn passed(&self, journey: &Journey) -> Vec<Decision> {
        identities(journey, false).iter().flat_map(|identity| self.log.passed(identity)).cloned().collect()
    }

    fn named(&self, decision: &Decision) -> Named {
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
        Named { stage: base.and_then(stage_of), rule: Rule { comment, ..rule } }
    }
}

/// What nft prints of a namespace.
pub(crate) fn list(netns: &Netns) -> io::Result<Listing> {
    let text = inside(netns, || output_within(LISTING_LIMIT, Command::new("nft").args(["-a", "-s", "-y", "list", "ruleset"])))?;
    Ok(Listing::parse(&text))
}

/// A rule or policy of nftables as it is told, by its place in a listing.
pub(crate) fn told(rule: &RuleRef, base_chain: &str, verdict: &str, listing: Option<&Listing>) -> Rule {
    let text = match rule.handle {
        Some(_) => listing.and_then(|listing| listing.text(rule)),
        None => Some("policy drop"),
    };
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
        owner: owner::owner(rule, listing),
    }
}

pub(crate) fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    netns.run(work).map_err(io::Error::other)?
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

/// Whether a chain at this hook sees what this machine sends.
fn is_outgoing(hook: &str) -> bool {
    matches!(hook, "output" | "postrouting" | "egress")
}

fn is_reject(text: &str) -> bool {
    text.split(' ').any(|word| word == "reject")
}

fn comment_of(text: &str) -> Option<&str> {
    text.rsplit_once(" comment \"")?.1.strip_suffix('"')
}

fn without_comment(text: &str) -> &str {
    comment_of(text).map_or(text, |_| text.rsplit_once(" comment \"").map_or(text, |(rule, _)| rule))
}
