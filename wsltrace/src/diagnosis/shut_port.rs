//! A container that its bridge does not reach, for a fault of the port that leads to it.

use super::case::{Case, Finding};
use crate::escape::{escape, shell_word};
use crate::evidence::{Shut, ShutPort};
use crate::journey::Outcome;

/// The finding where it is known.
pub(super) fn found(case: &Case) -> Option<Finding> {
    let ShutPort { bridge, port, why } = case.evidence.shut_port.as_ref()?;
    let to = case.journey.last_destination().0;
    let (shown, of) = (escape(port), escape(bridge));
    let what = match why {
        Shut::SwitchedOff => format!("the interface {shown}, the port of the bridge {of} that leads there, is switched off"),
        Shut::NotForwarding => {
            format!("the interface {shown}, the port of the bridge {of} that leads there, does not forward (its state)")
        }
    };
    let word = shell_word(port);
    let mend = match why {
        Shut::SwitchedOff => format!("ip link set dev {word} up"),
        Shut::NotForwarding => format!("ip link set dev {word} type bridge_slave state 3"),
    };
    let fate = if case.journey.outcome == Outcome::Unfinished { "unfinished: it does not get" } else { "dropped on the way" };
    let summary = format!("{fate} to {to}: {what}");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root(&mend)]))
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, tests::dropped, tests::expect};
    use crate::evidence::{Evidence, Shut, ShutPort};
    use crate::journey::Stage;

    #[test]
    fn the_port_is_told_and_not_a_container_that_is_stopped() {
        let with = |why| {
            let shut_port = ShutPort { bridge: "docker0".to_owned(), port: "veth0".to_owned(), why };
            Evidence { shut_port: Some(shut_port), ..Evidence::default() }
        };
        let waited = dropped(&[Stage::TcIngress, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1");
        let freed = dropped(&[Stage::TcIngress, Stage::TcEgress], "NO_TX_TARGET", "br_dev_xmit+0x3aa");
        for journey in [waited, freed] {
            let found = |why| expect(&journey, &with(why), Code::NoNeighbour, Inferred);
            let off = found(Shut::SwitchedOff);
            assert!(off.summary.ends_with("the port of the bridge docker0 that leads there, is switched off"), "{}", off.summary);
            assert_eq!(off.remedy, ["sudo ip link set dev veth0 up"]);
            assert_eq!(found(Shut::NotForwarding).remedy, ["sudo ip link set dev veth0 type bridge_slave state 3"]);
        }
    }
}
