//! What to open to try a server: which address leads to it, from Windows by the networking mode, elsewhere from other machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{NetworkingMode, Wsl, is_relayed, taker};
use crate::evidence::Listener;

/// Where the server is, and how Windows may reach it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Which WSL; `No` too for a network namespace that is not WSL's own.
    pub wsl: Wsl,
    /// WSL's networking mode, when known.
    pub mode: Option<NetworkingMode>,
    /// The address of this machine that others may reach.
    pub address: Option<IpAddr>,
    /// The listeners on the port; with none, a server on every address is thought of, or one of a container's.
    pub listeners: &'a [Listener],
    /// Whether there are containers: a rule alone may lead to one, from this machine's address and not from localhost.
    pub containers: bool,
}

/// What a server can be reached by, from its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations")]
struct Reach {
    /// 127.0.0.1 leads to it.
    loopback4: bool,
    /// `::1` leads to it.
    loopback6: bool,
    /// WSL's relay opens 127.0.0.1 on Windows: there is an IPv4 socket on 0.0.0.0 or 127.0.0.1.
    relay4: bool,
    /// WSL's relay opens `[::1]` on Windows: there is an IPv6 socket on `::` or `::1`.
    relay6: bool,
    /// This machine's own address leads to it.
    address: bool,
}

impl Reach {
    fn of(listeners: &[Listener], own: Option<IpAddr>) -> Self {
        // With none, one on every address is thought of.
        let is_any = listeners.is_empty();
        let takes = |address: IpAddr, interface: &str| is_any || taker(listeners, address, interface).is_some();
        Self {
            loopback4: takes(Ipv4Addr::LOCALHOST.into(), "lo"),
            loopback6: takes(Ipv6Addr::LOCALHOST.into(), "lo"),
            relay4: is_any || is_relayed(listeners, true),
            relay6: is_any || is_relayed(listeners, false),
            address: own.is_some_and(|own| takes(own, "eth0")),
        }
    }
}

/// What to do once every probe is on, one sentence: `now open http://localhost:8080/ in a browser on Windows`.
pub fn invitation(place: Place<'_>, port: u16) -> String {
    let mut reach = Reach::of(place.listeners, place.address);
    // In the other modes Windows' localhost comes by an interface of its own, and meets the rules that lead to containers.
    let by_sockets = place.wsl == Wsl::No || matches!(place.mode, Some(NetworkingMode::Nat | NetworkingMode::Bridged));
    if place.containers && by_sockets && place.listeners.is_empty() && place.address.is_some() {
        reach = Reach { loopback4: false, loopback6: false, relay4: false, relay6: false, ..reach };
    }
    let own = place.address.filter(|_| reach.address).map(|address| SocketAddr::new(address, port).to_string());
    if place.wsl == Wsl::No {
        return match own {
            Some(own) => format!("{} from the client{}", go(&own, port), here(reach, port)),
            None if reach.loopback4 || reach.loopback6 => {
                format!("{} on this machine", go(&loopback(reach, port), port))
            }
            None => "now make the connection that fails".to_owned(),
        };
    }
    let name = format!("localhost:{port}");
    match place.mode {
        Some(NetworkingMode::None) => "Windows cannot reach this machine: its networkingMode is none".to_owned(),
        Some(NetworkingMode::Mirrored | NetworkingMode::Consomme) if reach.loopback4 => {
            on_windows(&format!("127.0.0.1:{port}"), port)
        }
        Some(NetworkingMode::Mirrored | NetworkingMode::Consomme) => match own {
            Some(own) => format!("{}; Windows' localhost does not lead to this server", on_windows(&own, port)),
            None => "Windows cannot reach this server: it should listen for IPv4, on 0.0.0.0 or 127.0.0.1".to_owned(),
        },
        Some(NetworkingMode::Nat | NetworkingMode::Bridged) => nat(reach, own.as_deref(), port),
        None => on_windows(&name, port),
    }
}

/// WSL's relay serves each family on its own: see `Reach`.
fn nat(reach: Reach, own: Option<&str>, port: u16) -> String {
    let name = format!("localhost:{port}");
    match (reach.relay4, reach.relay6, own) {
        (true, _, _) => on_windows(&name, port),
        (false, true, _) => format!(
            "{} (not 127.0.0.1: for a server with an IPv6 socket WSL opens only [::1] on Windows)",
            on_windows(&name, port)
        ),
        (false, false, Some(own)) => format!(
            "{} (not localhost: WSL passes that on only to servers on 0.0.0.0, 127.0.0.1, :: and ::1)",
            on_windows(own, port)
        ),
        (false, false, None) => "Windows cannot reach this server: it should listen on 0.0.0.0, 127.0.0.1, :: or ::1".to_owned(),
    }
}

fn here(reach: Reach, port: u16) -> String {
    if reach.loopback4 || reach.loopback6 { format!(", or {} here", loopback(reach, port)) } else { String::new() }
}

