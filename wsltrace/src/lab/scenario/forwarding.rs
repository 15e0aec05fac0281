//! The packet only passes through WSL, on its way to a container or another machine.

use std::net::{Ipv4Addr, SocketAddr};

use nix::errno::Errno;

use super::{Expect, Scenario, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Conntrack, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, back_through, into_container, through, up_to_answer};
use crate::lab::sides::{BACKEND, CLIENT_V4, CONTAINER, ETH1, WSL_V4};
use crate::lab::{Lab, LabError, PORT, Seen, Side, Step};

/// The port inside the container.
pub(super) const INNER_PORT: u16 = 80;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        dnat_answered(),
        dnat_refused(),
        balanced_refused(),
        dnat_routed(),
        forward_drop(),
        forward_reject_unheard(),
        bridge_down(),
        docker_policy(
            "docker-policy-iptables-nft",
            "a container's port that Docker's chains do not let through (iptables-nft)",
            &["nft", "iptables-nft"],
            Backend::IptablesNft,
            |lab| forget_to_let_through(lab, "iptables-nft"),
        ),
        docker_policy(
            "docker-policy-iptables-legacy",
            "a container's port that Docker's chains do not let through (iptables-legacy)",
            &["nft", "iptables-legacy"],
            Backend::IptablesLegacy,
            |lab| forget_to_let_through(lab, "iptables-legacy"),
        ),
        beyond(),
    ]
}

pub(super) fn dnat_answered() -> Scenario {
    let base = template("dnat-container", "nothing is broken: the port is published from a container", "forwarding");
    let answered = [Step::Must(Stage::SynAck)].to_vec();
    let established = [Step::Must(Stage::Established), Step::May(Stage::Accepted)].to_vec();
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: serve_published,
        expect: Expect {
            conntrack: Some(Conntrack::New),
            path: [into_container(), answered, answer(), back_through(), established].concat(),
            ..base.expect
        },
        ..base
    }
}

fn dnat_refused() -> Scenario {
    let base = template("dnat-no-listener", "a published port, but nothing listens in the container", "forwarding");
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| publish(lab, CONTAINER),
        client: Seen::Failed(Errno::ECONNREFUSED),
        expect: Expect {
            codes: &[Code::NoListener],
            proved: true,
            path: [into_container(), answer(), back_through()].concat(),
            ..base.expect.refused_by_kernel(Side::Container)
        },
        ..base
    }
}

/// Chance decides to which of two servers a connection is led, as in a cluster, and neither is there.
fn balanced_refused() -> Scenario {
    let base = dnat_refused();
    Scenario {
        name: "balanced-no-listener",
        title: "a port published to two servers by chance, and neither listens",
        break_it: |lab| {
            lab.forward()?;
            let to = lab.at(CONTAINER);
            let rule = format!(
                "iifname != \"docker0\" tcp dport {PORT} dnat to numgen random mod 2 map {{ 0 : {to} . {INNER_PORT}, 1 : {to} . {} }}",
                INNER_PORT + 1
            );
            lab.wsl.nft(lab.family(), "type nat hook prerouting priority dstnat", &rule)
        },
        ..base
    }
}

/// Without a bridge: only the DNAT rule and the route to its target tell that the namespace belongs to the packet's way.
fn dnat_routed() -> Scenario {
    let base =
        template("dnat-routed", "nothing is broken: the port is published from a namespace without a bridge", "forwarding");
    Scenario {
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_all(lab, Side::Backend, INNER_PORT)?;
            lab.side(Side::Backend)?.route_to(lab.at(CLIENT_V4), Way::Gateway(lab.at(ETH1), None))?;
            lab.forward()?;
            let rule = format!("tcp dport {PORT} dnat to {}", SocketAddr::new(lab.at(BACKEND), INNER_PORT));
            lab.wsl.nft(lab.family(), "type nat hook prerouting priority dstnat", &rule)
        },
        expect: dnat_answered().expect,
        tools: &["nft"],
        ..base
    }
}

