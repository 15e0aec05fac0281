//! The address, the way out, and what sees packets before the firewalls do.

use std::net::IpAddr;

use super::super::{Facts, Finding, Interface, Severity};
use crate::diagnosis::{add_loopback_route, another_range, in_first_namespace, refuser, removal, set_most_tracked};
use crate::escape::{escape, shell_word};
use crate::evidence::{Back, Refusal, RefusedClient};
use crate::kernel::addresses::covers;
use crate::wsl::{NetworkingMode, Wsl, taker};

/// An address for others, and a way back to them.
pub(super) fn network(facts: &Facts) -> Vec<Finding> {
    loopback(facts).into_iter().chain(loopback_addresses(facts)).chain(strayed(facts)).chain(outside(facts)).collect()
}

/// Packets to localhost that leave this machine: what leads to the table of own addresses is asked too late.
fn strayed(facts: &Facts) -> Option<Finding> {
    let linux = &facts.linux;
    let is_served = |(own, _): &&(IpAddr, Option<String>)| taker(&linux.listeners, *own, "lo").is_some();
    let (own, by) = linux.loopback_strayed.iter().find(is_served)?;
    let to = by.as_ref().map_or_else(|| "nowhere".to_owned(), |by| format!("out by {}", escape(by)));
    let summary = format!("connections to {own} do not stay in this Linux: a rule of `ip rule` leads them {to}");
    let finding = Finding::new(Severity::Fails, summary);
    let ip = if own.is_ipv4() { "ip" } else { "ip -6" };
    Some(
        finding
            .because("the table `local` has the address, and another table is asked first")
            .linux(format!(
                "# usually the table `local` is asked first; to have it so again: sudo {ip} rule add pref 0 lookup local"
            ))
            .linux(format!("{ip} rule show")),
    )
}

/// Nothing of this Linux reaches it without, by whichever address, and neither does WSL's relay.
fn loopback(facts: &Facts) -> Option<Finding> {
    facts.linux.interface("lo").filter(|interface| !interface.up)?;
    let finding = Finding::new(Severity::Fails, "lo is down: no program of this Linux can connect to the server");
    Some(finding.linux("sudo ip link set lo up"))
}

/// The addresses of localhost, as a script that flushes lo takes them away.
fn loopback_addresses(facts: &Facts) -> Vec<Finding> {
    let linux = &facts.linux;
    if linux.interface("lo").is_some_and(|interface| !interface.up) {
        return Vec::new();
    }
    let has = |address: &IpAddr| {
        linux.interface("lo").is_some_and(|interface| interface.addresses.iter().any(|own| own.address == *address))
    };
    let of = |address: &IpAddr| {
        if address.is_ipv6() {
            // Many Linuxes have no IPv6 by somebody's will.
            taker(&linux.listeners, *address, "lo")?;
        }
        if has(address) {
            let severity = if address.is_ipv4() { Severity::Fails } else { Severity::Warns };
            let summary = format!(
                "the routing table `local` does not have {address}, though lo does: no program of this Linux can connect to the server by it"
            );
            return Some(Finding::new(severity, summary).linux(format!("sudo {}", add_loopback_route(address.is_ipv6()))));
        }
        if address.is_ipv4() {
            let summary =
                "lo has no address 127.0.0.1 any longer: no program of this Linux can connect to the server by localhost";
            return Some(Finding::new(Severity::Fails, summary).linux("sudo ip address add 127.0.0.1/8 dev lo"));
        }
        let summary = "lo has no address ::1: no program of this Linux can connect to the server by [::1]";
        // Where IPv6 is off on lo no address can be added; where it is on, to say so does nothing.
        let on = "sudo sysctl -w net.ipv6.conf.lo.disable_ipv6=0";
        Some(Finding::new(Severity::Warns, summary).linux(on).linux("sudo ip address replace ::1/128 dev lo"))
    };
    linux.loopback_gone.iter().filter_map(of).collect()
}

