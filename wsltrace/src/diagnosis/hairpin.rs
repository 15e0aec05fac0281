//! What a bridge does not send. Nothing goes from one isolated port to another, as hypervisors and some networks of containers have it.
//! And a bridge sends nothing back by the port that it came by, unless that is allowed there (hairpin). It is asked to where a container
//! connects to its own published port at an address of this machine, and this machine's rules rewrite what passes its bridges.

use super::case::{Case, Finding, endpoint};
use super::remedy::iptables;
use crate::escape::{escape, shell_word};
use crate::evidence::{BRIDGE_FREES, Backend, Isolated, OwnAddress};

/// A packet from one isolated port of a bridge to another.
pub(super) fn isolated(case: &Case) -> Option<Finding> {
    let freed = case.reason().is_none() && case.symbol().is_some_and(|symbol| BRIDGE_FREES.contains(&symbol));
    let Isolated { bridge, from, to } = case.evidence.isolated.as_ref().filter(|_| freed)?;
    let summary = format!(
        "dropped by the bridge {}: it came by {} and goes by {}, and both are isolated there, so the bridge sends nothing from one to the other",
        escape(bridge),
        escape(from),
        escape(to)
    );
    // One that is not is enough; the destination's keeps from its neighbours what it was kept from.
    let open = case.root(&format!("ip link set dev {} type bridge_slave isolated off", shell_word(from)));
    Some(Finding::inferred(summary).remedy([open]))
}

/// A packet that a rule sends to a machine of the client's own network, which answers the client directly.
pub(super) fn to_neighbour_of_client(case: &Case) -> Option<Finding> {
    let to = case.journey.sent_back()?;
    let client = case.journey.flow.source;
    let near = |own: &&OwnAddress| Some(own.interface.as_str()) == case.journey.interface.as_deref() && own.covers(to);
    let own = case.evidence.addresses.iter().find(near).filter(|own| own.covers(client))?;
    let by = case.journey.translated.as_ref()?.rule.as_ref();
    let (port, backend) = (case.journey.last_destination().1, by.map_or(Backend::IptablesNft, |rule| rule.backend));
    let by = by.map_or_else(|| "a DNAT rule".to_owned(), super::firewall::name);
    let summary = format!(
        "sent on to {} by {}, where it came from: {by} led it there, into the client's own network, and nothing gave it this machine's address (masquerade), so most likely {to} answers {client} directly, and {client}, which asked {}, does not take that for its answer",
        endpoint(to, port),
        escape(&own.interface),
        case.destination()
    );
    let masquerade = format!(
        "{} -t nat -A POSTROUTING -s {}/{} -d {to} -p tcp --dport {port} -j MASQUERADE",
        iptables(backend, case.is_v6()),
        own.address,
        own.prefix
    );
    Some(Finding::inferred(summary).remedy([case.root(&masquerade)]))
}

/// A packet that a DNAT rule leads back to the container where it comes from.
pub(super) fn sent_back(case: &Case) -> Option<Finding> {
    let freed = case.reason().is_none() && case.symbol().is_some_and(|symbol| BRIDGE_FREES.contains(&symbol));
    let translated = case.journey.translated.as_ref().filter(|_| freed)?;
    let (client, port) = (case.journey.flow.source, translated.destination_port);
    if translated.destination != client {
        return None;
    }
    let entered = case.journey.interface.as_deref()?;
    let bridge = case.interface().map(|name| format!(" {name}")).unwrap_or_default();
    let by = translated.rule.as_ref().map_or_else(|| "a DNAT rule".to_owned(), super::firewall::name);
    let summary = format!(
        "dropped by the bridge{bridge}: {by} leads it to {client}, the container that it comes from, and the bridge sends nothing back by {entered}, where it came in (hairpin is off there)"
    );
    let ask = format!(
        "# the container itself best asks for 127.0.0.1:{port}, or for its own address; to let it come back all the same:"
    );
    let hairpin = case.root(&format!("ip link set dev {} type bridge_slave hairpin on", shell_word(entered)));
    let masquerade = case.root(&format!(
        "{} -t nat -A POSTROUTING -s {client} -d {client} -p tcp --dport {port} -j MASQUERADE",
        iptables(Backend::IptablesNft, case.is_v6())
    ));
    Some(Finding::inferred(summary).remedy([ask, hairpin, masquerade]))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::diagnosis::{Code, Confidence, tests::expect};
    use crate::evidence::{Evidence, OwnAddress};
    use crate::journey::{Journey, Outcome, Stage, Translated};
    use crate::output::samples::{self, ip};

    /// Sent on by the interface that it came by.
    fn sent_on_to(destination: &str) -> Journey {
        let way = [Stage::TcIngress, Stage::Prerouting, Stage::Routing, Stage::Forward, Stage::Postrouting, Stage::TcEgress];
        let mut journey = samples::journey(&way, Outcome::Forwarded, None, None);
        let flow = &journey.flow;
        journey.translated = Some(Translated {
            source: flow.source,
            source_port: flow.source_port,
            destination: ip(destination),
            destination_port: 80,
            rule: Some(samples::rule()),
        });
        journey
    }

    #[test]
    fn a_machine_beside_the_client_answers_past_this_one() {
        let own = OwnAddress { address: ip("172.28.16.2"), prefix: 20, interface: "eth0".into(), unready: None };
        let evidence = Evidence { addresses: vec![own], ..Evidence::default() };
        let found = expect(&sent_on_to("172.28.16.30"), &evidence, Code::Forwarded, Confidence::Inferred);
        assert!(found.summary.contains("answers 172.28.16.1 directly"), "{}", found.summary);
        assert!(
            found.remedy[0].ends_with("-s 172.28.16.2/20 -d 172.28.16.30 -p tcp --dport 80 -j MASQUERADE"),
            "{:?}",
            found.remedy
        );
        let beyond = expect(&sent_on_to("192.0.2.7"), &evidence, Code::Forwarded, Confidence::Proved);
        assert!(beyond.remedy.iter().all(|line| !line.contains("MASQUERADE")), "{:?}", beyond.remedy);
        let mut masqueraded = sent_on_to("172.28.16.30");
        masqueraded.translated.as_mut().unwrap().source = ip("172.28.16.2");
        expect(&masqueraded, &evidence, Code::Forwarded, Confidence::Proved);
    }
}
