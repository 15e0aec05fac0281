//! Networks of two interfaces that have the same addresses: what is for a client on one goes to the other.

use std::net::IpAddr;

use super::case::Case;
use crate::escape::{escape, shell_word};
use crate::kernel::addresses::network_of;

/// An interface and one of its networks: its own address there, and the bits that all addresses of it have.
pub(crate) type Net<'a> = (&'a str, (IpAddr, u8));

/// How it is that what is for a client goes to an interface whose network has the client's address, instead of that by which the client
/// comes: its network may have it too.
pub(crate) fn overlapping(took: Net<'_>, entered: Option<Net<'_>>) -> String {
    let named = |(name, (address, bits)): Net<'_>| format!("{} ({}/{bits})", escape(name), network_of(address, bits));
    match entered {
        Some(entered) => {
            format!("the networks of {} and {} overlap, and both have the client's address", named(entered), named(took))
        }
        None => {
            format!("the network of {} has the client's address, although the client is not in it", named(took))
        }
    }
}

/// What mends it for good.
pub(crate) fn another_range(took: &str) -> String {
    let docker = if took == "docker0" {
        " (Docker: `bip` in /etc/docker/daemon.json)"
    } else if took.starts_with("br-") {
        " (Docker: `default-address-pools` in /etc/docker/daemon.json; Compose: `networks:` with `ipam:`)"
    } else {
        ""
    };
    format!("# for good: give the network of {} another range of addresses{docker}", shell_word(took))
}

/// The interface that took the answer, and why, where its own network has the client's address.
pub(super) fn of_answer<'a>(case: &'a Case<'_>, took: Option<&'a str>, entered: Option<&str>) -> Option<(&'a str, String)> {
    let (took, client) =
        (took.filter(|took| case.evidence.way_back.as_deref() == Some(took))?, case.journey.answer_destination());
    let of = |name: &str| case.evidence.addresses.iter().find(|own| own.interface == name && own.covers(client));
    let net = |own: &'a crate::evidence::OwnAddress| (own.interface.as_str(), (own.address, own.prefix));
    Some((took, format!("; {}", overlapping(net(of(took)?), entered.and_then(of).map(net)))))
}

#[cfg(test)]
mod tests {
    use super::{another_range, overlapping};

    #[test]
    fn both_networks_are_named() {
        let of = |text: &str| text.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED).into();
        let docker = ("docker0", (of("172.28.16.254"), 24));
        assert_eq!(
            overlapping(docker, Some(("eth0", (of("172.28.20.5"), 20)))),
            "the networks of eth0 (172.28.16.0/20) and docker0 (172.28.16.0/24) overlap, and both have the client's address"
        );
        assert!(overlapping(docker, None).starts_with("the network of docker0 (172.28.16.0/24) has the client's address"));
        assert!(another_range("docker0").contains("`bip`") && another_range("br-1f").contains("pools"));
        assert!(!another_range("tun0").contains("Docker"));
    }
}
