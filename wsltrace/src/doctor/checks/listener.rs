//! The server's own sockets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::firewall::described;
use super::super::{Facts, Finding, Severity};
use super::one_address;
use crate::escape::escape;
use crate::evidence::{Listener, Owner};
use crate::simulate::Part;
use crate::wsl::{Answer, Gate, Held, NetworkingMode, Row, Way, Wsl, is_relayed, taker};

/// How many other ports are named when nobody listens on the one.
const OTHERS: usize = 8;

/// Whether anybody listens.
pub(super) fn listening(facts: &Facts) -> Vec<Finding> {
    let port = facts.port;
    let blind = facts.linux.unseen.iter().any(|unseen| unseen.what == super::super::gather::LISTENERS);
    let redirects = super::firewall::redirects(facts);
    let nobody = redirects.iter().find(|redirect| redirect.listener.is_none() && !redirect.martian);
    if let Some(redirect) = nobody.filter(|_| !blind) {
        let to = redirect.to;
        let summary = format!("rules of the firewall lead connections on to {to} of this Linux, where {}", facts.nobody_at(to));
        let finding = Finding::new(Severity::Fails, summary);
        let finding = redirect.rule.iter().fold(finding, |finding, rule| finding.because(described(rule)));
        let start = if facts.bound_beside(to).is_empty() {
            format!("# start the server on port {}, or take out the rule; what listens:", to.port())
        } else {
            let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
            format!("# let the server on port {} listen on {any}, or take out the rule; what listens:", to.port())
        };
        return vec![finding.linux(start).linux("ss -ltnp")];
    }
    if let Some(nobody) = nobody_inside(facts) {
        return vec![nobody];
    }
    let handed = super::proxy::handed(facts);
    if let [first, ..] = facts.linux.listeners.as_slice() {
        let all: Vec<String> = facts.linux.listeners.iter().map(socket).collect();
        let server = Finding::new(Severity::Fine, format!("the server is {}, listening on {}", owner(first), all.join(" and ")));
        return [server].into_iter().chain(handed).collect();
    }
    if blind {
        return Vec::new();
    }
    if let Some(handed) = handed {
        return vec![handed];
    }
    if let Some((to, listener)) = redirects.iter().find_map(|redirect| Some((redirect.to, redirect.listener?))) {
        let summary =
            format!("rules of the firewall lead connections on to {to} of this Linux: a socket on {listener} takes them");
        return vec![Finding::new(Severity::Fine, summary)];
    }
    if let Some(to) = super::firewall::led_to(facts) {
        let known = if facts.inside(to.ip()).is_some() { ": the server is there" } else { "" };
        return vec![Finding::new(Severity::Fine, format!("rules of the firewall lead connections on to {to}{known}"))];
    }
    if super::firewall::is_stopped_on_its_way(facts) {
        return vec![Finding::new(
            Severity::Fine,
            "rules of the firewall lead connections through this Linux, to a server elsewhere",
        )];
    }
    if let Some(gate) = several(facts) {
        // What fails is told by the check of the firewall.
        return if let Gate::Led { why, .. } = gate {
            vec![Finding::new(Severity::Fine, format!("rules of the firewall lead connections on: {why}"))]
        } else {
            Vec::new()
        };
    }
    if let Some(undecided) = undecided(facts) {
        return vec![undecided];
    }
    if let Some(published) = published(facts) {
        return vec![published];
    }
    let finding = Finding::new(Severity::Fails, format!("nothing listens on port {port} in this Linux"));
    if let Some(inside) = facts.linux.elsewhere.iter().find(|listener| listener.port == port) {
        return vec![
            finding
                .because(format!("in a container {} listens on {}", owner(inside), socket(inside)))
                .linux(format!("# publish the container's port, such as with: docker run -p {port}:{port} ...")),
        ];
    }
    let others: Vec<String> = facts.linux.other_ports.iter().take(OTHERS).map(u16::to_string).collect();
    let finding = match (others.as_slice(), facts.linux.other_ports.len() > OTHERS) {
        ([], _) => finding.because("no TCP port has a listener"),
        (_, more) => finding.because(format!("ports with a listener: {}{}", others.join(", "), if more { ", ..." } else { "" })),
    };
    vec![finding.linux("# start the server, or look which port it has:").linux("ss -ltnp")]
}

