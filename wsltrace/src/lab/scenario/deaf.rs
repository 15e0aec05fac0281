//! A container that lives, and whose hardware address this machine does not learn: rules or settings, its own or this machine's, keep the
//! question for it or the answer from getting through.

use super::forwarding::serve_published;
use super::{Expect, Mended, Scenario, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::{into_container, up_to_answer};
use crate::lab::sides::CONTAINER;
use crate::lab::{Lab, LabError, Seen, Side, Step};

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = in_container();
    scenarios.extend(at_bridge());
    scenarios.push(astray_gateway());
    scenarios
}

/// The container itself does not answer.
fn in_container() -> Vec<Scenario> {
    let there = "which has that address, drops the question";
    let rule = Some(Mended::Added(1));
    vec![
        Scenario {
            mended: rule,
            ..unheard(
                "neighbour-deaf-container",
                "a published port whose container drops the questions for its hardware address (table arp)",
                there,
                |lab| {
                    lab.side(Side::Container)?.nft("arp", "type filter hook input priority 0; policy drop", "")?;
                    cold(lab)
                },
            )
        },
        Scenario {
            mended: rule,
            ..unheard(
                "neighbour-deaf-container-request",
                "a published port whose container drops ARP requests, and nothing else of ARP",
                there,
                |lab| {
                    let hook = "type filter hook input priority 0";
                    lab.side(Side::Container)?.nft("arp", hook, "arp operation request counter drop")?;
                    cold(lab)
                },
            )
        },
        Scenario {
            mended: Some(Mended::Set),
            ..unheard(
                "neighbour-ignoring-container",
                "a published port whose container answers no ARP (arp_ignore)",
                "answers nobody who asks eth0 for it (net.ipv4.conf.all.arp_ignore is 8)",
                |lab| {
                    lab.side(Side::Container)?.set_sysctl("net.ipv4.conf.all.arp_ignore", "8")?;
                    cold(lab)
                },
            )
        },
        Scenario {
            mended: Some(Mended::Up("eth0")),
            ..unheard(
                "neighbour-noarp-container",
                "a published port whose container's interface answers no ARP (NOARP)",
                "answers nobody who asks for its hardware address (NOARP)",
                |lab| {
                    lab.side(Side::Container)?.ip("link set eth0 arp off")?;
                    cold(lab)
                },
            )
        },
    ]
}

/// This machine's bridge, or a firewall on it, does not let the question through.
fn at_bridge() -> Vec<Scenario> {
    let rule = Some(Mended::Added(1));
    let on_bridge = "of bridge lab output here drops this machine's question for it";
    vec![
        Scenario {
            mended: Some(Mended::Up("veth0")),
            ..unheard(
                "bridge-port-off",
                "a published port, and the bridge's port that leads to the container is switched off",
                "the port of the bridge docker0 that leads there, is switched off",
                |lab| {
                    cold(lab)?;
                    lab.wsl.ip("link set veth0 down")?;
                    // What waits there is forgotten once when the bridge loses its carrier with its only port.
                    lab.wsl.await_no_carrier("docker0")
                },
            )
        },
        Scenario {
            mended: Some(Mended::Up("veth0")),
            ..unheard(
                "bridge-port-taken-out",
                "a published port whose container's interface was taken out of its bridge",
                "is behind veth0, which is no port of the bridge docker0 (any longer), to which the routes lead",
                |lab| {
                    cold(lab)?;
                    lab.wsl.ip("link set veth0 nomaster")?;
                    lab.wsl.await_no_carrier("docker0")
                },
            )
        },
        Scenario {
            tools: &["nft", "ip", "bridge"],
            options: &["BRIDGE_VLAN_FILTERING"],
            mended: Some(Mended::Up("veth0")),
            ..unheard(
                "bridge-port-other-vlan",
                "a published port whose container is behind a bridge port of another VLAN than the bridge",
                "and is itself in VLAN 1, while veth0, its port that leads there, is in VLAN 20",
                |lab| {
                    cold(lab)?;
                    lab.wsl.ip("link set docker0 type bridge vlan_filtering 1")?;
                    lab.wsl.tool("bridge", &"vlan del dev veth0 vid 1".split(' ').collect::<Vec<_>>(), "")?;
                    lab.wsl.tool("bridge", &"vlan add dev veth0 vid 20 pvid untagged".split(' ').collect::<Vec<_>>(), "")
                },
            )
        },
        Scenario {
            options: &["NF_TABLES_BRIDGE"],
            mended: rule,
            ..unheard(
                "bridge-drop-arp-nft",
                "nftables drops on the bridge what asks for a container's hardware address",
                on_bridge,
                |lab| {
                    let what = if lab.v6 { "icmpv6 type nd-neighbor-solicit" } else { "ether type arp" };
                    lab.wsl.nft("bridge", "type filter hook output priority 0", &format!("{what} counter drop"))?;
                    cold(lab)
                },
            )
        },
        Scenario {
            tools: &["nft", "ip", "ebtables-nft"],
            options: &["NF_TABLES_BRIDGE"],
            mended: rule,
            ..unheard(
                "bridge-drop-arp-ebtables",
                "ebtables drops on the bridge what asks for a container's hardware address, by a match of its own",
                "in vain though it is there: most likely rule handle",
                |lab| {
                    let arguments = format!("-A OUTPUT -p ARP --arp-ip-dst {CONTAINER} -j DROP");
                    lab.wsl.tool("ebtables-nft", &arguments.split(' ').collect::<Vec<_>>(), "")?;
                    cold(lab)
                },
            )
        },
    ]
}

/// The container asks where its answers have to go, and this machine does not take its own address for one.
fn astray_gateway() -> Scenario {
    let title = "a published port, and no rule of `ip rule` leads to the table `local`, so ARP gets no answer";
    let base = template("neighbour-astray-gateway", title, super::neighbour::GROUP);
    let answer = [vec![Step::Must(Stage::SynAck)], up_to_answer(Stage::Snat), vec![Step::Must(Stage::Neighbour)]];
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            // While there are no other rules than the usual, Linux 7.2 goes on asking for own addresses without this one.
            lab.ip("rule add pref 40000 lookup 99\nrule del pref 0")?;
            lab.side(Side::Container)?.ip("neighbour flush dev eth0")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Unfinished],
            codes: &[Code::NoNeighbour],
            inferred: true,
            says: "answers nobody who asks for it, because no rule of `ip rule` leads",
            path: [into_container(), answer.concat()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The packet waits for the container, of which it is not known where it is.
fn unheard(
    name: &'static str,
    title: &'static str,
    says: &'static str,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = super::neighbour::stopped_container();
    Scenario {
        name,
        title,
        tools: &["nft", "ip"],
        break_it,
        settle: Some(|lab| lab.wsl.await_failed_neighbour(lab.at(CONTAINER))),
        expect: Expect { proved: false, inferred: true, says, ..base.expect },
        ..base
    }
}

/// A published port of a container that serves, and whose neighbours do not know it (any longer). What breaks it comes before: it would be
/// learned again.
fn cold(lab: &mut Lab) -> Result<(), LabError> {
    serve_published(lab)?;
    let family = if lab.v6 { "ipv6" } else { "ipv4" };
    // Not at the same time as the client, which sends again after every second.
    lab.wsl.set_sysctl(&format!("net.{family}.neigh.docker0.retrans_time_ms"), "900")?;
    // Some seconds after it has used what it knows of its gateway it would ask that, which tells where it is.
    lab.side(Side::Container)?.ip("neighbour flush dev eth0")?;
    lab.ip(&format!("neighbour del {} dev docker0", lab.at(CONTAINER)))
}
