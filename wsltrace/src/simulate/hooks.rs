//! The base chains of one hook, in the kernel's order.

use super::chain::{Exit, Exits, Walk, add, alone};
use super::packet::Part;
use super::ruleset::{Chain, Chains, Hook};
use super::state::{Here, Layer, State, Tracked};
use super::unknown;
use crate::journey::Family;

/// Where connection tracking hangs on PREROUTING and OUTPUT.
const CONNTRACK: i64 = -200;
/// How many chains of one priority are tried in every order.
const MOST_ORDERED: usize = 4;

/// What hangs on a hook: a chain, or all chains of NAT, which the kernel calls from one place.
struct Unit<'a> {
    position: i64,
    chains: Vec<&'a Chain>,
    nat: bool,
}

/// Through all chains of a hook; gives accepted packets and ends.
pub(super) fn through(chains: &Chains, here: &Here<'_>, state: State) -> Exits {
    let on_hook: Vec<&Chain> = chains.all().map(AsRef::as_ref).filter(|chain| hangs(chain, here)).collect();
    let mut on = vec![State { bound: false, ..state }];
    let mut done = Vec::new();
    for group in units(&on_hook, here) {
        let position = group.first().map_or(0, |unit| unit.position);
        let orders = orders(&group);
        let mut next = Vec::new();
        for state in on {
            let state = tracked(here, position, state);
            for (exit, state) in in_every_order(chains, here, &orders, &state, group.len() > MOST_ORDERED) {
                match exit {
                    Exit::End(_) | Exit::Lost => add(&mut done, exit, state),
                    _ => add(&mut next, Exit::Accept, state),
                }
            }
        }
        on = next.into_iter().map(|(_, state)| state).collect();
    }
    for state in on {
        add(&mut done, Exit::Accept, tracked(here, i64::MAX, state));
    }
    done
}

fn hangs(chain: &Chain, here: &Here<'_>) -> bool {
    let Some(base) = chain.base.as_ref().filter(|base| base.hook == here.hook) else { return false };
    let device = match here.hook {
        Hook::Ingress => &here.input,
        Hook::Egress => &here.output,
        _ => &None,
    };
    match (chain.place.family.as_str(), here.hook) {
        // Devices that are not known may be this one.
        // Of the family `inet` it sees IP alone.
        ("inet", Hook::Ingress | Hook::Egress) if here.part.is_arp() => false,
        ("netdev" | "inet", Hook::Ingress | Hook::Egress) => match (&base.devices, device) {
            (Some(devices), Some(device)) => devices.contains(device),
            _ => true,
        },
        (_, Hook::Ingress | Hook::Egress) => false,
        ("arp", _) => here.layer == Layer::Arp,
        ("bridge", _) => here.layer == Layer::Bridge,
        _ if here.layer != Layer::Network => false,
        ("inet", _) => true,
        ("ip", _) => here.family == Family::Ipv4,
        ("ip6", _) => here.family == Family::Ipv6,
        _ => false,
    }
}

/// What hangs on the hook, in order; what has the same place in it together.
fn units<'a>(on_hook: &[&'a Chain], here: &Here<'_>) -> Vec<Vec<Unit<'a>>> {
    let of = |chain: &&'a Chain| {
        (chain.base.as_ref().map_or(0, |base| base.priority), chain.base.as_ref().is_some_and(|base| base.nat))
    };
    let mut units = Vec::new();
    let mut nat = Vec::new();
    for chain in on_hook {
        match of(chain) {
            (_, true) => nat.push(*chain),
            (position, false) => units.push(Unit { position, chains: vec![*chain], nat: false }),
        }
    }
    let early = matches!(here.hook, Hook::Prerouting | Hook::Output);
    // On its way in over `lo` the connection has been through NAT already.
    let again = here.loopback && matches!(here.hook, Hook::Prerouting | Hook::Input);
    if !nat.is_empty() && !again {
        units.push(Unit { position: if early { -100 } else { 100 }, chains: nat, nat: true });
    }
    grouped(units)
}