/// What becomes of connections that rules lead to one of several servers, where it is known of all of them.
fn several(facts: &Facts) -> Option<Gate> {
    let outside = facts.entries().into_iter().filter(|entry| !entry.local && facts.is_led(entry));
    let mut gates = outside.filter_map(|entry| facts.several(&entry));
    gates.find(|gate| matches!(gate, Gate::Shut(_) | Gate::Led { works: true, .. }))
}

/// Rules that may lead connections elsewhere, by something that is not known: who is not listened for here may be served there.
fn undecided(facts: &Facts) -> Option<Finding> {
    let outside = facts.entries().into_iter().filter(|entry| !entry.local);
    let because =
        outside.filter(|entry| facts.is_led(entry)).find_map(|entry| Some(facts.predicted(&entry, Part::Syn)?.maybe()))?;
    let port = facts.port;
    let summary =
        format!("nothing listens on port {port} of this Linux itself, but rules may lead connections on to a server elsewhere");
    let finding = Finding::new(Severity::Unknown, summary);
    Some(because.iter().fold(finding, |finding, why| finding.because(format!("it depends on {why}"))))
}

/// A container to which the port is led, and where nobody takes what comes.
fn nobody_inside(facts: &Facts) -> Option<Finding> {
    let led = super::firewall::led_to(facts).and_then(|to| Some((to, facts.nobody_inside(to)?)));
    let proxied = || facts.linux.listeners.iter().find_map(|listener| facts.proxied_to_nobody(listener));
    let (to, nobody) = led.or_else(proxied)?;
    let finding = Finding::new(Severity::Fails, format!("connections are led on to {to}, {nobody}"))
        .because("the sockets in the container's network were looked at");
    Some(finding.linux(facts.mend_inside(to)))
}

/// A port that only a container has, and that others reach by another one.
fn published(facts: &Facts) -> Option<Finding> {
    let (port, first) = (facts.port, facts.linux.published_as.first()?);
    let ports: Vec<String> = facts.linux.published_as.iter().map(u16::to_string).collect();
    let summary = format!(
        "nothing listens on port {port} of this Linux itself: it is a container's, which clients reach by port {}",
        ports.join(" or ")
    );
    let finding = Finding::new(Severity::Fails, summary).because("a rule of the firewall (DNAT) leads there");
    Some(finding.linux(format!("# let the client ask for port {first}, and look at that: sudo wsltrace --port {first}")))
}

/// Whether a server could listen at all, where none does.
pub(super) fn bind(facts: &Facts) -> Vec<Finding> {
    let Some(error) = &facts.linux.refused else { return Vec::new() };
    let port = facts.port;
    let finding = Finding::new(Severity::Fails, format!("no server can listen on port {port} in this Linux: {error}"))
        .because(format!("bind() to 0.0.0.0:{port} says so, although nobody listens there"));
    let shared = facts.wsl.wsl == Wsl::Two && matches!(facts.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme));
    let finding = finding.linux(format!("ss -tanp '( sport = :{port} )'"));
    vec![if shared {
        finding
            .because("in this mode a port belongs to Windows or to Linux: a program of Windows may have it, or Windows keeps it")
            .powershell(format!("Get-NetTCPConnection -LocalPort {port} | Select-Object LocalAddress, State, OwningProcess"))
            .powershell("netsh interface ipv4 show excludedportrange protocol=tcp")
    } else {
        finding.because("a program holds it without listening: with a socket that is only bound, or with a connection of its own")
    }]
}

