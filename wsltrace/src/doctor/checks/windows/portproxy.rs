//! Entries of `netsh interface portproxy`: a service of Windows, IP Helper, takes connections and makes others in their stead. An
//! entry to 127.0.0.1 is sound, for it goes on by WSL's relay and outlives a change of WSL's address, unless it listens on that very
//! address and port. One that listens on all addresses takes Windows' `localhost` away from the relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{address_for_windows, carried_by_relay, is_portproxy, is_relay, mode, own_addresses, serves_own_address};
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::{Families, Portproxy, WindowsFacts};
use crate::wsl::NetworkingMode;

/// An end of an entry, as far as it is understood; only such become words of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// `*`.
    All,
    /// `localhost`.
    Localhost,
    /// An address.
    Address(IpAddr),
}

impl End {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::All),
            _ if text.eq_ignore_ascii_case("localhost") => Some(Self::Localhost),
            _ => text.parse().ok().map(Self::Address),
        }
    }

    /// As netsh takes it.
    fn word(self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::Localhost => "localhost".to_owned(),
            Self::Address(address) => address.to_string(),
        }
    }

    fn is_loopback(self) -> bool {
        match self {
            Self::All => false,
            Self::Localhost => true,
            Self::Address(address) => address.is_loopback(),
        }
    }

    /// Whether a socket on it takes connections to `localhost`.
    fn covers_loopback(self) -> bool {
        match self {
            Self::All | Self::Localhost => true,
            Self::Address(address) => address.is_unspecified() || [v4_loopback(), v6_loopback()].contains(&address),
        }
    }
}

fn v4_loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn v6_loopback() -> IpAddr {
    Ipv6Addr::LOCALHOST.into()
}

/// The entries that have to do with the port.
pub(in crate::doctor::checks) fn portproxy(facts: &Facts) -> Vec<Finding> {
    let (Some(mode), Some(windows)) = (mode(facts), facts.windows.facts()) else { return Vec::new() };
    let Some(entries) = windows.portproxy.known() else { return Vec::new() };
    let about = |entry: &&Portproxy| entry.listen_port == facts.port || entry.connect_port == facts.port;
    let about: Vec<&Portproxy> = entries.iter().filter(about).collect();
    let mut findings: Vec<Finding> = about.iter().filter_map(|entry| judge(facts, mode, windows, entry)).collect();
    if let (Some(service), Some(entry)) = (windows.iphlpsvc.known(), about.first())
        && !service.running
    {
        let start = Finding::new(
            Severity::Warns,
            "The service that does portproxy's work, IP Helper (iphlpsvc), does not run, so its entries do nothing",
        )
        .because(shown(entry))
        .because(if service.disabled { "iphlpsvc is disabled" } else { "iphlpsvc is stopped" });
        let start = if service.disabled { start.admin("Set-Service iphlpsvc -StartupType Automatic") } else { start };
        findings.push(start.admin("Start-Service iphlpsvc"));
    }
    findings
}

/// Whether an entry takes connections to the port, or on to it, from other machines.
pub(super) fn from_other_machines(facts: &Facts) -> bool {
    let entries = facts.windows.facts().and_then(|windows| windows.portproxy.known());
    entries
        .into_iter()
        .flatten()
        .any(|entry| entry.listen_port == facts.port && !End::parse(&entry.listen_address).is_some_and(End::is_loopback))
}

/// Whether an entry leads connections of other machines to Windows' port of the same number on to the server.
pub(super) fn leads_in_from_outside(facts: &Facts) -> bool {
    let entries = facts.windows.facts().and_then(|windows| windows.portproxy.known());
    entries.into_iter().flatten().any(|entry| {
        let listen = End::parse(&entry.listen_address);
        let leads_here = match End::parse(&entry.connect_address) {
            Some(End::Address(address)) if !address.is_loopback() => own_addresses(facts).any(|own| own == address),
            // By the relay, unless it takes the relay's place.
            Some(connect) => connect.is_loopback() && !listen.is_some_and(End::covers_loopback),
            None => false,
        };
        entry.listen_port == facts.port && entry.connect_port == facts.port && leads_here && !listen.is_some_and(End::is_loopback)
    })
}

