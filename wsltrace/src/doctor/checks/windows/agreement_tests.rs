//! A finding that says one thing and a row of the table that says the other would leave nobody wiser: every combination of a mode, a
//! server, who has the port on Windows, a portproxy entry and its service, and a setting, by what both say of the same connections.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::samples::{changed, held_on, in_mode, listening, nat, with_wslconfig};
use crate::doctor::{Facts, Finding, Severity, diagnose};
use crate::windows::{Families, Portproxy, Service, Told};
use crate::wsl::{Answer, NetworkingMode, Row, Way};

const MODES: [NetworkingMode; 4] =
    [NetworkingMode::Nat, NetworkingMode::Bridged, NetworkingMode::Mirrored, NetworkingMode::Consomme];
const LISTENERS: [&[&str]; 7] = [&[], &["0.0.0.0"], &["127.0.0.1"], &["::"], &["::1"], &["172.28.20.5"], &["0.0.0.0", "::"]];

/// A process of Windows, its service, the addresses that it has.
type Holder = (&'static str, Option<&'static str>, &'static [&'static str]);

const HOLDERS: [Holder; 10] = [
    ("nobody", None, &[]),
    ("wslrelay", None, &["127.0.0.1"]),
    ("wslrelay", None, &["127.0.0.1", "::1"]),
    ("wsldevicehost", None, &["0.0.0.0"]),
    ("nginx", None, &["0.0.0.0"]),
    ("nginx", None, &["::1"]),
    ("nginx", None, &["172.28.20.5"]),
    ("svchost", Some("iphlpsvc"), &["0.0.0.0"]),
    ("svchost", Some("iphlpsvc"), &["192.168.1.5"]),
    ("svchost", None, &["0.0.0.0"]),
];

/// Where an entry listens, and where it connects to.
const ENTRIES: [Option<(&str, &str, u16)>; 9] = [
    None,
    Some(("0.0.0.0", "172.28.20.5", 8080)),
    Some(("0.0.0.0", "172.20.1.5", 8080)),
    Some(("0.0.0.0", "127.0.0.1", 8080)),
    Some(("192.168.1.5", "172.28.20.5", 8080)),
    Some(("192.168.1.5", "127.0.0.1", 8080)),
    Some(("192.168.1.5", "172.20.1.5", 8080)),
    Some(("192.168.1.5", "172.28.20.5", 3000)),
    Some(("127.0.0.1", "172.28.20.5", 8080)),
];

fn entry((listen, connect, port): (&str, &str, u16)) -> Portproxy {
    Portproxy {
        families: Families::V4tov4,
        listen_address: listen.to_owned(),
        listen_port: 8080,
        connect_address: connect.to_owned(),
        connect_port: port,
    }
}

/// Every combination.
fn all() -> impl Iterator<Item = Facts> {
    let mut all = Vec::new();
    for (mode, listeners) in MODES.iter().flat_map(|mode| LISTENERS.map(|listeners| (*mode, listeners))) {
        for ((process, service, on), proxied) in HOLDERS.iter().flat_map(|holder| ENTRIES.map(|entry| (*holder, entry))) {
            for (running, config) in [(true, ""), (false, ""), (true, "[experimental]\nignoredPorts=53,8080\n")] {
                let mut facts = with_wslconfig(in_mode(mode, held_on(listening(nat(), listeners), process, service, on)), config);
                facts.linux.outer = Some(("172.28.20.5".parse().unwrap(), "eth0".to_owned()));
                all.push(changed(facts, |windows| {
                    windows.portproxy = Told::Known(proxied.map(entry).into_iter().collect());
                    windows.iphlpsvc = Told::Known(Service { running, disabled: false });
                }));
            }
        }
    }
    all.into_iter()
}

/// What is said of a set-up.
struct Said {
    rows: Vec<Row>,
    findings: Vec<Finding>,
}

impl Said {
    fn row(&self, way: Way) -> &Row {
        self.rows.iter().find(|row| row.way == way).unwrap()
    }

    fn works(&self, way: Way) -> bool {
        self.row(way).answer == Answer::Works
    }

    fn fails(&self, way: Way) -> bool {
        self.row(way).answer == Answer::Fails
    }

