//! The only container on a bridge has another address than the one that a packet was led to.

use super::{
    Confidence,
    case::{Case, Finding, endpoint},
};
use crate::escape::escape;
use crate::evidence::Resident;
use crate::journey::Outcome;

/// Nobody on the bridge has the address that the packet waits or waited for.
pub(super) fn has_another(case: &Case, confidence: Confidence, resident: &Resident) -> Finding {
    let Resident { bridge, netns, entrance, device, has, is_without_v6 } = resident;
    let (whom, port) = case.journey.last_destination();
    let search = if whom.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let what = if case.journey.outcome == Outcome::Unfinished {
        format!("unfinished: it still waits for {whom} to answer {search} on {}", escape(bridge))
    } else {
        format!("dropped on the way to {whom}: it does not answer {search} on {}", escape(bridge))
    };
    let pid = entrance.as_deref().and_then(|words| words.strip_prefix("nsenter -t ")?.strip_suffix(" -n"));
    let who = pid.map_or_else(|| format!("network namespace {netns}"), |pid| format!("pid {pid}"));
    let family = if whom.is_ipv4() { "IPv4" } else { "IPv6" };
    let instead = match has {
        Some(own) => format!("has {own}"),
        None if *is_without_v6 => format!("has no IPv6 address: IPv6 is off on its {} (disable_ipv6 is 1)", escape(device)),
        None => format!("has no {family} address"),
    };
    let summary = format!("{what}, and no container there has it: the only one ({who}) {instead}");
    let look = match entrance {
        Some(entrance) => format!("sudo {entrance} ip -br address show"),
        None => case.root(&format!("ip neighbour show {whom}")),
    };
    // Switched on again, it has no address: what gave it one did so when the container started.
    let on = (*is_without_v6 && has.is_none()).then(|| {
        "# restart the container in a network with IPv6 (docker network create --ipv6), or have the port published for IPv4 alone"
            .to_owned()
    });
    let lead = has.map(|own| match &case.journey.translated {
        Some(_) => format!(
            "# let the rule that leads there lead to {}, or have it made anew: restart the container with its ports published",
            endpoint(own, port)
        ),
        None => format!("# let the client ask for {} instead", endpoint(own, port)),
    });
    let start = format!("# or start what had {whom}: `docker ps -a` lists containers that have stopped");
    let mend = on.into_iter().chain(lead).chain([start]);
    Finding::new(confidence, summary).remedy(case.where_to_type()).remedy([look]).remedy(mend)
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Proved, tests::dropped, tests::expect};
    use crate::evidence::{Evidence, Resident};
    use crate::journey::{Journey, Stage, Translated};
    use crate::output::samples::{CONTAINER, ip};

    fn waited() -> Journey {
        let journey = dropped(&[Stage::TcIngress, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1");
        let (source, destination) = (journey.flow.source, ip("10.9.0.2"));
        Journey {
            translated: Some(Translated { source, source_port: 51234, destination, destination_port: 80, rule: None }),
            ..journey
        }
    }

    fn resident(entrance: Option<&str>, has: Option<&str>) -> Evidence {
        let entrance = entrance.map(str::to_owned);
        let (bridge, device) = ("br0".to_owned(), "eth0".to_owned());
        let resident = Resident { bridge, netns: CONTAINER, entrance, device, has: has.map(ip), is_without_v6: has.is_none() };
        Evidence { resident: Some(resident), ..Evidence::default() }
    }

    #[test]
    fn a_container_with_another_address_is_told_with_it() {
        let found = expect(&waited(), &resident(Some("nsenter -t 412 -n"), Some("10.9.0.7")), Code::NoNeighbour, Proved);
        assert_eq!(
            found.summary,
            "dropped on the way to 10.9.0.2: it does not answer ARP on br0, and no container there has it: the only one (pid 412) has 10.9.0.7"
        );
        assert_eq!(found.remedy[0], "sudo nsenter -t 412 -n ip -br address show");
        assert!(
            found.remedy[1].contains("lead to 10.9.0.7:80") && found.remedy[2].contains("docker ps -a"),
            "{:?}",
            found.remedy
        );
        let hidden = expect(&waited(), &resident(None, Some("10.9.0.7")), Code::NoNeighbour, Proved);
        assert!(hidden.summary.contains(&format!("(network namespace {CONTAINER}) has 10.9.0.7")), "{}", hidden.summary);
    }

    #[test]
    fn one_without_ipv6_is_told_so() {
        let found = expect(&waited(), &resident(Some("nsenter -t 412 -n"), None), Code::NoNeighbour, Proved);
        assert!(found.summary.ends_with("has no IPv6 address: IPv6 is off on its eth0 (disable_ipv6 is 1)"), "{}", found.summary);
        assert!(found.remedy[1].contains("in a network with IPv6"), "{:?}", found.remedy);
    }
}
