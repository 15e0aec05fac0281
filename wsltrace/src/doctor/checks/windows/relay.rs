//! Who has the port on Windows. In the modes nat and bridged it should be WSL's relay, on 127.0.0.1 for a server with an IPv4 socket
//! and on `[::1]` for one with an IPv6 socket; when it cannot open the port there it tells nobody. In the modes mirrored and consomme
//! a port belongs to Windows or to Linux, and who comes second gets an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::excluded::excluding;
use super::{
    Both, address_for_windows, carried_by_relay, is_portproxy, is_relay, mode, named, own_addresses, process, serves_own_address,
};
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::WindowsListener;
use crate::wsl::config::Config;
use crate::wsl::{NetworkingMode, taker};

/// Who of Windows carries connections into Linux in the modes without a relay.
const CARRIERS: [&str; 3] = ["wsldevicehost", "wslrelay", "wslhost"];
/// The process of the kernel, which serves all of Windows' own web services.
const SYSTEM: u32 = 4;

/// Whether Windows' `localhost` leads to the server.
pub(in crate::doctor::checks) fn relay(facts: &Facts) -> Vec<Finding> {
    let Some(listeners) = facts.windows.facts().and_then(|windows| windows.listeners.known()) else { return Vec::new() };
    match mode(facts) {
        Some(NetworkingMode::Nat | NetworkingMode::Bridged) => by_relay(facts, listeners),
        Some(mode @ (NetworkingMode::Mirrored | NetworkingMode::Consomme)) => shared(facts, mode, listeners),
        Some(NetworkingMode::None) | None => Vec::new(),
    }
}

fn by_relay(facts: &Facts, listeners: &[WindowsListener]) -> Vec<Finding> {
    let Both { v4, v6 } = carried_by_relay(facts);
    if !v4 && !v6 {
        return Vec::new();
    }
    let families: [(IpAddr, bool); 2] = [(Ipv4Addr::LOCALHOST.into(), v4), (Ipv6Addr::LOCALHOST.into(), v6)];
    let mut findings = Vec::new();
    let (mut reached, mut missing) = (Vec::new(), Vec::new());
    for (loopback, wanted) in families {
        match holder(listeners, loopback) {
            // A relay helps nobody whose connections no socket here takes.
            Holder::Relay if taker(&facts.linux.listeners, loopback, "lo").is_some() => reached.push(loopback),
            // Its entry is told of by its own check.
            Holder::Other(other) if is_portproxy(other) && entries_are_known(facts) => {}
            Holder::Other(other) => findings.push(held(facts, loopback, other, wanted)),
            Holder::Nobody if wanted => missing.push(loopback),
            Holder::Relay | Holder::Nobody => {}
        }
    }
    // What explains a relay that is missing is told with it by its own check.
    missing.retain(|loopback| excluding(facts, *loopback).is_none());
    if !missing.is_empty() && !forwarding_is_off(facts) {
        findings.push(dead(facts, &missing, &reached));
    }
    if !reached.is_empty() && findings.is_empty() {
        findings.push(
            Finding::new(Severity::Fine, format!("WSL's relay leads from Windows' {} to Linux", ends(&reached, facts.port)))
                .because("wslrelay listens there on Windows"),
        );
    }
    findings
}

/// Whether there is a portproxy entry for the port that the other check tells of.
fn entries_are_known(facts: &Facts) -> bool {
    let entries = facts.windows.facts().and_then(|windows| windows.portproxy.known());
    entries.into_iter().flatten().any(|entry| entry.listen_port == facts.port)
}

/// Who has an address of Windows at the port.
pub(super) enum Holder<'a> {
    /// WSL's relay.
    Relay,
    /// Another process.
    Other(&'a WindowsListener),
    /// Nobody.
    Nobody,
}

/// Who gets connections to an address of Windows, by the sockets that listen on the port there.
pub(super) fn holder(listeners: &[WindowsListener], own: IpAddr) -> Holder<'_> {
    let all: IpAddr = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The socket on the very address gets the connection, when there is one.
    let at = |address: IpAddr| listeners.iter().filter(move |listener| listener.address == address);
    if at(own).any(is_relay) {
        return Holder::Relay;
    }
    at(own).next().or_else(|| at(all).next()).map_or(Holder::Nobody, Holder::Other)
}

