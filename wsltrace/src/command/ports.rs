//! A command without a port: what listens, so that its user can name one.

use std::time::Duration;

use super::Failure;
use crate::escape::shell_word;
use crate::evidence::sockets;
use crate::kernel::netns::Netns;
use crate::output::listening_table;

/// Longest time that the search for the owners of sockets may take.
const OWNERS_LIMIT: Duration = Duration::from_secs(1);

/// The error for a missing port, with the ports that have a listener in the namespace that was named, or the own one; `command` is what
/// takes a port.
pub(super) fn missing(netns: Option<&str>, command: &str) -> Failure {
    let listeners = match netns {
        // The own namespace can be asked without any rights.
        None => Netns::current().map_err(Failure::from).and_then(|own| Ok(sockets::all_listeners_here(own.inum())?)),
        Some(name) => super::netns(Some(name)).and_then(|netns| Ok(sockets::all_listeners(&netns)?)),
    };
    let listeners = match listeners {
        Ok(found) => sockets::with_owners(found, OWNERS_LIMIT),
        Err(failure) => return failure,
    };
    let (table, example) = listening_table(&listeners);
    let mut message = "the port of the server is missing".to_owned();
    if table.is_empty() {
        message.push_str(", and nothing listens on any TCP port now: start the server first");
    } else {
        message.push_str("; these TCP ports have a listener now:\n");
        message.push_str(table.trim_end());
        let hidden = listeners.iter().any(|listener| listener.pid.is_none());
        if hidden && !nix::unistd::geteuid().is_root() {
            message.push_str("\n  (-: not visible without root)");
        } else if hidden {
            message.push_str("\n  (-: no process that is visible here)");
        }
    }
    let netns = netns.map(|name| format!(" --netns {}", shell_word(name))).unwrap_or_default();
    Failure::usage(message, format!("sudo {command} --port {}{netns}", example.unwrap_or(8080)))
}