fn outside(facts: &Facts) -> Vec<Finding> {
    let linux = &facts.linux;
    let is_unseen = linux.unseen.iter().any(|unseen| matches!(unseen.what.as_str(), "the interfaces" | "the addresses"));
    if is_unseen || facts.mode() == Some(NetworkingMode::None) {
        return Vec::new();
    }
    let Some((address, interface)) = &linux.outer else {
        if let Some(down) = down(facts) {
            return vec![down];
        }
        let finding = Finding::new(
            Severity::Warns,
            "this Linux has no address that others could reach: only localhost leads to the server",
        );
        let of_wsl = facts.wsl.wsl == Wsl::Two;
        return vec![if of_wsl {
            finding.powershell("wsl --shutdown").powershell("# then start it again, and read its warnings")
        } else {
            finding
        }];
    };
    if let Some(finding) = no_carrier(facts, interface) {
        return vec![finding];
    }
    match &linux.gateway {
        Some((gateway, by)) if by != interface && linux.is_strict(interface) => {
            vec![strict(
                Severity::Warns,
                format!("clients of other networks are refused at {interface}: the default route leads to {gateway} on {by}"),
                interface,
                (by, "ip route show default"),
            )]
        }
        Some((gateway, by)) => {
            vec![Finding::new(
                Severity::Fine,
                format!("this Linux has the address {address} on {interface}, and the gateway {gateway} on {by}"),
            )]
        }
        None if linux.default_by.is_some() => led_by_default(linux.default_by.iter().filter(|by| *by != interface)),
        None => vec![
            Finding::new(Severity::Warns, "there is no default route: clients of other networks get no answer")
                .because(format!("the address is {address} on {interface}"))
                .linux("ip route show"),
        ],
    }
}

/// An interface that is switched off, and has an address for others.
fn down(facts: &Facts) -> Option<Finding> {
    let linux = &facts.linux;
    let outer = |interface: &&Interface| !interface.up && interface.addresses.iter().any(|own| !own.address.is_loopback());
    let interface = linux.interfaces.iter().find(outer)?;
    let (name, address) = (&interface.name, interface.addresses.first()?.address);
    let summary = format!(
        "{} is down, and no other interface has an address that others could reach: only localhost leads to the server",
        escape(name)
    );
    // A server that listens on loopback only is not for others.
    let is_for_others = linux.listeners.iter().any(|listener| !listener.address.to_canonical().is_loopback());
    let severity = if is_for_others { Severity::Fails } else { Severity::Warns };
    let finding = Finding::new(severity, summary).because(format!("it has the address {address}"));
    Some(finding.linux(format!("sudo ip link set {} up", shell_word(name))))
}

/// Nobody at the other end of the interface by which others come.
fn no_carrier(facts: &Facts, interface: &str) -> Option<Finding> {
    facts.linux.interface(interface).filter(|interface| interface.no_carrier)?;
    let is_for_others = facts.linux.listeners.iter().any(|listener| !listener.address.to_canonical().is_loopback());
    let severity = if is_for_others { Severity::Fails } else { Severity::Warns };
    let summary = format!("{} has no carrier: nothing is at its other end, so that nobody comes by it", escape(interface));
    let look = "# look at the cable, the radio, the other end of the veth or the program of the tunnel:";
    Some(Finding::new(severity, summary).linux(look).linux(format!("ip link show dev {}", shell_word(interface))))
}

/// A default route without a next hop, as a tunnel's, by another interface than clients come by.
fn led_by_default<'a>(by: impl Iterator<Item = &'a String>) -> Vec<Finding> {
    let told = |by: &String| {
        let summary = format!("answers to clients of other networks leave by {by}, to which the default route leads");
        Finding::new(Severity::Warns, summary).linux("ip route show default")
    };
    by.map(told).collect()
}

/// The interfaces by which clients come.
fn used(facts: &Facts) -> impl Iterator<Item = &Interface> {
    let names = facts.linux.outer.iter().map(|(_, interface)| interface.as_str()).chain(["loopback0", "lo"]);
    names.filter_map(|name| facts.linux.interface(name))
}

/// Programs that take packets before anything of Linux, a tracer's probes too, sees them.
pub(super) fn xdp(facts: &Facts) -> Vec<Finding> {
    let of = |interface: &Interface| {
        let name = &interface.name;
        let what = format!("an XDP program takes the packets of {name} before Linux sees them, and may drop them");
        let device = shell_word(name);
        Finding::new(Severity::Warns, what)
            .linux(format!("sudo bpftool net show dev {device}"))
            .linux(format!("# to try without it: sudo ip link set dev {device} xdp off"))
    };
    used(facts).filter(|interface| interface.xdp).map(of).collect()
}

