//! Ports that only a rule leads on, to a container's server, where no socket of this Linux has them.

use std::net::SocketAddr;

use super::super::{Facts, Finding, Severity};
use super::firewall::{led_by, led_to};
use crate::evidence::Owner;
use crate::wsl::{Answer, NetworkingMode, Way, Wsl};

/// Windows' localhost, which WSL's relay opens for sockets of this Linux alone: container engines without a proxy of their own publish ports
/// by rules, and those it does not see.
pub(super) fn localhost(facts: &Facts) -> Vec<Finding> {
    let by_relay = matches!(facts.mode(), Some(NetworkingMode::Nat | NetworkingMode::Bridged));
    if facts.wsl.wsl != Wsl::Two || !by_relay || !facts.linux.listeners.is_empty() {
        return Vec::new();
    }
    let rows = facts.rows();
    let answer = |way: Way| rows.iter().find(|row| row.way == way).map(|row| row.answer);
    let is_split = answer(Way::WindowsLocalhost) == Some(Answer::Fails) && answer(Way::WindowsToAddress) == Some(Answer::Works);
    let (Some(to), Some((own, _)), true) = (led_to(facts), &facts.linux.outer, is_split) else { return Vec::new() };
    let (port, own) = (facts.port, SocketAddr::new(*own, facts.port));
    let finding = Finding::new(
        Severity::Warns,
        format!(
            "on Windows http://localhost:{port}/ is refused, while http://{own}/ works: only a rule of the firewall leads to the server"
        ),
    );
    let listen = if led_by(facts, Owner::Docker).is_some() {
        "# or have Docker's proxy listen: \"userland-proxy\": true in /etc/docker/daemon.json, then: sudo systemctl restart docker".to_owned()
    } else {
        format!("# or have a program listen here, such as: socat TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr TCP:{to}")
    };
    vec![
        finding
            .because(format!(
                "the rule leads to {to}, and no socket here has port {port}; WSL's relay opens a port on Windows for sockets only"
            ))
            .linux(format!("# open http://{own}/ on Windows"))
            .linux(listen),
    ]
}