/// Who cannot reach the addresses that it listens on, though somebody can.
pub(super) fn address(facts: &Facts) -> Vec<Finding> {
    let listeners = &facts.linux.listeners;
    if listeners.is_empty() {
        return Vec::new();
    }
    if let Some(nowhere) = nowhere(facts) {
        return vec![nowhere];
    }
    if let Some(bound) = bound_to_device(facts) {
        return vec![bound];
    }
    let rows = facts.rows_of_sockets();
    if rules_lead_past(facts, &rows) {
        return Vec::new();
    }
    let windows = rows.iter().filter(|row| is_from_windows(row.way));
    let mut windows = windows.peekable();
    let all: Vec<String> = listeners.iter().map(socket).collect();
    let all = all.join(" and ");
    let port = facts.port;
    let relayed = [is_relayed(listeners, true), is_relayed(listeners, false)];
    let by_relay = matches!(facts.mode(), Some(NetworkingMode::Nat | NetworkingMode::Bridged));
    let takes = |way: Way| rows.iter().any(|row| row.way == way && row.listener.is_some());
    // Where another program has the addresses on Windows, that is told instead.
    let outside = super::outside(facts);
    let is_free = |held: &Held| matches!(held, Held::NotAsked | Held::NotKnown | Held::Nobody);
    let is_opened = is_free(&outside.at4) && matches!(outside.at6, Held::NotAsked | Held::NotKnown | Held::Relay);
    if facts.wsl.wsl == Wsl::Two && by_relay && relayed == [false, true] && is_opened {
        let finding = Finding::new(
            Severity::Warns,
            format!(
                "on Windows http://127.0.0.1:{port}/ is refused, while http://localhost:{port}/ works: the server has one IPv6 socket"
            ),
        );
        return vec![
            finding
                .because(format!("it listens on {all}; WSL's relay opens [::1] on Windows for an IPv6 socket, and not 127.0.0.1"))
                .linux(format!("# open http://localhost:{port}/ on Windows, or let the server listen on IPv4: 0.0.0.0 (in Go: net.Listen(\"tcp4\", ...))")),
        ];
    }
    if windows.peek().is_some()
        && windows.all(|row| row.answer == Answer::Fails)
        && !takes(Way::WindowsToAddress)
        && facts.can_be_reached()
    {
        return vec![
            Finding::new(Severity::Fails, format!("Windows cannot reach the server: it listens only on {all}"))
                .linux("# let the server listen on 0.0.0.0"),
        ];
    }
    if listeners.iter().all(|listener| listener.address.to_canonical().is_loopback()) {
        return vec![only_loopback(facts, &all)];
    }
    if facts.wsl.wsl == Wsl::No { one_address::check(facts, &all) } else { Vec::new() }
}

/// A server whose every address is gone from this machine, as when an interface got another one.
fn nowhere(facts: &Facts) -> Option<Finding> {
    let listeners = &facts.linux.listeners;
    if !listeners.iter().all(|listener| facts.linux.gone.contains(&listener.address.to_canonical())) {
        return None;
    }
    let all: Vec<String> = listeners.iter().map(socket).collect();
    let is = if all.len() == 1 { "is no address" } else { "are no addresses" };
    let summary =
        format!("nobody can reach the server: it listens only on {}, which {is} of this machine (any longer)", all.join(" and "));
    let finding = Finding::new(Severity::Fails, summary).because("no routing table has it as the machine's own");
    Some(
        finding
            .linux("# start the server again on an address that is there, or on 0.0.0.0; the addresses:")
            .linux("ip -brief address show"),
    )
}

/// A server that takes only what comes by certain devices.
fn bound_to_device(facts: &Facts) -> Option<Finding> {
    let linux = &facts.linux;
    let devices: BTreeSet<&str> = linux.listeners.iter().map(|listener| listener.device.as_deref()).collect::<Option<_>>()?;
    let all = devices.iter().map(|device| escape(device)).collect::<Vec<_>>().join(" or ");
    let is_off = |device: &&str| linux.interface(device).is_none_or(|interface| !interface.up);
    let off = !linux.interfaces.is_empty() && devices.iter().all(is_off);
    let windows_cannot = facts.wsl.wsl == Wsl::Two
        && facts.can_be_reached()
        && facts.rows_of_sockets().iter().filter(|row| is_from_windows(row.way)).all(|row| row.answer == Answer::Fails);
    let (severity, but) = match (off, windows_cannot) {
        (true, _) => (Severity::Fails, ", which is not there or down"),
        (false, true) => (Severity::Fails, ", and nothing from Windows does"),
        (false, false) => (Severity::Warns, ""),
    };
    // An address of the link is one of its interface, and a socket of it is bound there without having asked for that.
    let is_of_link = |listener: &Listener| matches!(listener.address, IpAddr::V6(own) if own.is_unicast_link_local());
    let (why, start) = if linux.listeners.iter().all(is_of_link) {
        ("its address is a link-local one, which is of that interface alone", "let the server listen on [::]")
    } else {
        ("its socket is bound to the device (SO_BINDTODEVICE)", "start the server without binding it to a device")
    };
    let summary = format!("the server takes only connections that come by {all}{but}: {why}");
    let finding = linux.listeners.iter().fold(Finding::new(severity, summary), |finding, listener| {
        finding.because(format!("{} has {}", owner(listener), socket(listener)))
    });
    Some(finding.linux(format!("# when others shall reach it as well, {start}")))
}

