//! Whether Linux' address and Windows' on their common network belong together, by the prefix that each has and not by the look of
//! the numbers: 172.28.16.1 and 172.28.20.5 are in one network of 20 bits.

use std::net::{IpAddr, Ipv4Addr};

use super::{address_for_windows, mode, to_windows};
use crate::doctor::{Facts, Finding, Severity};
use crate::kernel::addresses::covers;
use crate::windows::WindowsAddress;
use crate::wsl::{NetworkingMode, Source};

/// In the mode nat: eth0, its gateway, and Windows' adapter `vEthernet (WSL)`.
pub(in crate::doctor::checks) fn address_match(facts: &Facts) -> Vec<Finding> {
    let Some(windows) = facts.windows.facts().and_then(|windows| windows.vethernet.known()) else { return Vec::new() };
    if mode(facts) != Some(NetworkingMode::Nat) {
        return Vec::new();
    }
    let finding = judge(facts, windows);
    // Where the mode is only guessed it may be bridged, in which this adapter has no part.
    let guessed = facts.wsl.mode.is_some_and(|(_, source)| source == Source::Interfaces);
    if guessed && finding.severity != Severity::Fine { Vec::new() } else { vec![finding] }
}

fn judge(facts: &Facts, windows: &[WindowsAddress]) -> Finding {
    let device = to_windows(facts).map_or("eth0", |interface| interface.name.as_str());
    let only = "connections to WSL's address fail; Windows' localhost goes by WSL's relay and does not need it";
    let failing = |summary: String| Finding::new(Severity::Warns, summary).because(only);
    let Some((address, prefix)) = address_for_windows(facts) else {
        return failing(format!("{device} has no IPv4 address, so Windows has none to reach WSL by"))
            .powershell("wsl --shutdown");
    };
    let hosts: Vec<(Ipv4Addr, u8, &str)> = windows
        .iter()
        .filter_map(|host| match host.address {
            IpAddr::V4(address) => Some((address, host.prefix, host.adapter.as_str())),
            IpAddr::V6(_) => None,
        })
        .collect();
    let gateway = facts.linux.gateway.as_ref().map(|(gateway, _)| *gateway);
    let linux = format!("{device} {address}/{prefix}");
    let Some(first) = hosts.first() else {
        return failing("Windows has no adapter vEthernet (WSL), by which it reaches WSL in the mode nat".to_owned())
            .because(linux)
            .powershell("wsl --shutdown");
    };
    // An older network of WSL's may have left its adapter behind, so the one that fits is taken.
    let fits = |host: &&(Ipv4Addr, u8, &str)| same_network((address, prefix), (host.0, host.1));
    let (host, host_prefix, adapter) = *hosts.iter().find(fits).unwrap_or(first);
    let by_gateway = gateway.map_or("no default route".to_owned(), |gateway| format!("gateway {gateway}"));
    let shown = |finding: Finding| {
        finding.because(format!("Linux: {linux}, {by_gateway}")).because(format!("Windows: {adapter} {host}/{host_prefix}"))
    };
    let restart = |finding: Finding| shown(finding).powershell("wsl --shutdown");
    if !same_network((address, prefix), (host, host_prefix)) {
        return restart(failing(format!(
            "Linux' address {address} is not in the network {host}/{host_prefix} that Windows has for WSL"
        )));
    }
    if prefix != host_prefix {
        let summary = format!("Linux takes its network for one of {prefix} bits, and Windows for one of {host_prefix}");
        return restart(Finding::new(Severity::Warns, summary).because("one of them may look for the other in the wrong place"));
    }
    if gateway != Some(IpAddr::V4(host)) {
        let summary = match gateway {
            Some(gateway) => format!("Linux sends what is for others to {gateway}, which is not Windows' address {host}"),
            None => "Linux has no default route, so it can only answer Windows itself".to_owned(),
        };
        return restart(Finding::new(Severity::Warns, summary).because("answers to other machines do not go by Windows"));
    }
    let summary =
        format!("the addresses {linux} and Windows' {host}/{host_prefix} are in the same network, and the gateway matches");
    shown(Finding::new(Severity::Fine, summary))
}

