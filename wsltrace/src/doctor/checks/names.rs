//! What `localhost` is in this Linux.

use std::net::IpAddr;

use super::super::{Facts, Finding, Severity};

/// WSL's own name server, where DNS is tunnelled to Windows.
const TUNNEL: [u8; 4] = [10, 255, 255, 254];

/// `localhost` must be a loopback address, and one that the server listens on.
pub(super) fn localhost(facts: &Facts) -> Vec<Finding> {
    let names = &facts.linux.names;
    let Some(addresses) = &names.localhost else { return Vec::new() };
    // Without an address of IPv4 but 127.0.0.1 libc writes it as ::ffff:127.0.0.1.
    let addresses: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
    let told = |finding: Finding| {
        let finding = names.hosts.iter().fold(finding, |finding, line| finding.because(format!("/etc/hosts: {line}")));
        match &names.nsswitch {
            Some(line) => finding.because(format!("/etc/nsswitch.conf: {line}")),
            None => finding,
        }
    };
    let list = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let Some(first) = addresses.first() else {
        return vec![
            told(Finding::new(Severity::Fails, "localhost is not known in this Linux"))
                .linux("echo '127.0.0.1 localhost' | sudo tee -a /etc/hosts"),
        ];
    };
    if let Some(foreign) = addresses.iter().find(|address| !address.to_canonical().is_loopback()) {
        let finding =
            Finding::new(Severity::Fails, format!("localhost is {foreign} in this Linux, which is no loopback address"));
        return vec![told(finding).linux("# take the wrong line out of /etc/hosts; 127.0.0.1 localhost belongs there")];
    }
    let listeners = &facts.linux.listeners;
    let takes = |address: IpAddr| crate::wsl::taker(listeners, address, "lo").is_some();
    if first.is_ipv6() && !listeners.is_empty() && !takes(*first) {
        let finding = Finding::new(
            Severity::Warns,
            format!(
                "programs in this Linux that take only the first address of localhost are refused: it is {first}, and the server listens on IPv4"
            ),
        );
        return vec![told(finding).linux(format!("# here, use 127.0.0.1:{}", facts.port))];
    }
    vec![told(Finding::new(Severity::Fine, format!("localhost is {list} in this Linux")))]
}

/// How names of others are found; informative only.
pub(super) fn dns(facts: &Facts) -> Vec<Finding> {
    let names = &facts.linux.names;
    if facts.wsl.wsl == crate::wsl::Wsl::No || names.servers.is_empty() {
        return Vec::new();
    }
    let tunnelled = names.servers.contains(&IpAddr::from(TUNNEL));
    let list = names.servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let how = if tunnelled { "DNS is tunnelled to Windows" } else { "names are asked of the servers in /etc/resolv.conf" };
    let finding = Finding::new(Severity::Fine, how).because(format!("nameserver {list}"));
    vec![match &names.resolv_conf {
        Some(target) => finding.because(format!("/etc/resolv.conf leads to {target}")),
        None => finding,
    }]
}