fn is_from_windows(way: Way) -> bool {
    matches!(way, Way::WindowsLocalhost | Way::WindowsLoopback4 | Way::WindowsToAddress)
}

/// Whether rules lead connections to the server that its addresses alone would not get.
fn rules_lead_past(facts: &Facts, of_sockets: &[Row]) -> bool {
    let works = |rows: &[Row], way: Way| rows.iter().any(|row| row.way == way && row.answer == Answer::Works);
    let rows = facts.rows();
    rows.iter().any(|row| works(&rows, row.way) && !works(of_sockets, row.way))
}

fn only_loopback(facts: &Facts, all: &str) -> Finding {
    let others = if facts.wsl.wsl == Wsl::No { "other machines" } else { "other machines, portproxy and WSL's own address" };
    let by_v4 = takes_here(facts, Ipv4Addr::LOCALHOST.into());
    let (who, others) = match (by_v4, takes_here(facts, Ipv6Addr::LOCALHOST.into())) {
        (true, _) => ("localhost leads".to_owned(), others.to_owned()),
        // Many programs take localhost for this alone.
        (false, true) => ("[::1] leads".to_owned(), format!("127.0.0.1 and {others}")),
        (false, false) => ("an unusual loopback address leads".to_owned(), format!("127.0.0.1 and {others}")),
    };
    let finding = Finding::new(Severity::Warns, format!("only {who} to the server, {others} do not: it listens only on {all}"));
    finding.linux(if by_v4 {
        "# when others shall reach it, let the server listen on 0.0.0.0"
    } else {
        "# let the server listen on 127.0.0.1, or on 0.0.0.0 when other machines shall reach it"
    })
}

/// Whether some socket takes connections to an address that come by the interface which has it.
pub(super) fn takes_here(facts: &Facts, address: IpAddr) -> bool {
    let outer = [&facts.linux.outer, &facts.linux.outer6].into_iter().flatten().find(|(outer, _)| *outer == address);
    taker(&facts.linux.listeners, address, outer.map_or("lo", |(_, interface)| interface)).is_some()
}

/// Sockets whose process nobody here sees.
pub(super) fn unseen_owner(facts: &Facts) -> Vec<Finding> {
    let Some(listener) = facts.linux.listeners.iter().find(|listener| listener.pid.is_none()) else { return Vec::new() };
    let what = socket(listener);
    vec![match (facts.linux.root, facts.wsl.wsl) {
        (false, _) => Finding::new(Severity::Unknown, format!("who holds {what} is visible to root only"))
            .linux(format!("sudo wsltrace doctor --port {}", facts.port)),
        (true, Wsl::Two) => Finding::new(
            Severity::Warns,
            format!("{what} belongs to no process of this distro: another distro or Docker Desktop has it"),
        )
        .because("all distros share one network, but see only their own processes")
        .powershell("wsl --list --running"),
        (true, _) => Finding::new(Severity::Warns, format!("{what} belongs to no process that is visible here")),
    }]
}

