//! One namespace that is watched: what is kept of it, and what it is asked when a journey has ended there.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::backend::{self, Firewalls};
use super::confirmation;
use super::readings::{Readings, Span};
use super::routes::Question;
use super::rules::{FirewallTrace, LegacyCounters, Twins};
use super::sockets::{self, Found};
use super::{Evidence, OwnAddress, Rule, TcProgram, routes, sysctls, way};
use crate::journey::{Conntrack, Family, InterfaceName, Journey, Origin, Outcome, Stage, symbol};
use crate::kernel::netns::Netns;
use crate::probe::{is_own_program, netfilter_programs, tc_programs};

/// How long listeners are kept.
const LISTENERS_KEPT: Duration = Duration::from_millis(200);
/// How long the firewalls and the owners of sockets are kept: they are dear to find and seldom change.
pub(super) const REST_KEPT: Duration = Duration::from_secs(2);

/// An answer that is dear to get and seldom changes: it is kept for a while.
pub(super) struct Kept<T>(Option<(Instant, T)>);

// Derived, it would ask the same of `T`.
impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Kept<T> {
    pub(super) fn get(&mut self, read: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        let kept = match self.0.take().filter(|(time, _)| time.elapsed() < REST_KEPT) {
            Some(kept) => kept,
            None => (Instant::now(), read()?),
        };
        Ok(&self.0.insert(kept).1)
    }
}

/// A namespace that is watched.
pub(super) struct Watched {
    pub(super) netns: Netns,
    pub(super) readings: Readings,
    pub(super) listeners: HashMap<u16, (Instant, Vec<Found>)>,
    pub(super) firewalls: Kept<Firewalls>,
    /// Names of the programs that look for listeners.
    pub(super) lookup_programs: Kept<Vec<String>>,
    /// Names of the programs at netfilter.
    pub(super) netfilter_programs: Kept<Vec<String>>,
    /// Names of the programs that choose among sockets which share a port.
    pub(super) choosing_programs: Kept<Vec<String>>,
    /// Others' programs at tc, by device and whether it is for what comes in.
    pub(super) tc_programs: HashMap<(InterfaceName, bool), Kept<Vec<TcProgram>>>,
    pub(super) addresses: Kept<Vec<OwnAddress>>,
    /// All listeners, of whatever port.
    pub(super) all_listeners: Kept<Vec<Found>>,
    pub(super) listener_settings: Kept<Vec<(String, String)>>,
    pub(super) refusal_settings: Kept<Vec<(String, String)>>,
    pub(super) conntrack_settings: Kept<Vec<(String, String)>>,
    /// What the simulation follows.
    pub(super) rules: Kept<confirmation::Rules>,
    pub(super) trace: Option<FirewallTrace>,
    pub(super) twins: Twins,
    /// Counters of the old iptables, IPv4 and IPv6.
    pub(super) legacy: [Option<LegacyCounters>; 2],
    /// That rules of both kinds are in use was said.
    pub(super) both_told: bool,
}

impl Watched {
    /// Nothing is known of it yet.
    pub(super) fn new(netns: &Netns) -> Self {
        Self {
            netns: netns.clone(),
            readings: Readings::default(),
            listeners: HashMap::new(),
            firewalls: Kept::default(),
            lookup_programs: Kept::default(),
            netfilter_programs: Kept::default(),
            choosing_programs: Kept::default(),
            tc_programs: HashMap::new(),
            addresses: Kept::default(),
            all_listeners: Kept::default(),
            listener_settings: Kept::default(),
            refusal_settings: Kept::default(),
            conntrack_settings: Kept::default(),
            rules: Kept::default(),
            trace: None,
            twins: Twins::default(),
            legacy: [None, None],
            both_told: false,
        }
    }

    /// Others' programs at tc of the device where a journey ended; a device is asked once for many of them.
    pub(super) fn others_at_tc(&mut self, journey: &Journey, ingress: bool) -> io::Result<Vec<TcProgram>> {
        let Some(device) = journey.death.as_ref().and_then(|death| death.interface) else { return Ok(Vec::new()) };
        let netns = &self.netns;
        let look = || {
            let query = || tc_programs(nix::net::if_::if_nametoindex(&*device)?, ingress);
            let all = netns.run(query).map_err(io::Error::other)??;
            let others = all.into_iter().filter(|(name, _)| !is_own_program(name));
            Ok(others.map(|(name, link)| TcProgram { name, link }).collect())
        };
        self.tc_programs.entry((device, ingress)).or_default().get(look).cloned()
    }

