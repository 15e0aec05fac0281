//! Entries of `netsh interface portproxy`: a service of Windows, IP Helper, takes connections and makes others in their stead. An
//! entry to 127.0.0.1 is sound, for it goes on by WSL's relay and outlives a change of WSL's address, unless it listens on that very
//! address and port. One that listens on all addresses takes Windows' `localhost` away from the relay.

use std::net::{IpAddr, SocketAddr};

use super::entry::{End, Work, at_work, from_outside, leads_of, leads_to_itself, loopback};
use super::{address_for_windows, carried_by_relay, is_portproxy, is_relay, mode, own_addresses, process, serves_own_address};
use crate::doctor::{Facts, Finding, Severity};
use crate::windows::{Families, Portproxy, WindowsFacts};
use crate::wsl::{Answer, NetworkingMode};

/// The entries that have to do with the port.
pub(in crate::doctor::checks) fn portproxy(facts: &Facts) -> Vec<Finding> {
    let (Some(mode), Some(windows)) = (mode(facts), facts.windows.facts()) else { return Vec::new() };
    let Some(entries) = windows.portproxy.known() else { return Vec::new() };
    let about = |entry: &&Portproxy| entry.listen_port == facts.port || entry.connect_port == facts.port;
    let about: Vec<&Portproxy> = entries.iter().filter(about).collect();
    let stopped = windows.iphlpsvc.known().filter(|service| !service.running);
    let judged = about.iter().filter_map(|entry| judge(facts, mode, windows, entry));
    // Of entries that do nothing none is in order.
    let mut findings: Vec<Finding> = judged.filter(|finding| stopped.is_none() || finding.severity != Severity::Fine).collect();
    if let (Some(service), Some(entry)) = (stopped, about.first()) {
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

/// Who does not do what an entry says, where that is not a matter of the service.
fn idle(facts: &Facts, windows: &WindowsFacts, entry: &Portproxy) -> Option<Finding> {
    let outer = from_outside(facts, windows)?;
    if !outer.contains(&entry) {
        return None;
    }
    let summary = |who: &str| format!("{who} of Windows' port {}, for which there is a portproxy entry", entry.listen_port);
    match at_work(facts, windows, entry) {
        Work::Unheard => Some(
            Finding::new(Severity::Warns, summary("Nobody takes the connections"))
                .because(shown(entry))
                .because(
                    "no program of Windows listens there; IP Helper (iphlpsvc) does so when it starts and the address is there",
                )
                .admin("Restart-Service iphlpsvc"),
        ),
        Work::Taken(holder) => Some(
            Finding::new(Severity::Warns, summary(&format!("{} has the connections", process(holder))))
                .because(shown(entry))
                .because("portproxy cannot listen where another program does")
                .powershell(format!("Get-Process -Id {} | Select-Object Id, ProcessName, Path", holder.pid)),
        ),
        Work::Done | Work::Stopped | Work::NotKnown => None,
    }
}

fn judge(facts: &Facts, mode: NetworkingMode, windows: &WindowsFacts, entry: &Portproxy) -> Option<Finding> {
    let (listen, connect) = (End::parse(&entry.listen_address), End::parse(&entry.connect_address)?);
    // An entry of a service that does not run takes nothing from anybody.
    let runs = windows.iphlpsvc.known().is_none_or(|service| service.running);
    let shadows = runs && entry.listen_port == facts.port && listen.is_some_and(End::covers_loopback);
    // Whether the entry is seen to have the place of the relay, for a server that the relay would carry.
    let listeners = windows.listeners.known();
    let loopback = loopback(entry.families.listens_v4());
    let of_family = |address: IpAddr| address.is_ipv4() == loopback.is_ipv4();
    let relay = listeners.is_some_and(|all| all.iter().any(|listener| listener.address == loopback && is_relay(listener)));
    let holds =
        shadows && !relay && listeners.is_some_and(|all| all.iter().any(|one| is_portproxy(one) && of_family(one.address)));
    let carried = carried_by_relay(facts);
    let served = if entry.families.listens_v4() { carried.v4 } else { carried.v6 };
    let relayed = matches!(mode, NetworkingMode::Nat | NetworkingMode::Bridged);
    let failing = if holds && served && relayed { Severity::Fails } else { Severity::Warns };
    let end = SocketAddr::new(loopback, facts.port);
    let taken = |finding: Finding| {
        if holds { finding.because(format!("IP Helper listens on Windows' {end} in the place of WSL's relay")) } else { finding }
    };
    if leads_to_itself(entry) {
        let summary = format!("A portproxy entry leads Windows' port {} to itself", entry.listen_port);
        let finding = taken(Finding::new(failing, summary).because(shown(entry)))
            .because(format!("it listens on {loopback} too, which is where it connects to, and where WSL's relay should listen"));
        return Some(delete(finding, entry));
    }
    let goes_on = connect.is_loopback();
    if let End::Address(address) = connect
        && !goes_on
        && !own_addresses(facts).any(|own| own == address)
    {
        return stale(facts, mode, entry, address, failing).map(taken);
    }
    if goes_on && !relayed || connect == End::All {
        return None;
    }
    let row = facts.through_portproxy(&leads_of(facts, entry));
    let fails = row.answer == Answer::Fails && !facts.linux.listeners.is_empty();
    let there = format!("it connects to {} port {}", connect.word(), entry.connect_port);
    if relayed && shadows && !relay {
        let severity = if holds && served && fails { Severity::Fails } else { Severity::Warns };
        let summary = format!("A portproxy entry takes Windows' {end} away from WSL's relay");
        let finding = taken(Finding::new(severity, summary).because(shown(entry)));
        let finding = finding.because(match (fails, row.answer) {
            (true, _) => format!("{there}, which does not lead to the server: {}", row.why),
            (false, Answer::Works) => format!("{there}, which leads to the server as long as that is WSL's address"),
            (false, _) => format!("{there}, which works as long as that is WSL's address and the server listens on it"),
        });
        return Some(by_relay(delete(finding, entry), facts, entry));
    }
    // What the relay has, the entry does not.
    if relay && entry.listen_port == facts.port && listen.is_some_and(End::is_loopback) {
        return None;
    }
    if let Some(idle) = idle(facts, windows, entry) {
        return Some(idle);
    }
    if fails {
        let summary = format!("A portproxy entry leads Windows' port {} to where the server is not reached", entry.listen_port);
        let finding = Finding::new(Severity::Warns, summary).because(shown(entry)).because(row.why);
        let deaf = !goes_on && !serves_own_address(facts);
        return Some(if deaf { finding.linux("# let the server listen on 0.0.0.0") } else { finding });
    }
    Some(fine(entry, if goes_on { "it goes on by WSL's relay, whatever WSL's address is" } else { "it leads to this Linux" }))
}

/// An entry to an address that this Linux does not have.
fn stale(facts: &Facts, mode: NetworkingMode, entry: &Portproxy, address: IpAddr, severity: Severity) -> Option<Finding> {
    // Where the addresses of this Linux are not known, none is a former one.
    own_addresses(facts).next()?;
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

    /// Who listens on Windows could not be asked.
    fn unheard(facts: Facts) -> Facts {
        changed(facts, |windows| windows.listeners = Told::Unknown("no".to_owned()))
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
        assert_eq!(only(&with(unheard(served()), entry(("0.0.0.0", 18080), ("127.0.0.1", 8080)))).severity, Severity::Fine);
        assert_eq!(only(&with(unheard(served()), entry(("192.168.1.5", 8080), ("localhost", 8080)))).severity, Severity::Fine);
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
        let relayed = changed(held_on(served(), "svchost", Some("iphlpsvc"), &["0.0.0.0", "127.0.0.1"]), |windows| {
            if let Told::Known(listeners) = &mut windows.listeners {
                listeners[1].process = Some("wslrelay".to_owned());
                listeners[1].services.clear();
            }
        });
        assert_eq!(only(&with(relayed, entry(("0.0.0.0", 8080), ("172.28.20.5", 8080)))).severity, Severity::Fine);
        let beside = entry(("192.168.1.5", 8080), ("172.28.20.5", 8080));
        assert_eq!(only(&with(unheard(served()), beside.clone())).severity, Severity::Fine);
        // Nobody listens for it, another program does, or it leads to where the server does not listen.
        let told = |facts, summary: &str| {
            let finding = only(&with(facts, beside.clone()));
            assert_eq!((finding.severity, finding.summary.contains(summary)), (Severity::Warns, true), "{finding:?}");
        };
        told(served(), "Nobody takes the connections of Windows' port 8080");
        told(held_on(served(), "nginx", None, &["192.168.1.5"]), "nginx (PID 4312) has the connections");
        let iphlpsvc = |facts| held_on(facts, "svchost", Some("iphlpsvc"), &["192.168.1.5"]);
        told(iphlpsvc(listening(nat(), &["127.0.0.1"])), "to where the server is not reached");
        assert_eq!(only(&with(iphlpsvc(served()), beside.clone())).severity, Severity::Fine);
    }

    #[test]
    fn an_entry_from_ipv6_to_ipv4_does_not_lead_to_itself() {
        let across = Portproxy { families: Families::V6tov4, ..entry(("::", 8080), ("127.0.0.1", 8080)) };
        let finding = only(&with(relay_on(served(), &["127.0.0.1"]), across));
        assert!(!finding.summary.contains("itself"), "{finding:?}");
    }

    #[test]
    fn a_service_that_does_not_run_is_told_only_with_entries() {
        let stopped =
            |facts, disabled| changed(facts, |windows| windows.iphlpsvc = Told::Known(Service { running: false, disabled }));
        assert!(portproxy(&stopped(served(), true)).is_empty());
        let facts = with(served(), entry(("192.168.1.5", 8080), ("172.28.20.5", 8080)));
        let findings = portproxy(&stopped(facts.clone(), true));
        let commands: Vec<&str> = findings[0].remedy.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(commands, ["Set-Service iphlpsvc -StartupType Automatic", "Start-Service iphlpsvc"]);
        assert_eq!(portproxy(&stopped(facts, false))[0].remedy.len(), 1);
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
}
