//! Rules of ufw.

use super::is_outgoing;
use crate::diagnosis::remedy::Obstacle;
use crate::diagnosis::scope;
use crate::evidence::Owner;

/// How a rule is overruled that an exception behind it would not be.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    // The user's rules are asked in their order, and one that lets in comes behind.
    if rule.owner == Owner::Ufw
        && !obstacle.forward
        && rule.chain.contains("-user-")
        && !rule.is_limit()
        && rule.handle.or(rule.number.map(u64::from)).is_some()
    {
        return Some(vec![
            format!("ufw insert 1 {}", in_its_words(obstacle)),
            "# if ufw has that rule already, further down: take out the one that refuses, by its number here:".to_owned(),
            "ufw status numbered".to_owned(),
        ]);
    }
    if rule.owner == Owner::Ufw && rule.chain.contains("-before-") && rule.handle.or(rule.number.map(u64::from)).is_some() {
        let file = if obstacle.v6 { "before6.rules" } else { "before.rules" };
        return Some(vec![
            format!("# the rule stands in /etc/ufw/{file}, which no command of ufw changes: edit it, then:"),
            "ufw reload".to_owned(),
        ]);
    }
    None
}

/// The command that opens the port.
pub(super) fn open(obstacle: &Obstacle<'_>) -> Vec<String> {
    vec![format!("ufw {}", in_its_words(obstacle))]
}

/// What ufw is told to let through.
fn in_its_words(obstacle: &Obstacle<'_>) -> String {
    let port = obstacle.port;
    let server = || obstacle.server.map_or_else(|| "any".to_owned(), |server| server.to_string());
    match (obstacle.forward, is_outgoing(obstacle), obstacle.answer) {
        (true, _, false) => format!("route allow proto tcp to {} port {port}", server()),
        (true, _, true) => format!("route allow proto tcp from any port {port} to any"),
        (_, true, false) => format!("allow out proto tcp to {} port {port}", server()),
        (_, true, true) => format!("allow out proto tcp from any port {port} to any"),
        _ => match scope::plain(obstacle.rule) {
            [None, None] => format!("allow {port}/tcp"),
            [device, source] => {
                let device = device.map(|device| format!("in on {device} ")).unwrap_or_default();
                let source = source.map(|source| format!("from {source} ")).unwrap_or_default();
                format!("allow {device}proto tcp {source}to any port {port}")
            }
        },
    }
}
