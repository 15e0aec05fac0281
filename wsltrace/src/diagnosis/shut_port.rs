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
        Shut::OtherVlan { of_bridge, of_port } => {
            format!("the bridge {of} {}", kept_apart(&format!("{shown}, its port that leads there,"), *of_bridge, *of_port))
        }
    };
    let word = shell_word(port);
    let mend = match why {
        Shut::SwitchedOff => vec![format!("ip link set dev {word} up")],
        Shut::NotForwarding => vec![format!("ip link set dev {word} type bridge_slave state 3")],
        Shut::OtherVlan { of_bridge, of_port } => join_vlan(&shell_word(bridge), &word, *of_bridge, *of_port),
    };
    let mend: Vec<String> = mend.iter().map(|mend| case.root(mend)).collect();
    let fate = if case.journey.outcome == Outcome::Unfinished { "unfinished: it does not get" } else { "dropped on the way" };
    let summary = format!("{fate} to {to}: {what}");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend))
}

/// What keeps a bridge from its port, behind the bridge's name.
pub(crate) fn kept_apart(port: &str, of_bridge: Option<u16>, of_port: Option<u16>) -> String {
    let named = |vlan: Option<u16>| vlan.map_or_else(|| "in none".to_owned(), |vlan| format!("in VLAN {vlan}"));
    format!("filters by VLANs (vlan_filtering), and is itself {}, while {port} is {}", named(of_bridge), named(of_port))
}

/// What puts a bridge and its port into one VLAN: the one that the bridge is in, or else the port's, or the usual one.
pub(crate) fn join_vlan(bridge: &str, port: &str, of_bridge: Option<u16>, of_port: Option<u16>) -> Vec<String> {
    let vlan = of_bridge.or(of_port).unwrap_or(1);
    let of_bridge = of_bridge.is_none().then(|| format!("bridge vlan add dev {bridge} vid {vlan} pvid untagged self"));
    let of_port = (of_port != Some(vlan)).then(|| format!("bridge vlan add dev {port} vid {vlan} pvid untagged"));
    of_bridge.into_iter().chain(of_port).collect()
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
            let vlan = |of_bridge, of_port| found(Shut::OtherVlan { of_bridge, of_port });
            let other = vlan(Some(1), Some(20));
            assert!(other.summary.ends_with("is itself in VLAN 1, while veth0, its port that leads there, is in VLAN 20"));
            assert_eq!(other.remedy, ["sudo bridge vlan add dev veth0 vid 1 pvid untagged"]);
            assert_eq!(vlan(None, Some(20)).remedy, ["sudo bridge vlan add dev docker0 vid 20 pvid untagged self"]);
            assert_eq!(vlan(None, None).remedy.len(), 2);
        }
    }
}
