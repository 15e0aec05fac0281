//! The positions in netfilter's hooks: in which of them it is worth to stand, and getting there.
//!
//! Every position costs each packet about 0.1 µs before its program runs. Between two positions with nothing hooked in between no
//! packet can die or spend time, so one of them tells nothing: with `--detail auto` a position is only taken when something stands
//! in its band, the priorities from its own up to the next one's. The kernel is asked ten times a second whether that is still so;
//! a position that was taken is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use aya::maps::{Array, MapData};
use wsltrace_common::{HookList, HooksRequest, LIST_MADE, LIST_UNCHANGED, MOST_HOOKED, NetfilterHooks};

use super::object::Loaded;
use super::sys::{LoadError, ProgramType};
use super::table::{FIRST, LAST, POSITIONS, Position};
use super::{Detail, ObjectError, ProbeError, absent, sys};
use crate::kernel::netns::Netns;

/// The families that netfilter links are made for, in the order of [`NetfilterHooks`].
const FAMILIES: [u32; 2] = [libc::AF_INET.unsigned_abs(), libc::AF_INET6.unsigned_abs()];

/// A position of the table and a family, each by its index.
type Place = (usize, usize);

/// The positions that are taken.
pub(super) struct Positions {
    detail: Detail,
    lister: OwnedFd,
    programs: BTreeMap<usize, OwnedFd>,
    watched: Vec<Watched>,
}

/// A namespace with positions in it.
struct Watched {
    netns: Netns,
    request: HooksRequest,
    links: BTreeMap<Place, OwnedFd>,
}

/// What came of taking positions.
#[derive(Default)]
pub(super) struct Taken {
    /// Whether something was hooked in or out since the last look.
    pub(super) changed: bool,
    /// How many were added.
    pub(super) added: usize,
    /// Hooks at whose very first place somebody else's program stands.
    pub(super) ahead: BTreeSet<&'static str>,
}

impl Positions {
    /// Nothing is linked yet.
    pub(super) fn new(loaded: &mut Loaded, detail: Detail) -> Result<Self, ProbeError> {
        let lister = loaded.load_program("list_hooks", ProgramType::Syscall)?;
        Ok(Self { detail, lister, programs: BTreeMap::new(), watched: Vec::new() })
    }

    /// Takes the positions that are needed in a namespace, and watches it.
    pub(super) fn watch(&mut self, loaded: &mut Loaded, netns: &Netns) -> Result<Taken, ProbeError> {
        self.watched.push(Watched { netns: netns.clone(), request: HooksRequest::default(), links: BTreeMap::new() });
        self.take(loaded, self.watched.len() - 1)
    }

    /// Gives up the positions of a namespace.
    pub(super) fn forget(&mut self, inum: u32) {
        self.watched.retain(|watched| watched.netns.inum() != inum);
    }