    /// The listeners on a port, by a look not older than the time they are kept and, where one is given, than `after`.
    pub(super) fn listeners(&mut self, port: u16, after: Option<Instant>) -> io::Result<Vec<Found>> {
        let now = Instant::now();
        self.listeners.retain(|_, (time, _)| now.duration_since(*time) < LISTENERS_KEPT);
        if let Some((time, found)) = self.listeners.get(&port)
            && after.is_none_or(|after| *time >= after)
        {
            return Ok(found.clone());
        }
        let found = sockets::listeners(&self.netns, port)?;
        self.listeners.insert(port, (now, found.clone()));
        Ok(found)
    }

    /// The rule of the old iptables whose counter this journey's packet moved.
    pub(super) fn legacy_killer(&mut self, journey: &Journey, stage: Stage, began: Instant) -> io::Result<Option<Rule>> {
        let (Some(table), Some(hook)) = (backend::legacy_table(stage), backend::hook(stage)) else { return Ok(None) };
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let hook = hook.to_ascii_uppercase();
        counters.as_mut().map_or(Ok(None), |counters| counters.killer(table, &hook, began))
    }

    /// The rule of the old iptables that gave this journey's packet another address.
    pub(super) fn legacy_translator(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        let Some(translated) = &journey.translated else { return Ok(None) };
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let of_destination =
            (translated.destination, translated.destination_port) != (journey.flow.destination, journey.flow.destination_port);
        let hook = match (of_destination, journey.origin) {
            (true, Origin::Remote) => "PREROUTING",
            (true, _) => "OUTPUT",
            (false, _) => "POSTROUTING",
        };
        counters.as_mut().map_or(Ok(None), |counters| counters.translator(hook, began))
    }

    /// The rule of the old iptables that gave this journey's packet another source, where connection tracking refused what came of it.
    pub(super) fn legacy_source_translator(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        if !journey.facts.at_confirmation || journey.translated.is_none() {
            return Ok(None);
        }
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        counters.as_mut().map_or(Ok(None), |counters| counters.translator("POSTROUTING", began))
    }

