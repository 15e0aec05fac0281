//! Bridges between containers: copies for bystanders, and connections that come back to where they began.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::{Expect, Scenario, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::client::warm_up;
use crate::lab::mend::Mended;
use crate::lab::path::{answer, back_through, inbound, into_container, into_container_up_to, through};
use crate::lab::sides::{CLIENT_V4, CONTAINER, DOCKER0, WSL_V4, join};
use crate::lab::{Binding, Lab, LabError, Listening, Namespace, PORT, Seen, Side, Step};

const GROUP: &str = "bridges";
/// Another container's address.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);
/// The port inside the container.
const INNER_PORT: u16 = 80;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        flood(),
        between_containers(),
        dropped_between_containers(),
        isolated(),
        hairpin(),
        not_sent_back(),
        hairpin_unmasqueraded(),
        dropped_on_the_way(),
        answer_dropped(),
        answer_dropped_at_port(),
    ]
}

/// As `ebtables` does. The packet has left the machine's own netfilter by then.
fn dropped_on_the_way() -> Scenario {
    let base = drops("bridge-drop-nft", "nftables drops on the bridge what goes to a container", "output", |lab| {
        drop_on_bridge(lab, "output", "dport")
    });
    Scenario {
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::TcEgress, Side::Wsl)),
            codes: &[Code::FirewallDrop],
            proved: true,
            path: through(Stage::TcEgress),
            ..base.expect
        },
        ..base
    }
}

/// Nothing traces what comes from a container before the machine's own hooks, so the rules are followed.
fn answer_dropped() -> Scenario {
    let base = drops("bridge-drop-answer-nft", "nftables drops on the bridge what a container answers", "input", |lab| {
        drop_on_bridge(lab, "input", "sport")
    });
    let wires = vec![Step::May(Stage::TcIngress)];
    Scenario {
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::TcIngress, Side::Wsl)),
            codes: &[Code::ReplyDropped],
            inferred: true,
            says: "which by the rules as they are now is the only one there that may do so",
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer(), wires].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The same at the port itself.
fn answer_dropped_at_port() -> Scenario {
    let base = answer_dropped();
    Scenario {
        name: "reply-drop-port-nft",
        title: "nftables drops what a container answers in the ingress chain of the bridge's port",
        options: &[],
        break_it: |lab| {
            serve_all(lab, Side::Container, INNER_PORT)?;
            publish(lab, "")?;
            lab.wsl.nft("netdev", "type filter hook ingress device veth0 priority 0", &format!("tcp sport {INNER_PORT} drop"))
        },
        expect: Expect {
            died: Some((Stage::NetfilterIngress, Side::Wsl)),
            firewall: Some((Backend::Nft, "ingress")),
            ..base.expect
        },
        ..base
    }
}

fn drops(
    name: &'static str,
    title: &'static str,
    hook: &'static str,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools: &["nft"],
        options: &["NF_TABLES_BRIDGE"],
        behind: Some(Side::Container),
        break_it,
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            reason: Some(("NETFILTER_DROP", (5, 18))),
            translated: Some((CLIENT_V4.into(), SocketAddr::from((CONTAINER, INNER_PORT)))),
            firewall: Some((Backend::Nft, hook)),
            says: "a chain of the bridge",
            ..base.expect
        },
        ..base
    }
}

fn drop_on_bridge(lab: &mut Lab, hook: &str, port: &str) -> Result<(), LabError> {
    serve_all(lab, Side::Container, INNER_PORT)?;
    publish(lab, "")?;
    let chain = format!("type filter hook {hook} priority 0; policy accept");
    lab.wsl.nft("bridge", &chain, &format!("tcp {port} {INNER_PORT} drop"))
}

/// The bridge knows nobody's address, so it sends every packet to every port.
fn flood() -> Scenario {
    let base = template("bridge-flood", "nothing is broken: the bridge floods a container's packets to a bystander", GROUP);
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_all(lab, Side::Container, INNER_PORT)?;
            publish(lab, "")?;
            let bystander = Namespace::new("bystander")?;
            join(&lab.wsl, "veth1", &bystander, "eth0")?;
            lab.wsl.enslave("veth1", "docker0")?;
            lab.wsl.ip("link set docker0 type bridge ageing_time 0")?;
            lab.keep(bystander);
            Ok(())
        },
        // The SYN leaves by the bystander's port as well.
        expect: Expect { path: with_more_wires(published()), ..base.expect },
        ..base
    }
}

