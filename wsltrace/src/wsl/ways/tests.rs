//! The table over all modes and kinds of listeners.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::wsl::{Held, Outside, Proxied};

fn listener(text: &str) -> Listener {
    let (address, v6only) = text.strip_suffix('!').map_or((text, false), |address| (address, true));
    let (address, device) = address.split_once('%').map_or((address, None), |(address, device)| (address, Some(device)));
    Listener {
        address: address.parse().unwrap(),
        port: 8080,
        v6only,
        device: device.map(str::to_owned),
        queue: 0,
        backlog: 128,
        pid: None,
        command: None,
        netns: 1,
    }
}

fn table(mode: Option<NetworkingMode>, listeners: &str, outside: Outside, gate: &dyn Fn(&Entry) -> Gate) -> Vec<Row> {
    let listeners: Vec<Listener> = listeners.split_whitespace().map(listener).collect();
    let wsl = if mode.is_some() { Wsl::Two } else { Wsl::No };
    let address = Some(("172.28.20.5".parse().unwrap(), "eth0".to_owned()));
    let around = matches!(mode, Some(NetworkingMode::Mirrored | NetworkingMode::Consomme));
    ways(&Setting { address, around, ..setting((wsl, mode), &listeners, outside, gate) })
}

/// One without addresses for others.
fn setting<'a>(
    (wsl, mode): (Wsl, Option<NetworkingMode>),
    listeners: &'a [Listener],
    outside: Outside,
    gate: &'a dyn Fn(&Entry) -> Gate,
) -> Setting<'a> {
    Setting {
        wsl,
        mode,
        port: 8080,
        listeners,
        address: None,
        address6: None,
        around: false,
        gateway: None,
        bridge: None,
        outside,
        unserved: &served,
        gate,
    }
}

fn served(_: &Listener) -> Option<String> {
    None
}

fn open(_: &Entry) -> Gate {
    Gate::Open
}

fn letters(rows: &[Row]) -> String {
    let letter = |row: &Row| match row.answer {
        Answer::Works => 'W',
        Answer::Fails => 'F',
        Answer::Unknown => '?',
    };
    rows.iter().map(letter).collect()
}

/// Localhost, 127.0.0.1 and `::1` of Windows, WSL's address, the LAN, (in bridged mode WSL's address from the LAN,) 127.0.0.1 and
/// `::1` in Linux, a container.
#[test]
fn every_mode_with_every_kind_of_listener() {
    use NetworkingMode as M;
    let kinds = ["0.0.0.0", "127.0.0.1", "::", "::1", "::!", "172.28.20.5", "", "0.0.0.0 ::!"];
    for (mode, expected) in [
        (M::Nat, ["WWFW?WF?", "WWFF?WF?", "WFWW?WW?", "WFWF?FW?", "WFWF?FW?", "FFFW?FF?", "FFFFFFF?", "WWWW?WW?"]),
        (M::Mirrored, ["WWF??WF?", "WWFFFWF?", "WWF??WW?", "FFFFFFW?", "FFFFFFW?", "FFF??FF?", "FFFFFFF?", "WWF??WW?"]),
        (M::Consomme, ["WWFW?WF?", "WWFFFWF?", "WW?W?WW?", "?F?FFFW?", "?F?FFFW?", "FFFW?FF?", "FFFFFFF?", "WW?W?WW?"]),
        (M::Bridged, ["WWFWFWWF?", "WWFFFFWF?", "WFWWFWWW?", "WFWFFFFW?", "WFWFFFFW?", "FFFWFWFF?", "FFFFFFFF?", "WWWWFWWW?"]),
        (M::None, ["FFFFFWF?", "FFFFFWF?", "FFFFFWW?", "FFFFFFW?", "FFFFFFW?", "FFFFFFF?", "FFFFFFF?", "FFFFFWW?"]),
    ] {
        for (listeners, expected) in kinds.iter().zip(expected) {
            let rows = table(Some(mode), listeners, Outside::default(), &open);
            assert_eq!(letters(&rows), expected, "{mode:?} with listeners [{listeners}]: {rows:#?}");
        }
    }
    for (listeners, expected) in kinds.iter().zip(["WWF?", "FWF?", "WWW?", "FFW?", "FFW?", "WFF?", "FFF?", "WWW?"]) {
        assert_eq!(letters(&table(None, listeners, Outside::default(), &open)), expected, "no WSL, [{listeners}]");
    }
}

#[test]
fn the_dual_stack_socket_of_go_is_told() {
    let rows = table(Some(NetworkingMode::Nat), "::", Outside::default(), &open);
    assert_eq!(rows[1].why, "the relay opens only [::1] for this socket");
    assert_eq!((rows[0].why.as_str(), rows[0].carrier.clone()), ("by [::1]", Some(Carrier::Relay)));
}

