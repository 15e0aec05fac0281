//! Rules of this Linux that stop the port.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::super::firewall::{Firewalls, described, in_words};
use super::super::{Facts, Finding, Severity};
use crate::diagnosis::{Obstacle, around, is_forwarder};
use crate::escape::{escape, shell_word};
use crate::evidence::{Owner, Rule};
use crate::simulate::{Behind, End, Further, Goes, Part, Prediction};
use crate::wsl::{Entry, taker};

/// What is stopped, by which rule; each rule once.
pub(super) fn firewall(facts: &Facts) -> Vec<Finding> {
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut found = Vec::new();
    for (entry, who) in entries(facts) {
        let Some((prediction, packet)) = deciding(facts, &entry) else { continue };
        let what = stopped(packet, &who);
        let stops = prediction.stops();
        // Of several the last is the one to open: those before it depend on what is not known. What may stand behind a wall stays closed.
        let walls =
            |end: &&&End| matches!(end, End::Dropped { rule, .. } | End::Rejected { rule, .. } if rule.is_wall_of_docker());
        let chosen = stops.iter().find(walls).or(stops.last());
        let Some(End::Dropped { rule, address, port, forward } | End::Rejected { rule, address, port, forward }) = chosen else {
            match &prediction.end {
                End::Maybe { .. } if facts.unread().is_none() && told.insert(prediction.maybe().join(", ")) => {
                    found.extend(super::several::maybe(facts, &entry, &who, (&prediction, packet)));
                }
                End::Queued { rule } if told.insert(format!("{rule:?}")) => {
                    let summary = format!("{what} handed to a program, which decides (NFQUEUE)");
                    found.push(Finding::new(Severity::Warns, summary).because(described(rule)));
                }
                _ => {}
            }
            continue;
        };
        if !told.insert(format!("{rule:?}")) {
            continue;
        }
        // Answers carry the server's port as their source.
        let answer = packet == Part::Answer;
        let led = || facts.predicted(&entry, Part::Syn).as_ref().and_then(led_away);
        let own = facts.redirected(&entry).map(|(to, _)| to).or_else(led).map_or(facts.port, |to| to.port());
        let port = port.filter(|_| !answer).unwrap_or(if answer { own } else { facts.port });
        let loopback = entry.interface == "lo";
        // Answers go to the client's.
        let server = address.filter(|_| !answer);
        let v6 = entry.destination.is_ipv6();
        let obstacle = Obstacle { rule, port, answer, v6, forward: *forward, leaves_by: None, server, loopback };
        let by: Vec<String> = stops.iter().copied().filter_map(in_words).collect();
        let finding = Finding::new(Severity::Fails, format!("{what} {}", by.join(", or ")));
        let shown = if facts.untraceable.is_empty() { "; `wsltrace` shows it of a real connection" } else { "" };
        let finding = finding.because(format!("the rules were read and followed{shown}"));
        let held = (rule.family.clone(), rule.table.clone());
        if facts.linux.held.contains(&held) {
            found.push(finding.linux(format!(
                "# the table {} {} belongs to a program (flags owner), and the kernel lets nobody else change it: let that program allow the port, or stop it",
                escape(&held.0),
                escape(&held.1)
            )));
            continue;
        }
        let behind = packet == Part::Syn && !rule.is_wall_of_docker();
        let Behind { further: behind, arrives_at } = if behind { facts.behind(&entry, rule) } else { Behind::default() };
        let finding = match behind.first() {
            Some(next) => {
                let summary =
                    format!("{}; once that lets them through, {} would stop them next", finding.summary, described(&next.rule));
                Finding { summary, ..finding }
            }
            None => finding,
        };
        told.extend(behind.iter().map(|further| format!("{:?}", further.rule)));
        // The last first: where a rule is known by its number, what is done about one behind it does not give it another.
        let further = behind.iter().rev().flat_map(|further| {
            let Further { rule, address, port, forward } = further;
            Obstacle { rule, port: *port, forward: *forward, server: *address, ..obstacle }.mend()
        });
        let lines = further.chain(obstacle.mend());
        let lines = lines.map(|line| if line.starts_with('#') { line } else { format!("sudo {line}") });
        found.push(lines.fold(finding, Finding::linux));
        let answer = arrives_at.and_then(|at| stopper_of_answer(facts, &entry, at.into()));
        let answer = answer.filter(|rule| told.insert(format!("{rule:?}")));
        found.extend(answer.map(|rule| about_answers(&obstacle, &rule, arrives_at.map_or(facts.port, |(_, port)| port), &who)));
    }
    found
}

