//! Which ways lead from Windows to a port of WSL, as targets of a measurement. What cannot be known is left out, and told.

use std::net::IpAddr;

use crate::bench::target::Target;
use crate::windows::WindowsFacts;
use crate::wsl::NetworkingMode;

/// The ways to `port`, the direct one first where there is one. `address` is the one by which WSL is reached from outside.
pub fn ways(port: u16, mode: Option<NetworkingMode>, address: Option<IpAddr>, windows: Option<&WindowsFacts>) -> Vec<Target> {
    let target = |name: &str, host: &str, port| Target { name: name.to_owned(), host: host.to_owned(), port };
    let mut ways = Vec::new();
    let direct = address.map(|address| target("direct", &address.to_string(), port));
    match mode {
        // Windows' own addresses are WSL's there: what asks for them is not sent to WSL unless a setting says so.
        Some(NetworkingMode::Mirrored) => ways.push(target("loopback", "127.0.0.1", port)),
        Some(NetworkingMode::Consomme) => ways.extend(direct.into_iter().chain([target("loopback", "127.0.0.1", port)])),
        Some(NetworkingMode::Nat) | None => {
            ways.extend(direct);
            ways.extend([target("relay", "127.0.0.1", port), target("relay-v6", "::1", port)]);
        }
        Some(NetworkingMode::Bridged) => ways.extend(direct),
        Some(NetworkingMode::None) => {}
    }
    let entries = windows.and_then(|windows| windows.portproxy.known()).into_iter().flatten();
    for (number, entry) in entries.filter(|entry| entry.connect_port == port).enumerate() {
        // A listener on all addresses is met at Windows' address in WSL's network: 127.0.0.1 may be the relay's.
        let own = || windows.and_then(|windows| windows.vethernet.known()).and_then(|all| all.first()).map(|own| own.address);
        let host = match entry.listen_address.parse::<IpAddr>() {
            Ok(listens) if listens.is_unspecified() => own(),
            Ok(listens) => Some(listens),
            Err(_) if entry.listen_address == "*" => own(),
            Err(_) => None,
        };
        let name = if number == 0 { "portproxy".to_owned() } else { format!("portproxy-{}", number + 1) };
        let new = host.map(|host| target(&name, &host.to_string(), entry.listen_port));
        let is_there = |new: &Target| ways.iter().any(|way| (&way.host, way.port) == (&new.host, new.port));
        if let Some(new) = new.filter(|new| !is_there(new)) {
            ways.push(new);
        }
    }
    ways
}
