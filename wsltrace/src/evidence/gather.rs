//! Collects the evidence for one journey at a time. It asks the kernel and other programs and may take seconds, so it belongs
//! on a thread of its own, never on the one that reads the ring buffer.
//!
//! Answers are kept for a short while, because failures come in swarms; a kept answer is never older than the journey that it
//! is to prove something about. The kernel's counters prove a full queue only when they rose since a reading from before the
//! SYN: so readings are taken when a namespace begins to be watched and at every [`Gatherer::tick`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::cgroups::{self, Cgroup, Direction};
use super::connection::{self, Connection, Ends};
use super::hindered::{self, Hindered};
use super::place::is_silent;
use super::readings::Span;
use super::rules::{FirewallTrace, Scope};
use super::sockets::{self, Found, SocketOwner};
use super::told::OrTold as _;
use super::watched::{REST_KEPT, Watched};
use super::{Evidence, Listener, Sockets, lead, units};
use crate::journey::{Journey, Origin, Outcome, Stage};
use crate::kernel::addresses::{list_addresses, on_wire};
use crate::kernel::links;
use crate::kernel::netns::Netns;
use crate::kernel::programs::locate;
use crate::wsl::takers;

/// How many other listeners are told of where nothing has the port.
const NEAREST: usize = 3;
/// Longest time that the search for owners may take: without one a server is taken for another distro's.
const OWNERS_LIMIT: Duration = Duration::from_secs(3);

