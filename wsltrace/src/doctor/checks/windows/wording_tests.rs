//! What is printed, over many combinations of facts: nothing that is known to be wrong, nothing foreign in a command.

use super::samples::{changed, held_on, in_mode, listening, nat, relay_on, windows, with_wslconfig};
use crate::doctor::{Facts, Finding, Severity, diagnose};
use crate::windows::{ExcludedRange, InteropError, Told, Windows};
use crate::wsl::NetworkingMode;

/// Words that only widely repeated advice has which does not help, one a line; the tests of the whole program read them too.
const WRONG: &str = include_str!("../wrong_advice.txt");

/// Every mode, with every kind of server, of Windows and of settings.
fn combinations() -> Vec<Facts> {
    let modes =
        [NetworkingMode::Nat, NetworkingMode::Mirrored, NetworkingMode::Consomme, NetworkingMode::Bridged, NetworkingMode::None];
    let servers: [&[&str]; 5] = [&[], &["0.0.0.0"], &["::"], &["127.0.0.1", "::1"], &["172.28.20.5"]];
    let range = ExcludedRange { first: 8000, last: 8100, administered: false };
    let kinds: [&dyn Fn(Facts) -> Facts; 9] = [
        &|facts| facts,
        &|facts| relay_on(facts, &["127.0.0.1", "::1"]),
        &|facts| held_on(facts, "evil; calc", Some("a`b"), &["0.0.0.0", "::"]),
        &|facts| held_on(facts, "svchost", Some("iphlpsvc"), &["0.0.0.0", "::"]),
        &|facts| Facts { windows: windows(include_str!("../../../windows/transcripts/portproxy.json")), ..facts },
        &|facts| Facts { windows: windows(include_str!("../../../windows/transcripts/mirrored.json")), ..facts },
        &|facts| Facts { windows: windows(include_str!("../../../windows/transcripts/errors.json")), ..facts },
        &|facts| Facts { windows: Windows::Unavailable(InteropError::InteropDisabled), ..facts },
        &|facts| {
            let facts = with_wslconfig(facts, "[wsl2]\nnetworkMode=$(calc)\nlocalhostForwarding=false\nkernel=C:\\x\n");
            changed(facts, |windows| windows.excluded_v4 = Told::Known(vec![range]))
        },
    ];
    let mut all = Vec::new();
    for mode in modes {
        for server in servers {
            all.extend(kinds.iter().map(|kind| kind(in_mode(mode, listening(nat(), server)))));
        }
    }
    all
}

/// The checks that are examined here.
const CHECKS: [&str; 8] = [
    "relay",
    "excluded_range",
    "portproxy",
    "mode_fell_back",
    "config",
    "address_match",
    "windows_firewall",
    "windows_unavailable",
];

fn judged(facts: &Facts) -> Vec<Finding> {
    diagnose(facts).into_iter().filter(|finding| CHECKS.contains(&finding.check.as_str())).collect()
}

fn findings() -> Vec<Finding> {
    combinations().iter().flat_map(judged).collect()
}

#[test]
fn every_check_has_something_to_say() {
    let findings = findings();
    for check in CHECKS {
        assert!(findings.iter().any(|finding| finding.check == check), "{check}");
    }
}

#[test]
fn nothing_that_is_known_to_be_wrong_is_printed() {
    for finding in findings() {
        let lines = finding.remedy.iter().map(|line| &line.text);
        for text in [&finding.summary].into_iter().chain(&finding.evidence).chain(lines) {
            for wrong in WRONG.lines().chain(["resolv.conf"]) {
                assert!(!text.contains(wrong), "{}: {text}", finding.check);
            }
        }
    }
}

#[test]
fn no_foreign_word_gets_into_a_command() {
    for finding in findings() {
        for line in finding.remedy.iter().filter(|line| !line.text.starts_with('#')) {
            for foreign in ["calc", "`", "evil"] {
                assert!(!line.text.contains(foreign), "{}: {}", finding.check, line.text);
            }
        }
    }
}

#[test]
fn summaries_are_sentences_without_a_full_stop_and_bad_ones_have_a_remedy() {
    for finding in findings() {
        assert!(!finding.summary.ends_with('.') && !finding.summary.contains('\n'), "{}", finding.summary);
        assert!(finding.severity != Severity::Fails || !finding.remedy.is_empty(), "{}", finding.summary);
        assert!(!finding.evidence.is_empty(), "{}", finding.summary);
    }
}

#[test]
fn windows_firewall_is_never_blamed_for_localhost() {
    for finding in findings().iter().filter(|finding| finding.check == "windows_firewall") {
        assert!(
            finding.severity != Severity::Fails && finding.summary.to_lowercase().contains("other machines"),
            "{}",
            finding.summary
        );
    }
}

#[test]
fn a_healthy_port_has_no_fault() {
    let facts = relay_on(listening(nat(), &["0.0.0.0"]), &["127.0.0.1"]);
    let findings = judged(&facts);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.severity == Severity::Fine));
}

#[test]
fn outside_of_wsl_nothing_is_said() {
    let facts = Facts { port: 8080, windows: nat().windows, ..Facts::default() };
    assert_eq!(judged(&facts), []);
}
