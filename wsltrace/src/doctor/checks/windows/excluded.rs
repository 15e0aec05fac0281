//! Ports that Windows keeps from programs, mostly for Hyper-V, which takes them out of the dynamic ports at Windows' start. WSL's
//! relay cannot open such a port, and does not tell; in the modes mirrored and consomme Linux itself may not listen on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Both, carried_by_relay, is_relay, mode};
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::{ExcludedRange, WindowsFacts};
use crate::wsl::NetworkingMode;

/// Where Windows' dynamic ports begin unless somebody changed it.
const DYNAMIC_START: u16 = 49152;

/// The range that keeps the port from programs on this address of Windows. Those that an administrator made do not: they keep Windows
/// from giving the port away, and a program that asks for it by number gets it.
pub(super) fn excluding(facts: &Facts, loopback: IpAddr) -> Option<ExcludedRange> {
    let windows = facts.windows.facts()?;
    let ranges = if loopback.is_ipv4() { &windows.excluded_v4 } else { &windows.excluded_v6 };
    ranges.known()?.iter().copied().find(|range| !range.administered && holds(*range, facts.port))
}

fn holds(range: ExcludedRange, port: u16) -> bool {
    (range.first..=range.last).contains(&port)
}

/// Whether the port lies in a range that Windows reserved.
pub(in crate::doctor::checks) fn excluded_range(facts: &Facts) -> Vec<Finding> {
    let (Some(mode), Some(windows)) = (mode(facts), facts.windows.facts()) else { return Vec::new() };
    // A relay that listens got the port before it was reserved.
    let listeners = windows.listeners.known();
    let relay = |loopback: IpAddr| listeners.is_some_and(|all| all.iter().any(|one| one.address == loopback && is_relay(one)));
    let v4 = excluding(facts, Ipv4Addr::LOCALHOST.into()).filter(|_| !relay(Ipv4Addr::LOCALHOST.into()));
    let v6 = excluding(facts, Ipv6Addr::LOCALHOST.into()).filter(|_| !relay(Ipv6Addr::LOCALHOST.into()));
    let Some(range) = v4.or(v6) else { return Vec::new() };
    let served = !facts.linux.listeners.is_empty();
    let (severity, consequence) = match mode {
        NetworkingMode::Nat | NetworkingMode::Bridged => {
            let Both { v4: wants_v4, v6: wants_v6 } = carried_by_relay(facts);
            let (needs_v4, needs_v6) = (wants_v4 && v4.is_some(), wants_v6 && v6.is_some());
            let needed = needs_v4 || needs_v6;
            if served && !needed {
                return Vec::new();
            }
            // Somebody else on the port is told of by the check of the relay.
            let family = |address: IpAddr| needs_v4 && address.is_ipv4() || needs_v6 && address.is_ipv6();
            let nobody = listeners.is_some_and(|all| !all.iter().any(|one| family(one.address)));
            let severity = if needed && nobody { Severity::Fails } else { Severity::Warns };
            (severity, "WSL's relay cannot open the port on Windows, so Windows' localhost does not lead to a server on it")
        }
        NetworkingMode::Mirrored | NetworkingMode::Consomme if !served => {
            (Severity::Warns, "a server in Linux cannot listen on it: \"Address already in use\"")
        }
        _ => return Vec::new(),
    };
    let port = facts.port;
    let family = match (v4, v6) {
        (Some(_), Some(_)) => "IPv4 and IPv6",
        (Some(_), None) => "IPv4",
        _ => "IPv6",
    };
    let summary =
        format!("Windows keeps port {port} from programs: it lies in the reserved range {} to {}", range.first, range.last);
    let finding = Finding::new(severity, summary)
        .because(format!("netsh interface {} show excludedportrange protocol=tcp lists it, for {family}", netsh(v4.is_some())))
        .because(consequence);
    vec![remedy(finding, windows, port, v4.is_some())]
}

fn netsh(v4: bool) -> &'static str {
    if v4 { "ipv4" } else { "ipv6" }
}

fn remedy(finding: Finding, windows: &WindowsFacts, port: u16, v4: bool) -> Finding {
    let finding = match free_port(windows, port) {
        Some(other) => finding.linux(format!("# let the server listen on another port, such as {other}")),
        None => finding,
    };
    if let Some(dynamic) = windows.dynamic_ports.known().filter(|dynamic| dynamic.start < DYNAMIC_START) {
        return finding
            .because(format!(
                "Windows' dynamic ports begin at {}, not at {DYNAMIC_START} as they do by default, and Hyper-V reserves its ranges among them",
                dynamic.start
            ))
            .admin(format!("netsh interface ipv4 set dynamicport tcp start={DYNAMIC_START} num=16384"))
            .admin(format!("netsh interface ipv6 set dynamicport tcp start={DYNAMIC_START} num=16384"))
            .powershell("# then restart Windows");
    }
    finding
        .admin("net stop winnat")
        .admin(format!("netsh interface {} add excludedportrange protocol=tcp startport={port} numberofports=1", netsh(v4)))
        .admin("net start winnat")
}