/// Another process has what the relay should have; `wanted` when the relay would open that very address.
fn held(facts: &Facts, loopback: IpAddr, holder: &WindowsListener, wanted: bool) -> Finding {
    let end = ends(&[loopback], facts.port);
    let who = process(holder);
    let because = format!("on Windows {who} listens on {}", ends(&[holder.address], facts.port));
    if is_portproxy(holder) {
        let summary = format!("Windows' {end} is taken by netsh's portproxy, not by WSL's relay");
        return Finding::new(Severity::Warns, summary)
            .because(because)
            .because("its connections go where the portproxy entry says")
            .powershell("netsh interface portproxy show all");
    }
    let docker = holder.process.as_deref().is_some_and(|name| named(name, &["com.docker.backend"]));
    if docker {
        let summary = format!("Windows' {end} leads to Docker Desktop, which publishes that port, and not to this Linux");
        return Finding::new(Severity::Warns, summary).because(because).powershell("docker ps");
    }
    // Without the name it may be the relay after all.
    let severity = if wanted && holder.process.is_some() { Severity::Fails } else { Severity::Warns };
    let finding = Finding::new(severity, format!("Windows' {end} belongs to another program of Windows: {who}")).because(because);
    let why = match (wanted, loopback.is_ipv4()) {
        (true, _) => "WSL's relay cannot open a port that is taken, and does not tell Linux",
        (false, true) => "the server has an IPv6 socket only, for which WSL's relay opens [::1] and not 127.0.0.1",
        (false, false) => {
            "the server has an IPv4 socket only, for which WSL's relay opens 127.0.0.1 and not [::1]; the name localhost leads to [::1] first"
        }
    };
    free(finding.because(why), holder)
}

/// Who of Windows has the port, but for WSL's own programs, at an address that Windows and Linux share.
fn sharing<'a>(facts: &Facts, listeners: &'a [WindowsListener]) -> Option<&'a WindowsListener> {
    let common = |listener: &&WindowsListener| {
        let address = listener.address;
        address.is_loopback() || address.is_unspecified() || own_addresses(facts).any(|own| own == address)
    };
    listeners.iter().filter(|listener| !carries(listener)).find(common)
}

/// Whether it is a program of WSL that carries connections into Linux in the modes without a relay.
pub(super) fn carries(listener: &WindowsListener) -> bool {
    listener.process.as_deref().is_some_and(|name| named(name, &CARRIERS))
}

/// What to do about a program that has the port.
fn free(finding: Finding, holder: &WindowsListener) -> Finding {
    if holder.pid == SYSTEM {
        return finding
            .admin("netsh http show servicestate view=requestq")
            .powershell("# stop the program that it names, or let the server listen on another port");
    }
    if is_portproxy(holder) {
        return finding
            .powershell("netsh interface portproxy show all")
            .powershell("# delete the entry for this port, or let the server in Linux listen on another one");
    }
    if !holder.services.is_empty() {
        return finding
            .powershell(format!("Get-CimInstance Win32_Service -Filter 'ProcessId={}'", holder.pid))
            .powershell("# stop the service that has the port, or let the server in Linux listen on another one");
    }
    finding
        .powershell(format!("Get-Process -Id {} | Select-Object Id, ProcessName, Path", holder.pid))
        .powershell("# stop that program, or let the server in Linux listen on another port")
}

/// Linux listens, and nobody does on Windows; `reached` has what the relay opened of the other family.
fn dead(facts: &Facts, missing: &[IpAddr], reached: &[IpAddr]) -> Finding {
    let summary = format!("Nobody listens on Windows' {}, where WSL's relay should", ends(missing, facts.port));
    // Who connects to the name localhost tries both families.
    let severity = if reached.is_empty() { Severity::Fails } else { Severity::Warns };
    let mut finding =
        Finding::new(severity, summary).because("the server listens in Linux, and no process of Windows listens there");
    let windows = facts.windows.facts();
    if windows.is_some_and(|windows| windows.excluded_v4.known().is_some() && windows.excluded_v6.known().is_some()) {
        finding = finding.because("the port lies in no range that Windows keeps from programs");
    }
    finding = if reached.is_empty() {
        finding.because("the relay looks for new servers once a second; after Windows' sleep or fast start it may have stopped")
    } else {
        finding.because(format!("the relay did open {}", ends(reached, facts.port)))
    };
    finding = finding.powershell("wsl --shutdown");
    if let Some((address, _)) = address_for_windows(facts).filter(|_| serves_own_address(facts)) {
        finding = finding.powershell(format!("# until then {address}:{} leads to the server past the relay", facts.port));
    }
    finding
}