fn judge(facts: &Facts, mode: NetworkingMode, windows: &WindowsFacts, entry: &Portproxy) -> Option<Finding> {
    let (listen, connect) = (End::parse(&entry.listen_address), End::parse(&entry.connect_address)?);
    let shadows = entry.listen_port == facts.port && listen.is_some_and(End::covers_loopback);
    // Whether the entry is seen to have the place of the relay, for a server that the relay would carry.
    let listeners = windows.listeners.known();
    let loopback = if entry.families.listens_v4() { v4_loopback() } else { v6_loopback() };
    let of_family = |address: IpAddr| address.is_ipv4() == loopback.is_ipv4();
    let relay = listeners.is_some_and(|all| all.iter().any(|listener| listener.address == loopback && is_relay(listener)));
    let holds =
        shadows && !relay && listeners.is_some_and(|all| all.iter().any(|one| is_portproxy(one) && of_family(one.address)));
    let carried = carried_by_relay(facts);
    let served = if entry.families.listens_v4() { carried.v4 } else { carried.v6 };
    let relayed = matches!(mode, NetworkingMode::Nat | NetworkingMode::Bridged);
    let failing = if holds && served && relayed { Severity::Fails } else { Severity::Warns };
    let end = std::net::SocketAddr::new(loopback, facts.port);
    let taken = |finding: Finding| {
        if holds { finding.because(format!("IP Helper listens on Windows' {end} in the place of WSL's relay")) } else { finding }
    };
    if connect.is_loopback() {
        if !(entry.listen_port == entry.connect_port && listen.is_some_and(End::covers_loopback)) {
            return Some(fine(entry, "it goes on by WSL's relay, whatever WSL's address is")).filter(|_| relayed);
        }
        let summary = format!("A portproxy entry leads Windows' port {} to itself", entry.listen_port);
        let finding = taken(Finding::new(failing, summary).because(shown(entry)))
            .because("it listens on 127.0.0.1 too, which is where it connects to, and where WSL's relay should listen");
        return Some(delete(finding, entry));
    }
    let End::Address(address) = connect else { return None };
    if !own_addresses(facts).any(|own| own == address) {
        return stale(facts, mode, entry, address, failing).map(taken);
    }
    if relayed && shadows && !relay {
        let refused = holds && served && address.is_ipv4() && !serves_own_address(facts);
        let severity = if refused { Severity::Fails } else { Severity::Warns };
        let summary = format!("A portproxy entry takes Windows' {end} away from WSL's relay");
        let finding = taken(Finding::new(severity, summary).because(shown(entry)));
        let finding = if refused {
            finding.because(format!("it connects to {address}, where the server does not listen: it listens on localhost only"))
        } else {
            finding.because(format!(
                "it connects to {address}, which works as long as that is WSL's address and the server listens on it"
            ))
        };
        return Some(by_relay(delete(finding, entry), facts, entry));
    }
    Some(fine(entry, "it leads to this Linux"))
}

/// An entry to an address that this Linux does not have.
fn stale(facts: &Facts, mode: NetworkingMode, entry: &Portproxy, address: IpAddr, severity: Severity) -> Option<Finding> {
    // On purpose somebody may forward another port to another machine's port of this number.
    let of_wsl = matches!(address, IpAddr::V4(address) if matches!(address.octets(), [172, 16..32, ..]));
    if entry.listen_port != facts.port && !of_wsl {
        return None;
    }
    let summary = format!(
        "A portproxy entry leads Windows' port {} to {address}, which is not an address of this Linux",
        entry.listen_port
    );
    let mut own: Vec<String> =
        own_addresses(facts).filter(|own| own.is_ipv4() == address.is_ipv4()).map(|own| own.to_string()).collect();
    own.truncate(8);
    let has = if own.is_empty() { "none of that family".to_owned() } else { own.join(", ") };
    let finding = Finding::new(severity, summary).because(shown(entry)).because(format!("this Linux has {has}"));
    if mode != NetworkingMode::Nat {
        return Some(delete(finding.because(format!("in the mode {} no portproxy is needed", mode.name())), entry));
    }
    let (Some((now, _)), Some(listen), IpAddr::V4(_)) = (address_for_windows(facts), End::parse(&entry.listen_address), address)
    else {
        return Some(delete(finding, entry));
    };
    Some(finding.admin(format!(
        "netsh interface portproxy set {} listenaddress={} listenport={} connectaddress={now} connectport={}",
        entry.families.name(),
        listen.word(),
        entry.listen_port,
        entry.connect_port
    )))
}

