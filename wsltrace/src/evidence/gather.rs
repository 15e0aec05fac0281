//! Collects the evidence for one journey at a time. It asks the kernel and other programs and may take seconds, so it belongs
//! on a thread of its own, never on the one that reads the ring buffer.
//!
//! Answers are kept for a short while, because failures come in swarms; a kept answer is never older than the journey that it
//! is to prove something about. The kernel's counters prove a full queue only when they rose since a reading from before the
//! SYN: so readings are taken when a namespace begins to be watched and at every [`Gatherer::tick`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::{Duration, Instant};

use super::backend::{self, Firewalls};
use super::readings::{Readings, Span};
use super::rules::{FirewallTrace, LegacyCounters, Scope, Twins};
use super::sockets::{self, Found, SocketOwner};
use super::{Evidence, Listener, Rule, Sockets, TcProgram, routes, sysctls};
use crate::journey::{Conntrack, Family, InterfaceName, Journey, Origin, Outcome, Stage};
use crate::kernel::netns::Netns;
use crate::probe::{is_own_program, lookup_programs, tc_programs};

/// How long listeners are kept.
const LISTENERS_KEPT: Duration = Duration::from_millis(200);
/// How long the firewalls and the owners of sockets are kept: they are dear to find and seldom change.
const REST_KEPT: Duration = Duration::from_secs(2);
/// Longest time that the search for owners may take.
const OWNERS_LIMIT: Duration = Duration::from_millis(300);

/// An answer that is dear to get and seldom changes: it is kept for a while.
struct Kept<T>(Option<(Instant, T)>);

// Derived, it would ask the same of `T`.
impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Kept<T> {
    fn get(&mut self, read: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        let kept = match self.0.take().filter(|(time, _)| time.elapsed() < REST_KEPT) {
            Some(kept) => kept,
            None => (Instant::now(), read()?),
        };
        Ok(&self.0.insert(kept).1)
    }
}

/// A namespace that is watched.
struct Watched {
    netns: Netns,
    readings: Readings,
    listeners: HashMap<u16, (Instant, Vec<Found>)>,
    firewalls: Kept<Firewalls>,
    /// Names of the programs that look for listeners.
    lookup_programs: Kept<Vec<String>>,
    /// Others' programs at tc, by device and whether it is for what comes in.
    tc_programs: HashMap<(InterfaceName, bool), Kept<Vec<TcProgram>>>,
    listener_settings: Kept<Vec<(String, String)>>,
    refusal_settings: Kept<Vec<(String, String)>>,
    conntrack_settings: Kept<Vec<(String, String)>>,
    trace: Option<FirewallTrace>,
    twins: Twins,
    /// Counters of the old iptables, IPv4 and IPv6.
    legacy: [Option<LegacyCounters>; 2],
    /// That rules of both kinds are in use was said.
    both_told: bool,
}