fn grouped(mut units: Vec<Unit<'_>>) -> Vec<Vec<Unit<'_>>> {
    units.sort_by_key(|unit| unit.position);
    let mut groups: Vec<Vec<Unit<'_>>> = Vec::new();
    for unit in units {
        match groups.last_mut() {
            Some(group) if group.first().is_some_and(|first| first.position == unit.position) => group.push(unit),
            _ => groups.push(vec![unit]),
        }
    }
    groups
}

/// The orders that the units of one position may have: the kernel puts a new chain before those of its priority, and in one table
/// later chains have higher handles; nothing tells which of two tables' chains is later.
fn orders<'a, 'b>(group: &'b [Unit<'a>]) -> Vec<Vec<&'b Unit<'a>>> {
    let mut all: Vec<&Unit<'_>> = group.iter().collect();
    all.sort_by_key(|unit| std::cmp::Reverse(unit.chains.first().map_or(0, |chain| chain.handle)));
    if group.len() > MOST_ORDERED {
        return vec![all];
    }
    let mut orders = vec![Vec::new()];
    for unit in all {
        orders = orders.iter().flat_map(|order| with(order, unit)).collect();
    }
    orders
}

/// The orders that arise when a unit is put into one, behind all of its own table.
fn with<'a, 'b>(order: &[&'b Unit<'a>], unit: &'b Unit<'a>) -> Vec<Vec<&'b Unit<'a>>> {
    let same_table = |other: &&Unit<'_>| match (other.chains.first(), unit.chains.first()) {
        (Some(one), Some(two)) if !other.nat && !unit.nat => {
            !one.place.legacy
                && !two.place.legacy
                && (&one.place.family, &one.place.table) == (&two.place.family, &two.place.table)
                // The chains of a device may be put there again when the device comes back.
                && one.place.family != "netdev"
        }
        _ => false,
    };
    let from = order.iter().rposition(same_table).map_or(0, |at| at + 1);
    let put = |at: usize| {
        let (before, behind) = order.split_at_checked(at).unwrap_or((order, &[]));
        before.iter().copied().chain([unit]).chain(behind.iter().copied()).collect()
    };
    (from..=order.len()).map(put).collect()
}

fn in_every_order(chains: &Chains, here: &Here<'_>, orders: &[Vec<&Unit<'_>>], state: &State, too_many: bool) -> Exits {
    let before = state.because.clone();
    let ways: Vec<Exits> = orders.iter().map(|order| in_order(chains, here, order, state.clone())).collect();
    let same = |one: &Exits, two: &Exits| one.len() == two.len() && one.iter().all(|exit| two.contains(exit));
    let agree = ways.windows(2).all(|pair| matches!(pair, [one, two] if same(one, two)));
    let mut exits = Vec::new();
    let depends = !agree || too_many;
    if too_many {
        add(&mut exits, Exit::Lost, state.depending(unknown::ORDER, &hook_name(here)));
    }
    for (exit, state) in ways.into_iter().flatten() {
        let state = if depends { state.depending(unknown::ORDER, &hook_name(here)) } else { state };
        add(&mut exits, exit, state);
    }
    alone(exits, before)
}

fn hook_name(here: &Here<'_>) -> String {
    format!("{:?}", here.hook).to_ascii_lowercase()
}

fn in_order(chains: &Chains, here: &Here<'_>, order: &[&Unit<'_>], state: State) -> Exits {
    one_by_one(order, state, |unit, state| {
        // Behind a translation no other chain of NAT is asked.
        if state.bound && unit.chains.first().is_some_and(|chain| chain.base.as_ref().is_some_and(|base| base.nat)) {
            return vec![(Exit::Accept, state)];
        }
        one(chains, here, unit, state)
    })
}