/// One container asks another of the same bridge: the bridge hands on what is for another's hardware address.
fn between_containers() -> Scenario {
    let title = "nothing is broken: a container connects to another of the same bridge";
    let base = template("bridge-neighbours", title, GROUP);
    let wires = [Step::Must(Stage::TcIngress), Step::Must(Stage::TcEgress)];
    let established = [Step::Must(Stage::Established), Step::May(Stage::Accepted)];
    Scenario {
        behind: Some(Side::Container),
        from: Side::Container,
        target: NEIGHBOUR.into(),
        break_it: serve_beside,
        expect: Expect {
            path: [
                &wires,
                inbound(Stage::SocketLookup).as_slice(),
                &[Step::Must(Stage::SynAck)],
                answer().as_slice(),
                &wires,
                &established,
            ]
            .concat(),
            ..base.expect
        },
        ..base
    }
}

/// As Docker does where a network's containers are not to talk to each other (`enable_icc=false`).
fn dropped_between_containers() -> Scenario {
    let title = "a rule keeps containers of one bridge from talking to each other (iptables-nft)";
    let base = Scenario { name: "bridge-neighbours-drop", title, ..between_containers() };
    Scenario {
        tools: &["nft", "iptables-nft"],
        options: &["BRIDGE_NETFILTER"],
        break_it: |lab| {
            show_to_iptables(lab)?;
            serve_beside(lab)?;
            lab.iptables("iptables-nft", "-A FORWARD -i docker0 -o docker0 -j DROP")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(2)),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            firewall: Some((Backend::IptablesNft, "FORWARD")),
            says: "in filter FORWARD on docker0",
            path: through(Stage::ForwardFilter),
            ..base.expect.dropped_by_netfilter(Stage::ForwardFilter, Side::Wsl)
        },
        ..base
    }
}

/// As hypervisors and some networks of containers have it. The two have known each other since before.
fn isolated() -> Scenario {
    let title = "a container connects to another of the same bridge, and both their ports are isolated";
    let base = Scenario { name: "bridge-isolated", title, ..between_containers() };
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_beside(lab)?;
            let neighbour = lab.kept::<Namespace>().last().ok_or_else(|| LabError::Failed("there is no neighbour".into()))?;
            warm_up(lab.side(Side::Container)?, CONTAINER.into(), neighbour, NEIGHBOUR.into())?;
            for port in ["veth0", "veth1"] {
                lab.wsl.ip(&format!("link set dev {port} type bridge_slave isolated on"))?;
            }
            Ok(())
        },
        client: Seen::NoAnswer,
        // What a port is set to is not listed.
        mended: Some(Mended::Added(0)),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::TcIngress, Side::Wsl)),
            codes: &[Code::NoForwarding],
            inferred: true,
            says: "both are isolated there",
            path: vec![Step::Must(Stage::TcIngress)],
            ..base.expect
        },
        ..base
    }
}

/// A second container with a server.
fn serve_beside(lab: &mut Lab) -> Result<(), LabError> {
    let neighbour = Namespace::new("neighbour")?;
    join(&lab.wsl, "veth1", &neighbour, "eth0")?;
    lab.wsl.enslave("veth1", "docker0")?;
    neighbour.address("eth0", NEIGHBOUR.into(), 16)?;
    lab.keep(Listening::accepting(&neighbour, Binding::new(NEIGHBOUR, PORT))?);
    lab.keep(neighbour);
    Ok(())
}

/// Has the rules of IP see what passes bridges.
fn show_to_iptables(lab: &Lab) -> Result<(), LabError> {
    if !Path::new("/proc/sys/net/bridge").exists() {
        return Err(LabError::Unsupported("the module br_netfilter is not loaded".into()));
    }
    lab.wsl.set_sysctl("net.bridge.bridge-nf-call-iptables", "1")
}

