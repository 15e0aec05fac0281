//! A container has the port, and its answer does not come back to the client: it has no way out of the container, or this machine
//! refuses it or leads it elsewhere.

use std::fs;
use std::net::Ipv4Addr;

use super::forwarding::serve_published;
use super::{Expect, Scenario, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, back_through, inbound, into_container, into_container_up_to};
use crate::lab::sides::{CLIENT_V4, CONTAINER, DOCKER0, join};
use crate::lab::{Lab, LabError, Namespace, Seen, Side, Step};

const GROUP: &str = "containers' answers";
/// A gateway behind the tunnel of a VPN.
const VPN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 9);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![no_gateway(), led_elsewhere(), refused_behind_bridge(), leaves_elsewhere(), to_nobody()]
}

/// A container that answers, published.
fn published(lab: &mut Lab) -> Result<(), LabError> {
    serve_published(lab)
}

fn unanswered(name: &'static str, title: &'static str) -> Scenario {
    Scenario { tools: &["nft", "ip"], behind: Some(Side::Container), client: Seen::NoAnswer, ..template(name, title, GROUP) }
}

/// The way back leads by the machine's own address on the container's network.
fn no_gateway() -> Scenario {
    let base = unanswered("container-no-gateway", "a published port, and the container has no default route");
    Scenario {
        break_it: |lab| {
            published(lab)?;
            lab.side(Side::Container)?.ip_of(lab.v6, "route del default")
        },
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Container)),
            codes: &[Code::NoRouteBack],
            inferred: true,
            says: "there is no route back",
            path: into_container_up_to(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

/// As a VPN does that takes everything of the containers' network.
fn led_elsewhere() -> Scenario {
    let title = "a rule of `ip rule` leads what comes from the container to a VPN, its answers too";
    let base = unanswered("container-rule-elsewhere", title);
    Scenario {
        break_it: |lab| {
            published(lab)?;
            vpn(lab, Side::Wsl, "table 99")?;
            lab.ip(&format!("rule add pref 5 from {} lookup 99", lab.at(CONTAINER)))
        },
        mended: Some(Mended::Added(1)),
        expect: Expect {
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            says: "lookup 99\" of `ip rule` leads it to tun1",
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer(), back_through()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// A VPN inside the container takes its default route.
fn leaves_elsewhere() -> Scenario {
    let base = unanswered("container-vpn", "a published port, and a VPN inside the container takes its answers");
    Scenario {
        break_it: |lab| {
            published(lab)?;
            lab.side(Side::Container)?.ip_of(lab.v6, "route del default")?;
            vpn(lab, Side::Container, "")
        },
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Unfinished],
            codes: &[Code::ReplyWrongInterface],
            inferred: true,
            says: "the answer left by tun1, and was not seen again",
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The bridge has no other port by which it could be sent.
fn to_nobody() -> Scenario {
    let title = "somebody has set a wrong hardware address for the container's gateway, in the container";
    let base = unanswered("container-gateway-by-hand", title);
    Scenario {
        break_it: |lab| {
            published(lab)?;
            let gateway = lab.at(DOCKER0);
            let commands = format!("neighbour replace {gateway} lladdr 02:de:ad:be:ef:01 dev eth0 nud permanent");
            lab.side(Side::Container)?.ip_of(lab.v6, &commands)
        },
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::TcIngress, Side::Wsl)),
            codes: &[Code::ReplyDropped],
            inferred: true,
            says: "set by hand (permanent); ",
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer(), vec![Step::Must(Stage::TcIngress)]].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Gives a side an interface to a VPN, and a default route by it in this table.
fn vpn(lab: &mut Lab, side: Side, table: &str) -> Result<(), LabError> {
    let beyond = Namespace::new("vpn")?;
    let (here, gateway) = (lab.side(side)?, lab.at(VPN));
    join(here, "tun1", &beyond, "eth0")?;
    // Nobody's hardware address, so that what goes there leaves and comes to nobody.
    let commands = format!(
        "neighbour replace {gateway} lladdr 02:00:00:00:00:01 dev tun1 nud permanent
        route add default via {gateway} dev tun1 onlink {table}"
    );
    here.ip_of(lab.v6, &commands)?;
    lab.keep(beyond);
    Ok(())
}

/// With `br_netfilter` a bridge calls PREROUTING itself, and routing follows its tc ingress at once.
fn refused_behind_bridge() -> Scenario {
    let title = "a blackhole route takes a container's answers, behind a bridge that calls netfilter";
    let base = unanswered("container-blackhole-back", title);
    let bridged = vec![Step::May(Stage::TcIngress), Step::May(Stage::Routing)];
    Scenario {
        break_it: |lab| {
            published(lab)?;
            let version = if lab.v6 { "ip6" } else { "ip" };
            let asks = format!("net.bridge.bridge-nf-call-{version}tables");
            // A kernel without it shows the packet to netfilter behind the bridge only, and nothing else differs.
            if fs::exists(format!("/proc/sys/{}", asks.replace('.', "/"))).map_err(LabError::io("look for br_netfilter"))? {
                lab.wsl.set_sysctl(&asks, "1")?;
            }
            lab.wsl.route_to(lab.at(CLIENT_V4), Way::Blackhole)
        },
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::Routing, Side::Wsl)),
            codes: &[Code::ReplyDropped],
            inferred: true,
            says: "in routing on docker0: the route \"blackhole",
            path: [
                into_container(),
                vec![Step::Must(Stage::SynAck)],
                answer(),
                vec![Step::May(Stage::TcIngress)],
                inbound(Stage::Routing),
                bridged,
            ]
            .concat(),
            ..base.expect
        },
        ..base
    }
}
