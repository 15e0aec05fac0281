//! What Windows' answers say of the table of ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::entry::{leads, leads_from_outside};
use super::firewall::{Inbound, host_lets, inbound};
use super::relay::{Holder, carries, holder};
use super::{is_portproxy, process};
use crate::doctor::Facts;
use crate::windows::{Windows, WindowsFacts};
use crate::wsl::config::Config;
use crate::wsl::{Held, NetworkingMode, Outside, Proxied};

/// What is known of Windows, as far as it decides which ways lead to the server.
pub(in crate::doctor) fn outside(facts: &Facts) -> Outside {
    let windows = match &facts.windows {
        Windows::Facts(windows) => windows,
        Windows::NotAsked => return Outside::default(),
        Windows::Unavailable(_) => {
            let not_known = || Held::NotKnown;
            let [at4, at6, at_own, at_own6] = [not_known(), not_known(), not_known(), not_known()];
            return Outside { at4, at6, at_own, at_own6, ..Outside::default() };
        }
    };
    let config = windows.wslconfig.known().map(|text| Config::parse(text.as_deref().unwrap_or_default()));
    let flag = |section, key, otherwise| config.as_ref().map(|config| config.flag(section, key).unwrap_or(otherwise));
    let at = |own: &Option<(IpAddr, String)>| own.as_ref().map_or(Held::NotAsked, |(own, _)| held(facts, windows, *own));
    Outside {
        forwarding: flag("wsl2", "localhostForwarding", true),
        at4: held(facts, windows, Ipv4Addr::LOCALHOST.into()),
        at6: held(facts, windows, Ipv6Addr::LOCALHOST.into()),
        at_own: at(&facts.linux.outer),
        at_own6: at(&facts.linux.outer6),
        address_loopback: flag("experimental", "hostAddressLoopback", false),
        ignored: config.as_ref().is_some_and(|config| config.ignores(facts.port)),
        portproxy: leads_from_outside(facts),
        hyper_v: match inbound(windows, facts.port) {
            Inbound::Off | Inbound::ByDefault | Inbound::Allowed(_) => Some(true),
            Inbound::Blocked(_) | Inbound::NoRule { merges: false } => Some(false),
            Inbound::NoRule { merges: true } | Inbound::RulesUnread | Inbound::NotKnown => None,
        },
        host_firewall: host_lets(windows).then_some(true),
    }
}

fn held(facts: &Facts, windows: &WindowsFacts, own: IpAddr) -> Held {
    let Some(listeners) = windows.listeners.known() else { return Held::NotKnown };
    let shared = matches!(facts.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme));
    match holder(listeners, own) {
        Holder::Relay => Held::Relay,
        Holder::Nobody => Held::Nobody,
        Holder::Other(listener) if shared && carries(listener) => Held::Relay,
        Holder::Other(listener) if is_portproxy(listener) => {
            let no_entry =
                || Proxied::NotKnown("IP Helper (iphlpsvc) has this port on Windows, by no known portproxy entry".to_owned());
            Held::Portproxy(leads(facts, listener.address).unwrap_or_else(no_entry))
        }
        Holder::Other(listener) if listener.process.is_none() => Held::Unnamed(process(listener)),
        Holder::Other(listener) => Held::Program(process(listener)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::samples::{changed, held_on, in_mode, listening, nat, windows, with_wslconfig};
    use super::*;
    use crate::doctor::Examination;
    use crate::output::{Shown, TextOptions, Verbosity, examination, script};
    use crate::windows::{Service, Told};
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

    #[test]
    fn without_ip_helper_an_entry_leads_nowhere() {
        let facts = Facts { windows: windows(include_str!("../../../windows/transcripts/iphlpsvc-stopped.json")), ..nat() };
        let facts = served(facts, &["0.0.0.0"]);
        let row = facts.rows().into_iter().find(|row| row.way == Way::LanToWindows).unwrap();
        assert_eq!((row.answer, row.why.contains("does not run")), (Answer::Fails, true), "{}", row.why);
        let found = crate::doctor::diagnose(&facts).into_iter().find(|finding| finding.check == "portproxy").unwrap();
        assert!(found.evidence.contains(&"iphlpsvc is stopped".to_owned()), "{found:?}");
        assert_eq!(found.remedy.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["Start-Service iphlpsvc"]);
        // With it, and its socket, the same entry leads to the server.
        let runs = changed(facts, |windows| windows.iphlpsvc = Told::Known(Service { running: true, disabled: false }));
        let runs = held_on(runs, "svchost", Some("iphlpsvc"), &["0.0.0.0"]);
        assert_ne!(answer(&runs, Way::LanToWindows), Some(Answer::Fails));
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
