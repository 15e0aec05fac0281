//! Who listens now, in words: for the traced ports at the start, and as a table for somebody who does not know the port.

#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

use serde::{Deserialize, Serialize};

use super::contract::PortRange;
use super::words::ports;
use crate::escape::escape;
use crate::evidence::Listener;

/// How many other ports are named when nothing listens on the traced one.
const OTHERS: usize = 8;
/// How many servers are named when a range of ports is traced.
const SERVERS: usize = 6;

/// What is told at the start beside the probes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Start {
    /// Every listener of the traced namespace.
    pub listeners: Vec<Listener>,
    /// Packets are followed into containers.
    pub containers: bool,
    /// What to do now, one sentence.
    pub invitation: String,
}

/// One server: a process that listens on a port, on one address or more.
struct Server<'a> {
    port: u16,
    command: Option<&'a str>,
    pid: Option<u32>,
    sockets: Vec<&'a Listener>,
}

impl Server<'_> {
    fn owner(&self) -> String {
        match (self.command, self.pid) {
            (Some(command), Some(pid)) => format!("{command} (pid {pid})"),
            _ => "a process that is not visible here".to_owned(),
        }
    }

    fn addresses(&self) -> String {
        let mut all: Vec<String> = Vec::new();
        for socket in &self.sockets {
            let device = socket.device.as_ref().map(|device| format!("%{device}")).unwrap_or_default();
            let address = format!("{}{device}", socket.address);
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all.join(" and ")
    }

    /// Who may reach it.
    fn reach(&self) -> &'static str {
        if self.sockets.iter().any(|socket| socket.device.is_some()) {
            return "";
        }
        let any = |wanted: &dyn Fn(&Listener) -> bool| self.sockets.iter().any(|socket| wanted(socket));
        let v4 = any(&|socket| socket.address.is_unspecified() && (socket.address.is_ipv4() || !socket.v6only));
        let v6 = any(&|socket| socket.address.is_unspecified() && socket.address.is_ipv6());
        match (v4, v6) {
            (true, true) => " (every address)",
            (true, false) => " (every IPv4 address)",
            (false, true) => " (every IPv6 address, no IPv4)",
            (false, false) if self.sockets.iter().all(|socket| socket.address.is_loopback()) => " (localhost only)",
            (false, false) => "",
        }
    }
}

/// Listeners by port and process, in the order given.
fn servers(listeners: &[Listener]) -> Vec<Server<'_>> {
    let mut servers: Vec<Server<'_>> = Vec::new();
    for listener in listeners {
        let command = listener.command.as_deref();
        match servers.iter_mut().find(|server| server.port == listener.port && server.command == command) {
            Some(server) => server.sockets.push(listener),
            None => servers.push(Server { port: listener.port, command, pid: listener.pid, sockets: vec![listener] }),
        }
    }
    servers
}

fn is_traced(traced: &[PortRange], port: u16) -> bool {
    traced.iter().any(|range| (range.first..=range.last).contains(&port))
}

/// One sentence a server on the traced ports; when there is none, that, and which ports have one.
pub(super) fn sentences(traced: &[PortRange], start: &Start) -> Vec<String> {
    let (on, others): (Vec<Listener>, Vec<Listener>) =
        start.listeners.iter().cloned().partition(|listener| is_traced(traced, listener.port));
    let found = servers(&on);
    if found.is_empty() {
        return vec![nobody(traced, &others, start.containers)];
    }
    let mut said: Vec<String> = found
        .iter()
        .take(SERVERS)
        .map(|server| format!("port {}: {} listens on {}{}", server.port, server.owner(), server.addresses(), server.reach()))
        .collect();
    if found.len() > SERVERS {
        said.push(format!("and {} servers more", found.len() - SERVERS));
    }
    said
}

/// What to do now; or once there is a server, where there is none yet and no container may stand for it.
pub(super) fn invitation(traced: &[PortRange], start: &Start) -> String {
    let is_there = start.containers || start.listeners.iter().any(|listener| is_traced(traced, listener.port));
    match start.invitation.strip_prefix("now ").filter(|_| !is_there) {
        Some(what) => format!("then {what}"),
        None => start.invitation.clone(),
    }
}

fn nobody(traced: &[PortRange], others: &[Listener], containers: bool) -> String {
    let mut said = format!("nothing listens on {} now", ports(traced));
    if containers {
        said.push_str(" (a port that a container publishes may need no listener here)");
    }
    let mut known: Vec<u16> = others.iter().map(|listener| listener.port).collect();
    known.dedup();
    if known.is_empty() {
        said.push_str(", nor on any other port: start the server first");
    } else {
        let named: Vec<String> = servers(others)
            .iter()
            .take(OTHERS)
            .map(|server| match server.command {
                Some(command) => format!("{} ({command})", server.port),
                None => server.port.to_string(),
            })
            .collect();
        let more = if servers(others).len() > OTHERS { ", ..." } else { "" };
        said.push_str(&format!(": start the server, or name another port. Listening now: {}{more}", named.join(", ")));
    }
    said
}