/// The next port that Windows does not keep.
fn free_port(windows: &WindowsFacts, port: u16) -> Option<u16> {
    let lists = [windows.excluded_v4.known(), windows.excluded_v6.known()];
    let kept = |port: u16| lists.iter().flatten().any(|ranges| ranges.iter().any(|range| holds(*range, port)));
    (port.checked_add(1)?..DYNAMIC_START.max(port)).find(|port| !kept(*port))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{changed, in_mode, listening, nat, relay_on, windows};
    use super::*;
    use crate::windows::{DynamicPorts, Told};

    fn reserved(facts: Facts, administered: bool) -> Facts {
        let range = ExcludedRange { first: 8046, last: 8145, administered };
        changed(facts, |windows| windows.excluded_v4 = Told::Known(vec![range]))
    }

    #[test]
    fn a_reserved_port_fails_the_relay() {
        let findings = excluded_range(&reserved(listening(nat(), &["0.0.0.0"]), false));
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Fails));
        assert_eq!(findings[0].summary, "Windows keeps port 8080 from programs: it lies in the reserved range 8046 to 8145");
        assert_eq!(findings[0].remedy[0].text, "# let the server listen on another port, such as 8146");
        assert_eq!(findings[0].remedy[1].text, "netsh interface ipv4 set dynamicport tcp start=49152 num=16384");
        assert!(findings[0].evidence.iter().any(|line| line.contains("begin at 1024")));
    }

    #[test]
    fn with_usual_dynamic_ports_the_port_is_reserved_before_hyper_v_comes() {
        let facts = changed(reserved(listening(nat(), &["0.0.0.0"]), false), |windows| {
            windows.dynamic_ports = Told::Known(DynamicPorts { start: 49152, count: 16384 });
        });
        let remedy: Vec<String> = excluded_range(&facts).remove(0).remedy.into_iter().skip(1).map(|line| line.text).collect();
        let add = "netsh interface ipv4 add excludedportrange protocol=tcp startport=8080 numberofports=1";
        assert_eq!(remedy, ["net stop winnat", add, "net start winnat"]);
    }

    #[test]
    fn what_does_not_keep_the_relay_out_is_not_told() {
        assert!(excluded_range(&reserved(listening(nat(), &["0.0.0.0"]), true)).is_empty());
        assert!(excluded_range(&relay_on(reserved(listening(nat(), &["0.0.0.0"]), false), &["127.0.0.1"])).is_empty());
        assert!(excluded_range(&reserved(listening(nat(), &["::1"]), false)).is_empty());
        // A relay for the other family helps nobody.
        let half = relay_on(reserved(listening(nat(), &["0.0.0.0", "::"]), false), &["::1"]);
        assert_eq!(excluded_range(&half)[0].severity, Severity::Fails);
        assert!(excluded_range(&nat()).is_empty());
        assert!(excluded_range(&Facts::default()).is_empty());
    }

    #[test]
    fn without_a_server_it_is_a_warning() {
        assert_eq!(excluded_range(&reserved(nat(), false))[0].severity, Severity::Warns);
        let mirrored = in_mode(NetworkingMode::Mirrored, reserved(nat(), false));
        assert!(excluded_range(&mirrored)[0].evidence[1].contains("Address already in use"));
        assert!(excluded_range(&listening(mirrored, &["0.0.0.0"])).is_empty());
    }

    #[test]
    fn ranges_of_a_localized_windows_count_too() {
        let zh = windows(include_str!("../../../windows/transcripts/nat-zh.json"));
        let facts = changed(Facts { windows: zh, ..nat() }, |windows| windows.listeners = Told::Known(vec![]));
        assert_eq!(excluded_range(&listening(facts, &["0.0.0.0"]))[0].severity, Severity::Fails);
    }

    #[test]
    fn the_last_ports_have_no_next_one() {
        assert_eq!(free_port(&WindowsFacts::default(), 65535), None);
        assert_eq!(free_port(&WindowsFacts::default(), 49151), None);
        assert_eq!(free_port(&WindowsFacts::default(), 3000), Some(3001));
    }
}
