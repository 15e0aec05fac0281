//! The packet's way from hook to hook.

use std::collections::BTreeSet;

use super::chain::{Exit, Exits, Fate, add};
use super::hooks::through;
use super::packet::{Machine, Packet, Part, Standing, Way};
use super::read::Rulesets;
use super::ruleset::{Hook, Line};
use super::state::{Here, Layer, Site, State, Tracked};
use super::unknown::{self, Because};
use super::{End, Goes, Prediction};
use crate::evidence::Rule;
use crate::evidence::rules::event::RuleRef;
use crate::evidence::rules::{legacy, told};

/// nft's families.
const FAMILIES: [&str; 6] = ["ip", "ip6", "inet", "netdev", "bridge", "arp"];

/// What the firewalls would do with a packet, if connection tracking sees all of its connection. Nothing is asked of the system.
pub fn predict(rulesets: &Rulesets, packet: &Packet, machine: &Machine) -> Prediction {
    let mut prediction = predict_as(rulesets, packet, machine, Standing::Established);
    if matches!(packet.way.part(), Part::Answer | Part::Confirmation | Part::Data) && rulesets.chains.exempts(packet.family()) {
        // Of an exempt SYN what follows would not be so to connection tracking.
        let exempt = Because { name: unknown::CT.to_owned(), place: unknown::EXEMPT.to_owned() };
        prediction.end = prediction.end.depending(exempt);
    }
    prediction
}

/// What the firewalls would do with a packet of which is known what connection tracking makes of it. Nothing is asked of the system.
pub fn predict_as(rulesets: &Rulesets, packet: &Packet, machine: &Machine, standing: Standing) -> Prediction {
    let forwarded = |possible: &[End]| {
        possible.iter().any(|end| matches!(end, End::Passes { goes: Goes::Forward | Goes::Out, .. }))
            && !matches!(packet.way.part(), Part::Answer | Part::Advertisement)
    };
    let bridged = matches!(packet.way, Way::Outside { bridged: true, .. } | Way::Confirmation { bridged: true, .. });
    concluded(rulesets, &all_ends(rulesets, packet, machine, standing), |possible| {
        (rulesets.chains.bridges && (bridged || forwarded(possible)))
            .then(|| Because { name: unknown::BRIDGE.to_owned(), place: String::new() })
    })
}

/// What all ends that were found come to; `more` is what it depends on besides.
pub(super) fn concluded(rulesets: &Rulesets, ends: &Ends, more: impl FnOnce(&[End]) -> Option<Because>) -> Prediction {
    let mut because: BTreeSet<Because> = ends.iter().flat_map(|(_, because)| because.clone()).collect();
    let mut possible: Vec<End> = Vec::new();
    for (end, _) in ends {
        if let Some(end) = end.as_ref().filter(|end| !possible.contains(end)) {
            possible.push(end.clone());
        }
    }
    let whole = ends.iter().all(|(end, _)| end.is_some());
    if whole && possible.len() == 1 {
        because.clear();
    }
    for unread in &rulesets.unread {
        because.insert(Because { name: unknown::UNREAD.to_owned(), place: format!("{}: {}", unread.what, unread.why) });
    }
    because.extend(more(&possible));
    let end = match possible.pop() {
        Some(only) if because.is_empty() && possible.is_empty() => only,
        last => {
            possible.extend(last);
            End::Maybe { possible, because: because.into_iter().collect() }
        }
    };
    Prediction { end, whole }
}

/// The marks that a SYN from outside, or an answer, may have when its way is chosen; `None` where they are not known.
pub(super) fn marks(rulesets: &Rulesets, packet: &Packet, machine: &Machine) -> Option<BTreeSet<u32>> {
    let hooks: &[Hook] = match packet.way {
        Way::Outside { .. } | Way::ForwardedAnswer { .. } => &[Hook::Ingress, Hook::Prerouting],
        Way::Answer { .. } => &[Hook::Output],
        _ => return None,
    };
    let journey = Journey { rulesets, packet, machine, standing: Standing::Established };
    let (mut on, mut ends) = (vec![journey.start()], Vec::new());
    for hook in hooks {
        on = journey.hook(&journey.here(*hook), on, &mut ends);
    }
    let is_whole = rulesets.unread.is_empty() && ends.iter().all(|(end, _)| end.is_some());
    on.into_iter().map(|state| state.mark).collect::<Option<_>>().filter(|_| is_whole)
}