fn fine(entry: &Portproxy, why: &str) -> Finding {
    let summary = format!("A portproxy entry leads Windows' port {} on to port {}", entry.listen_port, entry.connect_port);
    Finding::new(Severity::Fine, summary).because(shown(entry)).because(why)
}

/// Adds the command that deletes an entry; nothing where its address is not understood.
fn delete(finding: Finding, entry: &Portproxy) -> Finding {
    match End::parse(&entry.listen_address) {
        Some(listen) => finding.admin(format!(
            "netsh interface portproxy delete {} listenaddress={} listenport={}",
            entry.families.name(),
            listen.word(),
            entry.listen_port
        )),
        None => finding.powershell("netsh interface portproxy show all"),
    }
}

/// Adds the entry by which other machines may reach the server all the same.
fn by_relay(finding: Finding, facts: &Facts, entry: &Portproxy) -> Finding {
    if entry.families != Families::V4tov4 || !carried_by_relay(facts).v4 {
        return finding;
    }
    let other = facts.port.checked_add(10_000).unwrap_or_else(|| facts.port.saturating_sub(10_000));
    finding
        .powershell(format!("# for other machines, on another port of Windows, {other}, which goes on by WSL's relay:"))
        .admin(format!(
            "netsh interface portproxy add v4tov4 listenaddress=0.0.0.0 listenport={other} connectaddress=127.0.0.1 connectport={}",
            facts.port
        ))
}