/// Collects evidence in the namespaces that it watches.
#[derive(Default)]
pub struct Gatherer {
    pub(super) watched: BTreeMap<u32, Watched>,
    owners: HashMap<u64, (Instant, Option<SocketOwner>)>,
    /// What keeps servers, by the inode numbers of their sockets.
    hindered: HashMap<u64, (Instant, Option<Hindered>)>,
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
        let mut watched = Watched::new(netns);
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
        // Of two rules it is the later one that led it where it went: a container may have one of its own (Istio's).
        let last = Some(journey.last_netns()).filter(|last| *last != journey.netns);
        let inside = last.and_then(|last| self.trace_of(last)?.translator(journey).filter(|_| journey.is_led_elsewhere()));
        let Some(trace) = self.trace_of(journey.netns) else { return Evidence::default() };
        Evidence {
            translator: inside.or_else(|| trace.translator(journey)),
            source_translator: trace.source_translator(journey),
            exempted_by: trace.exempter(journey),
            marked_by_wsl: trace.marker(journey),
            ..Evidence::default()
        }
    }

    fn trace_of(&mut self, inum: u32) -> Option<&mut FirewallTrace> {
        self.watched.get_mut(&inum)?.trace.as_mut()
    }

    /// How many TCP segments with a wrong checksum came in a namespace since the oldest reading that is kept.
    pub fn wrong_checksums(&self, inum: u32) -> io::Result<u64> {
        self.watched.get(&inum).map_or(Ok(0), |watched| watched.readings.wrong_checksums(&watched.netns))
    }

    /// Whether a journey's connection stands and no application has accepted it. What cannot be known counts as accepted.
    pub fn is_unaccepted(&self, journey: &Journey) -> bool {
        let Some((watched, ends)) = self.server_side(journey) else { return false };
        connection::is_unaccepted(&watched.netns, ends).unwrap_or_else(|error| {
            log::warn!("cannot look at a connection in network namespace {}: {error}", watched.netns.label());
            false
        })
    }

    /// How the connections that came of journeys are doing at the server's side; `None` for one that is gone or cannot be seen.
    pub fn connections<'a>(&self, journeys: impl Iterator<Item = &'a Journey>) -> Vec<Option<Connection>> {
        let sides: Vec<_> = journeys.map(|journey| self.server_side(journey)).collect();
        let mut found = vec![None; sides.len()];
        for watched in self.watched.values() {
            let of_here =
                |side: &Option<(&Watched, Ends)>| side.filter(|(at, _)| at.netns == watched.netns).map(|(_, ends)| ends);
            let here: Vec<Ends> = sides.iter().filter_map(of_here).collect();
            if here.is_empty() {
                continue;
            }
            let places = sides.iter().zip(&mut found).filter(|(side, _)| of_here(side).is_some()).map(|(_, place)| place);
            match connection::connections(&watched.netns, &here) {
                Ok(answers) => places.zip(answers).for_each(|(place, answer)| *place = answer),
                Err(error) => {
                    log::warn!("cannot look at connections in network namespace {}: {error}", watched.netns.label());
                }
            }
        }
        found
    }

    /// Where a journey's connection was made, and its ends there, the server's first.
    fn server_side(&self, journey: &Journey) -> Option<(&Watched, Ends)> {
        let made = journey.stages.iter().rfind(|visit| visit.stage == Stage::Established)?;
        let watched = self.watched.get(&made.netns)?;
        let other =
            journey.translated.as_ref().map_or((journey.flow.source, journey.flow.source_port), |t| (t.source, t.source_port));
        Some((watched, (journey.last_destination().into(), other.into())))
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
        if journey.met_no_socket() {
            self.add_nearest(journey, &mut evidence);
        }
        if let Some(watched) = self.watched.get_mut(&journey.netns) {
            watched.add_translators(journey, began, &mut evidence);
            watched.add_rewriter(journey, &mut evidence);
            watched.add_published(journey, &mut evidence);
            watched.add_unmasked(journey, &mut evidence);
            if journey.met_no_socket() {
                watched.add_leading_rule(journey, began, &mut evidence);
            }
        }
        if let Some(watched) = journey.server_netns().and_then(|netns| self.watched.get_mut(&netns)) {
            watched.add_resets(journey, span, &mut evidence);
        }
        if lead::is_worth_asking(journey) {
            self.add_lead(journey, began, &mut evidence);
        }
        self.add_hardware(journey, &mut evidence);
        self.add_isolated(journey, &mut evidence);
        self.add_misaddressed(journey, &mut evidence);
        self.add_held_back(journey, &mut evidence);
        if is_refused_to_client(journey) {
            let client = (journey.flow.source, journey.flow.source_port);
            let cgroup = self.watched.get(&journey.netns).map(|watched| sockets::cgroup_of_client(&watched.netns, client));
            let cgroup = cgroup.and_then(|found| found.or_told(journey.netns, "find the client's socket")).flatten();
            evidence.cgroup = cgroup.and_then(|id| deciding(id, Direction::Egress));
        }
        if journey.facts.server_reset_ns.is_some()
            && let Some(sockets) = &evidence.sockets
        {
            evidence.proxied = self.proxied(&sockets.listeners);
        }
        let Some(watched) = self.watched.get_mut(&inum) else { return evidence };
        if inum != journey.netns {
            evidence.entrance =
                watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(inum, "look for processes").cloned().flatten();
        }
        watched.add_place(journey, died_at, span, &mut evidence);
        watched.add_rule(journey, died_at, span, &mut evidence);
        watched.add_holder(&mut evidence);
        let manager = evidence.rule.as_ref().and_then(|rule| rule.owner.program());
        evidence.manager_missing = manager.is_some_and(|program| locate(program).is_none());
        if journey.outcome == Outcome::Forwarded && journey.last_destination().0.is_loopback() {
            watched.add_addresses(&mut evidence);
        }
        if let Some(at) = watched.add_further(journey, &mut evidence) {
            self.add_arrival(journey, at, &mut evidence);
        }
        self.add_shut_port(journey, &mut evidence);
        self.add_whereabouts(journey, &mut evidence);
        self.add_passed_proxy(journey, &mut evidence);
        self.add_search(journey, &mut evidence);
        self.add_resident(journey, &mut evidence);
        self.add_shared_wire(journey, &mut evidence);
        self.add_beyond(journey, &mut evidence);
        self.add_down(journey, &mut evidence);
        let to = journey.last_destination().0;
        if journey.met_no_socket() && inum != journey.netns && !to.is_loopback() {
            let mut others = self.watched.iter_mut().filter(|(other, _)| **other != inum && **other != journey.netns);
            let has = |watched: &mut Watched, other| watched.has(to).or_told(other, "list the addresses") == Some(true);
            evidence.twin = others.find_map(|(other, watched)| has(watched, *other).then_some(*other));
        }
        if evidence.route_back == Some(false) || journey.strayed_by().is_some() {
            self.add_router(journey, &mut evidence);
        }
        evidence
    }

    fn add_sockets(&mut self, journey: &Journey, began: Instant, evidence: &mut Evidence) {
        let (_, port) = journey.last_destination();
        let here = journey.last_netns();
        // A queue's length is evidence only when it was looked at after the SYN came.
        let after = (!journey.met_no_socket()).then_some(began);
        let mut of_here = None;
        let mut of_others = Vec::new();
        for (inum, watched) in &mut self.watched {
            match watched.listeners(port, after).or_told(*inum, "list the listeners") {
                Some(found) if *inum == here => of_here = Some(found),
                found => of_others.extend(found.into_iter().flatten()),
            }
        }
        self.find_owners(of_here.iter().flatten().chain(&of_others));
        if let Some(direction) = decided_for_socket(journey) {
            evidence.cgroup = of_here.iter().flatten().find_map(|found| deciding(found.cgroup?, direction));
        }
        if after.is_some() {
            evidence.hindered = of_here.as_ref().and_then(|found| self.hindered(found));
        }
        let named = |found: Vec<Found>| found.into_iter().map(|found| self.with_owner(found)).collect();
        evidence.sockets = of_here.map(|found| Sockets { listeners: named(found) });
        evidence.elsewhere = named(of_others);
        evidence.elsewhere_at =
            evidence.elsewhere.first().and_then(|listener| self.address_on_wire(listener, journey.flow.destination));
        if journey.met_no_socket() {
            let listeners = evidence.sockets.as_ref().map_or(&[][..], |sockets| &sockets.listeners);
            evidence.socket_unit = units::unit_of(listeners).or_told(here, "ask systemd for its socket units").flatten();
        }
        evidence.stopped = evidence.sockets.as_ref().map(|found| sockets::stopped(&found.listeners)).unwrap_or_default();
    }

    /// What keeps the only one of these from accepting in whose queue connections wait.
    fn hindered(&mut self, found: &[Found]) -> Option<Hindered> {
        let mut waited_for = found.iter().filter(|found| found.listener.queue > 0 && found.inode != 0);
        let (Some(one), None) = (waited_for.next(), waited_for.next()) else { return None };
        self.hindered.retain(|_, (time, _)| time.elapsed() < REST_KEPT);
        let look = || (Instant::now(), hindered::kept(one, OWNERS_LIMIT));
        self.hindered.entry(one.inode).or_insert_with(look).1.clone()
    }

    /// The address at which a listener can be asked, of the family of `asked`, where its namespace has an interface on another's wire.
    fn address_on_wire(&self, listener: &Listener, asked: IpAddr) -> Option<IpAddr> {
        let netns = &self.watched.get(&listener.netns)?.netns;
        let links = links::list_links(netns).or_told(listener.netns, "list the interfaces")?;
        if !links.iter().any(links::Link::is_stacked) {
            return None;
        }
        let own = list_addresses(netns).or_told(listener.netns, "list the addresses")?;
        let on_wire = on_wire(&own, &links, asked);
        on_wire
            .into_iter()
            .find(|own| !takers(std::slice::from_ref(listener), own.address, Some(&own.interface)).is_empty())
            .map(|own| own.address)
    }

    /// The nearest ports that somebody listens on, where nobody has the packet's.
    fn add_nearest(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let inum = journey.last_netns();
        if evidence.sockets.as_ref().is_none_or(|sockets| !sockets.listeners.is_empty()) {
            return;
        }
        let Some(watched) = self.watched.get_mut(&inum) else { return };
        let all = watched.all_listeners.get(|| sockets::all_listeners(&watched.netns)).or_told(inum, "list the listeners");
        let Some(all) = all.cloned() else { return };
        let nearest = sockets::nearest(all, journey.last_destination().1, NEAREST);
        evidence.nearest = self.all_with_owners(nearest);
        evidence.unlistened = self.unlistened(inum, journey.last_destination().1);
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

    pub(super) fn all_with_owners(&mut self, found: Vec<Found>) -> Vec<Listener> {
        self.find_owners(found.iter());
        found.into_iter().map(|found| self.with_owner(found)).collect()
    }

    fn with_owner(&self, found: Found) -> Listener {
        let owner = self.owners.get(&found.inode).and_then(|(_, owner)| owner.as_ref());
        Listener { pid: owner.map(|owner| owner.pid), command: owner.map(|owner| owner.command.clone()), ..found.listener }
    }
}