impl Watched {
    /// Others' programs at tc of the device where a journey ended; a device is asked once for many of them.
    fn others_at_tc(&mut self, journey: &Journey, ingress: bool) -> io::Result<Vec<TcProgram>> {
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
    fn listeners(&mut self, port: u16, after: Option<Instant>) -> io::Result<Vec<Found>> {
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
    fn legacy_killer(&mut self, journey: &Journey, stage: Stage, began: Instant) -> io::Result<Option<Rule>> {
        let (Some(table), Some(hook)) = (backend::legacy_table(stage), backend::hook(stage)) else { return Ok(None) };
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let hook = hook.to_ascii_uppercase();
        counters.as_mut().map_or(Ok(None), |counters| counters.killer(table, &hook, began))
    }

    /// The rule of the old iptables that exempted this journey's packet from connection tracking.
    fn legacy_exempter(&mut self, journey: &Journey, began: Instant) -> io::Result<Option<Rule>> {
        let counters = &mut self.legacy[usize::from(journey.flow.family == Family::Ipv6)];
        let hook = if journey.origin == Origin::Remote { "PREROUTING" } else { "OUTPUT" };
        counters.as_mut().map_or(Ok(None), |counters| counters.exempter(hook, began))
    }

    /// Begins to read the counters of the old iptables where it is in use, and reads them again where its rules have changed.
    fn look_at_legacy(&mut self) -> io::Result<()> {
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

/// Collects evidence in the namespaces that it watches.
#[derive(Default)]
pub struct Gatherer {
    watched: BTreeMap<u32, Watched>,
    owners: HashMap<u64, (Instant, Option<SocketOwner>)>,
}

impl Gatherer {
    /// Watches nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to watch a namespace, and takes its first reading; call it before the probes are switched on. All that are
    /// watched count as joined to each other.
    pub fn watch(&mut self, netns: &Netns) -> io::Result<()> {
        if self.watched.contains_key(&netns.inum()) {
            return Ok(());
        }
        let mut watched = Watched {
            netns: netns.clone(),
            readings: Readings::default(),
            listeners: HashMap::new(),
            firewalls: Kept::default(),
            lookup_programs: Kept::default(),
            tc_programs: HashMap::new(),
            listener_settings: Kept::default(),
            refusal_settings: Kept::default(),
            conntrack_settings: Kept::default(),
            trace: None,
            twins: Twins::default(),
            legacy: [None, None],
            both_told: false,
        };
        watched.readings.take(&watched.netns)?;
        self.watched.insert(netns.inum(), watched);
        Ok(())
    }

    /// Has the kernel tell which rules decide about the packets in question, in a namespace that is watched.
    pub fn trace_firewalls(&mut self, inum: u32, scope: Scope) -> io::Result<()> {
        let Some(watched) = self.watched.get_mut(&inum) else { return Ok(()) };
        match &mut watched.trace {
            Some(trace) => trace.set_scope(scope),
            none => {
                *none = Some(FirewallTrace::start(&watched.netns, scope)?);
                watched.look_at_legacy()
            }
        }
    }

    /// What the kernel named on an answered journey's way: the rule that gave its packet another address, and the one that
    /// exempted it from connection tracking.
    pub fn on_the_way(&mut self, journey: &Journey) -> Evidence {
        let trace = self.watched.get_mut(&journey.netns).and_then(|watched| watched.trace.as_mut());
        let Some(trace) = trace else { return Evidence::default() };
        Evidence {
            translator: trace.translator(journey),
            exempted_by: trace.exempter(journey),
            marked_by_wsl: trace.marker(journey),
            ..Evidence::default()
        }
    }

    /// Forgets a namespace that is gone.
    pub fn forget(&mut self, inum: u32) {
        self.watched.remove(&inum);
    }

    /// Takes a reading in every namespace; about once a second keeps strangers' overflows from being taken for a journey's own.
    pub fn tick(&mut self) -> io::Result<()> {
        for watched in self.watched.values_mut() {
            watched.readings.take(&watched.netns)?;
            if let Some(trace) = &mut watched.trace {
                trace.tick()?;
                watched.look_at_legacy()?;
            }
        }
        Ok(())
    }

    /// All that can be found out about a journey. What could not be read is left out, and logged.
    pub fn gather(&mut self, journey: &Journey) -> Evidence {
        let mut evidence = self.on_the_way(journey);
        let span = span(journey);
        let began = span.began;
        let inum = journey.last_netns();
        let died_at = journey.died_at.or_else(|| journey.stages.last().map(|visit| visit.stage));
        if wants_sockets(journey, died_at) {
            self.add_sockets(journey, began, &mut evidence);
        }
        let Some(watched) = self.watched.get_mut(&inum) else { return evidence };
        if is_silent(journey, died_at)
            && let Err(error) = add_silence(watched, journey, span, &mut evidence)
        {
            log::warn!("cannot find out why a listener in network namespace {inum} is silent: {error}");
        }
        if journey.outcome == Outcome::Refused {
            match watched.refusal_settings.get(|| sysctls::of_refusals(&watched.netns)) {
                Ok(settings) => evidence.sysctls.clone_from(settings),
                Err(error) => log::warn!("cannot read the settings of network namespace {inum}: {error}"),
            }
            match watched.lookup_programs.get(|| lookup_programs(&watched.netns)) {
                Ok(names) => evidence.lookup_programs = names.iter().filter(|name| !is_own_program(name)).cloned().collect(),
                Err(error) => log::warn!("cannot list the programs that look for listeners in network namespace {inum}: {error}"),
            }
        }
        if (died_at == Some(Stage::Routing) && matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected)
            || journey.facts.answer_elsewhere
            || died_at == Some(Stage::Neighbour))
            && let Err(error) = add_routing(watched, journey, &mut evidence)
        {
            log::warn!("cannot read the routes of network namespace {inum}: {error}");
        }
        if matches!(died_at, Some(Stage::TcIngress | Stage::TcEgress)) {
            match watched.others_at_tc(journey, died_at == Some(Stage::TcIngress)) {
                Ok(programs) => evidence.tc_programs = programs,
                Err(error) => log::warn!("cannot list the programs at tc in network namespace {inum}: {error}"),
            }
        }
        if matches!(died_at, Some(Stage::Conntrack | Stage::OutputConntrack)) {
            match watched.conntrack_settings.get(|| sysctls::of_conntrack(&watched.netns)) {
                Ok(settings) => evidence.sysctls.extend(settings.iter().cloned()),
                Err(error) => log::warn!("cannot read the limits of conntrack in network namespace {inum}: {error}"),
            }
        }
        if journey.conntrack == Some(Conntrack::Untracked) && evidence.exempted_by.is_none() && inum == journey.netns {
            match watched.legacy_exempter(journey, began) {
                Ok(rule) => evidence.exempted_by = rule,
                Err(error) => log::warn!("cannot read the counters of iptables-legacy in network namespace {inum}: {error}"),
            }
        }
        if may_be_a_rule(journey)
            && let Some(named) = watched.trace.as_mut().and_then(|trace| trace.killer(journey))
        {
            evidence.backend = Some(named.rule.backend);
            let generation = watched.trace.as_ref().and_then(FirewallTrace::generation);
            watched.twins.remember(journey, generation, &named);
            evidence.rule = Some(named.rule);
            evidence.stage = named.stage;
            return evidence;
        }
        if is_firewalled(journey)
            && let Some(named) = watched.twins.of(journey, watched.trace.as_ref().and_then(FirewallTrace::generation))
        {
            evidence.backend = Some(named.rule.backend);
            evidence.rule = Some(named.rule);
            evidence.stage = named.stage;
            evidence.rule_of_twin = true;
            return evidence;
        }
        if let Some(stage) = died_at.filter(|_| is_firewalled(journey)) {
            match watched.firewalls.get(|| backend::firewalls(&watched.netns)) {
                Ok(firewalls) => {
                    evidence.backend = backend::decide(firewalls, journey.flow.family, stage, journey.location.as_deref());
                }
                Err(error) => log::warn!("cannot look at the firewalls of network namespace {inum}: {error}"),
            }
            // Beside rules of nftables, only a counter tells that it was the old iptables.
            let left_to_the_hook = journey.location.as_deref().is_some_and(|place| place.starts_with("nf_hook_slow"));
            if evidence.backend == Some(super::Backend::IptablesLegacy) || evidence.backend.is_none() && left_to_the_hook {
                match watched.legacy_killer(journey, stage, began) {
                    Ok(rule) => {
                        evidence.backend = rule.as_ref().map(|rule| rule.backend).or(evidence.backend);
                        evidence.rule = rule;
                    }
                    Err(error) => log::warn!("cannot read the counters of iptables-legacy in network namespace {inum}: {error}"),
                }
            }
        }
        if journey.outcome == Outcome::Dropped && is_firewalled(journey) {
            match watched.readings.icmp_suppressed(&watched.netns, span) {
                Ok((rise, dropped)) => {
                    evidence.icmp_suppressed = rise;
                    evidence.dropped_by_netfilter = dropped;
                }
                Err(error) => log::warn!("cannot read the counters of network namespace {inum}: {error}"),
            }
        }
        evidence
    }

    fn add_sockets(&mut self, journey: &Journey, began: Instant, evidence: &mut Evidence) {
        let (_, port) = journey.last_destination();
        let here = journey.last_netns();
        // A queue's length is evidence only when it was looked at after the SYN came.
        let after = (journey.outcome != Outcome::Refused).then_some(began);
        let mut of_here = None;
        let mut of_others = Vec::new();
        for (inum, watched) in &mut self.watched {
            match watched.listeners(port, after) {
                Ok(found) if *inum == here => of_here = Some(found),
                Ok(found) => of_others.extend(found),
                Err(error) => log::warn!("cannot list the listeners of network namespace {inum}: {error}"),
            }
        }
        self.find_owners(of_here.iter().flatten().chain(&of_others));
        let named = |found: Vec<Found>| found.into_iter().map(|found| self.with_owner(found)).collect();
        evidence.sockets = of_here.map(|found| Sockets { listeners: named(found) });
        evidence.elsewhere = named(of_others);
    }

    fn find_owners<'a>(&mut self, found: impl Iterator<Item = &'a Found>) {
        let now = Instant::now();
        self.owners.retain(|_, (time, _)| now.duration_since(*time) < REST_KEPT);
        let mut unknown: Vec<u64> =
            found.map(|found| found.inode).filter(|inode| *inode != 0 && !self.owners.contains_key(inode)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return;
        }
        let mut owners = sockets::owners(&unknown, OWNERS_LIMIT);
        self.owners.extend(unknown.into_iter().map(|inode| (inode, (now, owners.remove(&inode)))));
    }

    fn with_owner(&self, found: Found) -> Listener {
        let owner = self.owners.get(&found.inode).and_then(|(_, owner)| owner.as_ref());
        Listener { pid: owner.map(|owner| owner.pid), command: owner.map(|owner| owner.command.clone()), ..found.listener }
    }
}

/// What bears on a listener's silence. The route back is asked for only where the counters do not settle it.
fn add_silence(watched: &mut Watched, journey: &Journey, span: Span, evidence: &mut Evidence) -> io::Result<()> {
    let (own_address, port) = journey.last_destination();
    let listeners = watched.listeners(port, Some(span.began))?;
    evidence.silence = watched.readings.silence(&watched.netns, span, port, &listeners)?;
    evidence.sysctls.clone_from(watched.listener_settings.get(|| sysctls::of_listeners(&watched.netns))?);
    if !evidence.silence.is_some_and(|silence| silence.proves_a_full_queue()) {
        evidence.route_back = routes::is_way(&watched.netns, own_address, journey.last_source())?;
    }
    Ok(())
}

/// What bears on a death in routing, and on an answer that goes another way than its SYN came.
fn add_routing(watched: &Watched, journey: &Journey, evidence: &mut Evidence) -> io::Result<()> {
    let came_by = journey.interface.as_deref();
    let interface = journey.death.as_ref().and_then(|death| death.interface.as_deref()).or(came_by);
    evidence.sysctls = sysctls::of_routing(&watched.netns, journey.flow.family, interface)?;
    evidence.refusing_route = routes::refusing(&watched.netns, journey.last_destination().0)?;
    if let Some(came_by) = came_by.filter(|_| watched.netns.inum() == journey.netns) {
        evidence.hop_back = routes::hop_by(&watched.netns, journey.flow.source, came_by)?;
    }
    Ok(())
}

/// A journey on the clock of the readings; one from before the machine's start counts as begun at its start.
fn span(journey: &Journey) -> Span {
    // In this order: when something comes between, it is taken for too early, and no reading that knows of it is a basis.
    let now = Instant::now();
    let age = jiff::Timestamp::now().duration_since(journey.time).unsigned_abs();
    let began = now.checked_sub(age).unwrap_or(now);
    Span { began, ended: began + Duration::from_nanos(journey.facts.lasted_ns) }
}

fn is_silent(journey: &Journey, died_at: Option<Stage>) -> bool {
    journey.outcome == Outcome::Ignored
        || journey.outcome == Outcome::Dropped
            && died_at.is_some_and(|stage| matches!(stage, Stage::Listener | Stage::SocketLookup))
}

fn wants_sockets(journey: &Journey, died_at: Option<Stage>) -> bool {
    matches!(journey.outcome, Outcome::Refused | Outcome::Challenged)
        || is_silent(journey, died_at)
        || journey.facts.not_accepted
        || journey.outcome == Outcome::Answered && journey.facts.acknowledged && !journey.facts.established
}

/// Whether a rule may have ended it: then the kernel is asked, whatever the reason of the drop says.
fn may_be_a_rule(journey: &Journey) -> bool {
    matches!(journey.outcome, Outcome::Dropped | Outcome::Rejected | Outcome::AnswerDropped | Outcome::Unfinished)
}

fn is_firewalled(journey: &Journey) -> bool {
    journey.outcome == Outcome::Rejected || journey.reason.as_deref() == Some("NETFILTER_DROP")
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
