//! Facts for the tests: a healthy WSL in the mode nat, from the recorded answers of Windows, and what is changed in it.

use std::net::IpAddr;

use crate::doctor::{Address, Facts, Firewalls, Interface, Linux, WslFacts};
use crate::evidence::Listener;
use crate::kernel::programs::Programs;
use crate::windows::{Told, Windows, WindowsFacts, WindowsListener, parse};
use crate::wsl::{NetworkingMode, Source, Wsl};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::BROADCAST))
}

/// WSL in the mode nat, with the address 172.28.20.5/20; nobody listens on port 8080 in either world.
pub(in crate::doctor::checks) fn nat() -> Facts {
    let eth0 = Interface {
        name: "eth0".to_owned(),
        up: true,
        addresses: vec![Address { address: ip("172.28.20.5"), prefix: 20 }],
        ..Interface::default()
    };
    let facts = Facts {
        port: 8080,
        firewalls: Firewalls::NotAsked,
        untraceable: Vec::new(),
        programs: Programs::default(),
        linux: Linux { interfaces: vec![eth0], gateway: Some((ip("172.28.16.1"), "eth0".to_owned())), ..Linux::default() },
        wsl: WslFacts { wsl: Wsl::Two, mode: Some((NetworkingMode::Nat, Source::Wslinfo)), ..WslFacts::default() },
        windows: windows(include_str!("../../../windows/transcripts/nat.json")),
    };
    changed(facts, |windows| {
        windows.listeners = Told::Known(vec![]);
        windows.excluded_v4 = Told::Known(vec![]);
        windows.wslconfig = Told::Known(None);
    })
}

/// The same in another mode.
pub(in crate::doctor::checks) fn in_mode(mode: NetworkingMode, mut facts: Facts) -> Facts {
    facts.wsl.mode = Some((mode, Source::Wslinfo));
    facts
}

/// A recorded answer.
pub(in crate::doctor::checks) fn windows(text: &str) -> Windows {
    parse(text).map_or_else(Windows::Unavailable, |facts| Windows::Facts(Box::new(facts)))
}

/// Something else that Windows said.
pub(in crate::doctor::checks) fn changed(mut facts: Facts, change: impl FnOnce(&mut WindowsFacts)) -> Facts {
    if let Windows::Facts(windows) = &mut facts.windows {
        change(windows);
    }
    facts
}

/// With a `.wslconfig`.
pub(in crate::doctor::checks) fn with_wslconfig(facts: Facts, text: &str) -> Facts {
    changed(facts, |windows| windows.wslconfig = Told::Known(Some(text.to_owned())))
}

/// With servers in Linux on these addresses.
pub(in crate::doctor::checks) fn listening(mut facts: Facts, addresses: &[&str]) -> Facts {
    facts.linux.listeners = addresses
        .iter()
        .map(|address| Listener {
            address: ip(address),
            port: facts.port,
            v6only: false,
            device: None,
            queue: 0,
            backlog: 128,
            pid: None,
            command: None,
            netns: 1,
        })
        .collect();
    facts
}

/// With a process of Windows on these addresses.
pub(in crate::doctor::checks) fn held_on(facts: Facts, process: &str, service: Option<&str>, addresses: &[&str]) -> Facts {
    let port = facts.port;
    let listener = |address: &&str| WindowsListener {
        address: ip(address),
        port,
        pid: 4312,
        process: Some(process.to_owned()),
        services: service.map(str::to_owned).into_iter().collect(),
    };
    let listeners = addresses.iter().map(listener).collect();
    changed(facts, |windows| windows.listeners = Told::Known(listeners))
}

/// With WSL's relay on these addresses of Windows.
pub(in crate::doctor::checks) fn relay_on(facts: Facts, addresses: &[&str]) -> Facts {
    held_on(facts, "wslrelay", None, addresses)
}
