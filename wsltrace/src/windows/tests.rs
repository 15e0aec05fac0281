//! Recorded answers, read. None was taken from a Windows machine: see `docs/windows.md`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::wsl::config::Config;

/// A Windows that always says the same.
struct Recorded(Result<&'static str, InteropError>);

impl Interop for Recorded {
    fn powershell(&self, script: &str, _limit: Duration) -> Result<String, InteropError> {
        assert!(script.contains("$port = 8080"));
        self.0.clone().map(str::to_owned)
    }
}

fn facts(text: &'static str) -> WindowsFacts {
    Windows::ask(&Recorded(Ok(text)), 8080, LIMIT).facts().unwrap().clone()
}

#[test]
fn every_question_is_answered_in_every_language() {
    let english = facts(include_str!("transcripts/nat.json"));
    assert_eq!(english.unanswered(), []);
    assert_eq!(
        english.version.known().unwrap(),
        &WindowsVersion { build: 22631, update: Some(4460), release: Some("23H2".to_owned()) }
    );
    let listener = english.listeners.known().unwrap().first().unwrap();
    assert_eq!(
        (listener.address, listener.pid, listener.process.as_deref()),
        ("127.0.0.1".parse().unwrap(), 9120, Some("wslrelay"))
    );
    assert_eq!(english.excluded_v4.known().unwrap().len(), 3);
    assert_eq!(english.excluded_v6.known().unwrap().len(), 0);
    assert_eq!(english.dynamic_ports.known().unwrap(), &DynamicPorts { start: 1024, count: 13977 });
    assert_eq!(english.iphlpsvc.known().unwrap(), &Service { running: true, disabled: false });
    assert!(english.firewall_profiles.known().unwrap().iter().all(|profile| profile.inbound == Action::Block));
    let firewall = english.hyperv_firewall.known().unwrap().as_ref().unwrap();
    assert_eq!((firewall.enabled, firewall.inbound, firewall.merges_host_rules), (Some(true), Action::Block, Some(true)));
    assert!(!english.hyperv_rules.known().unwrap().iter().any(|rule| rule.covers(8080)));
    assert_eq!(english.vethernet.known().unwrap().first().unwrap().prefix, 20);
    assert!(english.wslconfig.known().unwrap().as_deref().unwrap().contains("memory=8GB"));
    for text in [
        include_str!("transcripts/nat-zh.json"),
        include_str!("transcripts/nat-ja.json"),
        include_str!("transcripts/nat-de.json"),
        include_str!("transcripts/nat-es.json"),
        include_str!("transcripts/bom.json"),
    ] {
        assert_eq!(facts(text), english);
    }
}

#[test]
fn lists_of_one_and_of_none_may_be_unwrapped() {
    let facts = facts(include_str!("transcripts/unwrapped.json"));
    assert_eq!(facts.listeners.known().unwrap().len(), 1);
    assert_eq!(facts.portproxy.known().unwrap().len(), 0);
    assert_eq!(facts.firewall_profiles.known().unwrap().len(), 3);
}

#[test]
fn portproxy_entries_are_read_from_the_registry() {
    let facts = facts(include_str!("transcripts/portproxy.json"));
    let entries = facts.portproxy.known().unwrap();
    let shown = |entry: &Portproxy| {
        let Portproxy { families, listen_address, listen_port, connect_address, connect_port } = entry;
        format!("{} {listen_address} {listen_port} {connect_address} {connect_port}", families.name())
    };
    let shown: Vec<String> = entries.iter().map(shown).collect();
    assert_eq!(shown, ["v4tov4 0.0.0.0 8080 172.20.1.5 8080", "v4tov4 * 2222 localhost 22", "v6tov4 :: 8080 172.28.20.5 8080"]);
    assert!(facts.listeners.known().unwrap().iter().all(|listener| listener.services == ["iphlpsvc"]));
    assert_eq!(facts.wslconfig, Told::Known(None));
}

#[test]
fn a_wslconfig_in_utf_16_and_an_address_with_a_zone_are_read() {
    let facts = facts(include_str!("transcripts/mirrored.json"));
    let text = facts.wslconfig.known().unwrap().as_deref().unwrap();
    assert_eq!(Config::parse(text).networking_mode(), Some("mirrored"));
    let listener = facts.listeners.known().unwrap().first().unwrap();
    assert_eq!((listener.address, listener.process.as_deref()), ("fe80::1".parse().unwrap(), None));
    assert!(facts.hyperv_rules.known().unwrap().iter().all(|rule| rule.covers(8080) && rule.covers(9000) && !rule.covers(8101)));
}

#[test]
fn windows_10_has_no_hyper_v_firewall() {
    let facts = facts(include_str!("transcripts/windows10.json"));
    assert_eq!((&facts.hyperv_firewall, &facts.hyperv_rules), (&Told::Known(None), &Told::Known(vec![])));
    assert_eq!(facts.wslconfig_txt, Told::Known(true));
}

#[test]
fn empty_tables_are_answers() {
    let facts = facts(include_str!("transcripts/empty.json"));
    assert_eq!(facts.portproxy, Told::Known(vec![]));
    assert_eq!(facts.excluded_v4, Told::Known(vec![]));
    assert_eq!(facts.vethernet, Told::Known(vec![]));
    let unanswered: Vec<&str> = facts.unanswered().iter().map(|(question, _)| *question).collect();
    assert_eq!(unanswered, ["which Windows this is", "dynamic ports", "the service IP Helper"]);
}

#[test]
fn a_question_that_fails_spoils_no_other() {
    let facts = facts(include_str!("transcripts/errors.json"));
    assert_eq!(facts.unanswered().len(), 13);
    assert_eq!(facts.portproxy, Told::Unknown("Zugriff verweigert".to_owned()));
    assert_eq!(facts.listeners, Told::Unknown("アクセスが拒否されました。".to_owned()));
    assert_eq!(facts.wslconfig_txt, Told::Unknown("it failed without a reason".to_owned()));
    let one = parse(r#"{"listeners":{"ok":[{"address":"x","port":8080,"pid":1}]},"iphlpsvc":{"ok":[{"status":1,"start":4}]}}"#)
        .unwrap();
    assert_eq!(one.listeners, Told::Unknown("the answer was not understood".to_owned()));
    assert_eq!(one.iphlpsvc, Told::Known(Service { running: false, disabled: true }));
    assert_eq!(one.portproxy, Told::Unknown("the answer is missing".to_owned()));
}

#[test]
fn what_is_no_answer_is_said_to_be_none() {
    for text in ["", "{", "[]", "\u{feff}", include_str!("transcripts/truncated.json"), include_str!("transcripts/garbage.txt")] {
        let asked = Windows::ask(&Recorded(Ok(text)), 8080, LIMIT);
        assert!(matches!(asked, Windows::Unavailable(InteropError::Garbage(_))), "{asked:?}");
    }
    assert!(matches!(parse(&"x".repeat(5 << 20)), Err(InteropError::Garbage(_))));
    let nested = format!("{{\"version\":{}", "[".repeat(100_000));
    assert!(matches!(parse(&nested), Err(InteropError::Garbage(_))));
}

#[test]
fn any_part_of_an_answer_is_read_without_a_panic() {
    let text = include_str!("transcripts/portproxy.json");
    for end in (0..text.len()).step_by(7) {
        let _ = parse(text.get(..end).unwrap());
    }
    for value in
        ["null", "1", "\"x\"", "{}", "[[]]", "{\"Count\":1}", "{\"ok\":[{}]}", "{\"ok\":{\"Count\":1}}", "{\"error\":[]}"]
    {
        let text = text.replace("{\"ok\":[", &format!("{{\"no\":{value},\"ok\":[{value}],\"more\":["));
        assert!(parse(&text).is_ok());
    }
}

#[test]
fn why_windows_cannot_be_asked_is_kept() {
    let asked = |error: InteropError| Windows::ask(&Recorded(Err(error)), 8080, LIMIT);
    assert_eq!(asked(InteropError::NotWsl), Windows::NotAsked);
    let late = InteropError::TimedOut { seconds: 30 };
    assert_eq!(asked(late.clone()), Windows::Unavailable(late));
}

#[test]
fn facts_survive_json() {
    let windows = Windows::Facts(Box::new(facts(include_str!("transcripts/mirrored.json"))));
    let text = serde_json::to_string(&windows).unwrap();
    assert_eq!(serde_json::from_str::<Windows>(&text).unwrap(), windows);
}
