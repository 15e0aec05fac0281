//! What containers' rules do to Windows' localhost in mirrored mode, which comes in by `loopback0` and not by `lo`, and what WSL's
//! own rules do to containers' marks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::forwarding::{INNER_PORT, publish};
use super::{Expect, Scenario, serve, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::mirrored::mirror;
use crate::lab::path::{answer, inbound, through};
use crate::lab::sides::CONTAINER;
use crate::lab::{Binding, PORT, Seen, Side, Step};

const GROUP: &str = "mirrored mode";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![docker_raw(), dnat(), marks(), rule_gone()]
}

/// Docker shields ports that are published on 127.0.0.1 from the network; its exception for `loopback0` stands too low.
fn docker_raw() -> Scenario {
    let base = template("mirrored-docker-raw", "Docker's rule for ports of 127.0.0.1 takes loopback0 for the network", GROUP);
    Scenario {
        tools: &["iptables-nft", "ip"],
        target: Ipv4Addr::LOCALHOST.into(),
        break_it: |lab| {
            mirror(lab)?;
            serve(lab, Side::Wsl, Binding::new(Ipv4Addr::LOCALHOST, PORT))?;
            for rule in ["! -i lo", "-i loopback0"] {
                let target = if rule.starts_with('!') { "DROP" } else { "ACCEPT" };
                let rule = format!("-t raw -A PREROUTING -d 127.0.0.1/32 {rule} -p tcp --dport {PORT} -j {target}");
                lab.iptables("iptables-nft", &rule)?;
            }
            lab.iptables("iptables-nft", "-t nat -N DOCKER")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            proved: true,
            firewall: Some((Backend::IptablesNft, "PREROUTING")),
            path: inbound(Stage::PreroutingRaw),
            ..base.expect.dropped_by_netfilter(Stage::PreroutingRaw, Side::Wsl)
        },
        ..base
    }
}

/// The published port is everybody's but the container's own; the container takes no packet from 127.0.0.1.
fn dnat() -> Scenario {
    let base = template("mirrored-dnat", "a published port's DNAT catches Windows' localhost, which comes by loopback0", GROUP);
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        target: Ipv4Addr::LOCALHOST.into(),
        break_it: |lab| {
            mirror(lab)?;
            serve(lab, Side::Wsl, Binding::new(Ipv4Addr::LOCALHOST, PORT))?;
            serve(lab, Side::Container, Binding::new(Ipv4Addr::UNSPECIFIED, INNER_PORT))?;
            publish(lab, CONTAINER)
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Container)),
            reason: Some(("IP_LOCALNET", (6, 14))),
            codes: &[Code::MartianAddress],
            translated: Some((Ipv4Addr::LOCALHOST.into(), SocketAddr::new(CONTAINER.into(), INNER_PORT))),
            path: [through(Stage::TcEgress), wires(), inbound(Stage::Routing)[1..].to_vec()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Somebody in a distro took the rule away that leads answers for 127.0.0.1 to `loopback0`: they stay on `lo`, where nobody waits.
fn rule_gone() -> Scenario {
    let base =
        template("mirrored-rule-missing", "the rule that leads answers to Windows' localhost out by loopback0 is gone", GROUP);
    let stays = inbound(Stage::SocketLookup);
    Scenario {
        tools: &["ip"],
        target: Ipv4Addr::LOCALHOST.into(),
        break_it: |lab| {
            mirror(lab)?;
            serve(lab, Side::Wsl, Binding::new(Ipv4Addr::LOCALHOST, PORT))?;
            lab.wsl.ip("rule del pref 1")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::SocketLookup, Side::Wsl)),
            reason: Some(("NO_SOCKET", (5, 18))),
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            says: "is not as WSL has set it",
            path: [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], answer(), stays].concat(),
            ..base.expect
        },
        ..base
    }
}

/// podman marks what it wants masqueraded, and WSL gives everything that leaves a mark of its own before that.
fn marks() -> Scenario {
    let base = template("mirrored-marks", "WSL's WSLOUTPUT overwrites the mark by which podman masquerades", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        from: Side::Wsl,
        target: IpAddr::V4(Ipv4Addr::LOCALHOST),
        break_it: |lab| {
            serve(lab, Side::Container, Binding::new(Ipv4Addr::UNSPECIFIED, INNER_PORT))?;
            lab.wsl.set_sysctl("net.ipv4.conf.docker0.route_localnet", "1")?;
            lab.wsl.nft_script(&format!(
                "table ip nat {{
                    chain OUTPUT {{
                        type nat hook output priority -100;
                        ip daddr 127.0.0.1 tcp dport {PORT} meta mark set meta mark or 0x2000 dnat to {CONTAINER}:{INNER_PORT}
                    }}
                    chain POSTROUTING {{ type nat hook postrouting priority srcnat; meta mark and 0x2000 == 0x2000 masquerade
                    }}
                }}
                table ip filter {{
                    chain WSLOUTPUT {{ type filter hook output priority filter; counter meta mark set 0x1
                    }}
                }}"
            ))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            origin: Origin::Local,
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Container)),
            reason: Some(("IP_LOCALNET", (6, 14))),
            codes: &[Code::MartianAddress],
            inferred: true,
            path: [answer(), wires(), inbound(Stage::Routing)[1..].to_vec()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Behind `docker0` stands the bridge's port, and in the container its device: each may have a probe.
fn wires() -> Vec<Step> {
    vec![Step::May(Stage::TcEgress), Step::May(Stage::TcIngress)]
}