    /// The rule of the old iptables that exempted this journey's packet from connection tracking.
    pub(super) fn legacy_exempter(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let hook = if journey.origin == Origin::Remote { "PREROUTING" } else { "OUTPUT" };
        counters.as_mut().map_or(Ok(None), |counters| counters.exempter(hook, began))
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

impl Watched {
    /// What bears on the end by its place.
    pub(super) fn add_place(&mut self, journey: &Journey, died_at: Option<Stage>, span: Span, evidence: &mut Evidence) {
        let (inum, began) = (self.netns.inum(), span.began);
        if is_silent(journey, died_at)
            && let Err(error) = add_silence(self, journey, span, evidence)
        {
            log::warn!("cannot find out why a listener in network namespace {inum} is silent: {error}");
        }
        // A socket's address may be gone, and a destination may be nobody's own.
        if journey.outcome == Outcome::Refused || died_at == Some(Stage::SocketLookup) {
            self.add_addresses(evidence);
        }
        if journey.outcome == Outcome::Refused {
            self.add_refusal(journey, evidence);
        }
        self.add_older_connection(journey, died_at, span, evidence);
        if (died_at == Some(Stage::Routing)
            && matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected | Outcome::AnswerDropped)
            || journey.facts.answer_elsewhere
            || journey.strayed_by().is_some()
            || died_at == Some(Stage::Neighbour))
            && let Err(error) = add_way(&self.netns, journey, died_at, evidence)
        {
            log::warn!("cannot read the routes of network namespace {inum}: {error}");
        }
        if died_at == Some(Stage::Neighbour) {
            self.add_lost_address(journey, evidence);
        }
        if died_at == Some(Stage::TcIngress) {
            self.add_mtu(journey, evidence);
        }
        if died_at == Some(Stage::OutputNat)
            && journey.translated.is_some()
            && let Err(error) = way::add_way_on(&self.netns, journey, evidence)
        {
            log::warn!("cannot read the routes of network namespace {inum}: {error}");
        }
        if journey.reason.as_deref().is_some_and(|reason| reason.starts_with("QDISC_"))
            && let Err(error) = way::add_queue(&self.netns, journey, evidence)
        {
            log::warn!("cannot look at the devices of network namespace {inum}: {error}");
        }
        if is_refused_by_ipsec(journey)
            && let Err(error) = way::add_ipsec(&self.netns, journey, evidence)
        {
            log::warn!("cannot list the IPsec policies of network namespace {inum}: {error}");
        }
        let unconfirmed_at_tc = journey.is_unconfirmed() && journey.reason.as_deref() == Some("TC_INGRESS");
        if unconfirmed_at_tc || matches!(died_at, Some(Stage::TcIngress | Stage::TcEgress)) {
            match self.others_at_tc(journey, died_at != Some(Stage::TcEgress)) {
                Ok(programs) => evidence.tc_programs = programs,
                Err(error) => log::warn!("cannot list the programs at tc in network namespace {inum}: {error}"),
            }
        }
        if matches!(died_at, Some(Stage::Conntrack | Stage::OutputConntrack)) {
            match self.conntrack_settings.get(|| sysctls::of_conntrack(&self.netns)) {
                Ok(settings) => evidence.sysctls.extend(settings.iter().cloned()),
                Err(error) => log::warn!("cannot read the limits of conntrack in network namespace {inum}: {error}"),
            }
        }
        if journey.conntrack == Some(Conntrack::Untracked) && evidence.exempted_by.is_none() && inum == journey.netns {
            match self.legacy_exempter(journey, began) {
                Ok(rule) => evidence.exempted_by = rule,
                Err(error) => log::warn!("cannot read the counters of iptables-legacy in network namespace {inum}: {error}"),
            }
        }
    }

    /// The rule that ended a journey, or what else is known of the firewall.
    pub(super) fn add_rule(&mut self, journey: &Journey, died_at: Option<Stage>, span: Span, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        if journey.is_unconfirmed_by_firewall() {
            match self.rules.get(|| confirmation::Rules::read(&self.netns)) {
                Ok(rules) => {
                    (evidence.rule, evidence.port_there) =
                        rules.dropper(journey).map_or((None, None), |(rule, port)| (Some(rule), port));
                }
                Err(error) => log::warn!("cannot read the firewall rules of network namespace {inum}: {error}"),
            }
            if evidence.rule.is_none() {
                self.name_by_counter(journey, filter_stage(journey), span.began, evidence);
            }
            return;
        }
        self.name_rule(journey, evidence);
        if evidence.rule.is_none()
            && let Some(stage) = died_at.filter(|_| is_firewalled(journey))
        {
            self.name_by_counter(journey, stage, span.began, evidence);
        }
        if evidence.rule.as_ref().is_some_and(Rule::asks_for_way_back)
            && let Err(error) = way::add_way_back(&self.netns, journey, evidence)
        {
            log::warn!("cannot read the routes of network namespace {inum}: {error}");
        }
        if evidence.rule.is_none() && journey.outcome == Outcome::Dropped && is_firewalled(journey) {
            match self.readings.icmp_suppressed(&self.netns, span) {
                Ok((rise, dropped)) => {
                    evidence.icmp_suppressed = rise;
                    evidence.dropped_by_netfilter = dropped;
                }
                Err(error) => log::warn!("cannot read the counters of network namespace {inum}: {error}"),
            }
        }
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
            evidence.rule_of_twin = true;
        }
    }