fn forwarding_is_off(facts: &Facts) -> bool {
    let text = facts.windows.facts().and_then(|windows| windows.wslconfig.known()).and_then(|text| text.as_deref());
    text.is_some_and(|text| Config::parse(text).flag("wsl2", "localhostForwarding") == Some(false))
}

/// A port that Windows and Linux share.
fn shared(facts: &Facts, mode: NetworkingMode, listeners: &[WindowsListener]) -> Vec<Finding> {
    let Some(holder) = sharing(facts, listeners) else { return Vec::new() };
    let port = facts.port;
    let who = process(holder);
    let mode = mode.name();
    let summary = if facts.linux.listeners.is_empty() {
        format!("A server in Linux cannot listen on port {port}, because on Windows {who} has it")
    } else {
        format!("Port {port} is open in Linux and on Windows, where {who} has it, so connections may end at that program")
    };
    let finding = Finding::new(Severity::Warns, summary)
        .because(format!("on Windows {who} listens on {}", ends(&[holder.address], port)))
        .because(format!(
            "in the mode {mode} Windows and Linux share their ports: bind or listen fails with \"Address already in use\""
        ));
    vec![free(finding, holder)]
}

/// `127.0.0.1:8080 and [::1]:8080`.
fn ends(addresses: &[IpAddr], port: u16) -> String {
    let ends: Vec<String> = addresses.iter().map(|address| std::net::SocketAddr::new(*address, port).to_string()).collect();
    ends.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::super::samples::{changed, held_on, in_mode, listening, nat, relay_on, windows, with_wslconfig};
    use super::*;
    use crate::windows::{ExcludedRange, Told};

    fn told(facts: &Facts) -> Vec<(Severity, String)> {
        relay(facts).into_iter().map(|finding| (finding.severity, finding.summary)).collect()
    }

    #[test]
    fn a_relay_for_each_family_is_fine() {
        let facts = relay_on(listening(nat(), &["0.0.0.0", "::"]), &["127.0.0.1", "::1"]);
        assert_eq!(
            told(&facts),
            [(Severity::Fine, "WSL's relay leads from Windows' 127.0.0.1:8080 and [::1]:8080 to Linux".to_owned())]
        );
        assert_eq!(told(&relay_on(listening(nat(), &["::"]), &["::1"])).len(), 1);
    }

    #[test]
    fn another_program_on_the_port_fails_the_connection() {
        let facts = held_on(listening(nat(), &["127.0.0.1"]), "node", None, &["127.0.0.1"]);
        let findings = relay(&facts);
        assert_eq!(findings[0].severity, Severity::Fails);
        assert_eq!(findings[0].summary, "Windows' 127.0.0.1:8080 belongs to another program of Windows: node (PID 4312)");
        assert_eq!(findings[0].remedy[0].text, "Get-Process -Id 4312 | Select-Object Id, ProcessName, Path");
        // On all addresses too, when the relay has not opened its own.
        assert_eq!(told(&held_on(listening(nat(), &["0.0.0.0"]), "node", None, &["0.0.0.0"]))[0].0, Severity::Fails);
        let portproxy = held_on(listening(nat(), &["0.0.0.0"]), "svchost", Some("iphlpsvc"), &["0.0.0.0"]);
        assert_eq!(
            told(&portproxy),
            [(Severity::Warns, "Windows' 127.0.0.1:8080 is taken by netsh's portproxy, not by WSL's relay".to_owned())]
        );
        assert_eq!(
            told(&held_on(listening(nat(), &["0.0.0.0"]), "com.docker.backend.exe", None, &["127.0.0.1"]))[0].0,
            Severity::Warns
        );
    }

    #[test]
    fn a_program_on_the_family_that_the_relay_does_not_open_is_told() {
        let facts = changed(relay_on(listening(nat(), &["::"]), &["::1"]), |windows| {
            let node = WindowsListener {
                address: Ipv4Addr::LOCALHOST.into(),
                port: 8080,
                pid: 77,
                process: Some("node".to_owned()),
                services: vec![],
            };
            if let Told::Known(listeners) = &mut windows.listeners {
                listeners.push(node);
            }
        });
        assert_eq!(
            told(&facts),
            [(Severity::Warns, "Windows' 127.0.0.1:8080 belongs to another program of Windows: node (PID 77)".to_owned())]
        );
    }

    #[test]
    fn a_relay_that_is_missing_fails_unless_something_else_explains_it() {
        let facts = listening(nat(), &["0.0.0.0"]);
        let findings = relay(&facts);
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Fails));
        assert_eq!(findings[0].summary, "Nobody listens on Windows' 127.0.0.1:8080, where WSL's relay should");
        assert_eq!(findings[0].remedy[1].text, "# until then 172.28.20.5:8080 leads to the server past the relay");
        assert!(relay(&with_wslconfig(facts.clone(), "[wsl2]\nlocalhostForwarding=false\n")).is_empty());
        let range = ExcludedRange { first: 8046, last: 8145, administered: false };
        assert!(relay(&changed(facts, |windows| windows.excluded_v4 = Told::Known(vec![range]))).is_empty());
    }

    #[test]
    fn half_a_relay_is_a_warning() {
        let findings = relay(&relay_on(listening(nat(), &["0.0.0.0", "::"]), &["127.0.0.1"]));
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warns));
        assert!(findings[0].evidence.contains(&"the relay did open 127.0.0.1:8080".to_owned()));
        // The other half leads nowhere.
        let findings = relay(&relay_on(listening(nat(), &["::1"]), &["127.0.0.1"]));
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Fails));
    }

    #[test]
    fn services_and_the_system_are_not_to_be_stopped_as_programs() {
        let service = held_on(listening(nat(), &["0.0.0.0"]), "svchost", Some("W3SVC"), &["0.0.0.0"]);
        assert_eq!(relay(&service)[0].remedy[0].text, "Get-CimInstance Win32_Service -Filter 'ProcessId=4312'");
        let portproxy = in_mode(NetworkingMode::Mirrored, held_on(nat(), "svchost", Some("iphlpsvc"), &["0.0.0.0"]));
        assert_eq!(relay(&portproxy)[0].remedy[0].text, "netsh interface portproxy show all");
        let system = changed(held_on(listening(nat(), &["0.0.0.0"]), "System", None, &["0.0.0.0"]), |windows| {
            if let Told::Known(listeners) = &mut windows.listeners {
                listeners[0].pid = SYSTEM;
            }
        });
        assert_eq!(relay(&system)[0].remedy[0].text, "netsh http show servicestate view=requestq");
    }

    #[test]
    fn a_server_that_the_relay_does_not_carry_is_not_judged() {
        assert!(relay(&nat()).is_empty());
        assert!(relay(&listening(nat(), &["172.28.20.5", "127.0.0.2"])).is_empty());
        let errors = windows(include_str!("../../../windows/transcripts/errors.json"));
        assert!(relay(&Facts { windows: errors, ..listening(nat(), &["0.0.0.0"]) }).is_empty());
        assert!(relay(&Facts::default()).is_empty());
    }

    #[test]
    fn in_mirrored_mode_a_port_of_windows_is_no_port_of_linux() {
        let mirrored = |facts| in_mode(NetworkingMode::Mirrored, facts);
        let findings = relay(&mirrored(held_on(nat(), "node", None, &["0.0.0.0"])));
        assert_eq!(
            findings[0].summary,
            "A server in Linux cannot listen on port 8080, because on Windows node (PID 4312) has it"
        );
        assert!(findings[0].evidence[1].contains("Address already in use"));
        assert_eq!(relay(&mirrored(held_on(listening(nat(), &["0.0.0.0"]), "node", None, &["127.0.0.1"]))).len(), 1);
        let carried = held_on(listening(nat(), &["0.0.0.0"]), "wsldevicehost", None, &["0.0.0.0"]);
        assert!(relay(&in_mode(NetworkingMode::Consomme, carried)).is_empty());
        assert!(relay(&mirrored(listening(nat(), &["0.0.0.0"]))).is_empty());
    }

    #[test]
    fn a_name_from_windows_becomes_no_part_of_a_command() {
        let facts = held_on(listening(nat(), &["0.0.0.0"]), "a; rm -rf $HOME `x`", Some("y'; z"), &["127.0.0.1"]);
        for line in relay(&facts).into_iter().flat_map(|finding| finding.remedy) {
            assert!(!line.text.contains("rm ") && !line.text.contains('z'), "{}", line.text);
        }
    }
}