fn forward_drop() -> Scenario {
    let base = template("forward-drop", "a published port, but the FORWARD chain drops", "forwarding");
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.nft(lab.family(), "type filter hook forward priority filter; policy drop", "")
        },
        client: Seen::NoAnswer,
        // One for each direction.
        mended: Some(Mended::Added(2)),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            firewall: Some((Backend::Nft, "forward")),
            path: through(Stage::ForwardFilter),
            ..base.expect.dropped_by_netfilter(Stage::ForwardFilter, Side::Wsl)
        },
        ..base
    }
}

/// A VPN's kill switch rejects what it forwards, and its chain in OUTPUT keeps the error from the client: there is a way back all the same.
fn forward_reject_unheard() -> Scenario {
    let title = "a published port, but a rule of FORWARD rejects, and one of OUTPUT drops the error";
    let base = template("forward-reject-unheard", title, "forwarding");
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.nft_script(&format!(
                "table inet kill {{
                    chain forward {{ type filter hook forward priority filter; tcp dport {INNER_PORT} counter reject; }}
                    chain output {{ type filter hook output priority filter; meta l4proto {{ icmp, ipv6-icmp }} drop; }}
                }}"
            ))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::FirewallReject],
            firewall: Some((Backend::Nft, "forward")),
            says: "most likely another rule here drops that",
            path: [through(Stage::ForwardFilter), up_to_answer(Stage::OutputFilter)].concat(),
            ..base.expect.dropped_by_netfilter(Stage::ForwardFilter, Side::Wsl)
        },
        ..base
    }
}

/// As a network manager, or a laptop that has slept, leaves it: the route of the bridge's network is gone, and the default route takes the
/// packet back.
fn bridge_down() -> Scenario {
    let base =
        template("bridge-down", "a published port, and the bridge of the container's network is switched off", "forwarding");
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.ip("link set docker0 down")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Up("docker0")),
        expect: Expect {
            outcomes: &[Outcome::Forwarded],
            codes: &[Code::Forwarded],
            inferred: true,
            says: "is in the network of docker0, which is switched off",
            path: through(Stage::TcEgress),
            ..base.expect
        },
        ..base
    }
}

/// Docker lets through what its chains accept, and sets FORWARD's policy to drop the rest.
fn docker_policy(
    name: &'static str,
    title: &'static str,
    tools: &'static [&'static str],
    backend: Backend,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = forward_drop();
    Scenario {
        name,
        title,
        tools,
        break_it,
        // In its chain for the user's rules; answers it lets through itself.
        mended: Some(Mended::Added(1)),
        expect: Expect { firewall: Some((backend, "FORWARD")), ..base.expect },
        ..base
    }
}

/// Publishes a port as Docker does, but for the rule that lets it through.
fn forget_to_let_through(lab: &mut Lab, iptables: &'static str) -> Result<(), LabError> {
    serve_published(lab)?;
    for arguments in [
        "-N DOCKER-USER",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-P FORWARD DROP",
    ] {
        lab.iptables(iptables, arguments)?;
    }
    Ok(())
}

/// Nothing of ours answers: it went on to where nobody looks.
fn beyond() -> Scenario {
    let base = template("forwarded-beyond", "WSL forwards to another machine, which does not answer", "forwarding");
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Backend),
        target: BACKEND.into(),
        break_it: |lab| {
            lab.client.route_to(lab.at(BACKEND), Way::Gateway(lab.at(WSL_V4), None))?;
            lab.forward()?;
            lab.side(Side::Backend)?.nft(lab.family(), "type filter hook input priority 0; policy drop", "")
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Forwarded],
            codes: &[Code::Forwarded],
            proved: true,
            path: through(Stage::TcEgress),
            ..base.expect
        },
        ..base
    }
}

/// Publishes a container's port the way Docker does.
pub(in crate::lab) fn publish(lab: &Lab, container: Ipv4Addr) -> Result<(), LabError> {
    lab.forward()?;
    let rule = format!("iifname != \"docker0\" tcp dport {PORT} dnat to {}", SocketAddr::new(lab.at(container), INNER_PORT));
    lab.wsl.nft(lab.family(), "type nat hook prerouting priority dstnat", &rule)
}

/// A container that serves, and whose port is published.
pub(super) fn serve_published(lab: &mut Lab) -> Result<(), LabError> {
    serve_all(lab, Side::Container, INNER_PORT)?;
    publish(lab, CONTAINER)
}
