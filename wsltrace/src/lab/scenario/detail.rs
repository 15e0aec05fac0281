//! The same with another `--detail`: with light fewer positions are seen, and what is said must be as right; with full every one
//! is, also where nothing is hooked in.

use super::{Expect, Scenario};
use crate::journey::Stage;
use crate::lab::path::light;
use crate::probe::Detail;

/// A scenario of another file, its name and title here, and where it dies as far as light sees, when that is coarser.
type Light = (&'static str, &'static str, &'static str, Option<Stage>);

const LIGHT: [Light; 4] = [
    ("healthy-v4", "light-healthy", "nothing is broken: seen with --detail light", None),
    // No rule tells more than the position.
    (
        "foreign-netfilter-drop",
        "light-drop",
        "somebody's BPF program drops in INPUT: seen with --detail light",
        Some(Stage::Input),
    ),
    ("dnat-container", "light-dnat-container", "nothing is broken: a container's port, seen with --detail light", None),
    ("accept-queue-full", "light-accept-queue-full", "a full accept queue, seen with --detail light", None),
];

/// A scenario of another file, its name and title here.
const FULL: [(&str, &str, &str); 4] = [
    ("healthy-v4", "full-healthy", "nothing is broken: seen with --detail full"),
    ("healthy-lo-v6", "full-healthy-lo-v6", "nothing is broken: ::1 from inside, seen with --detail full"),
    ("drop-filter-iptables-nft", "full-drop", "iptables-nft drops in INPUT: seen with --detail full"),
    ("dnat-container", "full-dnat-container", "nothing is broken: a container's port, seen with --detail full"),
];

pub(super) fn scenarios(own: &[Scenario]) -> Vec<Scenario> {
    let find = |name: &str| own.iter().find(|base| base.name == name).cloned();
    let light = LIGHT.iter().filter_map(|light| Some(seen_lightly(*light, find(light.0)?)));
    let full = FULL
        .iter()
        .filter_map(|(base, name, title)| Some(Scenario { name, title, group: "detail", detail: Detail::Full, ..find(base)? }));
    light.chain(full).collect()
}

fn seen_lightly((_, name, title, coarser): Light, base: Scenario) -> Scenario {
    let died = base.expect.died.map(|(stage, side)| (coarser.unwrap_or(stage), side));
    // A hook as a whole is conntrack's too.
    let proved = base.expect.proved && coarser.is_none();
    let expect = Expect { died, proved, path: light(&base.expect.path), ..base.expect };
    Scenario { name, title, group: "detail", detail: Detail::Light, expect, ..base }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_has_its_scenario() {
        assert_eq!(super::scenarios(&super::super::own()).len(), super::LIGHT.len() + super::FULL.len());
    }
}