/// What of a connection is stopped, as the beginning of a sentence.
fn stopped(packet: Part, who: &str) -> String {
    match packet {
        Part::Syn | Part::Solicitation | Part::Advertisement | Part::ArpQuestion | Part::ArpAnswer => {
            format!("connections of {who} are")
        }
        Part::Answer => format!("answers to connections of {who} are"),
        Part::Confirmation | Part::Data => {
            format!("connections of {who} are answered and then stopped: what the client sends next (its ACK) is")
        }
    }
}

/// The rule that would stop the answer to a SYN which comes to a port here once it is let through, where anybody may change it.
fn stopper_of_answer(facts: &Facts, entry: &Entry, from: SocketAddr) -> Option<Rule> {
    match facts.answered_from(entry, from)?.end {
        End::Dropped { rule, .. } | End::Rejected { rule, .. } => {
            Some(rule).filter(|rule| !facts.linux.held.contains(&(rule.family.clone(), rule.table.clone())))
        }
        _ => None,
    }
}

fn about_answers(of_syn: &Obstacle<'_>, rule: &Rule, port: u16, who: &str) -> Finding {
    let summary = format!("and then the answers to connections of {who} would be stopped by {}", described(rule));
    let lines = Obstacle { rule, port, answer: true, forward: false, server: None, ..*of_syn }.mend();
    let lines = lines.into_iter().map(|line| if line.starts_with('#') { line } else { format!("sudo {line}") });
    lines.fold(Finding::new(Severity::Fails, summary), Finding::linux)
}

/// The packet of the handshake that does not pass for certain, or else the last. Only what comes to a socket here is answered here.
fn deciding(facts: &Facts, entry: &Entry) -> Option<(Prediction, Part)> {
    let syn = facts.predicted(entry, Part::Syn)?;
    if !matches!(syn.end, End::Passes { goes: Goes::Local | Goes::Proxy, .. }) {
        let stopped = led_away(&syn).and_then(|to| {
            let all = facts.led_on(entry, to);
            all.into_iter().find(|(packet, _)| !packet.stops().is_empty())
        });
        return Some(stopped.unwrap_or((syn, Part::Syn)));
    }
    let redirected = facts.redirected(entry).map(|(to, _)| to);
    if redirected.is_some_and(|to| facts.is_martian(entry, to.ip()) != Some(false)) {
        return Some((syn, Part::Syn));
    }
    let answer = match redirected {
        Some(to) => facts.answered_from(entry, to)?,
        None => facts.predicted(entry, Part::Answer)?,
    };
    if !matches!(answer.end, End::Passes { .. }) {
        return Some((answer, Part::Answer));
    }
    Some((facts.predicted(entry, Part::Confirmation)?, Part::Confirmation))
}

/// Where a SYN is led when that is not here.
fn led_away(syn: &Prediction) -> Option<SocketAddr> {
    match syn.end {
        End::Passes { address: Some(to), port: Some(port), goes: Goes::Forward | Goes::Out, .. } => {
            Some(SocketAddr::new(to, port))
        }
        _ => None,
    }
}

pub(super) fn passes(facts: &Facts, entry: &Entry) -> bool {
    facts.predicted(entry, Part::Syn).is_some_and(|prediction| matches!(prediction.end, End::Passes { .. }))
}

/// The SYNs of the table, each once, with the words for who sends them.
pub(super) fn entries(facts: &Facts) -> Vec<(Entry, String)> {
    let mut all: Vec<(Entry, String)> = Vec::new();
    let listeners = &facts.linux.listeners;
    for entry in facts.entries() {
        let is_served = if listeners.is_empty() {
            entry.destination.is_ipv4()
        } else {
            taker(listeners, entry.destination, &entry.interface).is_some() || is_led(facts, &entry)
        };
        if is_served && !all.iter().any(|(known, _)| *known == entry) {
            let who = match (entry.interface.as_str(), entry.local) {
                ("loopback0", _) => "Windows' localhost".to_owned(),
                (_, true) => format!("programs in this Linux (and of WSL's relay) to {}", entry.destination),
                (interface, false) if entry.destination.is_ipv6() => format!("others by {interface} over IPv6"),
                (interface, false) => format!("others by {interface}"),
            };
            all.push((entry, who));
        }
    }
    all
}

