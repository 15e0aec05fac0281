//! How a program is told to listen elsewhere: a server by its own option, and the port of a container, of a unit of systemd or of a
//! tunnel where that was made.

use super::case::Case;
use super::listener::who;
use crate::escape::shell_word;
use crate::evidence::Listener;

/// A program that listens for others.
struct Program {
    /// Its name as the kernel has it, 15 bytes at most.
    command: &'static str,
    /// The advice, for the address that stands for all.
    advice: fn(&Case, &Listener, &str) -> Vec<String>,
}

/// Programs that listen for others: to restart them with another option is not how they are told.
const PROGRAMS: &[Program] = &[
    Program { command: "systemd", advice: unit },
    Program { command: "docker-proxy", advice: |_, listener, all| published("docker", listener, all) },
    Program { command: "rootlessport", advice: |_, listener, all| published("podman", listener, all) },
    Program { command: "kubectl", advice: kubectl },
    Program { command: "ssh", advice: ssh },
    Program { command: "sshd", advice: sshd },
    Program { command: "sshd-session", advice: sshd },
];

/// What makes a listener listen on `all`.
pub(super) fn advice(case: &Case, listener: &Listener, all: &str) -> Vec<String> {
    let known = PROGRAMS.iter().find(|program| listener.command.as_deref() == Some(program.command));
    known.map_or_else(
        || {
            let who = who(listener);
            vec![format!(
                "# stop {who} and start it again so that it listens on {all}, not {}: its option is often called --host, --bind or --listen",
                listener.address
            )]
        },
        |program| (program.advice)(case, listener, all),
    )
}

/// Whether a program listens for others, so that its own restart changes nothing.
pub(super) fn listens_for_others(listener: &Listener) -> bool {
    PROGRAMS.iter().any(|program| listener.command.as_deref() == Some(program.command))
}

fn end(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn unit(case: &Case, listener: &Listener, all: &str) -> Vec<String> {
    let wanted = end(all, listener.port);
    let Some(unit) = &case.evidence.socket_unit else {
        let user = if listener.pid == Some(1) { "" } else { " --user" };
        return vec![
            format!(
                "# systemd listens here for a server that it starts: give its socket unit ListenStream={wanted}, and restart that"
            ),
            format!("systemctl{user} list-sockets"),
        ];
    };
    let old = end(&listener.address.to_string(), listener.port);
    let kept = unit.streams.iter().filter(|stream| **stream != old).map(String::as_str);
    // An empty one takes back all that the unit itself says.
    let lines = ["[Socket]", "ListenStream="].into_iter().map(str::to_owned);
    let lines = lines.chain(kept.chain([wanted.as_str()]).map(|stream| format!("ListenStream={stream}")));
    let settings = lines.map(|line| shell_word(&line)).collect::<Vec<_>>().join(" ");
    let name = shell_word(&unit.name);
    let folder = shell_word(&format!("/etc/systemd/system/{}.d", unit.name));
    vec![
        format!("# the socket unit {name} of systemd says ListenStream={old}; this gives it {wanted} instead:"),
        format!("sudo mkdir -p {folder}"),
        format!("printf '%s\\n' {settings} | sudo tee {folder}/listen.conf"),
        "sudo systemctl daemon-reload".to_owned(),
        "# where its service runs already, stop that first".to_owned(),
        format!("sudo systemctl restart {name}"),
    ]
}

fn published(program: &str, listener: &Listener, all: &str) -> Vec<String> {
    let (port, only) = (listener.port, end(&listener.address.to_string(), listener.port));
    // Without an address it is that of all.
    let option = if all.contains(':') { format!("-p {}:INNER", end(all, port)) } else { format!("-p {port}:INNER") };
    let containers = if program == "docker" { format!("docker ps --filter publish={port}") } else { "podman ps".to_owned() };
    vec![
        containers,
        format!(
            "# a container's port is published on {only} only: make the container anew with {option} instead of -p {only}:INNER, where INNER is its port inside (compose: the line under `ports:`)"
        ),
    ]
}

fn kubectl(_: &Case, listener: &Listener, all: &str) -> Vec<String> {
    vec![format!("# stop {} and start it again with --address {all}: kubectl port-forward --address {all} ...", who(listener))]
}

fn ssh(_: &Case, listener: &Listener, all: &str) -> Vec<String> {
    let all = end(all, listener.port);
    vec![format!("# stop {} and start it again with -L {all}:HOST:PORT, for it listens for a tunnel (ssh -L)", who(listener))]
}

fn sshd(_: &Case, listener: &Listener, all: &str) -> Vec<String> {
    vec![format!(
        "# {} listens for a tunnel that a client of ssh asked for (ssh -R): set `GatewayPorts clientspecified` in /etc/ssh/sshd_config here, reload ssh, and let that client ask for -R {}:HOST:PORT",
        who(listener),
        end(all, listener.port)
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Evidence, SocketUnit};
    use crate::output::samples::{bound_elsewhere, listener};

    fn told(command: &str, evidence: &Evidence) -> String {
        let journey = bound_elsewhere().journey;
        let listener = Listener { command: Some(command.to_owned()), pid: Some(1), ..listener("127.0.0.1") };
        advice(&Case { journey: &journey, evidence }, &listener, "0.0.0.0").join("\n")
    }

    #[test]
    fn each_is_told_in_its_own_way() {
        let nothing = Evidence::default();
        assert!(told("python3", &nothing).contains("stop python3 (pid 1) and start it again"));
        for (command, words) in [
            ("docker-proxy", "docker ps --filter publish=8080\n"),
            ("docker-proxy", "with -p 8080:INNER instead of -p 127.0.0.1:8080:INNER"),
            ("rootlessport", "podman ps\n"),
            ("kubectl", "kubectl port-forward --address 0.0.0.0"),
            ("ssh", "-L 0.0.0.0:8080:HOST:PORT"),
            ("sshd", "-R 0.0.0.0:8080:HOST:PORT"),
            ("systemd", "systemctl list-sockets"),
        ] {
            let told = told(command, &nothing);
            assert!(told.contains(words) && !told.contains("--bind"), "{command}: {told}");
        }
    }

    #[test]
    fn a_unit_keeps_what_else_it_listens_on() {
        let streams = ["127.0.0.1:8080", "127.0.0.1:9090", "/run/web.sock"].map(str::to_owned).to_vec();
        let unit = Some(SocketUnit { name: "web.socket".to_owned(), streams });
        let told = told("systemd", &Evidence { socket_unit: unit, ..Evidence::default() });
        let settings =
            "'[Socket]' ListenStream= ListenStream=127.0.0.1:9090 ListenStream=/run/web.sock ListenStream=0.0.0.0:8080";
        assert!(told.contains(&format!("{settings} | sudo tee /etc/systemd/system/web.socket.d/listen.conf")), "{told}");
        assert!(told.contains("sudo systemctl restart web.socket"), "{told}");
    }
}
