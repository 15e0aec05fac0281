//! What Windows does before a packet reaches Linux. In the modes nat and bridged a connection to Windows' `localhost` is taken by
//! WSL's relay on Windows; where there is no relay, no packet ever comes. Windows' firewall has no part in that: it does not filter
//! `localhost`.
//!
//! What Windows told is foreign text. It may stand in a sentence, which is escaped where it is printed, but only numbers and parsed
//! addresses become words of a command.

mod address;
#[cfg(test)]
mod agreement_tests;
mod entry;
mod excluded;
mod firewall;
mod mode;
mod outside;
mod portproxy;
mod relay;
#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod wording_tests;

pub(super) use address::address_match;
pub(super) use excluded::excluded_range;
pub(super) use firewall::windows_firewall;
pub(super) use mode::mode_fell_back;
pub(in crate::doctor) use outside::outside;
pub(super) use portproxy::portproxy;
pub(super) use relay::relay;

use std::net::{IpAddr, Ipv4Addr};

use crate::doctor::{Facts, Finding, Interface, Severity};
use crate::windows::{InteropError, Windows, WindowsListener};
use crate::wsl::{NetworkingMode, Wsl, is_relayed};

/// Who a relay may be on Windows; the second name is that of older versions.
const RELAYS: [&str; 2] = ["wslrelay", "wslhost"];

/// What could not be asked of Windows.
pub(super) fn windows_unavailable(facts: &Facts) -> Vec<Finding> {
    if facts.wsl.wsl != Wsl::Two {
        return Vec::new();
    }
    let unseen = "who listens on Windows, portproxy, reserved ports, the firewalls of Windows and .wslconfig were not looked at";
    let finding = Finding::new(Severity::Unknown, "Windows' side of the connection could not be examined");
    let finding = match &facts.windows {
        Windows::NotAsked => finding.because("Windows was not asked"),
        Windows::Unavailable(error) => {
            let finding = finding.because(error.to_string());
            if *error == InteropError::InteropDisabled {
                finding
                    .because(unseen)
                    .linux("# /etc/wsl.conf must not set enabled=false under [interop]")
                    .linux("sudoedit /etc/wsl.conf")
                    .powershell("wsl --shutdown")
            } else {
                finding.because(unseen)
            }
        }
        Windows::Facts(windows) => {
            let unanswered = windows.unanswered();
            if unanswered.is_empty() {
                return Vec::new();
            }
            let finding = Finding::new(Severity::Unknown, "Windows did not answer every question");
            return vec![
                unanswered.into_iter().fold(finding, |finding, (question, why)| finding.because(format!("{question}: {why}"))),
            ];
        }
    };
    vec![if facts.windows == Windows::NotAsked { finding.because(unseen) } else { finding }]
}

/// The networking mode of a WSL 2, when it is known.
pub(super) fn mode(facts: &Facts) -> Option<NetworkingMode> {
    (facts.wsl.wsl == Wsl::Two).then_some(facts.wsl.mode?.0)
}

/// One answer for each family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Both {
    v4: bool,
    v6: bool,
}

impl Both {
    /// Whether it is so for either.
    pub(super) fn any(self) -> bool {
        self.v4 || self.v6
    }
}

/// For which families the relay opens the port on Windows: it copies a socket's own family, and only of a socket that takes
/// connections to `localhost`.
pub(super) fn carried_by_relay(facts: &Facts) -> Both {
    let listeners = &facts.linux.listeners;
    Both { v4: is_relayed(listeners, true), v6: is_relayed(listeners, false) }
}

/// Whether the relay listens on the port on Windows; `None` when that is not known.
pub(super) fn relay_listens(facts: &Facts) -> Option<bool> {
    Some(facts.windows.facts()?.listeners.known()?.iter().any(is_relay))
}

fn is_relay(listener: &WindowsListener) -> bool {
    listener.address.is_loopback() && listener.process.as_deref().is_some_and(|name| named(name, &RELAYS))
}

fn is_portproxy(listener: &WindowsListener) -> bool {
    listener.services.iter().any(|service| service.eq_ignore_ascii_case("iphlpsvc"))
}

/// Whether a process has one of these names, with `.exe` or without.
fn named(process: &str, names: &[&str]) -> bool {
    let lower = process.to_ascii_lowercase();
    names.contains(&lower.strip_suffix(".exe").unwrap_or(&lower))
}

/// `svchost (PID 4312, service iphlpsvc)`.
fn process(listener: &WindowsListener) -> String {
    let name = listener.process.as_deref().unwrap_or("a process without a name");
    let services = match listener.services.as_slice() {
        [] => String::new(),
        names => format!(", {} {}", if names.len() == 1 { "service" } else { "services" }, names.join(", ")),
    };
    format!("{name} (PID {}{services})", listener.pid)
}

/// This Linux' own addresses that others may reach.
fn own_addresses(facts: &Facts) -> impl Iterator<Item = IpAddr> {
    facts
        .linux
        .interfaces
        .iter()
        .flat_map(|interface| &interface.addresses)
        .map(|address| address.address)
        .filter(|address| !address.is_loopback())
}

/// The interface that hangs on Windows in the mode nat: WSL calls it eth0, and only who renamed it is guessed for by the default
/// route, which a VPN in Linux may have taken elsewhere.
fn to_windows(facts: &Facts) -> Option<&Interface> {
    let called = |name: &str| facts.linux.interfaces.iter().find(|interface| interface.name == name);
    called("eth0").or_else(|| called(&facts.linux.gateway.as_ref()?.1))
}

/// The IPv4 address by which Windows reaches this Linux in the mode nat, and the bits of its network.
fn address_for_windows(facts: &Facts) -> Option<(Ipv4Addr, u8)> {
    to_windows(facts)?.addresses.iter().find_map(|address| match address.address {
        IpAddr::V4(v4) => Some((v4, address.prefix)),
        IpAddr::V6(_) => None,
    })
}

/// Whether connections to Linux' own IPv4 addresses find the server.
fn serves_own_address(facts: &Facts) -> bool {
    facts.linux.listeners.iter().any(|listener| match listener.address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => address.is_unspecified() && !listener.v6only,
    })
}

#[cfg(test)]
mod tests {
    use super::samples::nat;
    use super::*;
    use crate::windows::{Told, WindowsFacts};

    #[test]
    fn why_windows_was_not_examined_is_told_on_wsl_2_only() {
        assert!(windows_unavailable(&Facts::default()).is_empty());
        assert!(windows_unavailable(&nat()).is_empty());
        let late = Facts { windows: Windows::Unavailable(InteropError::TimedOut { seconds: 30 }), ..nat() };
        let findings = windows_unavailable(&late);
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Unknown));
        assert_eq!(findings[0].evidence[0], "PowerShell gave no answer in 30 s");
        assert!(findings[0].evidence[1].contains("portproxy"));
        let off = Facts { windows: Windows::Unavailable(InteropError::InteropDisabled), ..nat() };
        assert!(!windows_unavailable(&off)[0].remedy.is_empty());
        let unasked = Facts { windows: Windows::NotAsked, ..nat() };
        assert_eq!(windows_unavailable(&unasked)[0].evidence.len(), 2);
    }

    #[test]
    fn single_questions_without_an_answer_are_told() {
        let windows = WindowsFacts { listeners: Told::Known(vec![]), ..WindowsFacts::default() };
        let findings = windows_unavailable(&Facts { windows: Windows::Facts(Box::new(windows)), ..nat() });
        assert_eq!(findings[0].evidence.len(), 12);
        assert!(findings[0].evidence.contains(&"portproxy: it was not asked".to_owned()));
    }
}
