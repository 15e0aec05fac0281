//! A container that its bridge does not reach, for a fault of the port that leads to it.

use super::case::{Case, Finding};
use crate::escape::{escape, shell_word};
use crate::evidence::{Shut, ShutPort, Whereabouts};
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

/// What is to be said of a packet that was sent elsewhere than to where its destination is seen to be, and what leads it there.
pub(super) fn elsewhere(case: &Case) -> Option<(String, Vec<String>)> {
    let Whereabouts { device, netns, in_network } = case.evidence.whereabouts.as_ref()?;
    let to = case.journey.last_destination().0;
    let (shown, word) = (escape(device), shell_word(device));
    let ip = if to.is_ipv4() { "ip" } else { "ip -6" };
    if *in_network {
        let told = format!("network namespace {netns}, which has {to}, is behind {shown}, and the routes do not lead there");
        return Some((told, vec![case.root(&format!("{ip} route replace {to} dev {word}"))]));
    }
    let told = format!(
        "network namespace {netns}, which has {to}, is behind {shown}, which has no address of that network (any longer), so that no route leads there"
    );
    let again = format!(
        "# give {shown} its address again, the gateway of what is behind it, or have it made anew: restarting Docker does (sudo service docker restart)"
    );
    Some((told, vec![again, case.root(&format!("{ip} address show dev {word}"))]))
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, tests::dropped, tests::expect};
    use crate::evidence::{Evidence, Shut, ShutPort, Whereabouts};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples::{self, CONTAINER, PREROUTING};

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

    #[test]
    fn a_container_that_is_elsewhere_is_told_with_the_route_to_it() {
        let with = |in_network| {
            let whereabouts = Whereabouts { device: "docker0".to_owned(), netns: CONTAINER, in_network };
            Evidence { whereabouts: Some(whereabouts), ..Evidence::default() }
        };
        let waited = dropped(&[Stage::TcIngress, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1");
        let to = waited.flow.destination;
        let found = expect(&waited, &with(true), Code::NoNeighbour, Inferred);
        assert!(found.summary.ends_with("is behind docker0, and the routes do not lead there"), "{}", found.summary);
        assert!(!found.summary.contains("is stopped"), "{}", found.summary);
        assert_eq!(found.remedy[0], format!("sudo ip route replace {to} dev docker0"));
        let nowhere = dropped(&PREROUTING, "IP_INNOROUTES", "ip_error+0x94");
        let found = expect(&nowhere, &with(true), Code::NoRoute, Inferred);
        assert_eq!(found.remedy[0], format!("sudo ip route replace {to} dev docker0"));
        // Back by eth0.
        let stages = [Stage::TcIngress, Stage::Routing, Stage::Forward, Stage::TcEgress];
        let back = samples::journey(&stages, Outcome::Forwarded, None, None);
        assert!(back.is_turned_back());
        let found = expect(&back, &with(false), Code::Forwarded, Inferred);
        assert!(found.summary.contains("which has no address of that network (any longer)"), "{}", found.summary);
        assert!(found.remedy[0].contains("restarting Docker"), "{:?}", found.remedy);
    }
}
