//! Devices that do not take what is sent by them: tunnels without a way to the other end. They free it behind our place at egress, with a
//! reason that says little or with none, so the function that frees it tells which device it is. `WireGuard` and others send an ICMP error
//! as well, which another machine's would look like. (6.12: `vxlan_xmit` says `NO_TX_TARGET`, the others nothing.)

use std::net::IpAddr;

use super::case::{Case, Finding};
use crate::escape::{escape, shell_word};
use crate::journey::{Outcome, Stage};

/// A kind of device.
struct Kind {
    /// The functions that free what it does not take.
    frees: &'static [&'static str],
    /// Its drop reason, where it has one.
    reason: Option<&'static str>,
    /// Why it takes nothing, behind its name.
    why: fn(to: IpAddr) -> String,
    /// Commands and advice; the first two show what there is.
    mend: fn(case: &Case, device: &str, to: IpAddr) -> Vec<String>,
}

const KINDS: &[Kind] = &[
    Kind {
        frees: &["wg_xmit"],
        reason: None,
        why: |to| {
            format!(
                "a WireGuard tunnel: most likely none of its peers has {to} among its allowed IPs, or the peer that has it has no endpoint yet"
            )
        },
        mend: |case, device, to| {
            let bits = if to.is_ipv4() { 32 } else { 128 };
            vec![
                case.root(&format!("wg show {device}")),
                format!(
                    "# add {to}/{bits} to AllowedIPs of the peer that leads there, in the tunnel's configuration, and start the tunnel again; where no peer does, the route by {device} is too wide:"
                ),
                case.root(&format!("{} route get {to}", super::routes::ip(case))),
            ]
        },
    },
    Kind {
        frees: &["netkit_xmit"],
        reason: None,
        why: |_| {
            "one of a netkit pair that does not give its other end what is sent by it: either that is its policy (blackhole), and no BPF program of the pair decides otherwise, or such a program drops it".to_owned()
        },
        mend: |case, device, _| {
            vec![
                case.root(&format!("ip -d link show dev {device}")),
                case.root("bpftool net show"),
                "# start what loads the pair's program (such as Cilium) again; where there is to be none, let both ends give on. Only the first end of the pair takes that, where it is and by its name there:".to_owned(),
                "# sudo ip link set dev NAME type netkit forward peer forward".to_owned(),
            ]
        },
    },
    Kind {
        frees: &["vxlan_xmit", "vxlan_xmit_one"],
        reason: Some("NO_TX_TARGET"),
        why: |to| {
            format!(
                "an overlay network (VXLAN), which does not know which machine has {to}: it has no entry for that hardware address, as when what keeps the entries (Docker Swarm, Flannel) does not run"
            )
        },
        mend: |case, device, to| {
            vec![
                case.root(&format!("bridge fdb show dev {device}")),
                case.root(&format!("ip neighbour show to {to}")),
                "# start what keeps the overlay's entries again, or add the one that is missing:".to_owned(),
                format!("# sudo bridge fdb append HARDWARE-ADDRESS dev {device} dst MACHINE"),
            ]
        },
    },
    Kind {
        frees: &["xfrmi_xmit", "xfrmi_xmit2", "vti_tunnel_xmit", "vti6_tnl_xmit"],
        reason: None,
        why: |to| {
            format!("an IPsec tunnel: most likely no policy and no key of it is for {to}, as while its VPN is not connected")
        },
        mend: |case, device, _| {
            vec![
                case.root("ip xfrm policy"),
                case.root("ip xfrm state list nokeys"),
                format!("# connect the VPN, or take the route by {device} away"),
            ]
        },
    },
    Kind {
        frees: &["ip_tunnel_xmit", "sit_tunnel_xmit"],
        reason: None,
        why: |to| format!("a tunnel: most likely no route leads to its other end, or it has none for {to}"),
        mend: |case, device, to| {
            vec![
                case.root(&format!("ip -d link show dev {device}")),
                "# the `remote` address is its other end; a route must lead there, and not by the tunnel itself:".to_owned(),
                "# sudo ip route get REMOTE".to_owned(),
                case.root(&format!("{} route get {to}", super::routes::ip(case))),
            ]
        },
    },
];

/// What refused the SYN.
pub(super) fn of_syn(case: &Case) -> Option<Finding> {
    let to = case.journey.last_destination().0;
    let Refused { device, why, mend } = refused(case, to)?;
    let told = if case.journey.facts.icmp { ", and it told the client by an ICMP error" } else { "" };
    let summary = format!("not sent on by {device}, {why}{told}");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend))
}