/// The table of all that listens, lines with an indent of two columns; and the port to name as an example, if any.
pub fn table(listeners: &[Listener]) -> (String, Option<u16>) {
    let rows = servers(listeners);
    let mut text = String::new();
    let width = rows.iter().map(|server| server.addresses().chars().count()).max().unwrap_or(0);
    for server in &rows {
        let owner = match server.pid {
            Some(_) => server.owner(),
            None => "-".to_owned(),
        };
        text.push_str(&format!("  {:<5}  {:<width$}  {}\n", server.port, server.addresses(), escape(&owner)));
    }
    // The low ports belong to the system; somebody's own server is rarely among them.
    let example = rows.iter().find(|server| server.port >= 1024).or(rows.first()).map(|server| server.port);
    (text, example)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn listener(port: u16, address: &str, v6only: bool, owner: Option<(&str, u32)>) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            port,
            v6only,
            device: None,
            queue: 0,
            backlog: 1,
            pid: owner.map(|(_, pid)| pid),
            command: owner.map(|(command, _)| command.to_owned()),
            netns: 1,
        }
    }

    fn said(port: u16, listeners: &[Listener]) -> Vec<String> {
        let start = Start { listeners: listeners.to_vec(), ..Start::default() };
        sentences(&[PortRange { first: port, last: port }], &start)
    }

    #[test]
    fn a_server_is_named_with_who_may_reach_it() {
        let node = Some(("node", 7));
        for (sockets, expected) in [
            (vec![("0.0.0.0", false)], "0.0.0.0 (every IPv4 address)"),
            (vec![("::", false)], ":: (every address)"),
            (vec![("::", true)], ":: (every IPv6 address, no IPv4)"),
            (vec![("0.0.0.0", false), ("::", true)], "0.0.0.0 and :: (every address)"),
            (vec![("127.0.0.1", false), ("::1", false)], "127.0.0.1 and ::1 (localhost only)"),
            (vec![("127.0.0.1", false), ("10.0.0.5", false)], "127.0.0.1 and 10.0.0.5"),
        ] {
            let listeners: Vec<_> = sockets.iter().map(|(address, v6only)| listener(8080, address, *v6only, node)).collect();
            assert_eq!(said(8080, &listeners), [format!("port 8080: node (pid 7) listens on {expected}")]);
        }
        let hidden = said(8080, &[listener(8080, "127.0.0.1", false, None)]);
        assert_eq!(hidden, ["port 8080: a process that is not visible here listens on 127.0.0.1 (localhost only)"]);
    }

    #[test]
    fn when_nobody_listens_the_ports_that_have_a_listener_are_named() {
        assert_eq!(said(8080, &[]), ["nothing listens on port 8080 now, nor on any other port: start the server first"]);
        let others = [listener(22, "0.0.0.0", false, None), listener(3000, "::1", false, Some(("node", 7)))];
        assert_eq!(
            said(8080, &others),
            ["nothing listens on port 8080 now: start the server, or name another port. Listening now: 22, 3000 (node)"]
        );
    }

    #[test]
    fn what_to_open_comes_after_the_server_that_is_to_be_started() {
        let traced = [PortRange { first: 8080, last: 8080 }];
        let said = |listeners: Vec<Listener>, containers| {
            invitation(&traced, &Start { listeners, containers, invitation: "now open http://localhost:8080/".into() })
        };
        assert_eq!(said(Vec::new(), false), "then open http://localhost:8080/");
        assert_eq!(said(Vec::new(), true), "now open http://localhost:8080/");
        assert_eq!(said(vec![listener(8080, "0.0.0.0", false, None)], false), "now open http://localhost:8080/");
    }

    #[test]
    fn the_table_has_a_row_for_each_server_and_a_likely_example() {
        let listeners = [
            listener(22, "0.0.0.0", false, None),
            listener(22, "::", true, None),
            listener(3000, "127.0.0.1", false, Some(("no\x1bde", 7))),
        ];
        let (text, example) = table(&listeners);
        assert_eq!(text, "  22     0.0.0.0 and ::  -\n  3000   127.0.0.1       no\\x1bde (pid 7)\n");
        assert_eq!(example, Some(3000));
        assert_eq!(table(&[]), (String::new(), None));
    }
}