    /// Takes positions that have become needed since. A namespace that cannot be served does not keep the others from it.
    pub(super) fn refresh(&mut self, loaded: &mut Loaded) -> Result<Taken, ProbeError> {
        let (mut all, mut failed) = (Taken::default(), None);
        for index in 0..self.watched.len() {
            match self.take(loaded, index) {
                Ok(taken) => {
                    all.changed |= taken.changed;
                    all.added += taken.added;
                    all.ahead.extend(taken.ahead);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if all.added > 0 {
            loaded.forget_code();
        }
        failed.map_or(Ok(all), Err)
    }

    fn take(&mut self, loaded: &mut Loaded, index: usize) -> Result<Taken, ProbeError> {
        let mut taken = Taken::default();
        let Some(watched) = self.watched.get_mut(index) else { return Ok(taken) };
        let needed = match self.detail {
            Detail::Auto => match occupied(&self.lister, loaded, watched)? {
                Occupied::AsBefore => return Ok(taken),
                Occupied::By(hooks) => {
                    taken.changed = true;
                    needed(|family, position| stands_in_band(&hooks, family, position))
                }
                // Better too many.
                Occupied::Unknown => needed(|_, _| true),
            },
            Detail::Full => needed(|_, _| true),
            Detail::Light => needed(|_, _| false),
        };
        let new: BTreeSet<Place> = needed.into_iter().filter(|place| !watched.links.contains_key(place)).collect();
        if new.is_empty() {
            return Ok(taken);
        }
        self.load(loaded, &new.iter().map(|(position, _)| *position).collect())?;
        let (programs, Some(watched)) = (&self.programs, self.watched.get_mut(index)) else { return Ok(taken) };
        let links = watched.netns.run(|| link_all(programs, &new))?.map_err(|(probe, source)| ProbeError::Attach {
            probe: probe.to_owned(),
            netns: watched.netns.label().to_owned(),
            source: source.into(),
        })?;
        for (place, link, hook_is_ahead) in links {
            taken.added += 1;
            taken.ahead.extend(hook_is_ahead);
            watched.links.insert(place, link);
        }
        Ok(taken)
    }

    fn load(&mut self, loaded: &mut Loaded, positions: &BTreeSet<usize>) -> Result<(), ProbeError> {
        let missing: Vec<usize> = positions.iter().copied().filter(|index| !self.programs.contains_key(index)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (programs, ()) = loaded.load_programs(&programs_of(&missing), |_| ())?;
        self.adopt(&missing, programs)
    }

    /// Takes over programs that have been loaded, or not, for these positions.
    pub(super) fn adopt(&mut self, positions: &[usize], programs: Vec<Result<OwnedFd, LoadError>>) -> Result<(), ProbeError> {
        for (position, program) in positions.iter().zip(programs) {
            self.programs.insert(*position, program.map_err(ObjectError::from)?);
        }
        Ok(())
    }
}

/// The positions that are taken in every namespace, whatever is hooked in there.
pub(super) fn certain(detail: Detail) -> Vec<usize> {
    let is_certain = |position: &Position| match detail {
        Detail::Full => true,
        Detail::Auto => position.light || position.priority == LAST,
        Detail::Light => position.light,
    };
    (0..).zip(&POSITIONS).filter(|(_, position)| is_certain(position)).map(|(index, _)| index).collect()
}

/// What to load for these positions.
pub(super) fn programs_of(positions: &[usize]) -> Vec<(&'static str, ProgramType)> {
    positions.iter().filter_map(|index| POSITIONS.get(*index)).map(|it| (it.program, ProgramType::Netfilter)).collect()
}

/// What the kernel says of a namespace's hooks.
enum Occupied {
    AsBefore,
    By(Box<NetfilterHooks>),
    Unknown,
}

fn occupied(lister: &OwnedFd, loaded: &Loaded, watched: &mut Watched) -> Result<Occupied, ProbeError> {
    // The address of the namespace is known once a thread in it has asked.
    let before = watched.request;
    let asked = if before.net == 0 { watched.netns.run(|| ask(lister, before))? } else { ask(lister, before) };
    let (answer, request) = asked.map_err(ProbeError::Hooks)?;
    watched.request = request;
    match answer {
        LIST_UNCHANGED => Ok(Occupied::AsBefore),
        LIST_MADE => {
            let fail = |source| ProbeError::Map { map: "NETFILTER_HOOKS", source };
            let map = loaded.ebpf.map("NETFILTER_HOOKS").ok_or_else(|| absent("the map NETFILTER_HOOKS"))?;
            let hooks: Array<&MapData, NetfilterHooks> = Array::try_from(map).map_err(fail)?;
            Ok(Occupied::By(Box::new(hooks.get(&0, 0).map_err(fail)?)))
        }
        _ => Ok(Occupied::Unknown),
    }
}

/// Runs `list_hooks`: its answer, and the request as it gives it back.
fn ask(lister: &OwnedFd, request: HooksRequest) -> std::io::Result<(i32, HooksRequest)> {
    let mut words = [request.net.to_ne_bytes(), request.mark.to_ne_bytes()];
    let answer = sys::run(lister, words.as_flattened_mut())?.cast_signed();
    let [net, mark] = words.map(u64::from_ne_bytes);
    Ok((answer, HooksRequest { net, mark }))
}

/// The places to take: those that light takes always, the others as `is_needed` says, by family and position.
fn needed(is_needed: impl Fn(usize, usize) -> bool) -> Vec<Place> {
    let places = (0..POSITIONS.len()).flat_map(|position| (0..FAMILIES.len()).map(move |family| (position, family)));
    places
        .filter(|(position, family)| POSITIONS.get(*position).is_some_and(|it| it.light) || is_needed(*family, *position))
        .collect()
}

/// Whether anything is hooked in from this position up to the next one of its hook. A hook's last position always has something
/// behind it: what the packet goes to.
fn stands_in_band(hooks: &NetfilterHooks, family: usize, index: usize) -> bool {
    let Some(position) = POSITIONS.get(index) else { return false };
    if position.priority == LAST {
        return true;
    }
    let next = POSITIONS.get(index + 1).filter(|next| next.hook == position.hook);
    let Some(list) = hooks.lists.get(family).and_then(|lists| lists.get(position.hook as usize)) else { return true };
    let before_next = |priority: i32| next.is_none_or(|next| priority < next.priority);
    match listed(list) {
        Some(priorities) => priorities.iter().any(|priority| *priority >= position.priority && before_next(*priority)),
        None => true,
    }
}

/// The priorities of a hook, unless there are more than were listed.
fn listed(list: &HookList) -> Option<&[i32]> {
    usize::try_from(list.count).ok().filter(|count| *count <= MOST_HOOKED).and_then(|count| list.priorities.get(..count))
}

type Linked = (Place, OwnedFd, Option<&'static str>);

fn link_all(
    programs: &BTreeMap<usize, OwnedFd>,
    places: &BTreeSet<Place>,
) -> Result<Vec<Linked>, (&'static str, std::io::Error)> {
    let mut links = Vec::with_capacity(places.len());
    for place in places {
        let (Some(position), Some(program), Some(family)) =
            (POSITIONS.get(place.0), programs.get(&place.0), FAMILIES.get(place.1))
        else {
            continue;
        };
        let (link, moved) = link_near(program, *family, position).map_err(|error| (position.program, error))?;
        links.push((*place, link, (moved && position.priority == FIRST).then(|| position.hook.name())));
    }
    Ok(links)
}

/// Links a position, and says whether at a neighbouring priority. Two BPF programs cannot have one priority in a hook: another
/// tracer may be at ours, then the next free one serves as well, as long as no standard priority lies between.
fn link_near(program: &OwnedFd, family: u32, position: &Position) -> std::io::Result<(OwnedFd, bool)> {
    const TRACERS: i32 = 16;
    let inwards = if position.priority == LAST { -1 } else { 1 };
    let mut result = sys::link_netfilter(program, family, position.hook as u32, position.priority);
    let mut moved = false;
    for step in 1..TRACERS {
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                moved = true;
                result = sys::link_netfilter(program, family, position.hook as u32, position.priority + inwards * step);
            }
            _ => break,
        }
    }
    result.map(|link| (link, moved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Hook;

    const NOTHING: HookList = HookList { count: 0, priorities: [0; MOST_HOOKED] };

    /// IPv4's positions of a hook that are taken when these priorities are hooked in there.
    fn taken(hook: Hook, priorities: &[i32]) -> Vec<&'static str> {
        let mut list = NOTHING;
        list.count = u32::try_from(priorities.len()).unwrap_or(u32::MAX);
        for (place, priority) in list.priorities.iter_mut().zip(priorities) {
            *place = *priority;
        }
        let mut hooks = NetfilterHooks { lists: [[NOTHING; 5]; 2] };
        hooks.lists[0][hook as usize] = list;
        let places = needed(|family, position| stands_in_band(&hooks, family, position));
        let of_hook = places.into_iter().filter(|(_, family)| *family == 0).map(|(position, _)| POSITIONS[position]);
        of_hook.filter(|position| position.hook == hook).map(|position| position.program).collect()
    }

    #[test]
    fn an_empty_hook_has_its_ends_only() {
        assert_eq!(taken(Hook::Prerouting, &[]), ["nf_prerouting", "nf_routing"]);
        assert_eq!(taken(Hook::Output, &[]), ["nf_output"]);
        assert_eq!(taken(Hook::Postrouting, &[]), ["nf_postrouting", "nf_postrouting_end"]);
        assert_eq!(needed(|_, _| false).len(), 14);
        let empty = NetfilterHooks { lists: [[NOTHING; 5]; 2] };
        let places = needed(|family, position| stands_in_band(&empty, family, position));
        let positions: BTreeSet<usize> = places.into_iter().map(|(position, _)| position).collect();
        assert_eq!(positions.into_iter().collect::<Vec<_>>(), certain(Detail::Auto));
    }

    #[test]
    fn what_is_hooked_in_has_the_position_before_it() {
        // conntrack, and nat's DNAT.
        let docker = ["nf_prerouting", "nf_prerouting_conntrack", "nf_prerouting_dnat", "nf_routing"];
        assert_eq!(taken(Hook::Prerouting, &[-200, -100]), docker);
        assert_eq!(taken(Hook::Input, &[0]), ["nf_input", "nf_input_filter", "nf_input_end"]);
        // The bounds of a band.
        assert_eq!(taken(Hook::Input, &[-75]), taken(Hook::Input, &[24]));
        assert_eq!(taken(Hook::Input, &[-76]), ["nf_input", "nf_input_mangle", "nf_input_end"]);
        assert_eq!(taken(Hook::Input, &[25]), ["nf_input", "nf_input_security", "nf_input_end"]);
        // Before the first bound and behind the last position the ends serve.
        assert_eq!(taken(Hook::Input, &[-400, i32::MAX]), ["nf_input", "nf_input_end"]);
        assert_eq!(taken(Hook::Forward, &[i32::MAX]), ["nf_forward", "nf_forward_rest"]);
    }

    #[test]
    fn a_list_that_is_not_known_takes_every_position() {
        let all = POSITIONS.iter().filter(|position| position.hook == Hook::Output).count();
        assert_eq!(taken(Hook::Output, &[0; MOST_HOOKED + 1]).len(), all);
        let mut hooks = NetfilterHooks { lists: [[NOTHING; 5]; 2] };
        hooks.lists[1][0].count = wsltrace_common::UNREADABLE;
        assert!(stands_in_band(&hooks, 1, 1));
        assert!(!stands_in_band(&hooks, 0, 1));
    }
}
