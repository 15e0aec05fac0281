//! What Windows' answers say of the table of ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::portproxy::leads_in_from_outside;
use super::relay::{Holder, holder};
use super::{is_portproxy, process};
use crate::doctor::Facts;
use crate::windows::{Action, Windows, WindowsFacts};
use crate::wsl::config::Config;
use crate::wsl::{Held, Outside};

/// What is known of Windows, as far as it decides which ways lead to the server.
pub(in crate::doctor) fn outside(facts: &Facts) -> Outside {
    let windows = match &facts.windows {
        Windows::Facts(windows) => windows,
        Windows::NotAsked => return Outside::default(),
        Windows::Unavailable(_) => return Outside { at4: Held::NotKnown, at6: Held::NotKnown, ..Outside::default() },
    };
    let config = windows.wslconfig.known().map(|text| Config::parse(text.as_deref().unwrap_or_default()));
    let flag = |section, key, otherwise| config.as_ref().map(|config| config.flag(section, key).unwrap_or(otherwise));
    Outside {
        forwarding: flag("wsl2", "localhostForwarding", true),
        at4: held(windows, Ipv4Addr::LOCALHOST.into()),
        at6: held(windows, Ipv6Addr::LOCALHOST.into()),
        address_loopback: flag("experimental", "hostAddressLoopback", false),
        portproxy: windows.portproxy.known().map(|_| leads_in_from_outside(facts)),
        hyper_v: hyper_v(windows, facts.port),
    }
}

fn held(windows: &WindowsFacts, loopback: IpAddr) -> Held {
    let Some(listeners) = windows.listeners.known() else { return Held::NotKnown };
    match holder(listeners, loopback) {
        Holder::Relay => Held::Relay,
        Holder::Nobody => Held::Nobody,
        Holder::Other(listener) if is_portproxy(listener) => Held::Portproxy,
        Holder::Other(listener) => Held::Program(process(listener)),
    }
}

/// Whether Hyper-V's firewall lets other machines in at a port; `None` too where rules decide that were not read.
fn hyper_v(windows: &WindowsFacts, port: u16) -> Option<bool> {
    let Some(firewall) = windows.hyperv_firewall.known()? else { return Some(true) };
    if firewall.enabled? {
        let rules = windows.hyperv_rules.known()?;
        let rule = |action: Action| rules.iter().any(|rule| rule.action == action && rule.covers(port));
        match firewall.inbound {
            _ if rule(Action::Block) => Some(false),
            _ if rule(Action::Allow) => Some(true),
            Action::Allow => Some(true),
            Action::Block if firewall.merges_host_rules == Some(false) => Some(false),
            Action::Block | Action::NotConfigured => None,
        }
    } else {
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{changed, held_on, in_mode, listening, nat, windows, with_wslconfig};
    use super::*;
    use crate::doctor::{Examination, Severity, diagnose};
    use crate::output::{Shown, TextOptions, Verbosity, examination, script};
    use crate::windows::Told;
    use crate::wsl::{Answer, NetworkingMode, Way};

    /// The same with all that a machine has: a server, addresses.
    fn served(facts: Facts, addresses: &[&str]) -> Facts {
        let mut facts = listening(facts, addresses);
        facts.linux.outer = facts.linux.interfaces[0].addresses.first().map(|own| (own.address, "eth0".to_owned()));
        facts
    }

    fn answer(facts: &Facts, way: Way) -> Option<Answer> {
        facts.rows().into_iter().find(|row| row.way == way).map(|row| row.answer)
    }

    #[test]
    fn who_has_windows_localhost_decides_the_row() {
        let with = |process, service, addresses: &[&str]| {
            answer(&held_on(served(nat(), &["0.0.0.0"]), process, service, addresses), Way::WindowsLoopback4)
        };
        assert_eq!(with("wslrelay", None, &["127.0.0.1"]), Some(Answer::Works));
        assert_eq!(with("nginx", None, &["0.0.0.0"]), Some(Answer::Fails));
        assert_eq!(with("svchost", Some("iphlpsvc"), &["127.0.0.1"]), Some(Answer::Unknown));
        assert_eq!(with("nginx", None, &[]), Some(Answer::Fails));
        let off = with_wslconfig(served(nat(), &["0.0.0.0"]), "[wsl2]\nlocalhostForwarding=false\n");
        assert_eq!(answer(&off, Way::WindowsLocalhost), Some(Answer::Fails));
    }

    #[test]
    fn other_machines_come_by_portproxy_or_by_hyper_v() {
        let nat = served(
            Facts { windows: windows(include_str!("../../../windows/transcripts/portproxy.json")), ..nat() },
            &["0.0.0.0"],
        );
        let none = changed(nat.clone(), |windows| windows.portproxy = Told::Known(vec![]));
        assert_eq!(answer(&none, Way::LanToWindows), Some(Answer::Fails));
        let unseen = changed(nat, |windows| windows.portproxy = Told::Unknown("no".to_owned()));
        assert_eq!(answer(&unseen, Way::LanToWindows), Some(Answer::Unknown));
        let mirrored = Facts { windows: windows(include_str!("../../../windows/transcripts/mirrored.json")), ..none };
        assert_eq!(answer(&in_mode(NetworkingMode::Mirrored, mirrored), Way::LanToWindows), Some(Answer::Works));
    }

    /// A finding that says that Windows' localhost fails, and a row that says that it works, would leave nobody wiser.
    #[test]
    fn the_table_and_the_findings_agree() {
        let holders: [(&str, Option<&str>, &[&str]); 5] = [
            ("wslrelay", None, &["127.0.0.1"]),
            ("wslrelay", None, &["127.0.0.1", "::1"]),
            ("nginx", None, &["0.0.0.0"]),
            ("svchost", Some("iphlpsvc"), &["0.0.0.0"]),
            ("nobody", None, &[]),
        ];
        for listeners in [&["0.0.0.0"][..], &["127.0.0.1"], &["::"], &["172.28.20.5"], &["0.0.0.0", "::"]] {
            for (process, service, on) in holders {
                let facts = held_on(served(nat(), listeners), process, service, on);
                let fails = |check: &str| {
                    diagnose(&facts).into_iter().any(|finding| finding.check == check && finding.severity == Severity::Fails)
                };
                let works = answer(&facts, Way::WindowsLocalhost) == Some(Answer::Works);
                assert!(!(fails("relay") && works), "{listeners:?}, {process} on {on:?}: {:#?}", diagnose(&facts));
            }
        }
    }

    #[test]
    fn the_whole_text_of_an_examination() {
        let transcript = windows(include_str!("../../../windows/transcripts/portproxy.json"));
        let facts = Facts { windows: transcript, ..served(nat(), &["::"]) };
        let examined = Examination::of(&facts, jiff::Timestamp::UNIX_EPOCH);
        let options = TextOptions {
            color: false,
            width: 80,
            talk_width: 80,
            terminal: false,
            verbosity: Verbosity::Normal,
            shown: Shown::Attempts,
            live: false,
        };
        insta::assert_snapshot!("examination", examination(&examined, options, true));
        insta::assert_snapshot!("examination_narrow", examination(&examined, TextOptions { width: 40, ..options }, false));
        insta::assert_snapshot!("script", script(&examined));
    }
}
