//! Packets for an address that is no machine's: of a broadcast, of multicast, or 0.0.0.0. A connection is made with one.

use std::net::IpAddr;

use super::Confidence;
use super::case::{Case, Finding};
use super::firewall::name;
use super::routing::{at_route, is_of_whole_network};
use crate::journey::Outcome;

/// The finding of such a packet, by who gave it up.
pub(super) fn found(case: &Case) -> Option<Finding> {
    let destination = case.journey.last_destination().0;
    let all = matches!(destination, IpAddr::V4(address) if address.is_broadcast()) || destination.is_multicast();
    let is_many = all || is_of_whole_network(case, destination) && !case.evidence.has_address(destination);
    let by_tcp = case.symbol().is_some_and(|symbol| symbol.starts_with("tcp_v")) && case.reason().is_none();
    let (confidence, who) = if case.journey.outcome == Outcome::Ignored {
        // A listener makes no answer to what was sent to many.
        (Confidence::Inferred, "ignored by its listener")
    } else if by_tcp {
        // TCP frees it without a word.
        (Confidence::Inferred, "dropped by TCP")
    } else if at_route(case) && case.reason().is_none() && destination.is_multicast() {
        // Routing knows no group of this machine's with this address.
        (Confidence::Inferred, "dropped by routing")
    } else if destination.is_unspecified() && case.reason() == Some("IP_INVALID_DEST") {
        let (led, mend) = led(case);
        let summary = format!("dropped by routing: {destination} is no address that a packet can go to{led}");
        return Some(Finding::proved(summary).remedy([mend]));
    } else {
        return None;
    };
    let (led, mend) = led(case);
    is_many.then(|| {
        let summary =
            format!("{who}: {destination} is a broadcast or multicast address, and a connection is made with one machine{led}");
        Finding::new(confidence, summary).remedy([mend])
    })
}

/// What led it there, and what helps.
fn led(case: &Case) -> (String, String) {
    match &case.journey.translated {
        Some(now) if now.destination != case.journey.flow.destination => {
            let by = now.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), name);
            (format!("; {by} sent it there"), "# let that rule lead to the address of one machine".to_owned())
        }
        _ => (String::new(), "# let the client ask for an address of this machine: ip -br address show".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{
        Code,
        Confidence::{Inferred, Proved},
        tests::{dropped, expect},
    };
    use crate::evidence::Evidence;
    use crate::journey::{Journey, Translated};
    use crate::output::samples::{self, PREROUTING, ip};

    fn sent_to(to: &str, reason: &str) -> Journey {
        let journey = dropped(&PREROUTING, reason, "ip_rcv_finish_core+0x25b");
        let (source, source_port) = (journey.flow.source, journey.flow.source_port);
        let rule = Some(samples::rule());
        Journey {
            translated: Some(Translated { source, source_port, destination: ip(to), destination_port: 8080, rule }),
            ..journey
        }
    }

    #[test]
    fn who_sends_a_connection_to_many_is_told() {
        let none = Evidence::default();
        let found = expect(&sent_to("224.0.0.5", "NOT_SPECIFIED"), &none, Code::MartianAddress, Inferred);
        assert!(found.summary.contains("with one machine; rule handle 4 of ip filter INPUT sent it there"), "{}", found.summary);
        assert_eq!(found.remedy, ["# let that rule lead to the address of one machine"]);
        let found = expect(&sent_to("0.0.0.0", "IP_INVALID_DEST"), &none, Code::MartianAddress, Proved);
        assert!(found.summary.contains("0.0.0.0 is no address that a packet can go to; rule handle 4"), "{}", found.summary);
        let one = expect(&sent_to("10.9.0.9", "NOT_SPECIFIED"), &none, Code::BadPacket, Inferred);
        assert!(!one.summary.contains("multicast"), "{}", one.summary);
        let mut asked = Journey { translated: None, ..sent_to("224.0.0.5", "NOT_SPECIFIED") };
        asked.flow.destination = ip("224.0.0.5");
        let found = expect(&asked, &none, Code::MartianAddress, Inferred);
        assert!(found.remedy[0].starts_with("# let the client ask"), "{:?}", found.remedy);
    }
}
