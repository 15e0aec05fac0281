//! One packet through one chain, rule by rule. What is not known takes both ways.

use std::collections::BTreeSet;

use super::ruleset::{Chain, Chains, Hook, Known, Line, Mark, Source, Statement, Target, Tproxy, Verdict};
use super::state::{Here, Site, State, Tracked};
use super::unknown::{self, Because};
use super::value::{Answer, Field, Item, Operand, Seen, compare, is_element};

/// How many packets that differ are followed at a time.
const MOST: usize = 256;
/// How deep chains may jump: the kernel allows 16.
const DEPTH: usize = 20;

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Dropped(Site),
    Rejected(Site),
    Queued(Site),
}

/// How a packet leaves a rule or a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// To the next rule, or out at a chain's end.
    On,
    Return,
    Accept,
    Jump(String),
    Goto(String),
    End(Fate),
    /// More ways than are followed.
    Lost,
}

pub(super) type Exits = Vec<(Exit, State)>;

/// Adds what is not there yet; the same packet on two ways depends on what either depends on.
pub(super) fn add(exits: &mut Exits, exit: Exit, state: State) {
    match exits.iter_mut().find(|(known, same)| *known == exit && *same == state) {
        Some((_, same)) => same.because.extend(state.because),
        None => exits.push((exit, state)),
    }
}

/// Where all ways led to the same, nothing came of what was not known on them.
pub(super) fn alone(mut exits: Exits, before: BTreeSet<Because>) -> Exits {
    if let [(exit, only)] = exits.as_mut_slice()
        && *exit != Exit::Lost
    {
        only.because = before;
    }
    exits
}

/// What a chain is gone through with.
pub(super) struct Walk<'a> {
    pub(super) chains: &'a Chains,
    pub(super) here: &'a Here<'a>,
    /// The base chain's name.
    pub(super) base: &'a str,
}