/// What refused the answer.
pub(super) fn of_answer(case: &Case) -> Option<Finding> {
    let Refused { device, why, mend } = refused(case, case.journey.answer_destination())?;
    let summary = format!("the listener answered, but its SYN-ACK was not sent on by {device}, {why}");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend))
}

struct Refused {
    device: String,
    why: String,
    mend: Vec<String>,
}

fn refused(case: &Case, to: IpAddr) -> Option<Refused> {
    let lost = matches!(case.journey.outcome, Outcome::Dropped | Outcome::Rejected | Outcome::AnswerDropped);
    let symbol = case.symbol().filter(|_| lost && case.died_at(&[Stage::TcEgress]))?;
    let frees = |kind: &&Kind| kind.frees.contains(&symbol) && (case.reason().is_none() || case.reason() == kind.reason);
    let kind = KINDS.iter().find(frees)?;
    let device = case.interface()?;
    Some(Refused { device: escape(device), why: (kind.why)(to), mend: (kind.mend)(case, &shell_word(device), to) })
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::tests::expect;
    use crate::diagnosis::{Code, Confidence::Inferred};
    use crate::evidence::Evidence;
    use crate::journey::{DeathPlace, Facts, Journey, Outcome, Stage};
    use crate::output::samples::{self, journey};

    fn at(outcome: Outcome, reason: &str, place: &str) -> Journey {
        let stages = samples::after_prerouting(&[Stage::Forward, Stage::Postrouting, Stage::TcEgress]);
        let mut journey = journey(&stages, outcome, Some(Stage::TcEgress), Some((reason, place)));
        journey.death = journey.death.map(|death| DeathPlace { interface: Some("wg0".into()), ..death });
        journey
    }

    #[test]
    fn a_tunnel_here_that_refuses_is_not_taken_for_another_machine() {
        let mut rejected = at(Outcome::Rejected, "NOT_SPECIFIED", "wg_xmit+0x89");
        rejected.facts = Facts { icmp: true, ..Facts::default() };
        let found = expect(&rejected, &Evidence::default(), Code::NoRoute, Inferred);
        assert!(
            found.summary.contains("wg0, a WireGuard tunnel") && found.summary.contains("172.28.16.2 among"),
            "{}",
            found.summary
        );
        assert_eq!(found.remedy[0], "sudo wg show wg0");
        // The kernel limits such errors.
        let silent = at(Outcome::Dropped, "NOT_SPECIFIED", "wg_xmit+0x89");
        assert!(!expect(&silent, &Evidence::default(), Code::NoRoute, Inferred).summary.contains("ICMP"));
        rejected.location = None;
        rejected.reason = None;
        expect(&rejected, &Evidence::default(), Code::FirewallReject, Inferred);
    }

    #[test]
    fn an_overlay_without_an_entry_is_told_and_a_bridge_without_ports_is_none() {
        let overlay = at(Outcome::Dropped, "NO_TX_TARGET", "vxlan_xmit+0xb1c");
        let found = expect(&overlay, &Evidence::default(), Code::NoRoute, Inferred);
        assert!(found.summary.contains("an overlay network (VXLAN)"), "{}", found.summary);
        let bridge = at(Outcome::Dropped, "NO_TX_TARGET", "br_dev_xmit+0x3aa");
        assert_ne!(super::super::diagnose(&bridge, &Evidence::default()).code, Code::NoRoute);
    }

    #[test]
    fn a_netkit_pair_that_gives_nothing_on_is_no_container_that_is_silent() {
        let found =
            expect(&at(Outcome::Dropped, "NOT_SPECIFIED", "netkit_xmit+0x1c5"), &Evidence::default(), Code::NoRoute, Inferred);
        assert!(found.summary.contains("wg0, one of a netkit pair") && found.summary.contains("blackhole"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo ip -d link show dev wg0");
    }

    #[test]
    fn an_answer_that_a_tunnel_refuses_has_its_own_words() {
        let mut answer = at(Outcome::AnswerDropped, "NOT_SPECIFIED", "xfrmi_xmit+0x191");
        answer.facts = Facts { syn_ack: true, ..Facts::default() };
        let found = expect(&answer, &Evidence::default(), Code::ReplyDropped, Inferred);
        assert!(found.summary.contains("SYN-ACK was not sent on by wg0, an IPsec tunnel"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo ip xfrm policy");
    }
}