/// Programs that see packets before netfilter does.
pub(super) fn programs(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for interface in used(facts) {
        let name = &interface.name;
        let device = shell_word(name);
        let show = format!("sudo bpftool net show dev {device}");
        let programs: Vec<String> = interface.tc.iter().chain(&interface.tc_out).map(|name| format!("`{name}`")).collect();
        if !programs.is_empty() {
            found.push(
                Finding::new(Severity::Warns, format!("BPF programs at tc of {name} see its packets, and may drop them"))
                    .because(format!("attached: {}", programs.join(", ")))
                    .linux(show),
            );
        }
        if interface.filters {
            found.push(
                Finding::new(
                    Severity::Warns,
                    format!("filters or a queue of traffic control (tc) may stand at {name}, and may drop its packets"),
                )
                .linux(format!(
                    "sudo tc -s qdisc show dev {device}; sudo tc filter show dev {device} ingress; sudo tc filter show dev {device} egress"
                )),
            );
        }
    }
    let linux = &facts.linux;
    if !linux.netfilter_programs.is_empty() {
        found.push(
            Finding::new(Severity::Warns, "BPF programs are attached to netfilter, here or in a container, and may drop packets")
                .because(format!("attached: {}", quoted(&linux.netfilter_programs)))
                .linux("sudo bpftool net show"),
        );
    }
    if !linux.lookup_programs.is_empty() {
        found.push(
            Finding::new(Severity::Warns, "BPF programs choose which socket gets a connection (sk_lookup), or refuse it")
                .because(format!("attached: {}", quoted(&linux.lookup_programs)))
                .linux("sudo bpftool net show"),
        );
    }
    for cgroup in &linux.cgroups {
        found.push(
            Finding::new(
                Severity::Warns,
                "BPF programs of the server's control group see its packets, and may refuse them (systemd: IPAddressDeny=)",
            )
            .because(format!("attached to {}: {}", escape(&cgroup.directory), quoted(&cgroup.programs)))
            .linux(format!("sudo bpftool cgroup show {} effective", shell_word(&cgroup.directory))),
        );
    }
    found
}

/// What `rp_filter` refuses because its answer would leave by another interface.
/// Loosened, it would let in what is then answered by that other interface: a mend only where clients are reached by it.
fn strict(severity: Severity, summary: String, interface: &str, (by, route): (&str, &str)) -> Finding {
    Finding::new(severity, summary)
        .because(format!("rp_filter of {interface} is strict (1): it refuses what it would answer by another interface"))
        .linux(format!("# look at the route, and have it lead to them by {} again:", shell_word(interface)))
        .linux(route)
        // sysctl reads a dot in a name as a slash and the reverse.
        .linux(format!(
            "# only if they get what is sent by {}, loosen the filter: sudo sysctl -w net.ipv4.conf.{}.rp_filter=2",
            shell_word(by),
            shell_word(&interface.replace('.', "/"))
        ))
}

/// Rules and routes that other machines do not have, and clients that answers do not reach by the interface that they come by.
pub(super) fn own(facts: &Facts) -> Vec<Finding> {
    let refusers: Vec<Finding> = facts.linux.refused_clients.iter().filter_map(|refused| refuser_of(facts, refused)).collect();
    // What refuses is also what the way depends on.
    let rest = if refusers.is_empty() { led(facts) } else { Vec::new() };
    refused(facts).into_iter().chain(refusers).chain(rest).collect()
}

/// The rule or route that refuses clients, and how it is taken away. One that is only for marked packets is told where nothing is refused
/// without a mark, by `led`.
fn refuser_of(facts: &Facts, refused: &RefusedClient) -> Option<Finding> {
    if refused.by.is_marked() {
        return None;
    }
    let linux = &facts.linux;
    let client = refused.client;
    let v6 = client.is_ipv6();
    let (own, interface) = [&linux.outer, &linux.outer6].into_iter().flatten().find(|(own, _)| own.is_ipv6() == v6)?;
    let addresses = &linux.interface(interface)?.addresses;
    let is_near = addresses.iter().any(|own| covers(own.address, own.prefix, client));
    let is_gateway = linux.gateway.as_ref().is_some_and(|(gateway, _)| *gateway == client);
    let everywhere = matches!(&refused.by, Refusal::Route(route) if route.destination.1 == 0);
    let (severity, who) = match refused {
        RefusedClient { everybody: true, .. } => (Severity::Fails, "other machines".to_owned()),
        _ if everywhere => (Severity::Warns, "clients of other networks".to_owned()),
        _ => (Severity::Warns, format!("clients such as {client}")),
    };
    let (what, to) = if refused.answer { ("get no answer", client) } else { ("are refused", *own) };
    let finding = Finding::new(severity, format!("{who} {what}: a rule or route on this Linux refuses the packets"));
    let command = format!("sudo {}", removal(&refused.by, to));
    let finding = finding.because(refuser(&refused.by, to));
    Some(if refused.everybody || is_near || is_gateway {
        finding.linux(command)
    } else {
        finding.linux(format!("# only if it has clients there: {command}"))
    })
}