/// A container asks for its own published port at the address of the machine.
fn hairpin() -> Scenario {
    let base = template("hairpin", "nothing is broken: a container connects to its own published port", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        from: Side::Container,
        target: WSL_V4.into(),
        break_it: |lab| {
            serve_all(lab, Side::Container, INNER_PORT)?;
            let masquerade = format!(
                "chain postrouting {{ type nat hook postrouting priority srcnat; ip saddr {CONTAINER} ip daddr {CONTAINER} masquerade; }}"
            );
            publish(lab, &masquerade)
        },
        expect: Expect {
            origin: Origin::Remote,
            outcomes: &[Outcome::Answered],
            codes: &[Code::Healthy],
            proved: true,
            translated: Some((DOCKER0.into(), SocketAddr::from((CONTAINER, INNER_PORT)))),
            // It comes in by the bridge's port, and then again by the bridge.
            path: [vec![Step::Must(Stage::TcIngress)], published()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The same where rules of IP see what passes bridges (`br_netfilter`): the bridge itself sends it on, and not by the port that it came by.
fn not_sent_back() -> Scenario {
    let base = hairpin();
    Scenario {
        name: "hairpin-off",
        title: "a container connects to its own published port, and the bridge sends nothing back to it",
        tools: &["nft", "ip", "iptables-nft"],
        options: &["BRIDGE_NETFILTER"],
        break_it: |lab| {
            show_to_iptables(lab)?;
            serve_all(lab, Side::Container, INNER_PORT)?;
            publish(lab, "")
        },
        client: Seen::NoAnswer,
        // The rule brings its table and chain.
        mended: Some(Mended::Added(5)),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            codes: &[Code::NoForwarding],
            proved: false,
            inferred: true,
            translated: None,
            says: "the bridge sends nothing back by veth0",
            // The bridge shows what it will send on to the rules of IP, and frees it before any other place.
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}

/// Docker has a rule that gives such packets the machine's address.
fn hairpin_unmasqueraded() -> Scenario {
    let base = hairpin();
    Scenario {
        name: "hairpin-unmasqueraded",
        title: "a container connects to its own published port, and no rule masquerades that",
        tools: &["nft", "iptables-nft"],
        break_it: |lab| {
            serve_all(lab, Side::Container, INNER_PORT)?;
            publish(lab, "")?;
            // What leaves the containers' network is masqueraded, as Docker has it.
            lab.iptables("iptables-nft", "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Container)),
            reason: Some(("IP_LOCAL_SOURCE", (6, 14))),
            codes: &[Code::MartianAddress],
            translated: Some((CONTAINER.into(), SocketAddr::from((CONTAINER, INNER_PORT)))),
            says: "nothing gave it this machine's address on the way (masquerade)",
            path: [vec![Step::Must(Stage::TcIngress)], into_container_up_to(Stage::Routing)].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Publishes the container's port the way Docker does; `more` goes into the same table.
fn publish(lab: &Lab, more: &str) -> Result<(), LabError> {
    lab.forward()?;
    lab.wsl.nft_script(&format!(
        "table ip lab {{
            chain prerouting {{ type nat hook prerouting priority dstnat; ip daddr {WSL_V4} tcp dport {PORT} dnat to {CONTAINER}:{INNER_PORT}; }}
            {more}
        }}"
    ))
}

/// One more stage where the SYN leaves WSL, for one more port of the bridge.
fn with_more_wires(mut path: Vec<Step>) -> Vec<Step> {
    if let Some(leaves) = path.iter().position(|step| *step == Step::Must(Stage::TcEgress)) {
        path.insert(leaves, Step::May(Stage::TcEgress));
    }
    path
}

/// Into the container and back, with the wires of every port of the bridge.
fn published() -> Vec<Step> {
    let wires = vec![Step::May(Stage::TcEgress)];
    let established = vec![Step::Must(Stage::Established), Step::May(Stage::Accepted)];
    [into_container(), vec![Step::Must(Stage::SynAck)], answer(), back_through(), wires, established].concat()
}