/// Through these places, one after the other, in every state that a packet may have by then.
fn one_by_one<T>(places: impl IntoIterator<Item = T>, state: State, passes: impl Fn(&T, State) -> Exits) -> Exits {
    let mut on = vec![state];
    let mut done = Vec::new();
    for place in places {
        let mut next = Vec::new();
        for (exit, state) in on.into_iter().flat_map(|state| passes(&place, state)) {
            match exit {
                Exit::End(_) | Exit::Lost => add(&mut done, exit, state),
                _ => add(&mut next, Exit::Accept, state),
            }
        }
        on = next.into_iter().map(|(_, state)| state).collect();
    }
    for state in on {
        add(&mut done, Exit::Accept, state);
    }
    done
}

/// Through one chain, or through NAT.
fn one(chains: &Chains, here: &Here<'_>, unit: &Unit<'_>, state: State) -> Exits {
    if !unit.nat {
        let Some(chain) = unit.chains.first() else { return vec![(Exit::Accept, state)] };
        let device_known = chain.base.as_ref().is_none_or(|base| base.devices.is_some())
            && match here.hook {
                Hook::Ingress => here.input.is_some(),
                Hook::Egress => here.output.is_some(),
                _ => true,
            };
        if device_known || !matches!(here.hook, Hook::Ingress | Hook::Egress) {
            return Walk { chains, here, base: &chain.place.chain }.base(chain, state);
        }
        let name = if here.hook == Hook::Ingress { unknown::INPUT_DEVICE } else { unknown::OUTPUT_DEVICE };
        let before = state.because.clone();
        let state = state.depending(name, &super::chain::place(chain));
        let mut exits = Walk { chains, here, base: &chain.place.chain }.base(chain, state.clone());
        add(&mut exits, Exit::Accept, state);
        return alone(exits, before);
    }
    // Only a tracked connection has a translation, and only its first packet is asked for one.
    if here.part == Part::Answer || state.bound || matches!(state.tracked, Tracked::Untracked | Tracked::Invalid) {
        return vec![(Exit::Accept, state)];
    }
    if matches!(here.part, Part::Confirmation | Part::Data) {
        // Its connection has what the rules gave the SYN.
        let (of_syn, tracked) = (Here { part: Part::Syn, ..here.clone() }, state.tracked);
        let exits = one(chains, &of_syn, unit, State { tracked: Tracked::New, ..state });
        return exits.into_iter().map(|(exit, state)| (exit, State { tracked, ..state })).collect();
    }
    if chains.tracks(here.family) {
        return nat(chains, here, unit, state);
    }
    let before = state.because.clone();
    let state = state.depending(unknown::CT, "nat");
    let mut exits = nat(chains, here, unit, state.clone());
    add(&mut exits, Exit::Accept, state);
    alone(exits, before)
}

/// Through the chains of NAT, until one translates.
fn nat(chains: &Chains, here: &Here<'_>, unit: &Unit<'_>, state: State) -> Exits {
    let inner = unit.chains.iter().map(|chain| Unit {
        position: chain.base.as_ref().map_or(0, |base| base.priority),
        chains: vec![*chain],
        nat: false,
    });
    one_by_one(grouped(inner.collect()), state, |group, state| {
        if state.bound {
            return vec![(Exit::Accept, state)];
        }
        in_every_order(chains, here, &orders(group), &state, group.len() > MOST_ORDERED)
    })
}

/// What connection tracking has made of the packet before the chains at this position.
fn tracked(here: &Here<'_>, position: i64, state: State) -> State {
    let tracks = matches!(here.hook, Hook::Prerouting | Hook::Output);
    let tracked = match state.tracked {
        // Questions for neighbours are no connections.
        _ if here.layer != Layer::Network => state.tracked,
        Tracked::NotYet | Tracked::Unclear if tracks && position > CONNTRACK && here.part.is_of_neighbours() => {
            Tracked::Untracked
        }
        Tracked::NotYet | Tracked::Unclear if tracks && position > CONNTRACK && here.part != Part::Syn => here.standing.into(),
        Tracked::NotYet | Tracked::Unclear if tracks && position > CONNTRACK => Tracked::New,
        Tracked::NotYet if tracks && position == CONNTRACK => Tracked::Unclear,
        tracked => tracked,
    };
    State { tracked, ..state }
}