/// Connections that wait to be accepted.
pub(super) fn accept_queue(facts: &Facts) -> Vec<Finding> {
    // A server on another port that rules lead to takes connections as well.
    let redirected = facts.entries().into_iter().filter_map(|entry| Some((facts.redirected(&entry)?.0, entry.interface)));
    let redirected: Vec<_> = redirected.collect();
    let led = redirected.iter().filter_map(|(to, interface)| facts.taker_at(*to, interface));
    let servers: Vec<&Listener> = facts.linux.listeners.iter().chain(led).collect();
    if let Some(listener) = servers.iter().find(|listener| facts.is_stopped(listener)) {
        return vec![stopped(facts, listener)];
    }
    let full = servers.iter().find(|listener| listener.queue > listener.backlog);
    if let Some(listener) = full {
        let summary =
            format!("{} does not accept connections: its queue is full, and the next ones get no answer", owner(listener));
        return vec![
            Finding::new(Severity::Fails, summary)
                .because(format!("{} of {} wait at {}", listener.queue, listener.backlog, socket(listener)))
                .linux("# look why the server does not call accept(): it hangs, or waits for something else")
                .linux(format!("ss -ltnp 'sport = :{}'", listener.port)),
        ];
    }
    let limit = facts.linux.number("net.core.somaxconn");
    let of = |listener: &Listener| {
        let limit = limit.map(|limit| format!(" (net.core.somaxconn allows {limit})")).unwrap_or_default();
        Finding::new(
            Severity::Fine,
            format!("{} connections may wait to be accepted at {}{limit}", listener.backlog, socket(listener)),
        )
    };
    facts.linux.listeners.first().map(of).into_iter().collect()
}

/// A server that the kernel makes connections for while it is stopped.
fn stopped(facts: &Facts, listener: &Listener) -> Finding {
    // Of several that share the port another may get the connection.
    let on_its_port =
        facts.linux.listeners.iter().chain(&facts.linux.other_listeners).filter(|other| other.port == listener.port);
    let (stopped, others): (Vec<_>, Vec<_>) = on_its_port.partition(|other| facts.is_stopped(other));
    let is_alone = others.is_empty();
    let pids: BTreeSet<u32> = stopped.iter().filter_map(|other| other.pid).collect();
    let summary = format!("{} accepts no connection and answers none: it is stopped, as Ctrl-Z does it", owner(listener));
    let finding = Finding::new(if is_alone { Severity::Fails } else { Severity::Warns }, summary)
        .because(format!("clients are connected by the kernel, and wait; {} wait now at {}", listener.queue, socket(listener)))
        .linux("# `fg` in its terminal has it go on; from anywhere else:");
    pids.into_iter().fold(finding, |finding, pid| finding.linux(format!("sudo kill -CONT {pid}")))
}

/// What Docker publishes: by a rule of its own, by a program of its own for what rules do not see, or by both.
pub(super) fn docker(facts: &Facts) -> Vec<Finding> {
    let proxy = facts.linux.listeners.iter().find(|listener| listener.command.as_deref() == Some("docker-proxy"));
    let led = super::firewall::led_by(facts, Owner::Docker);
    if proxy.is_none() && led.is_none() {
        return Vec::new();
    }
    let finding = Finding::new(Severity::Fine, "the port is published by Docker: the server itself is in a container");
    let finding = led.into_iter().fold(finding, |finding, (to, rule)| finding.because(format!("DNAT to {to} by {rule}")));
    let finding =
        proxy.into_iter().fold(finding, |finding, proxy| finding.because(format!("{} holds {}", owner(proxy), socket(proxy))));
    vec![finding.linux(format!("docker ps --filter publish={}", facts.port))]
}

fn owner(listener: &Listener) -> String {
    match (&listener.command, listener.pid) {
        (Some(command), Some(pid)) => format!("{command} (pid {pid})"),
        _ => "a process that is not visible here".to_owned(),
    }
}

/// `ADDRESS:PORT`, and what narrows it.
pub(super) fn socket(listener: &Listener) -> String {
    let end = std::net::SocketAddr::new(listener.address, listener.port);
    let device = listener.device.as_ref().map(|device| format!("%{device}")).unwrap_or_default();
    let only = if listener.v6only { " (IPv6 only)" } else { "" };
    format!("{end}{device}{only}")
}