/// A journey on the clock of the readings; one from before the machine's start counts as begun at its start.
fn span(journey: &Journey) -> Span {
    // In this order: when something comes between, it is taken for too early, and no reading that knows of it is a basis.
    let now = Instant::now();
    let age = jiff::Timestamp::now().duration_since(journey.time).unsigned_abs();
    let began = now.checked_sub(age).unwrap_or(now);
    Span { began, ended: began + Duration::from_nanos(journey.facts.lasted_ns) }
}

/// Which of the listener's packets the kernel refused on its socket's behalf, where it did.
fn decided_for_socket(journey: &Journey) -> Option<Direction> {
    match (journey.outcome, journey.reason.as_deref()?) {
        (Outcome::Dropped | Outcome::Ignored, "SOCKET_FILTER") => Some(Direction::Ingress),
        (Outcome::AnswerDropped, "BPF_CGROUP_EGRESS") => Some(Direction::Egress),
        _ => None,
    }
}

fn deciding(cgroup: u64, direction: Direction) -> Option<Cgroup> {
    cgroups::deciding(cgroup, direction).unwrap_or_else(|error| {
        log::warn!("cannot list the programs of the control group {cgroup} of a socket: {error}");
        None
    })
}

/// Whether a program of the control group of a client in this machine refused what it sends.
fn is_refused_to_client(journey: &Journey) -> bool {
    let of_syn = journey.outcome == Outcome::Dropped && journey.origin != Origin::Remote;
    of_syn && journey.reason.as_deref() == Some("BPF_CGROUP_EGRESS")
}

fn wants_sockets(journey: &Journey, died_at: Option<Stage>) -> bool {
    journey.met_no_socket()
        || journey.outcome == Outcome::Challenged
        || decided_for_socket(journey).is_some()
        || is_silent(journey, died_at)
        || journey.came_to_nothing()
        || journey.strayed_by().is_some()
        // Its address may be one that a server listens on, and the machine has no longer.
        || journey.outcome == Outcome::Dropped && died_at == Some(Stage::Routing) && lead::is_for_nobody(journey)
        || journey.outcome == Outcome::Answered && journey.facts.acknowledged && !journey.facts.established
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
