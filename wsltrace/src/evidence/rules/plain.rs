//! What the plain words of an iptables rule say about the packets that it cannot match, whatever else stands in it.

use std::net::IpAddr;

use crate::evidence::words;
use crate::journey::Journey;
use crate::source::Source;

/// All that the packets of a journey have on their way, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Ends {
    /// Those of a journey; more than one of each where it was translated.
    pub(crate) fn of(journey: &Journey) -> Self {
        let flow = &journey.flow;
        let translated = journey.translated.iter();
        let addresses =
            [flow.source, flow.destination].into_iter().chain(translated.clone().flat_map(|t| [t.source, t.destination]));
        let ports = [flow.source_port, flow.destination_port].into_iter();
        let ports = ports.chain(translated.flat_map(|t| [t.source_port, t.destination_port]));
        Self { addresses: addresses.collect(), ports: ports.collect() }
    }
}

/// Whether a rule is for other packets than these: of another protocol, or of other ports or addresses. What is not understood, and
/// what is turned round (`!`), excludes nothing.
pub(crate) fn is_for_others(rule: &str, ends: &Ends) -> bool {
    let words = words(rule);
    let option = |index: usize| {
        let inverted = index > 0 && words.get(index - 1) == Some(&"!");
        words.get(index + 1).filter(|_| !inverted).copied()
    };
    words.iter().enumerate().any(|(index, word)| {
        let Some(value) = option(index) else { return false };
        match *word {
            "-p" => !matches!(value, "tcp" | "all" | "0" | "6"),
            "--dport" | "--sport" | "--dports" | "--sports" | "--ports" => {
                !value.split(',').any(|range| has_port(range, &ends.ports))
            }
            "-s" | "-d" => {
                value.parse::<Source>().is_ok_and(|network| !ends.addresses.iter().any(|address| network.contains(*address)))
            }
            _ => false,
        }
    })
}

/// Whether a port or `FIRST:LAST` has one of the ports; true of what is neither.
fn has_port(range: &str, ports: &[u16]) -> bool {
    let (first, last) = range.split_once(':').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => ports.iter().any(|port| (first..=last).contains(port)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ends, is_for_others};

    #[test]
    fn rules_for_other_packets_are_told_by_their_plain_words() {
        let ends = Ends {
            addresses: vec![
                "172.28.16.1".parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
                std::net::Ipv4Addr::LOCALHOST.into(),
            ],
            ports: vec![50_000, 8080],
        };
        let others = [
            "-A INPUT -p udp -j DROP",
            "-A INPUT -p tcp -m tcp --dport 9000:9100 -j DROP",
            "-A INPUT -p tcp -m multiport --dports 22,443 -j DROP",
            "-A INPUT -s 10.0.0.0/8 -j DROP",
            "-A INPUT -d 192.168.0.1/32 -p tcp -j DROP",
        ];
        let perhaps = [
            "-A INPUT -j DROP",
            "-A INPUT -p tcp -m tcp --dport 8000:9000 -j DROP",
            "-A INPUT ! -p udp -j DROP",
            "-A INPUT -p tcp ! --dport 22 -j DROP",
            "-A INPUT -p tcp -m multiport --dports 22,8080 -j DROP",
            "-A INPUT -s 172.28.16.0/20 -j DROP",
            "-A INPUT -p tcp --sport 8080 -j DROP",
            "-A INPUT -p tcp --dport http -j DROP",
            "policy drop",
        ];
        for rule in others {
            assert!(is_for_others(rule, &ends), "{rule}");
        }
        for rule in perhaps {
            assert!(!is_for_others(rule, &ends), "{rule}");
        }
    }
}