/// Every end that was found, `None` for what was not followed.
pub(super) fn all_ends(rulesets: &Rulesets, packet: &Packet, machine: &Machine, standing: Standing) -> Ends {
    Journey { rulesets, packet, machine, standing }.ends()
}

/// The ends at one hook of a packet that came in by a device, `None` for what was not followed.
pub(super) fn ends_at(
    rulesets: &Rulesets,
    packet: &Packet,
    machine: &Machine,
    (layer, hook): (Layer, Hook),
    device: &str,
    standing: Standing,
) -> Ends {
    let journey = Journey { rulesets, packet, machine, standing };
    let here = Here { layer, input: Some(device.to_owned()), ..journey.here(hook) };
    let mut ends = Vec::new();
    journey.hook(&here, vec![journey.start()], &mut ends);
    ends
}

struct Journey<'a> {
    rulesets: &'a Rulesets,
    packet: &'a Packet,
    machine: &'a Machine,
    standing: Standing,
}

/// An end, `None` for what was not followed, with what it depends on.
pub(super) type Ends = Vec<(Option<End>, BTreeSet<Because>)>;

impl<'a> Journey<'a> {
    fn here(&self, hook: Hook) -> Here<'a> {
        let (input, loopback) = match &self.packet.way {
            Way::Outside { device, .. }
            | Way::Confirmation { device, .. }
            | Way::Data { device }
            | Way::Solicitation { device, own: false }
            | Way::Advertisement { device, own: false } => (device.clone(), false),
            Way::Answer { .. } | Way::Solicitation { .. } | Way::Advertisement { .. } => (None, false),
            Way::ForwardedAnswer { .. } => (self.machine.ways.get(&self.packet.destination).cloned(), false),
            Way::Loopback | Way::LoopbackAnswer | Way::LoopbackConfirmation | Way::LoopbackData => {
                (Some("lo".to_owned()), hook != Hook::Output && hook != Hook::Postrouting)
            }
        };
        let output = match &self.packet.way {
            Way::Answer { device }
            | Way::ForwardedAnswer { device }
            | Way::Solicitation { device, own: true }
            | Way::Advertisement { device, own: true } => device.clone(),
            way => way.is_loopback().then(|| "lo".to_owned()),
        };
        let part = self.packet.way.part();
        let (family, ecn) = (self.packet.family(), self.packet.ecn);
        let asked = (self.packet.destination, self.packet.destination_port);
        Here {
            hook,
            family,
            machine: self.machine,
            input,
            output,
            loopback,
            asked,
            part,
            standing: self.standing,
            ecn,
            layer: Layer::Network,
        }
    }

    fn start(&self) -> State {
        let syn = self.syn();
        match (self.packet.way.part(), &self.packet.way) {
            (Part::Syn, _) => return syn,
            // Whatever the rules gave the SYN.
            (Part::Confirmation | Part::Data, _) => return State { connection_mark: None, ..syn },
            // From the address that was asked for, to whoever asked.
            (_, Way::Advertisement { own: true, .. }) => {
                return State { source: syn.destination, destination: syn.source, local: Some(false), ..syn };
            }
            // Questions go to a multicast address, and by which address who asks is not known.
            (Part::Solicitation | Part::Advertisement, Way::Solicitation { own, .. } | Way::Advertisement { own, .. }) => {
                return State { source: None, destination: None, local: Some(!own), ..syn };
            }
            _ => {}
        }
        State {
            source: syn.destination,
            source_port: syn.destination_port,
            destination: syn.source,
            destination_port: syn.source_port,
            local: Some(self.packet.way.is_loopback()),
            // Whatever the rules gave the SYN.
            connection_mark: None,
            ..syn
        }
    }

    fn syn(&self) -> State {
        State {
            source: self.packet.source,
            source_port: self.packet.source_port,
            destination: Some(self.packet.destination),
            local: None,
            destination_port: Some(self.packet.destination_port),
            mark: Some(0),
            connection_mark: Some(0),
            tracked: Tracked::NotYet,
            translated_by: None,
            moved: Some(false),
            source_moved: false,
            bound: false,
            handed_to: None,
            because: BTreeSet::new(),
        }
    }

    fn ends(&self) -> Ends {
        let mut ends = Vec::new();
        let on = vec![self.start()];
        match self.packet.way {
            Way::Outside { .. } | Way::Confirmation { .. } | Way::Data { .. } => {
                let on = self.hook(&self.here(Hook::Ingress), on, &mut ends);
                let on = self.hook(&self.here(Hook::Prerouting), on, &mut ends);
                let (local, elsewhere) = self.routed(on);
                self.arrive(local, &mut ends);
                for state in elsewhere {
                    self.leave(Some(Hook::Forward), Goes::Forward, state, &mut ends);
                }
            }
            Way::Solicitation { own: false, .. } | Way::Advertisement { own: false, .. } => {
                let on = self.hook(&self.here(Hook::Ingress), on, &mut ends);
                let on = self.hook(&self.here(Hook::Prerouting), on, &mut ends);
                self.arrive(on, &mut ends);
            }
            Way::Answer { .. } | Way::Solicitation { .. } | Way::Advertisement { .. } => {
                self.go_out(&[Hook::Output, Hook::Postrouting, Hook::Egress], on, &mut ends);
            }
            Way::ForwardedAnswer { .. } => {
                let hooks = [Hook::Ingress, Hook::Prerouting, Hook::Forward, Hook::Postrouting, Hook::Egress];
                self.go_out(&hooks, on, &mut ends);
            }
            Way::LoopbackAnswer => {
                let mut on = on;
                for hook in [Hook::Output, Hook::Postrouting, Hook::Egress, Hook::Ingress, Hook::Prerouting] {
                    on = self.hook(&self.here(hook), on, &mut ends);
                }
                self.arrive(on, &mut ends);
            }
            Way::Loopback | Way::LoopbackConfirmation | Way::LoopbackData => {
                let on = self.hook(&self.here(Hook::Output), on, &mut ends);
                let (local, elsewhere) = self.routed(on);
                let mut on = local;
                for hook in [Hook::Postrouting, Hook::Egress, Hook::Ingress, Hook::Prerouting] {
                    on = self.hook(&self.here(hook), on, &mut ends);
                }
                self.arrive(on, &mut ends);
                for state in elsewhere {
                    self.leave(None, Goes::Out, state, &mut ends);
                }
            }
        }
        ends
    }

    /// Through these hooks and away.
    fn go_out(&self, hooks: &[Hook], mut on: Vec<State>, ends: &mut Ends) {
        for hook in hooks {
            on = self.hook(&self.here(*hook), on, ends);
        }
        ends.extend(on.into_iter().map(|state| (Some(self.passes(&state, Goes::Out)), state.because)));
    }

    fn hook(&self, here: &Here<'_>, on: Vec<State>, ends: &mut Ends) -> Vec<State> {
        let mut next: Exits = Vec::new();
        for state in on {
            for (exit, state) in through(&self.rulesets.chains, here, state) {
                match exit {
                    Exit::End(fate) => ends.push((Some(end_of(self.rulesets, &fate, here.hook, &state)), state.because)),
                    Exit::Lost => ends.push((None, state.because)),
                    _ => add(&mut next, Exit::Accept, state),
                }
            }
        }
        next.into_iter().map(|(_, state)| state).collect()
    }

    /// What is for this machine, and what is not.
    fn routed(&self, on: Vec<State>) -> (Vec<State>, Vec<State>) {
        let (mut local, mut elsewhere) = (Vec::new(), Vec::new());
        for state in on {
            match state.is_local(self.machine) {
                Some(true) => local.push(state),
                Some(false) => elsewhere.push(state),
                None => {
                    let state = state.depending(unknown::DESTINATION, "");
                    local.push(State { local: Some(true), ..state.clone() });
                    elsewhere.push(State { local: Some(false), ..state });
                }
            }
        }
        (local, elsewhere)
    }

    fn arrive(&self, on: Vec<State>, ends: &mut Ends) {
        for state in self.hook(&self.here(Hook::Input), on, ends) {
            ends.push((Some(self.passes(&state, Goes::Local)), state.because));
        }
    }

    fn leave(&self, first: Option<Hook>, goes: Goes, state: State, ends: &mut Ends) {
        let output = state.destination.and_then(|address| self.machine.ways.get(&address).cloned());
        let mut on = vec![state];
        for hook in first.into_iter().chain([Hook::Postrouting, Hook::Egress]) {
            on = self.hook(&Here { output: output.clone(), ..self.here(hook) }, on, ends);
        }
        ends.extend(on.into_iter().map(|state| (Some(self.passes(&state, goes)), state.because)));
    }

    fn passes(&self, state: &State, goes: Goes) -> End {
        let handed = state.handed_to.as_ref().filter(|_| goes == Goes::Local);
        let site = handed.map(|(_, site)| site).or(state.translated_by.as_ref());
        End::Passes {
            address: state.destination,
            port: handed.map_or(state.destination_port, |(port, _)| *port),
            translated_by: site.and_then(|site| known_rule(self.rulesets, site, "accept")),
            goes: if handed.is_some() { Goes::Proxy } else { goes },
        }
    }
}