impl Walk<'_> {
    /// Through a base chain, its policy included: gives accepted packets and ends.
    pub(super) fn base(&self, chain: &Chain, state: State) -> Exits {
        let drops = chain.base.as_ref().is_some_and(|base| base.drops);
        let mut exits = Vec::new();
        for (exit, state) in self.chain(chain, vec![state], 0) {
            let exit = match exit {
                Exit::End(_) | Exit::Lost => exit,
                Exit::On | Exit::Return if drops => Exit::End(Fate::Dropped(self.site(chain, None))),
                _ => Exit::Accept,
            };
            add(&mut exits, exit, state);
        }
        exits
    }

    fn site(&self, chain: &Chain, rule: Option<usize>) -> Site {
        Site { chain: chain.place.clone(), base: self.base.to_owned(), rule }
    }

    fn chain(&self, chain: &Chain, states: Vec<State>, depth: usize) -> Exits {
        let mut done = Vec::new();
        if depth > DEPTH {
            for state in states {
                add(&mut done, Exit::Lost, state.depending(unknown::TOO_MANY, &place(chain)));
            }
            return done;
        }
        let mut on: Exits = states.into_iter().map(|state| (Exit::On, state)).collect();
        for (at, line) in chain.rules.iter().enumerate() {
            let mut next = Vec::new();
            for (_, state) in std::mem::take(&mut on) {
                for (exit, state) in self.line(chain, at, line, state) {
                    match exit {
                        Exit::On => add(&mut next, Exit::On, state),
                        Exit::Jump(name) => self.go(chain, &name, state, depth, (&mut next, &mut done)),
                        Exit::Goto(name) => {
                            let mut behind = Vec::new();
                            self.go(chain, &name, state, depth, (&mut behind, &mut done));
                            for (_, state) in behind {
                                add(&mut done, Exit::Return, state);
                            }
                        }
                        exit => add(&mut done, exit, state),
                    }
                }
            }
            on = next;
            if on.len() + done.len() > MOST {
                let lost = on.into_iter().chain(done).take(1);
                return lost.map(|(_, state)| (Exit::Lost, state.depending(unknown::TOO_MANY, &place(chain)))).collect();
            }
            if on.is_empty() {
                break;
            }
        }
        for (_, state) in on {
            add(&mut done, Exit::Return, state);
        }
        done
    }

    /// To another chain of the same table. A target that is no chain may do anything.
    fn go(&self, from: &Chain, name: &str, state: State, depth: usize, (next, done): (&mut Exits, &mut Exits)) {
        let Some(chain) = self.chains.beside(&from.place, name) else {
            let state = state.depending(unknown::TARGET, &place(from));
            add(done, Exit::Accept, state.clone());
            add(done, Exit::Lost, state.clone());
            add(next, Exit::On, state);
            return;
        };
        let before = state.because.clone();
        for (exit, state) in alone(self.chain(chain, vec![state], depth + 1), before) {
            match exit {
                Exit::On | Exit::Return => add(next, Exit::On, state),
                exit => add(done, exit, state),
            }
        }
    }

    /// Through a rule.
    fn line(&self, chain: &Chain, at: usize, line: &Line, state: State) -> Exits {
        let before = state.because.clone();
        let mut exits = Vec::new();
        let mut on = vec![state];
        for statement in &line.statements {
            let mut next: Vec<State> = Vec::new();
            for state in on {
                for (exit, state) in self.statement(chain, at, statement, state) {
                    match exit {
                        // It goes on with the next statement.
                        None if next.contains(&state) => {}
                        None => next.push(state),
                        Some(exit) => add(&mut exits, exit, state),
                    }
                }
            }
            on = next;
        }
        for state in on {
            add(&mut exits, Exit::On, state);
        }
        alone(exits, before)
    }

    /// What a statement makes of a packet: an exit from the rule, or `None` for the next statement.
    fn statement(&self, chain: &Chain, at: usize, statement: &Statement, state: State) -> Vec<(Option<Exit>, State)> {
        let answered = |answer: Answer, state: State| match answer {
            Answer::Yes => vec![(None, state)],
            Answer::No => vec![(Some(Exit::On), state)],
            Answer::Maybe(name) => {
                let state = state.depending(name, &place(chain));
                vec![(Some(Exit::On), state.clone()), (None, state)]
            }
        };
        let site = || self.site(chain, Some(at));
        match statement {
            Statement::Match { .. } | Statement::AnyOf { .. } => answered(self.holds(&state, statement), state),
            Statement::Perhaps(name) => answered(Answer::Maybe(name), state),
            Statement::Anything(name) => Self::anything(name, chain, site(), &state),
            Statement::Verdict(verdict) => vec![(self.verdict(chain, at, verdict), state)],
            Statement::Verdicts { changes: true, .. } => Self::anything(unknown::CHANGING_SET, chain, site(), &state),
            Statement::Verdicts { key, map, .. } => {
                let way = |(verdict, state): (Option<&Verdict>, State)| {
                    (verdict.map_or(Some(Exit::On), |verdict| self.verdict(chain, at, verdict)), state)
                };
                self.pick(chain, key, map, &state).into_iter().map(way).collect()
            }
            Statement::SetMark { mark, keep, flip } => self.set_mark(chain, *mark, *keep, flip, state),
            Statement::Dnat(target) => self.dnat(chain, target, &site(), state),
            Statement::Redirect(port) => vec![(Some(Exit::Accept), self.redirect(*port, site(), state))],
            Statement::Tproxy(proxy) => self.hand(*proxy, chain, site(), &state),
            Statement::Snat => {
                let (source, source_port) = (None, None);
                vec![(Some(Exit::Accept), State { source, source_port, source_moved: true, bound: true, ..state })]
            }
            Statement::NoTrack if state.tracked == Tracked::NotYet => {
                vec![(None, State { tracked: Tracked::Untracked, ..state })]
            }
            Statement::Template if state.tracked == Tracked::NotYet => vec![(None, State { tracked: Tracked::Unclear, ..state })],
            Statement::NoTrack if state.tracked == Tracked::Unclear => {
                let state = state.depending(unknown::CT, &place(chain));
                vec![(None, State { tracked: Tracked::Untracked, ..state.clone() }), (None, state)]
            }
            Statement::NoTrack | Statement::Template => vec![(None, state)],
        }
    }

    /// To a proxy's socket, if there is one that is transparent, which the kernel looks for.
    fn hand(&self, proxy: Tproxy, chain: &Chain, site: Site, state: &State) -> Vec<(Option<Exit>, State)> {
        let port = proxy.port.map_or(state.destination_port, Known::value);
        let is_there = port.and_then(|port| self.here.machine.is_proxy(port));
        let state = if is_there.is_some() { state.clone() } else { state.depending(proxy.name, &place(chain)) };
        let handed = State { handed_to: Some((port, site.clone())), ..state.clone() };
        let (taken, otherwise) = if proxy.is_final {
            // It may set a mark as well.
            let handed = State { mark: None, ..handed };
            ((Some(Exit::Accept), handed), (Some(Exit::End(Fate::Dropped(site))), state))
        } else {
            ((None, handed), (Some(Exit::On), state))
        };
        match is_there {
            Some(true) => vec![taken],
            Some(false) => vec![otherwise],
            None => vec![taken, otherwise],
        }
    }

    /// Every way that a statement may send a packet.
    fn anything(name: &str, chain: &Chain, site: Site, state: &State) -> Vec<(Option<Exit>, State)> {
        let state = state.depending(name, &place(chain));
        let exits = [Some(Exit::On), Some(Exit::Accept), Some(Exit::End(Fate::Dropped(site))), Some(Exit::Lost), None];
        exits.into_iter().map(|exit| (exit, state.clone())).collect()
    }

    /// The entries of a map that a key may have, and `None` for none of them, with the packet as it depends on it.
    fn pick<'m, T>(
        &self,
        chain: &Chain,
        key: &[Operand],
        map: &'m [(Vec<Item>, T)],
        state: &State,
    ) -> Vec<(Option<&'m T>, State)> {
        let seen: Vec<Seen> = key.iter().map(|operand| self.here.see(state, operand)).collect();
        if seen.contains(&Seen::Absent) {
            return vec![(None, state.clone())];
        }
        let (mut possible, mut otherwise, mut because) = (Vec::new(), None, None);
        for (element, value) in map {
            if let [Item::Any] = element.as_slice() {
                otherwise = Some(value);
                continue;
            }
            match is_element(&seen, element) {
                // No two elements hold the same.
                Answer::Yes => return vec![(Some(value), state.clone())],
                Answer::No => {}
                Answer::Maybe(name) => {
                    possible.push(Some(value));
                    because = Some(name);
                }
            }
        }
        if !is_exhausted(&seen, map) {
            possible.push(otherwise);
        }
        let state = because.map_or_else(|| state.clone(), |name| state.depending(name, &place(chain)));
        possible.into_iter().map(|value| (value, state.clone())).collect()
    }

    fn verdict(&self, chain: &Chain, at: usize, verdict: &Verdict) -> Option<Exit> {
        let site = || self.site(chain, Some(at));
        Some(match verdict {
            Verdict::Continue => return None,
            Verdict::Accept => Exit::Accept,
            Verdict::Drop => Exit::End(Fate::Dropped(site())),
            Verdict::Reject => Exit::End(Fate::Rejected(site())),
            Verdict::Queue => Exit::End(Fate::Queued(site())),
            Verdict::Return => Exit::Return,
            Verdict::Jump(name) => Exit::Jump(name.clone()),
            Verdict::Goto(name) => Exit::Goto(name.clone()),
        })
    }

    fn holds(&self, state: &State, statement: &Statement) -> Answer {
        match statement {
            Statement::Match { left, relation, right } => {
                let seen: Vec<Seen> = left.iter().map(|operand| self.here.see(state, operand)).collect();
                compare(&seen, *relation, right)
            }
            Statement::AnyOf { negated, conditions } => {
                let any = Answer::any(conditions.iter().map(|condition| self.holds(state, condition)));
                if *negated { any.not() } else { any }
            }
            _ => Answer::Yes,
        }
    }

    fn set_mark(&self, chain: &Chain, mark: Mark, keep: u32, flip: &Source<u32>, state: State) -> Vec<(Option<Exit>, State)> {
        let value = |seen: Seen| match seen {
            Seen::Bits { value, known: u128::MAX, .. } => u32::try_from(value).ok(),
            _ => None,
        };
        let with = |state: State, value: Option<u32>| {
            let now = if mark == Mark::Packet { state.mark } else { state.connection_mark };
            let new = match (now, value) {
                (_, Some(value)) if keep == 0 => Some(value),
                (Some(now), Some(value)) => Some((now & keep) ^ value),
                _ => None,
            };
            match mark {
                Mark::Packet => State { mark: new, ..state },
                // Only a tracked connection has one.
                Mark::Connection if state.tracked == Tracked::New => State { connection_mark: new, ..state },
                Mark::Connection if state.tracked == Tracked::Unclear => State { connection_mark: None, ..state },
                Mark::Connection => state,
            }
        };
        match flip {
            Source::Constant(number) => vec![(None, with(state, Some(*number)))],
            Source::Unknown(_) => vec![(None, with(state, None))],
            Source::Field(operand) => match self.here.see(&state, operand) {
                // nft ends the rule, iptables leaves the mark as it is.
                Seen::Absent if chain.place.legacy => vec![(None, state)],
                Seen::Absent => vec![(Some(Exit::On), state)],
                seen if operand.field == Field::ConnectionMark && state.tracked == Tracked::Unclear => {
                    let new = with(state.clone(), value(seen)).depending(unknown::CT, &place(chain));
                    vec![(Some(Exit::On), state.depending(unknown::CT, &place(chain))), (None, new)]
                }
                seen => vec![(None, with(state, value(seen)))],
            },
            Source::Map(key, map) => {
                let way = |(number, state): (Option<&Option<u32>>, State)| match number {
                    Some(number) => (None, with(state, *number)),
                    None => (Some(Exit::On), state),
                };
                self.pick(chain, key, map, &state).into_iter().map(way).collect()
            }
        }
    }

    fn dnat(&self, chain: &Chain, target: &Source<Target>, site: &Site, state: State) -> Vec<(Option<Exit>, State)> {
        let several = Target { address: Some(Known::No), port: Some(Known::No) };
        match target {
            // Tables of both families have rules for one of them, which let the other go on.
            Source::Constant(target) if !self.is_for(target) => vec![(None, state)],
            Source::Constant(target) => vec![(Some(Exit::Accept), translated(*target, site.clone(), state))],
            Source::Map(key, map) => {
                let way = |(target, state): (Option<&Option<Target>>, State)| match target {
                    Some(Some(target)) if !self.is_for(target) => (None, state),
                    Some(target) => (Some(Exit::Accept), translated(target.unwrap_or(several), site.clone(), state)),
                    None => (Some(Exit::On), state),
                };
                self.pick(chain, key, map, &state).into_iter().map(way).collect()
            }
            Source::Field(_) | Source::Unknown(_) => vec![(Some(Exit::Accept), translated(several, site.clone(), state))],
        }
    }

    /// Whether a new destination is one of the packet's family.
    fn is_for(&self, target: &Target) -> bool {
        let ipv4 = self.here.family == crate::journey::Family::Ipv4;
        target.address.and_then(Known::value).is_none_or(|address| address.is_ipv4() == ipv4)
    }

    fn redirect(&self, port: Option<Known<u16>>, site: Site, state: State) -> State {
        let own = if self.here.hook == Hook::Output {
            let loopback = if self.here.family == crate::journey::Family::Ipv4 {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            };
            Some(loopback)
        } else {
            self.here.machine.redirected(self.here.input.as_deref(), self.here.family)
        };
        let target = Target { address: Some(own.map_or(Known::No, Known::Yes)), port };
        State { local: Some(true), ..translated(target, site, state) }
    }
}

/// Whether a map has an entry for every number that chance can give. No two entries hold the same.
fn is_exhausted<T>(seen: &[Seen], map: &[(Vec<Item>, T)]) -> bool {
    let [Seen::Between(first, last, _)] = seen else { return false };
    let held = map.iter().filter_map(|(element, _)| match element.as_slice() {
        [Item::Range(from, to)] => (*to.min(last) + 1).checked_sub(*from.max(first)),
        _ => None,
    });
    held.sum::<u128>() == last - first + 1
}

/// The packet with a new destination.
fn translated(target: Target, site: Site, state: State) -> State {
    let address = target.address.map_or(state.destination, Known::value);
    let port = target.port.map_or(state.destination_port, Known::value);
    let unclear = address.is_none() || port.is_none();
    let moved = (address, port) != (state.destination, state.destination_port);
    State {
        destination: address,
        destination_port: port,
        local: None,
        moved: if unclear { None } else { Some(moved || state.moved == Some(true)) },
        translated_by: Some(site),
        bound: true,
        ..state
    }
}

/// The table and chain, for people.
pub(super) fn place(chain: &Chain) -> String {
    let place = &chain.place;
    format!("{} {} {}", place.family, place.table, place.chain)
}