    /// The kind of firewall by its chains and the place of the death, and the rule of the old iptables by its counter.
    fn name_by_counter(&mut self, journey: &Journey, stage: Stage, began: Instant, evidence: &mut Evidence) {
        let inum = self.netns.inum();
        match self.firewalls.get(|| backend::firewalls(&self.netns)) {
            Ok(firewalls) => {
                evidence.backend = backend::decide(firewalls, journey.flow.family, stage, journey.location.as_deref());
            }
            Err(error) => log::warn!("cannot look at the firewalls of network namespace {inum}: {error}"),
        }
        // Beside rules of nftables, only a counter tells that it was the old iptables.
        let left_to_the_hook = journey.location.as_deref().is_some_and(|place| place.starts_with("nf_hook_slow"));
        if evidence.backend == Some(super::Backend::IptablesLegacy) || evidence.backend.is_none() && left_to_the_hook {
            match self.legacy_killer(journey, stage, began) {
                Ok(rule) => {
                    evidence.backend = rule.as_ref().map(|rule| rule.backend).or(evidence.backend);
                    evidence.rule = rule;
                }
                Err(error) => log::warn!("cannot read the counters of iptables-legacy in network namespace {inum}: {error}"),
            }
        }
        // No chain did it, then: what else hooks in there is programs.
        if evidence.backend.is_none() && left_to_the_hook {
            match self.netfilter_programs.get(netfilter_programs) {
                Ok(names) => evidence.netfilter_programs = others(names),
                Err(error) => log::warn!("cannot see which BPF programs are attached to netfilter: {error}"),
            }
        }
    }
}

pub(super) fn others(programs: &[String]) -> Vec<String> {
    programs.iter().filter(|name| !is_own_program(name)).cloned().collect()
}

/// Where most rules stand that what a client sends on an answered connection can meet in the namespace where it died.
fn filter_stage(journey: &Journey) -> Stage {
    let there = journey.last_netns();
    let sent_on = journey.stages.iter().any(|visit| visit.netns == there && visit.stage == Stage::Forward);
    if sent_on { Stage::ForwardFilter } else { Stage::InputFilter }
}

/// What bears on a listener's silence. The route back is asked for only where the counters do not settle it.
fn add_silence(watched: &mut Watched, journey: &Journey, span: Span, evidence: &mut Evidence) -> io::Result<()> {
    let (from, port) = journey.last_destination();
    let listeners = watched.listeners(port, Some(span.began))?;
    evidence.silence = watched.readings.silence(&watched.netns, span, port, &listeners)?;
    evidence.sysctls.clone_from(watched.listener_settings.get(|| sysctls::of_listeners(&watched.netns))?);
    if !evidence.silence.is_some_and(|silence| silence.proves_a_full_queue()) {
        evidence.route_back = routes::is_way(&watched.netns, Question { from, to: journey.last_source(), came_by: None })?;
        way::add_refused_answer(&watched.netns, journey, evidence)?;
    }
    Ok(())
}

/// What bears on a death in routing, and on an answer that goes another way than its SYN came.
fn add_way(netns: &Netns, journey: &Journey, died_at: Option<Stage>, evidence: &mut Evidence) -> io::Result<()> {
    match (died_at, journey.outcome) {
        (Some(Stage::Routing), Outcome::AnswerDropped) => way::add_routing_of_answer(netns, journey, evidence),
        (Some(Stage::Routing), _) => way::add_routing(netns, journey, evidence),
        _ => way::add_way_back(netns, journey, evidence),
    }
}

/// Whether a listener took the SYN and made no answer.
pub(super) fn is_silent(journey: &Journey, died_at: Option<Stage>) -> bool {
    journey.outcome == Outcome::Ignored
        || journey.outcome == Outcome::Dropped
            && died_at.is_some_and(|stage| matches!(stage, Stage::Listener | Stage::SocketLookup))
}

/// Whether a rule may have ended it: then the kernel is asked, whatever the reason of the drop says.
fn may_be_a_rule(journey: &Journey) -> bool {
    matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected | Outcome::AnswerDropped | Outcome::Unfinished)
}

/// Whether a policy of `IPsec` refused it, or may have: an answer that has no key ends where the kernel discards what has no way, and
/// IPv6 gives no reason where it sends on.
fn is_refused_by_ipsec(journey: &Journey) -> bool {
    let place = journey.location.as_deref().map(symbol);
    match (journey.outcome, journey.reason.as_deref()) {
        (_, Some("XFRM_POLICY")) => true,
        (Outcome::AnswerDropped, _) => place == Some("dst_discard_out"),
        (Outcome::Dropped, None | Some("NOT_SPECIFIED")) => place == Some("ip6_forward"),
        _ => false,
    }
}

fn is_firewalled(journey: &Journey) -> bool {
    journey.outcome == Outcome::Rejected || journey.reason.as_deref() == Some("NETFILTER_DROP")
}