/// What a packet's fate is told as.
pub(super) fn end_of(rulesets: &Rulesets, fate: &Fate, hook: Hook, state: &State) -> End {
    let forward = hook == Hook::Forward;
    let (address, port) = (state.destination, state.destination_port);
    let rule = |site: &Site, verdict: &str| rule_of(rulesets, site, verdict);
    match fate {
        Fate::Dropped(site) => End::Dropped { rule: rule(site, "drop"), address, port, forward },
        Fate::Rejected(site) => End::Rejected { rule: rule(site, "reject"), address, port, forward },
        Fate::Queued(site) => End::Queued { rule: rule(site, "queue") },
    }
}

/// A rule or policy as it is told, at least by its place.
fn rule_of(rulesets: &Rulesets, site: &Site, verdict: &str) -> Rule {
    known_rule(rulesets, site, verdict).unwrap_or_else(|| unnamed(site, verdict))
}

/// A rule or policy as it is told.
fn known_rule(rulesets: &Rulesets, site: &Site, verdict: &str) -> Option<Rule> {
    let place = &site.chain;
    let chain = rulesets.chains.beside(place, &place.chain)?;
    let line: Option<&Line> = match site.rule {
        Some(at) => Some(chain.rules.get(at)?),
        None => None,
    };
    if place.legacy {
        let (family, saved) = rulesets.legacy.iter().find(|(family, _)| *family == place.family)?;
        let number = line.and_then(|line| line.number);
        let same =
            |counted: &&legacy::Counted| counted.table == place.table && counted.chain == place.chain && counted.number == number;
        let rule = legacy::rule(saved.iter().find(same)?, family, saved);
        return Some(Rule { verdict: verdict.to_owned(), ..rule });
    }
    let family = FAMILIES.into_iter().find(|family| *family == place.family)?;
    let handle = line.and_then(|line| line.handle);
    let reference = RuleRef { family, table: place.table.clone(), chain: place.chain.clone(), handle };
    let rule = told(&reference, &site.base, verdict, rulesets.listing.as_ref());
    let comment = line.and_then(|line| line.comment.clone()).or_else(|| rule.comment.clone());
    Some(Rule { comment, ..rule })
}

/// A rule of which nothing but its place is known.
fn unnamed(site: &Site, verdict: &str) -> Rule {
    let place = &site.chain;
    Rule {
        backend: crate::evidence::Backend::Nft,
        family: place.family.clone(),
        table: place.table.clone(),
        chain: place.chain.clone(),
        handle: None,
        number: None,
        text: None,
        comment: None,
        verdict: verdict.to_owned(),
        owner: crate::evidence::Owner::User,
        without_users_chain: false,
        at_chains_end: false,
    }
}