/// Whether a rule gives it another destination, so that the sockets here do not matter.
fn is_led(facts: &Facts, entry: &Entry) -> bool {
    let end = facts.predicted(entry, Part::Syn).map(|prediction| prediction.end);
    let here = || facts.redirected(entry).is_some_and(|(to, _)| facts.taker_at(to, &entry.interface).is_some());
    matches!(end, Some(End::Passes { goes: Goes::Forward | Goes::Out | Goes::Proxy, .. })) || here()
}

/// Where rules lead connections to another address or port of this Linux: each place once, with the rule, whether a socket takes them
/// there, and the interface by which they come.
pub(super) fn redirects(facts: &Facts) -> Vec<Redirect> {
    let mut all: Vec<Redirect> = Vec::new();
    for entry in facts.entries() {
        let Some((to, rule)) = facts.redirected(&entry) else { continue };
        let listener = facts.taker_at(to, &entry.interface).map(|listener| listener.address);
        let martian = facts.is_martian(&entry, to.ip()) == Some(true);
        if !all.iter().any(|known| known.to == to && known.martian == martian) {
            all.push(Redirect { to, rule, listener, martian, interface: entry.interface });
        }
    }
    all
}

/// Connections that rules lead to another address or port of this Linux.
pub(super) struct Redirect {
    pub(super) to: SocketAddr,
    pub(super) rule: Option<Rule>,
    /// The address of the socket that takes them.
    pub(super) listener: Option<IpAddr>,
    /// They are from outside, and the kernel lets nothing from there to loopback addresses.
    pub(super) martian: bool,
    pub(super) interface: String,
}

/// DNAT to a loopback address, of which the kernel takes nothing that comes from outside.
fn to_loopback(facts: &Facts) -> Option<Finding> {
    let Redirect { to, rule, interface, .. } = redirects(facts).into_iter().find(|redirect| redirect.martian)?;
    let finding = Finding::new(
        Severity::Fails,
        format!(
            "connections by {interface} are led on to {to}, where this Linux lets nothing from outside go (route_localnet is 0)"
        ),
    );
    let finding = rule.iter().fold(finding, |finding, rule| finding.because(described(rule)));
    // sysctl reads a dot in a name as a slash and the reverse.
    let interface = shell_word(&interface.replace('.', "/"));
    Some(
        finding
            .linux(format!("sudo sysctl -w net.ipv4.conf.{interface}.route_localnet=1"))
            .linux("# or let the server listen on 0.0.0.0, and the rule redirect to its port instead"),
    )
}

/// Where rules lead connections from outside, when that is not here.
pub(super) fn led_to(facts: &Facts) -> Option<SocketAddr> {
    facts.entries().iter().filter(|entry| !entry.local).find_map(|entry| match facts.predicted(entry, Part::Syn)?.end {
        End::Passes { address: Some(to), port: Some(port), goes: Goes::Forward, .. } => Some(SocketAddr::new(to, port)),
        _ => None,
    })
}

/// Whether connections from outside are led away, and stopped behind that.
pub(super) fn is_stopped_on_its_way(facts: &Facts) -> bool {
    facts.entries().iter().filter(|entry| !entry.local).any(|entry| {
        let end = facts.predicted(entry, Part::Syn).map(|prediction| prediction.end);
        matches!(end, Some(End::Dropped { forward: true, .. } | End::Rejected { forward: true, .. }))
    })
}

/// Where a rule of this manager leads connections from outside, and the rule.
pub(super) fn led_by(facts: &Facts, owner: Owner) -> Option<(SocketAddr, String)> {
    facts.entries().iter().filter(|entry| !entry.local).find_map(|entry| match facts.predicted(entry, Part::Syn)?.end {
        End::Passes { address: Some(to), port: Some(port), translated_by: Some(rule), .. } if rule.owner == owner => {
            Some((SocketAddr::new(to, port), described(&rule)))
        }
        _ => None,
    })
}

/// DNAT to elsewhere in a Linux that forwards nothing.
pub(super) fn forwarding(facts: &Facts) -> Vec<Finding> {
    to_loopback(facts).into_iter().chain(not_forwarding(facts)).collect()
}

