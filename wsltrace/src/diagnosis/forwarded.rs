//! Judge of SYNs that this machine sent on.

use super::{
    case::{Case, Finding},
    firewall,
};
use crate::escape::{escape, shell_word};
use crate::journey::{Origin, Stage};

/// The command that leads what is for localhost back to `lo`, as the kernel does when the address is added.
pub(crate) fn add_loopback_route(v6: bool) -> &'static str {
    if v6 { "ip -6 route add local ::1 dev lo table local" } else { "ip route add local 127.0.0.0/8 dev lo table local" }
}

/// What asks for the address of `lo` leaves only where nothing here has that address.
fn own_address_left(case: &Case, destination: std::net::IpAddr, left: Option<&str>) -> Finding {
    let by = left.map(|name| format!(" by {}", escape(name))).unwrap_or_default();
    if case.evidence.addresses.iter().any(|own| own.interface == "lo" && own.address == destination) {
        let summary = format!(
            "sent out of this machine{by}, though it is for {destination}: lo has that address, and the routing table `local` does not have it any longer"
        );
        let add = case.root(add_loopback_route(destination.is_ipv6()));
        return Finding::inferred(summary).remedy(case.where_to_type()).remedy([add]);
    }
    let network = if destination.is_ipv4() { "127.0.0.1/8" } else { "::1/128" };
    let summary = format!(
        "sent out of this machine{by}, though it is for {destination}: lo has no such address any longer, as after a script that has flushed it"
    );
    // Where IPv6 is off on it no address can be added; where it is on, to say so does nothing.
    let on = destination.is_ipv6().then(|| case.root("sysctl -w net.ipv6.conf.lo.disable_ipv6=0"));
    let add = case.root(&format!("ip address replace {network} dev lo"));
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(on).remedy([add])
}

pub(super) fn forwarded(case: &Case) -> Option<Finding> {
    let stages = &case.journey.stages;
    let last = stages.iter().rev().find(|visit| visit.stage == Stage::TcEgress).or(stages.last());
    let left = last.and_then(|visit| visit.interface.as_deref());
    let by = left.map(|name| format!(" by {name}")).unwrap_or_default();
    let destination = case.journey.last_destination().0;
    let to = super::case::endpoint(destination, case.journey.last_destination().1);
    let entered = case.journey.interface.as_deref();
    if case.journey.origin == Origin::Local && destination.is_loopback() {
        return Some(own_address_left(case, destination, left));
    }
    if !stages.iter().any(|visit| visit.stage == Stage::Routing || visit.stage == Stage::Output) {
        let device = entered.map(shell_word);
        let show = device.map(|device| case.root(&format!("tc -s filter show dev {device} ingress")));
        let summary = format!(
            "sent on{by} before this machine's routing saw it, as by a redirect of traffic control (tc mirred), a BPF program or `fwd` of nftables at its interface"
        );
        return Some(
            Finding::proved(summary)
                .remedy(show)
                .remedy([case.root("nft -a list ruleset netdev"), case.root("bpftool net show")]),
        );
    }
    if let Some(finding) =
        super::transparent::not_led(case, super::Code::Forwarded).or_else(|| super::hairpin::to_neighbour_of_client(case))
    {
        return Some(finding);
    }
    if case.journey.is_turned_back() {
        if let Some(off) = &case.evidence.down_here {
            let summary = format!(
                "sent on to {to}{by}, where it came from: {destination} is in the network of {}, which is switched off, so no route leads there",
                escape(off)
            );
            let up = case.root(&format!("ip link set {} up", shell_word(off)));
            return Some(Finding::inferred(summary).remedy([up]));
        }
        let translator = case.journey.translated.as_ref().and_then(|translated| translated.rule.as_ref());
        let led = translator.filter(|_| to != case.destination());
        let led = led.map(|rule| format!("{} led it there, and ", firewall::name(rule))).unwrap_or_default();
        if let Some((elsewhere, mend)) = super::whereabouts::elsewhere(case) {
            let summary = format!("sent on to {to}{by}, where it came from: {led}{elsewhere}");
            return Some(Finding::inferred(summary).remedy(mend));
        }
        let why =
            format!("{led}this machine has no better route, as when the interface of a container's network is down or gone");
        let summary = format!("sent on to {to}{by}, where it came from: {why}");
        let look = [case.root(&format!("ip route get {destination}")), case.root("ip -br link show")];
        return Some(Finding::proved(summary).remedy(look));
    }
    super::held_back::sent_on(case)
        .or_else(|| super::unmasked::sent_on(case, &to, &by))
        .or_else(|| Some(Finding::proved(format!("sent on to {to}{by}; what happens there is not seen from here"))))
}