    fn found(&self, check: &str, words: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.check == check && finding.summary.contains(words))
    }

    /// What contradicts what; nothing when all is well.
    fn contradictions(&self, facts: &Facts) -> Vec<String> {
        let served = !facts.linux.listeners.is_empty();
        let entries = facts.windows.facts().and_then(|windows| windows.portproxy.known()).unwrap();
        let outer = entries.iter().all(|entry| entry.listen_address != "127.0.0.1" && entry.connect_port == facts.port);
        let mut all = Vec::new();
        let mut check = |is: bool, what: &str| all.extend(is.then(|| what.to_owned()));
        for (end, way) in [("127.0.0.1:8080", Way::WindowsLoopback4), ("[::1]:8080", Way::WindowsLoopback6)] {
            for finding in self.findings.iter().filter(|finding| finding.summary.contains(&format!("Windows' {end}"))) {
                let taken = finding.summary.contains("takes Windows' ");
                check(finding.severity == Severity::Fails && self.works(way), &format!("{end} fails, and works"));
                check(finding.severity == Severity::Fine && self.fails(way), &format!("{end} is fine, and fails"));
                check(
                    !taken && finding.severity == Severity::Warns && self.works(way),
                    &format!("{end} is warned of, and works"),
                );
            }
        }
        let lan = Way::LanToWindows;
        check(
            outer && self.found("portproxy", "on to port").is_some() && self.fails(lan) && served,
            "the entry is fine, and the LAN fails",
        );
        for words in [
            "is not an address of this Linux",
            "does not run",
            "to itself",
            "Nobody takes",
            "has the connections",
            "is not reached",
        ] {
            let about = self.found("portproxy", words);
            let by_entry = self.row(lan).carrier == Some(crate::wsl::Carrier::Portproxy);
            check(about.is_some() && self.works(lan) && by_entry, &format!("an entry \"{words}\", and the LAN works by it"));
        }
        let shared = self.found("relay", "is open in Linux and on Windows").is_some();
        let ways = [Way::WindowsLocalhost, Way::WindowsLoopback4, Way::WindowsToAddress, lan];
        check(shared && ways.iter().all(|way| self.works(*way)), "a program shares the port, and all works");
        let ignored = self.found("config", "ignoredPorts").is_some_and(|finding| finding.severity == Severity::Warns);
        check(ignored && ways.iter().any(|way| self.works(*way)), "the port is ignored, and works");
        check(
            self.found("windows_firewall", "lets other machines").is_some() && self.row(lan).why.contains("decides"),
            "the firewall is known, and is not",
        );
        check(
            self.found("windows_firewall", "keeps other").is_some() && self.works(lan),
            "the firewall keeps others out, and the LAN works",
        );
        all
    }
}

#[test]
fn findings_and_table_say_the_same() {
    let mut combinations = 0;
    for facts in all() {
        let said = Said { rows: facts.rows(), findings: diagnose(&facts) };
        let contradictions = said.contradictions(&facts);
        assert!(
            contradictions.is_empty(),
            "{contradictions:?}\n{:?} {:#?}\n{:#?}\n{:#?}\n{:#?}",
            facts.mode(),
            facts.linux.listeners,
            facts.windows.facts().map(|windows| (&windows.listeners, &windows.portproxy, &windows.iphlpsvc)),
            said.rows,
            said.findings
        );
        combinations += 1;
    }
    assert_eq!(combinations, MODES.len() * LISTENERS.len() * HOLDERS.len() * ENTRIES.len() * 3);
}

/// In the mode nat a row that fails because of Windows has a finding that says what to do.
#[test]
fn what_fails_on_windows_is_found() {
    for facts in all().filter(|facts| facts.mode() == Some(NetworkingMode::Nat)) {
        let said = Said { rows: facts.rows(), findings: diagnose(&facts) };
        let v4 = facts
            .linux
            .listeners
            .iter()
            .any(|listener| ["0.0.0.0", "127.0.0.1"].contains(&listener.address.to_string().as_str()));
        if v4 && said.fails(Way::WindowsLoopback4) {
            let bad = said.findings.iter().filter(|finding| finding.severity <= Severity::Warns);
            let bad: Vec<&str> = bad.map(|finding| finding.check.as_str()).collect();
            let told = bad.iter().any(|check| ["relay", "portproxy", "config", "excluded_range"].contains(check));
            assert!(told, "{:#?} {:#?}", said.rows, said.findings);
        }
    }
}