fn not_forwarding(facts: &Facts) -> Vec<Finding> {
    let led = entries(facts).into_iter().find_map(|(entry, who)| match facts.predicted(&entry, Part::Syn)?.end {
        End::Passes { address: Some(to), port, goes: Goes::Forward, translated_by, .. } => {
            Some((who, to, port, translated_by, facts.not_forwarding(&entry, to)?))
        }
        // What FORWARD drops would not have come there.
        End::Dropped { address: Some(to), port, forward: true, .. }
        | End::Rejected { address: Some(to), port, forward: true, .. } => {
            Some((who, to, port, None, facts.not_forwarding(&entry, to)?))
        }
        _ => None,
    });
    let Some((who, to, port, rule, setting)) = led else { return Vec::new() };
    if let Some(rule) = &rule
        && let Some(finding) = past_a_server(facts, (to, port), rule)
    {
        return vec![finding];
    }
    let finding = Finding::new(
        Severity::Fails,
        format!(
            "connections of {who} are led on to {to}, and this Linux does not forward them ({} is 0)",
            setting.trim_start_matches("net.ipv4.")
        ),
    );
    let finding = rule.iter().fold(finding, |finding, rule| finding.because(described(rule)));
    vec![finding.linux(format!("sudo sysctl -w {}=1", shell_word(&setting)))]
}

/// What keeps a container from serving what is led to it; each trouble once.
pub(super) fn containers(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (entry, who) in entries(facts) {
        let end = facts.predicted(&entry, Part::Syn).map(|prediction| prediction.end);
        let Some(End::Passes { address: Some(to), port: Some(port), goes: Goes::Forward | Goes::Out, translated_by }) = end
        else {
            continue;
        };
        let to = SocketAddr::new(to, port);
        let Some(trouble) = facts.trouble(&entry, to) else { continue };
        let finding = Finding::new(trouble.severity, format!("connections of {who} are led on to {to}, {}", trouble.why));
        let finding = translated_by.iter().fold(finding, |finding, rule| finding.because(described(rule)));
        let finding = trouble.mend.into_iter().fold(finding, Finding::linux);
        if !found.iter().any(|known| known.remedy == finding.remedy) {
            found.push(finding);
        }
    }
    found
}

/// A rule that leads past a server of this Linux to where nothing is known to listen: to forward would help nobody.
fn past_a_server(facts: &Facts, (to, port): (IpAddr, Option<u16>), rule: &Rule) -> Option<Finding> {
    let server = facts.linux.listeners.iter().find(|listener| !is_forwarder(listener))?;
    let commands = around(rule, facts.port, false);
    if commands.is_empty() || facts.linux.elsewhere.iter().any(|listener| Some(listener.port) == port) {
        return None;
    }
    let who = server.command.as_deref().map_or_else(|| "a server".to_owned(), escape);
    let summary = format!(
        "a rule leads connections to port {} on to {to}, where nothing is known to listen, past {who}, which listens on it here",
        facts.port
    );
    let finding = Finding::new(Severity::Fails, summary).because(described(rule));
    let finding = finding.linux("# if that rule is left over from before, take it out of the way:");
    Some(commands.into_iter().fold(finding, |finding, command| finding.linux(format!("sudo {command}"))))
}

/// The programs that manage the rules; theirs are the commands that last.
pub(super) fn managers(facts: &Facts) -> Vec<Finding> {
    let managers = &facts.linux.managers;
    let zone = managers.firewalld.as_ref().map(|zone| match &facts.linux.outer {
        Some((_, interface)) => format!("firewalld runs, and {interface} is in its zone {zone}"),
        None => format!("firewalld runs, and its default zone is {zone}"),
    });
    let ufw = managers.ufw.then(|| "ufw is enabled".to_owned());
    zone.into_iter().chain(ufw).map(|summary| Finding::new(Severity::Fine, summary)).collect()
}

/// Two firewalls that do not know of each other.
pub(super) fn two_worlds(facts: &Facts) -> Vec<Finding> {
    let Firewalls::Read(rulesets) = &facts.firewalls else { return Vec::new() };
    if !rulesets.are_of_two_worlds() {
        return Vec::new();
    }
    vec![
        Finding::new(
            Severity::Warns,
            "two firewalls are in use at once: the old iptables, and nftables; a packet must pass both",
        )
        .because("each lists only its own rules")
        .linux("sudo iptables-legacy-save; sudo nft list ruleset"),
    ]
}

/// What could not be read; what only root may read is told with all else of that kind.
pub(super) fn unread(facts: &Facts) -> Vec<Finding> {
    let Some(why) = facts.unread().filter(|_| facts.linux.root) else { return Vec::new() };
    vec![Finding::new(Severity::Unknown, "the firewall rules could not be read").because(why)]
}
