//! A container whose packets were sent elsewhere.

use super::case::Case;
use crate::escape::{escape, shell_word};
use crate::evidence::Whereabouts;

/// What is to be said of a packet that was sent elsewhere than to where its destination is seen to be, and what leads it there.
pub(super) fn elsewhere(case: &Case) -> Option<(String, Vec<String>)> {
    let Whereabouts { device, netns, in_network, left } = case.evidence.whereabouts.as_ref()?;
    let to = case.journey.last_destination().0;
    let (shown, word) = (escape(device), shell_word(device));
    if let Some(bridge) = left {
        let told = format!(
            "network namespace {netns}, which has {to}, is behind {shown}, which is no port of the bridge {} (any longer), to which the routes lead",
            escape(bridge)
        );
        return Some((told, vec![case.root(&format!("ip link set dev {word} master {}", shell_word(bridge)))]));
    }
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
    use crate::evidence::{Evidence, Whereabouts};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples::{self, CONTAINER, PREROUTING};

    #[test]
    fn a_container_that_is_elsewhere_is_told_with_the_route_to_it() {
        let with = |in_network| {
            let whereabouts = Whereabouts { device: "docker0".to_owned(), netns: CONTAINER, in_network, left: None };
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

    #[test]
    fn an_interface_that_was_taken_out_of_its_bridge_is_put_back() {
        let left = Some("docker0".to_owned());
        let whereabouts = Whereabouts { device: "veth0".to_owned(), netns: CONTAINER, in_network: false, left };
        let waited = dropped(&[Stage::TcIngress, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1");
        let found =
            expect(&waited, &Evidence { whereabouts: Some(whereabouts), ..Evidence::default() }, Code::NoNeighbour, Inferred);
        assert!(found.summary.contains("which is no port of the bridge docker0 (any longer)"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo ip link set dev veth0 master docker0");
    }
}