fn loopback(reach: Reach, port: u16) -> String {
    let address = if reach.loopback4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(address, port).to_string()
}

fn on_windows(end: &str, port: u16) -> String {
    let how = if is_web(port) { " in a browser on Windows" } else { " from Windows" };
    format!("{}{how}", go(end, port))
}

fn go(end: &str, port: u16) -> String {
    match port {
        443 | 8443 => format!("now open https://{end}/"),
        port if is_web(port) => format!("now open http://{end}/"),
        _ => format!("now connect to {end}"),
    }
}

/// Whether a browser may be sent there: the low ports belong to other protocols, and browsers refuse many of them.
fn is_web(port: u16) -> bool {
    matches!(port, 80 | 443 | 1024..)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn listener(address: &str, v6only: bool) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            port: 8080,
            v6only,
            device: None,
            queue: 0,
            backlog: 1,
            pid: None,
            command: None,
            netns: 1,
        }
    }

    fn said(wsl: Wsl, mode: Option<NetworkingMode>, addresses: &[&str]) -> String {
        let listeners: Vec<_> = addresses.iter().map(|address| listener(address, false)).collect();
        let address = Some("172.28.16.2".parse().unwrap());
        invitation(Place { wsl, mode, address, listeners: &listeners, containers: false }, 8080)
    }

    #[test]
    fn in_nat_mode_the_relay_serves_each_family_on_its_own() {
        let nat = |addresses: &[&str]| said(Wsl::Two, Some(NetworkingMode::Nat), addresses);
        let plain = "now open http://localhost:8080/ in a browser on Windows";
        for addresses in [&["0.0.0.0"][..], &["127.0.0.1"], &["0.0.0.0", "::"], &[]] {
            assert_eq!(nat(addresses), plain, "{addresses:?}");
        }
        assert!(nat(&["::"]).starts_with(&format!("{plain} (not 127.0.0.1")));
        assert!(nat(&["172.28.16.2"]).starts_with("now open http://172.28.16.2:8080/ in a browser on Windows (not localhost"));
        assert!(nat(&["127.0.0.2"]).starts_with("Windows cannot reach this server"));
    }

    #[test]
    fn a_port_of_a_container_that_nothing_here_listens_on_is_asked_for_by_the_address() {
        let address = Some("172.28.16.2".parse().unwrap());
        let said =
            |wsl, mode, listeners: &[Listener]| invitation(Place { wsl, mode, address, listeners, containers: true }, 8080);
        let nat = Some(NetworkingMode::Nat);
        assert!(said(Wsl::Two, nat, &[]).starts_with("now open http://172.28.16.2:8080/ in a browser on Windows (not localhost"));
        assert_eq!(said(Wsl::No, None, &[]), "now open http://172.28.16.2:8080/ from the client");
        let mirrored = said(Wsl::Two, Some(NetworkingMode::Mirrored), &[]);
        assert_eq!(mirrored, "now open http://127.0.0.1:8080/ in a browser on Windows");
        // As Docker's proxy listens.
        assert_eq!(said(Wsl::Two, nat, &[listener("0.0.0.0", false)]), "now open http://localhost:8080/ in a browser on Windows");
    }

    #[test]
    fn mirrored_mode_carries_ipv4_localhost_only() {
        let mirrored = |addresses: &[&str]| said(Wsl::Two, Some(NetworkingMode::Mirrored), addresses);
        for addresses in [&["0.0.0.0"][..], &["127.0.0.1"], &["::"], &[]] {
            assert_eq!(mirrored(addresses), "now open http://127.0.0.1:8080/ in a browser on Windows", "{addresses:?}");
        }
        assert!(mirrored(&["::1"]).starts_with("Windows cannot reach this server: it should listen for IPv4"));
        assert!(mirrored(&["172.28.16.2"]).starts_with("now open http://172.28.16.2:8080/"));
    }

    #[test]
    fn elsewhere_than_wsl_nothing_is_said_of_windows() {
        let elsewhere = |addresses: &[&str]| said(Wsl::No, None, addresses);
        assert_eq!(elsewhere(&["0.0.0.0"]), "now open http://172.28.16.2:8080/ from the client, or 127.0.0.1:8080 here");
        assert_eq!(elsewhere(&["127.0.0.1"]), "now open http://127.0.0.1:8080/ on this machine");
        assert_eq!(elsewhere(&["::1"]), "now open http://[::1]:8080/ on this machine");
        assert_eq!(elsewhere(&["172.28.16.2"]), "now open http://172.28.16.2:8080/ from the client");
        assert_eq!(elsewhere(&["10.9.9.9"]), "now make the connection that fails");
    }

    #[test]
    fn browsers_are_not_sent_to_ports_of_other_protocols() {
        let place = Place { wsl: Wsl::Two, mode: None, address: None, listeners: &[], containers: true };
        assert_eq!(invitation(place, 22), "now connect to localhost:22 from Windows");
        assert_eq!(invitation(place, 443), "now open https://localhost:443/ in a browser on Windows");
    }
}
