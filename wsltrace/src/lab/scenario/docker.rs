//! Docker's own rules: what they keep from a container's address, and how they keep networks apart. As Docker 28 makes them.

use std::net::{Ipv4Addr, SocketAddr};

use super::forwarding::{INNER_PORT, serve_published};
use super::{Expect, Scenario, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::Stage::{self, ForwardFilter, PreroutingRaw};
use crate::journey::{Origin, Outcome};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{inbound, through};
use crate::lab::sides::{CLIENT_V4, CONTAINER, WSL_V4, join};
use crate::lab::{Binding, Lab, LabError, Listening, Namespace, PORT, Seen, Side, Step};

const GROUP: &str = "Docker's networks";
/// The chains in which Docker keeps networks apart, in the order in which FORWARD asks them.
const CHAINS: [&str; 5] = [
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-N DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        shielded(),
        internal(),
        kept_apart(),
        flushed("docker-flushed", "iptables-nft"),
        flushed("docker-flushed-legacy", "iptables-legacy"),
    ]
}

/// `iptables -F`, or the reload of another firewall: Docker's chains stand there, and nothing leads to them.
fn flushed(name: &'static str, iptables: &'static str) -> Scenario {
    let (title, backend, tools): (_, _, &[_]) = if iptables == "iptables-legacy" {
        (
            "Docker's rules were flushed from FORWARD (iptables-legacy), and its policy stays",
            Backend::IptablesLegacy,
            &["nft", "iptables-legacy"],
        )
    } else {
        (
            "Docker's rules were flushed from FORWARD (iptables-nft), and its policy stays",
            Backend::IptablesNft,
            &["nft", "iptables-nft"],
        )
    };
    let base = template(name, title, GROUP);
    Scenario {
        tools,
        break_it: if backend == Backend::IptablesLegacy {
            |lab| flush(lab, "iptables-legacy")
        } else {
            |lab| flush(lab, "iptables-nft")
        },
        // One for each direction.
        mended: Some(Mended::Added(2)),
        expect: Expect {
            translated: Some((CLIENT_V4.into(), SocketAddr::from((CONTAINER, INNER_PORT)))),
            firewall: Some((backend, "FORWARD")),
            path: through(ForwardFilter),
            died: Some((ForwardFilter, Side::Wsl)),
            ..dropped(&base.expect)
        },
        ..of_docker(base)
    }
}

fn flush(lab: &mut Lab, iptables: &'static str) -> Result<(), LabError> {
    serve_published(lab)?;
    ["-P FORWARD DROP", "-N DOCKER-USER", "-N DOCKER-FORWARD", "-A DOCKER-FORWARD -o docker0 -j ACCEPT"]
        .iter()
        .try_for_each(|rule| lab.iptables(iptables, rule))
}

/// Who asks for a container's own address from outside gets no further than this, whatever FORWARD lets through.
fn shielded() -> Scenario {
    let base = template("docker-shield", "Docker's rule in raw keeps the network from a container's own address", GROUP);
    Scenario {
        target: CONTAINER.into(),
        break_it: |lab| {
            serve_all(lab, Side::Container, PORT)?;
            lab.client.route_to(CONTAINER.into(), Way::Gateway(WSL_V4.into(), None))?;
            lab.forward()?;
            run(lab, &["-t nat -N DOCKER", "-t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP"])
        },
        expect: Expect {
            died: Some((PreroutingRaw, Side::Wsl)),
            firewall: Some((Backend::IptablesNft, "PREROUTING")),
            path: inbound(PreroutingRaw),
            ..dropped(&base.expect)
        },
        ..of_docker(base)
    }
}

/// A network that was made with `--internal`, whose container a rule of the user's publishes.
fn internal() -> Scenario {
    let base = template("docker-internal", "a published port of a container whose network Docker keeps internal", GROUP);
    Scenario {
        break_it: |lab| {
            serve_published(lab)?;
            run(lab, &CHAINS)?;
            run(
                lab,
                &[
                    "-A DOCKER-ISOLATION-STAGE-1 ! -s 172.17.0.0/16 -o docker0 -j DROP",
                    "-A DOCKER-ISOLATION-STAGE-1 ! -d 172.17.0.0/16 -i docker0 -j DROP",
                    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                    "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
                ],
            )
        },
        expect: Expect {
            translated: Some((CLIENT_V4.into(), SocketAddr::from((CONTAINER, INNER_PORT)))),
            ..isolated("DOCKER-ISOLATION-STAGE-1", &base.expect)
        },
        ..of_docker(base)
    }
}

/// Two projects of compose: each has a network of its own, and neither reaches the other's containers.
fn kept_apart() -> Scenario {
    let base = template("docker-isolation", "a container asks for one of another network, and Docker keeps the two apart", GROUP);
    Scenario {
        from: Side::Container,
        target: OTHER.into(),
        break_it: |lab| {
            serve_on_other_network(lab)?;
            lab.forward()?;
            run(lab, &CHAINS)?;
            run(lab, &["-N DOCKER-ISOLATION-STAGE-2"])?;
            for bridge in ["docker0", "br1"] {
                let enters = format!("-A DOCKER-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2");
                let leaves = format!("-A DOCKER-ISOLATION-STAGE-2 -o {bridge} -j DROP");
                let out = format!("-A FORWARD -i {bridge} -j ACCEPT");
                run(lab, &[&enters, &leaves, &out])?;
            }
            Ok(())
        },
        expect: Expect {
            origin: Origin::Remote,
            // By the bridge's port, and then by the bridge.
            path: [vec![Step::Must(Stage::TcIngress)], through(ForwardFilter)].concat(),
            ..isolated("DOCKER-ISOLATION-STAGE-2", &base.expect)
        },
        ..of_docker(base)
    }
}

/// A container of another network, and the address of that network's bridge.
const OTHER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const BR1: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

fn serve_on_other_network(lab: &mut Lab) -> Result<(), LabError> {
    let other = Namespace::new("other")?;
    lab.wsl.bridge("br1")?;
    join(&lab.wsl, "veth1", &other, "eth0")?;
    lab.wsl.enslave("veth1", "br1")?;
    lab.wsl.await_carrier("br1")?;
    lab.wsl.address("br1", BR1.into(), 16)?;
    other.address("eth0", OTHER.into(), 16)?;
    other.route(Ipv4Addr::UNSPECIFIED.into(), 0, Way::Gateway(BR1.into(), None))?;
    lab.keep(Listening::accepting(&other, Binding::new(OTHER, PORT))?);
    lab.keep(other);
    Ok(())
}

fn run(lab: &Lab, rules: &[&str]) -> Result<(), LabError> {
    rules.iter().try_for_each(|rule| lab.iptables("iptables-nft", rule))
}

fn of_docker(base: Scenario) -> Scenario {
    let mended = Some(Mended::Nothing);
    Scenario { tools: &["nft", "iptables-nft"], behind: Some(Side::Container), client: Seen::NoAnswer, mended, ..base }
}

fn isolated(chain: &'static str, base: &Expect) -> Expect {
    Expect {
        died: Some((ForwardFilter, Side::Wsl)),
        firewall: Some((Backend::IptablesNft, chain)),
        path: through(ForwardFilter),
        ..dropped(base)
    }
}

fn dropped(base: &Expect) -> Expect {
    Expect {
        outcomes: &[Outcome::Dropped],
        reason: Some(("NETFILTER_DROP", (5, 18))),
        codes: &[Code::FirewallDrop],
        proved: true,
        says: "which docker manages",
        ..base.clone()
    }
}
