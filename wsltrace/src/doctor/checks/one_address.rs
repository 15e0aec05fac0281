//! A server that listens on some of this machine's addresses only.

use std::net::{IpAddr, Ipv4Addr};

use super::super::{Facts, Finding, Severity};
use super::listener::takes_here;
use crate::escape::{escape, shell_word};

/// A server on some of this machine's addresses, outside WSL, where the ways from Windows do not tell.
pub(super) fn check(facts: &Facts, all: &str) -> Vec<Finding> {
    let outer = [&facts.linux.outer, &facts.linux.outer6].into_iter().flatten().map(|(address, _)| *address);
    let missed: Vec<String> = outer
        .chain([Ipv4Addr::LOCALHOST.into()])
        .filter(|address| !takes_here(facts, *address))
        .map(|address| if address.is_loopback() { format!("{address} (localhost)") } else { address.to_string() })
        .collect();
    // A server of one family is nothing unusual.
    if takes_here(facts, Ipv4Addr::LOCALHOST.into()) || missed.is_empty() {
        return Vec::new();
    }
    let summary = format!("not every address of this machine leads to the server: it listens only on {all}");
    let finding = Finding::new(Severity::Warns, summary).because(format!("refused at {}", missed.join(" and ")));
    let finding = listens_on_what_is_off(facts).into_iter().fold(finding, |finding, (address, interface)| {
        finding
            .because(format!("{address} is on {}, which is switched off, so that nobody comes by it", escape(interface)))
            .linux(format!("sudo ip link set {} up", shell_word(interface)))
    });
    vec![finding.linux("# when it shall be reached there as well, let the server listen on 0.0.0.0")]
}

/// The addresses that the server listens on whose interface is switched off. They are this machine's all the same, for itself and for who
/// comes by another.
fn listens_on_what_is_off(facts: &Facts) -> Vec<(IpAddr, &str)> {
    let all = facts.linux.interfaces.iter().filter(|interface| !interface.up);
    let own = all.flat_map(|interface| interface.addresses.iter().map(|own| (own.address, interface.name.as_str())));
    own.filter(|(address, _)| facts.linux.listeners.iter().any(|listener| listener.address.to_canonical() == *address)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::tests::{facts, finding};
    use crate::doctor::linux::{Address, Interface};

    #[test]
    fn an_address_of_an_interface_that_is_off_is_told() {
        let mut facts = facts(None, "10.10.0.1");
        let first = |facts: &_| finding(facts, "listener_address").remedy[0].text.clone();
        assert!(first(&facts).starts_with('#'));
        let addresses = vec![Address { address: "10.10.0.1".parse().unwrap(), prefix: 24 }];
        facts.linux.interfaces.push(Interface { name: "eth0.10".to_owned(), addresses, ..Interface::default() });
        assert_eq!(first(&facts), "sudo ip link set eth0.10 up");
        facts.linux.interfaces[2].up = true;
        assert!(first(&facts).starts_with('#'));
    }
}