fn refused(facts: &Facts) -> Option<Finding> {
    let (client, by, all) = facts.linux.client_elsewhere(None)?;
    let (_, interface) = facts.linux.outer.as_ref()?;
    if !facts.linux.is_strict(interface) {
        let summary = format!("answers to clients of {interface}'s network, such as {client}, leave by another interface: {by}");
        let finding = Finding::new(Severity::Warns, summary);
        return Some(match facts.linux.overlap(client, by) {
            Some(overlap) => finding
                .because(overlap)
                .linux(format!("ip route get {client}"))
                .linux(format!(
                    "# for this client, until the next start: sudo ip route replace {client} dev {}",
                    shell_word(interface)
                ))
                .linux(another_range(by)),
            None => finding.because("a route leads there").linux(format!("ip route get {client}")),
        });
    }
    let (severity, who) = if all {
        (Severity::Fails, format!("the clients of {interface}'s network"))
    } else {
        (Severity::Warns, format!("some clients of {interface}'s network, such as {client},"))
    };
    let summary = format!("{who} are refused: a route leads answers to them to {by}");
    let finding = strict(severity, summary, interface, (by, &format!("ip route get {client}")));
    Some(match facts.linux.overlap(client, by) {
        Some(overlap) => finding.because(overlap).linux(another_range(by)),
        None => finding,
    })
}

fn led(facts: &Facts) -> Vec<Finding> {
    let linux = &facts.linux;
    let of = |own: &Option<(IpAddr, String)>, what: &Option<String>| Some((own.as_ref()?.0, what.clone()?));
    let found = of(&linux.outer, &linux.own_routing).into_iter().chain(of(&linux.outer6, &linux.own_routing6));
    // Where all answers leave as if there were no such rules, these are somebody else's business.
    let is_of_others = |own: &IpAddr| {
        let everybody = linux.is_answered(*own) && linux.back.contains(&(*own, Back::Everywhere));
        everybody
            && facts
                .entries()
                .iter()
                .filter(|entry| !entry.local && entry.destination == *own)
                .all(|entry| facts.is_routed(entry))
    };
    let mut found = found.filter(|(own, _)| !is_of_others(own));
    let Some((own, what)) = found.next() else { return Vec::new() };
    let finding = Finding::new(
        Severity::Warns,
        if linux.is_answered(own) {
            "answers to clients of other networks may be refused here or go another way than usual; those of the own network get them"
        } else {
            "packets of other machines, or the answers to them, may be refused here or go another way than usual"
        },
    );
    let ip = if own.is_ipv4() { "ip" } else { "ip -6" };
    let finding = finding.because(format!("it depends on {what}"));
    vec![finding.linux(format!("{ip} rule show")).linux(format!("{ip} route show table all"))]
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The table of connection tracking.
pub(super) fn conntrack(facts: &Facts) -> Vec<Finding> {
    const CROWDED: u64 = 90;
    let number = |name: &str| facts.linux.number(&format!("net.netfilter.nf_conntrack_{name}"));
    let (Some(count), Some(most)) = (number("count"), number("max")) else { return Vec::new() };
    if most == 0 || count.saturating_mul(100) < most.saturating_mul(CROWDED) {
        return Vec::new();
    }
    let full = count >= most;
    let (severity, what) = if full {
        (Severity::Fails, "the table of connection tracking is full: new connections are dropped")
    } else {
        (Severity::Warns, "the table of connection tracking is nearly full: new connections will be dropped")
    };
    let set = set_most_tracked(most.saturating_mul(2));
    let by_first = facts.linux.tracked_by_first;
    let mend = if by_first { in_first_namespace(&set).to_vec() } else { vec![format!("sudo {set}")] };
    let finding = Finding::new(severity, what).because(format!("{count} of {most} entries"));
    vec![mend.into_iter().fold(finding, Finding::linux)]
}
