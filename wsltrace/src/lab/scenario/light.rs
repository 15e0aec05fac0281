//! The same with `--detail light`: fewer positions are seen, and what is said must be as right.

use super::{Expect, Scenario, foreign, forwarding, healthy, listener};
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

pub(super) fn scenarios() -> Vec<Scenario> {
    let all = [healthy::scenarios(), foreign::scenarios(), listener::scenarios(), forwarding::scenarios()].concat();
    all.into_iter().filter_map(|base| Some(seen_lightly(*LIGHT.iter().find(|light| light.0 == base.name)?, base))).collect()
}

fn seen_lightly((_, name, title, coarser): Light, base: Scenario) -> Scenario {
    let died = base.expect.died.map(|(stage, side)| (coarser.unwrap_or(stage), side));
    // A hook as a whole is conntrack's too.
    let proved = base.expect.proved && coarser.is_none();
    let expect = Expect { died, proved, path: light(&base.expect.path), ..base.expect };
    Scenario { name, title, group: "light", detail: Detail::Light, expect, ..base }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_has_its_scenario() {
        assert_eq!(super::scenarios().len(), super::LIGHT.len());
    }
}
