//! A packet of a container's, or of a virtual machine's, that left this machine under an address which nobody out there has a way to.

use super::case::{Case, Finding};
use super::remedy::iptables;
use crate::escape::{escape, shell_word};
use crate::evidence::{Backend, OwnAddress};

/// What is said where nothing gave it this machine's address. That no answer came for that reason is not seen.
pub(super) fn sent_on(case: &Case, to: &str, by: &str) -> Option<Finding> {
    let own = case.evidence.unmasked.as_ref()?;
    let source = case.journey.flow.source;
    let summary = format!(
        "sent on to {to}{by} with the source {source}, which is of the network behind {} here, and no answer came: most likely nothing out there has a way back to that network, and nothing gave the packet this machine's address (masquerade)",
        escape(&own.interface)
    );
    let (network, device) = (network(own), shell_word(&own.interface));
    let masquerade = format!(
        "{} -t nat -A POSTROUTING -s {network} ! -o {device} -j MASQUERADE",
        iptables(Backend::IptablesNft, case.is_v6())
    );
    Some(Finding::inferred(summary).remedy(by_its_maker(&own.interface)).remedy([case.root(&masquerade)]))
}

/// How the program that made a network makes its rule anew.
fn by_its_maker(device: &str) -> Option<String> {
    let (maker, anew) = if device == "docker0" || device.starts_with("br-") {
        ("Docker", "sudo service docker restart")
    } else if device.starts_with("podman") || device.starts_with("cni-podman") {
        ("podman", "sudo podman network reload --all")
    } else {
        return None;
    };
    Some(format!("# {maker} has a rule of its own for that, which may have been flushed, and makes it anew by: {anew}; by hand:"))
}

/// `ADDRESS/BITS` of a network.
fn network(own: &OwnAddress) -> String {
    let (address, bits) = (own.address, u32::from(own.prefix));
    let first = match address {
        std::net::IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(address.to_bits() & mask).to_string()
        }
        std::net::IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(address.to_bits() & mask).to_string()
        }
    };
    format!("{first}/{bits}")
}

#[cfg(test)]
mod tests {
    use super::network;
    use crate::diagnosis::{Code, Confidence::Inferred, Confidence::Proved, tests::expect};
    use crate::evidence::{Evidence, OwnAddress};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples::{self, ip};

    fn own(interface: &str, address: &str, prefix: u8) -> OwnAddress {
        OwnAddress { address: ip(address), prefix, interface: interface.into(), unready: None }
    }

    #[test]
    fn a_network_is_told_by_its_first_address() {
        for (address, prefix, expected) in [
            ("172.17.0.1", 16, "172.17.0.0/16"),
            ("10.1.2.3", 32, "10.1.2.3/32"),
            ("10.1.2.3", 0, "0.0.0.0/0"),
            ("fd00:111::1", 64, "fd00:111::/64"),
        ] {
            assert_eq!(network(&own("docker0", address, prefix)), expected);
        }
    }

    #[test]
    fn a_container_whose_packets_keep_their_source_is_told() {
        let way = [Stage::TcIngress, Stage::Prerouting, Stage::Routing, Stage::Forward, Stage::Postrouting, Stage::TcEgress];
        let mut journey = samples::journey(&way, Outcome::Forwarded, None, None);
        journey.flow.source = ip("172.17.0.2");
        journey.stages.iter_mut().take(5).for_each(|visit| visit.interface = Some("docker0".into()));
        journey.interface = Some("docker0".into());
        let unmasked = |interface| Evidence { unmasked: Some(own(interface, "172.17.0.1", 16)), ..Evidence::default() };
        let found = expect(&journey, &unmasked("docker0"), Code::Forwarded, Inferred);
        assert!(
            found.summary.contains("with the source 172.17.0.2, which is of the network behind docker0"),
            "{}",
            found.summary
        );
        let rule = "sudo iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE";
        assert!(found.remedy[0].contains("service docker restart") && found.remedy[1] == rule, "{:?}", found.remedy);
        let other = expect(&journey, &unmasked("virbr1"), Code::Forwarded, Inferred);
        assert_eq!(other.remedy, [rule.replace("docker0", "virbr1")]);
        expect(&journey, &Evidence::default(), Code::Forwarded, Proved);
    }
}