#[test]
fn what_windows_does_decides_where_it_is_known() {
    let of = |mode, outside| table(Some(mode), "0.0.0.0", outside, &open);
    let nat = |outside| of(NetworkingMode::Nat, outside);
    let off = |at4| Outside { forwarding: Some(false), at4, ..Outside::default() };
    assert_eq!(letters(&nat(off(Held::Nobody))), "FFFW?WF?");
    // The file may be newer than what WSL does.
    assert_eq!(letters(&nat(off(Held::Relay))), "WWFW?WF?");
    assert_eq!(letters(&nat(off(Held::NotKnown))), "??FW?WF?");
    assert_eq!(letters(&nat(Outside { at4: Held::Program("nginx.exe".to_owned()), ..Outside::default() })), "FFFW?WF?");
    assert_eq!(letters(&nat(Outside { at4: Held::Nobody, ..Outside::default() })), "FFFW?WF?");
    // Without Windows' answer nobody knows whether the relay is there; that it does not serve the family is known.
    let unknown = || Outside { at4: Held::NotKnown, at6: Held::NotKnown, ..Outside::default() };
    assert_eq!(letters(&nat(unknown())), "??FW?WF?");
    // What is seen goes before what should be.
    let seen = table(Some(NetworkingMode::Nat), "::", Outside { at4: Held::Relay, ..Outside::default() }, &open);
    assert_eq!(letters(&seen), "WWWW?WW?");
    assert_eq!(letters(&nat(Outside { at4: Held::Unnamed("PID 7".to_owned()), ..Outside::default() })), "??FW?WF?");
    assert_eq!(letters(&nat(Outside { portproxy: Some(Vec::new()), ..Outside::default() })), "WWFWFWF?");
    let mirrored = |outside| of(NetworkingMode::Mirrored, outside);
    let (closed, opened) = (Some(false), Some(true));
    assert_eq!(letters(&mirrored(Outside { hyper_v: closed, address_loopback: closed, ..Outside::default() })), "WWFFFWF?");
    assert_eq!(letters(&mirrored(Outside { hyper_v: opened, address_loopback: opened, ..Outside::default() })), "WWFWWWF?");
}

/// localhost is `::1` first on Windows, and whoever takes the connection there does not refuse it.
#[test]
fn who_has_the_first_address_of_localhost_has_it() {
    let with = |at6| letters(&table(Some(NetworkingMode::Nat), "0.0.0.0", Outside { at6, ..Outside::default() }, &open));
    assert_eq!(with(Held::Nobody), "WWFW?WF?");
    assert_eq!(with(Held::Program("nginx.exe".to_owned())), "?WFW?WF?");
    assert_eq!(with(Held::Portproxy(Proxied::Nowhere("a former address".to_owned()))), "?WFW?WF?");
}

#[test]
fn an_entry_of_portproxy_leads_where_it_says() {
    let here = || Proxied::Here("172.28.20.5".parse().unwrap(), "eth0".to_owned());
    let of = |listeners, at4, entries| {
        let outside = Outside { at4, portproxy: Some(entries), host_firewall: Some(true), ..Outside::default() };
        letters(&table(Some(NetworkingMode::Nat), listeners, outside, &open))
    };
    let localhost = |v4| Proxied::Localhost { v4 };
    assert_eq!(of("0.0.0.0", Held::Portproxy(here()), vec![here()]), "WWFWWWF?");
    assert_eq!(of("127.0.0.1", Held::Portproxy(here()), vec![here()]), "FFFFFWF?");
    assert_eq!(of("127.0.0.1", Held::Relay, vec![localhost(true)]), "WWFFWWF?");
    assert_eq!(of("::1", Held::NotAsked, vec![localhost(false)]), "WFWFWFW?");
    assert_eq!(of("0.0.0.0", Held::NotAsked, vec![Proxied::Nowhere("gone".to_owned())]), "WWFWFWF?");
    assert_eq!(of("0.0.0.0", Held::NotAsked, vec![here(), Proxied::Nowhere("gone".to_owned())]), "WWFW?WF?");
    // Two entries that lead to each other end somewhere here.
    let at4 = Held::Portproxy(localhost(false));
    let outside = Outside { at4, at6: Held::Portproxy(localhost(true)), ..Outside::default() };
    assert_eq!(letters(&table(Some(NetworkingMode::Nat), "0.0.0.0", outside, &open)), "???W?WF?");
    // Whether Windows' firewall lets others in is not known.
    let outside = Outside { portproxy: Some(vec![here()]), ..Outside::default() };
    assert_eq!(letters(&table(Some(NetworkingMode::Nat), "0.0.0.0", outside, &open)), "WWFW?WF?");
}