/// Whether two addresses are in one network, by the shorter of their prefixes.
fn same_network(one: (Ipv4Addr, u8), other: (Ipv4Addr, u8)) -> bool {
    covers(one.0.into(), one.1.min(other.1), other.0.into())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{changed, in_mode, nat, windows};
    use super::*;
    use crate::windows::Told;

    fn on_windows(address: &str, prefix: u8) -> Vec<WindowsAddress> {
        let address = address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        vec![WindowsAddress { adapter: "vEthernet (WSL)".to_owned(), address, prefix }]
    }

    fn told(facts: &Facts) -> (Severity, String) {
        let findings = address_match(facts);
        assert_eq!(findings.len(), 1);
        (findings[0].severity, findings[0].summary.clone())
    }

    #[test]
    fn one_network_of_20_bits_is_one_though_the_third_number_differs() {
        let told = told(&nat());
        assert_eq!(told.0, Severity::Fine);
        assert_eq!(
            told.1,
            "the addresses eth0 172.28.20.5/20 and Windows' 172.28.16.1/20 are in the same network, and the gateway matches"
        );
    }

    #[test]
    fn what_does_not_belong_together_is_told() {
        let with = |address, prefix| changed(nat(), |windows| windows.vethernet = Told::Known(on_windows(address, prefix)));
        assert!(told(&with("172.20.1.1", 20)).1.contains("not in the network 172.20.1.1/20"));
        assert!(told(&with("172.28.16.1", 16)).1.contains("of 20 bits, and Windows for one of 16"));
        assert!(told(&with("172.28.16.9", 20)).1.contains("not Windows' address 172.28.16.9"));
        let none = changed(nat(), |windows| windows.vethernet = Told::Known(vec![]));
        assert!(told(&none).1.contains("no adapter vEthernet (WSL)"));
        let mut vpn = nat();
        vpn.linux.gateway = Some((IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1)), "tun0".to_owned()));
        assert!(told(&vpn).1.contains("to 10.8.0.1, which is not Windows' address 172.28.16.1"));
        let mut bare = nat();
        bare.linux.interfaces.clear();
        assert!(told(&bare).1.contains("eth0 has no IPv4 address"));
    }

    #[test]
    fn an_adapter_left_behind_does_not_matter() {
        let facts = changed(nat(), |windows| {
            let mut all = on_windows("172.20.1.1", 20);
            all.extend(on_windows("172.28.16.1", 20));
            windows.vethernet = Told::Known(all);
        });
        assert_eq!(told(&facts).0, Severity::Fine);
    }

    #[test]
    fn other_modes_and_an_unknown_adapter_are_not_judged() {
        assert!(address_match(&in_mode(NetworkingMode::Mirrored, nat())).is_empty());
        let mut guessed = nat();
        guessed.wsl.mode = Some((NetworkingMode::Nat, Source::Interfaces));
        assert_eq!(told(&guessed).0, Severity::Fine);
        assert!(address_match(&changed(guessed, |windows| windows.vethernet = Told::Known(vec![]))).is_empty());
        let errors = Facts { windows: windows(include_str!("../../../windows/transcripts/errors.json")), ..nat() };
        assert!(address_match(&errors).is_empty());
        assert!(address_match(&Facts::default()).is_empty());
    }

    #[test]
    fn prefixes_of_all_lengths_are_compared() {
        let ip = |text: &str| text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        assert!(same_network((ip("1.2.3.4"), 0), (ip("200.1.1.1"), 0)));
        assert!(same_network((ip("1.2.3.4"), 32), (ip("1.2.3.4"), 32)));
        assert!(!same_network((ip("1.2.3.4"), 32), (ip("1.2.3.5"), 32)));
        assert!(!same_network((ip("10.0.0.14"), 28), (ip("10.0.0.17"), 28)));
    }
}