/// An entry as netsh's words have it, from foreign text.
fn shown(entry: &Portproxy) -> String {
    let Portproxy { families, listen_address, listen_port, connect_address, connect_port } = entry;
    format!("portproxy {}: {listen_address} {listen_port} to {connect_address} {connect_port}", families.name())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{changed, held_on, in_mode, listening, nat, relay_on};
    use super::*;
    use crate::windows::{Service, Told};

    fn entry(listen: (&str, u16), connect: (&str, u16)) -> Portproxy {
        Portproxy {
            families: Families::V4tov4,
            listen_address: listen.0.to_owned(),
            listen_port: listen.1,
            connect_address: connect.0.to_owned(),
            connect_port: connect.1,
        }
    }

    fn with(facts: Facts, entry: Portproxy) -> Facts {
        changed(facts, |windows| windows.portproxy = Told::Known(vec![entry]))
    }

    fn only(facts: &Facts) -> Finding {
        let mut findings = portproxy(facts);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    fn served() -> Facts {
        listening(nat(), &["0.0.0.0"])
    }

    #[test]
    fn an_entry_to_a_former_address_is_mended() {
        let finding = only(&with(served(), entry(("192.168.1.5", 8080), ("172.20.1.5", 8080))));
        assert_eq!(finding.severity, Severity::Warns);
        assert_eq!(
            finding.summary,
            "A portproxy entry leads Windows' port 8080 to 172.20.1.5, which is not an address of this Linux"
        );
        let set = "netsh interface portproxy set v4tov4 listenaddress=192.168.1.5 listenport=8080 connectaddress=172.28.20.5 connectport=8080";
        assert_eq!(finding.remedy[0].text, set);
        // Where it has taken the relay's place, Windows' localhost fails for certain.
        let facts = held_on(served(), "svchost", Some("iphlpsvc"), &["0.0.0.0"]);
        assert_eq!(only(&with(facts, entry(("0.0.0.0", 8080), ("172.20.1.5", 8080)))).severity, Severity::Fails);
        let mirrored = in_mode(NetworkingMode::Mirrored, served());
        let finding = only(&with(mirrored, entry(("*", 8080), ("172.20.1.5", 8080))));
        assert_eq!(finding.remedy[0].text, "netsh interface portproxy delete v4tov4 listenaddress=* listenport=8080");
    }

    #[test]
    fn an_entry_into_the_relay_is_sound_unless_it_listens_there_itself() {
        assert_eq!(only(&with(served(), entry(("0.0.0.0", 18080), ("127.0.0.1", 8080)))).severity, Severity::Fine);
        assert_eq!(only(&with(served(), entry(("192.168.1.5", 8080), ("localhost", 8080)))).severity, Severity::Fine);
        for listen in ["0.0.0.0", "*", "127.0.0.1", "localhost"] {
            let finding = only(&with(served(), entry((listen, 8080), ("127.0.0.1", 8080))));
            assert_eq!(finding.summary, "A portproxy entry leads Windows' port 8080 to itself");
            assert_eq!(finding.severity, Severity::Warns);
        }
        let facts = held_on(served(), "svchost", Some("iphlpsvc"), &["0.0.0.0"]);
        assert_eq!(only(&with(facts, entry(("0.0.0.0", 8080), ("127.0.0.1", 8080)))).severity, Severity::Fails);
    }

    #[test]
    fn an_entry_that_takes_localhost_away_is_told() {
        let finding = only(&with(served(), entry(("0.0.0.0", 8080), ("172.28.20.5", 8080))));
        assert_eq!((finding.severity, finding.remedy.len()), (Severity::Warns, 3));
        assert_eq!(finding.summary, "A portproxy entry takes Windows' 127.0.0.1:8080 away from WSL's relay");
        assert!(finding.remedy[2].text.ends_with("listenport=18080 connectaddress=127.0.0.1 connectport=8080"));
        let local = held_on(listening(nat(), &["127.0.0.1"]), "svchost", Some("iphlpsvc"), &["0.0.0.0"]);
        assert_eq!(only(&with(local, entry(("0.0.0.0", 8080), ("172.28.20.5", 8080)))).severity, Severity::Fails);
        // The relay has its place, or the entry another address.
        let relayed = relay_on(served(), &["127.0.0.1"]);
        assert_eq!(only(&with(relayed, entry(("0.0.0.0", 8080), ("172.28.20.5", 8080)))).severity, Severity::Fine);
        assert_eq!(only(&with(served(), entry(("192.168.1.5", 8080), ("172.28.20.5", 8080)))).severity, Severity::Fine);
    }

    #[test]
    fn a_service_that_does_not_run_is_told_only_with_entries() {
        let stopped =
            |facts, disabled| changed(facts, |windows| windows.iphlpsvc = Told::Known(Service { running: false, disabled }));
        assert!(portproxy(&stopped(served(), true)).is_empty());
        let facts = with(served(), entry(("192.168.1.5", 8080), ("172.28.20.5", 8080)));
        let findings = portproxy(&stopped(facts.clone(), true));
        let commands: Vec<&str> = findings[1].remedy.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(commands, ["Set-Service iphlpsvc -StartupType Automatic", "Start-Service iphlpsvc"]);
        assert_eq!(portproxy(&stopped(facts, false))[1].remedy.len(), 1);
    }

    #[test]
    fn other_ports_and_names_are_left_alone() {
        assert!(portproxy(&with(served(), entry(("0.0.0.0", 80), ("10.0.0.7", 8080)))).is_empty());
        assert!(portproxy(&with(served(), entry(("0.0.0.0", 22), ("172.20.1.5", 22)))).is_empty());
        assert!(portproxy(&with(served(), entry(("0.0.0.0", 8080), ("nas.example", 8080)))).is_empty());
        assert!(portproxy(&Facts::default()).is_empty());
    }

    #[test]
    fn an_address_that_is_none_becomes_no_part_of_a_command() {
        for bad in ["0.0.0.0 & calc", "$(calc)", "a;b", "", "\u{1b}[31m"] {
            for facts in [served(), in_mode(NetworkingMode::Mirrored, served())] {
                for connect in ["172.20.1.5", "127.0.0.1", "172.28.20.5", bad] {
                    let findings = portproxy(&with(facts.clone(), entry((bad, 8080), (connect, 8080))));
                    let text: Vec<String> =
                        findings.into_iter().flat_map(|finding| finding.remedy).map(|line| line.text).collect();
                    assert!(!text.iter().any(|line| line.contains("listenaddress")), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn only_entries_that_others_can_reach_open_the_port_to_them() {
        assert!(from_other_machines(&with(nat(), entry(("*", 8080), ("127.0.0.1", 80)))));
        assert!(!from_other_machines(&with(nat(), entry(("127.0.0.1", 8080), ("172.28.20.5", 8080)))));
        assert!(!from_other_machines(&with(nat(), entry(("*", 80), ("172.28.20.5", 8080)))));
    }
}