#[test]
fn what_windows_keeps_in_mirrored_mode_is_not_said_to_work() {
    let mirrored = |outside| letters(&table(Some(NetworkingMode::Mirrored), "0.0.0.0", outside, &open));
    let let_in = || Outside { hyper_v: Some(true), address_loopback: Some(true), ..Outside::default() };
    let program = || Held::Program("node (PID 7)".to_owned());
    assert_eq!(mirrored(let_in()), "WWFWWWF?");
    assert_eq!(mirrored(Outside { at4: program(), ..let_in() }), "??FWW?F?");
    assert_eq!(mirrored(Outside { at_own: program(), ..let_in() }), "WWF??WF?");
    assert_eq!(mirrored(Outside { at6: program(), ..let_in() }), "?WFWWWF?");
    assert_eq!(mirrored(Outside { ignored: true, ..let_in() }), "??F???F?");
}

#[test]
fn ipv6_has_a_row_of_its_own_where_others_can_come_by_it() {
    let of = |wsl, mode, listeners: &str, outside| {
        let listeners: Vec<Listener> = listeners.split_whitespace().map(listener).collect();
        let own = |text: &str| Some((text.parse().unwrap(), "eth0".to_owned()));
        let (address, address6) = (own("172.28.20.5"), own("2001:db8::5"));
        let rows = ways(&Setting { address, address6, ..setting((wsl, mode), &listeners, outside, &open) });
        rows.into_iter().find(|row| row.way == Way::Lan6).map(|row| row.answer)
    };
    let asked = Outside { hyper_v: Some(false), ..Outside::default() };
    assert_eq!(of(Wsl::No, None, "::", Outside::default()), Some(Answer::Works));
    assert_eq!(of(Wsl::No, None, "::!", Outside::default()), Some(Answer::Works));
    assert_eq!(of(Wsl::No, None, "0.0.0.0", Outside::default()), Some(Answer::Fails));
    assert_eq!(of(Wsl::Two, Some(NetworkingMode::Nat), "::", Outside::default()), None);
    assert_eq!(of(Wsl::Two, Some(NetworkingMode::Bridged), "::", Outside::default()), Some(Answer::Works));
    assert_eq!(of(Wsl::Two, Some(NetworkingMode::Mirrored), "::", Outside::default()), Some(Answer::Unknown));
    assert_eq!(of(Wsl::Two, Some(NetworkingMode::Mirrored), "::", asked), Some(Answer::Fails));
}

#[test]
fn in_mirrored_mode_127_0_0_1_goes_around_by_windows_only_while_the_routes_are_there() {
    let listeners = [listener("127.0.0.1")];
    let of = |around| {
        let mode = Some(NetworkingMode::Mirrored);
        let setting = Setting { around, ..setting((Wsl::Two, mode), &listeners, Outside::default(), &open) };
        ways(&setting).into_iter().find(|row| row.way == Way::Inside4).unwrap().carrier
    };
    assert_eq!(of(true), Some(Carrier::Interface("loopback0".to_owned())));
    assert_eq!(of(false), Some(Carrier::Interface("lo".to_owned())));
}

#[test]
fn a_firewall_that_stops_one_interface_leaves_the_others() {
    let gate = |entry: &Entry| match entry.interface.as_str() {
        "eth0" => Gate::Shut("dropped by a rule".to_owned()),
        _ => Gate::Open,
    };
    let rows = table(Some(NetworkingMode::Nat), "0.0.0.0", Outside::default(), &gate);
    assert_eq!(letters(&rows), "WWFF?WF?");
    assert_eq!(rows[3].why, "dropped by a rule");
    let gate = |_: &Entry| Gate::Unknown("limit rate is not simulated".to_owned());
    assert_eq!(letters(&table(Some(NetworkingMode::Nat), "0.0.0.0", Outside::default(), &gate)), "??F???".to_owned() + "??");
}

#[test]
fn the_kernel_chooses_the_closest_socket() {
    let listeners: Vec<Listener> = ["::", "0.0.0.0", "127.0.0.1"].into_iter().map(listener).collect();
    let takes = |address: &str| taker(&listeners, address.parse().unwrap(), "lo").unwrap().address.to_string();
    assert_eq!([takes("127.0.0.1"), takes("10.0.0.1"), takes("::1")], ["127.0.0.1", "0.0.0.0", "::"]);
    let listeners = [listener("0.0.0.0%eth1")];
    assert_eq!(taker(&listeners, "10.0.0.1".parse().unwrap(), "eth0"), None);
    // The relay looks at addresses only; on `lo` nobody takes what it brings.
    let rows = table(Some(NetworkingMode::Nat), "0.0.0.0%eth0", Outside::default(), &open);
    assert_eq!((letters(&rows), rows[1].why.as_str()), ("FFFW?FF?".to_owned(), "the server listens only on 0.0.0.0%eth0"));
}
