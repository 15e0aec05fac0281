//! A VRF: the client comes by an interface that belongs to it, and the server is outside of it.

use nix::errno::Errno;

use super::reply::STRANGER;
use super::tables::know_for_good;
use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, inbound};
use crate::lab::sides::WSL_V4;
use crate::lab::{Lab, LabError, Seen, Side, Step};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![outside(), accepted(), no_way_back(), switched_off(), no_rule()]
}

/// As somebody who flushes the rules leaves it. The client knows this machine: its question would not be answered either.
fn no_rule() -> Scenario {
    let base = by_vrf("vrf-no-rule", "the client comes by a VRF, and no rule of ip rule leads to the tables of VRFs", |lab| {
        serve_for_vrfs(lab)?;
        join_vrf(lab)?;
        know_for_good(lab, WSL_V4.into())?;
        lab.wsl.ip("rule del pref 1000")
    });
    Scenario {
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            codes: &[Code::NoRoute],
            inferred: true,
            says: "its interface belongs to a VRF, and the rule of `ip rule` is missing",
            path: [inbound(Stage::Routing), inbound(Stage::Routing)[1..].to_vec()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// A route in the main table would mend nothing.
fn no_way_back() -> Scenario {
    let base = silent("vrf-no-route-back", "the client comes by a VRF, which has no route to it", "in the VRF red", |lab| {
        serve_for_vrfs(lab)?;
        lab.client.address("eth0", STRANGER.into(), 32)?;
        lab.client.route_to(lab.at(WSL_V4), Way::Gateway(lab.at(WSL_V4), Some(STRANGER.into())))?;
        lab.wsl.ip("route del default")?;
        join_vrf(lab)
    });
    Scenario { mended: Some(Mended::Added(1)), ..base }
}

fn switched_off() -> Scenario {
    let title = "the client comes by a VRF that is switched off";
    let base = silent("vrf-switched-off", title, "the VRF red, in which its answers are routed, is switched off", |lab| {
        serve_for_vrfs(lab)?;
        lab.wsl.ip("route del default")?;
        join_vrf(lab)?;
        lab.wsl.ip("link set red down")
    });
    Scenario { mended: Some(Mended::Up("red")), ..base }
}

/// A listener in no VRF takes the SYN, and can make no answer.
fn silent(
    name: &'static str,
    title: &'static str,
    says: &'static str,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = by_vrf(name, title, break_it);
    Scenario {
        client: Seen::NoAnswer,
        witness: Some(("TcpExt", "ListenDrops")),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            codes: &[Code::NoRouteBack],
            inferred: true,
            says,
            path: [inbound(Stage::Routing), inbound(Stage::Listener)[1..].to_vec()].concat(),
            ..base.expect
        },
        ..base
    }
}

fn outside() -> Scenario {
    let title = "the client comes by a VRF, and the server is in none (tcp_l3mdev_accept is 0)";
    let base = by_vrf("vrf-outside", title, |lab| {
        serve_any(lab)?;
        join_vrf(lab)
    });
    Scenario {
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        mended: Some(Mended::Set),
        expect: Expect {
            codes: &[Code::SocketPolicy],
            proved: true,
            says: "came by the VRF red",
            path: [comes_by_vrf(), leaves_by_vrf()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

fn accepted() -> Scenario {
    let title = "nothing is broken: the client comes by a VRF, and servers in none take that (tcp_l3mdev_accept)";
    by_vrf("vrf-accepted", title, |lab| {
        serve_for_vrfs(lab)?;
        join_vrf(lab)
    })
}

/// A server in no VRF that takes what comes by one.
fn serve_for_vrfs(lab: &mut Lab) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.wsl.set_sysctl("net.ipv4.tcp_l3mdev_accept", "1")
}

fn by_vrf(name: &'static str, title: &'static str, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    let base = template(name, title, "VRF");
    let made = vec![Step::Must(Stage::SynAck)];
    let confirmed = vec![Step::Must(Stage::Established), Step::May(Stage::Accepted)];
    let path = [comes_by_vrf(), made, leaves_by_vrf(), confirmed].concat();
    Scenario { tools: &["ip"], options: &["NET_VRF"], break_it, expect: Expect { path, ..base.expect }, ..base }
}

/// It passes PREROUTING as the interface's, and then again as the VRF's.
fn comes_by_vrf() -> Vec<Step> {
    [inbound(Stage::Routing), inbound(Stage::SocketLookup)[1..].to_vec()].concat()
}

/// It passes POSTROUTING as the VRF's, and then OUTPUT and POSTROUTING as the interface's.
fn leaves_by_vrf() -> Vec<Step> {
    let of_vrf = vec![Step::Must(Stage::Postrouting), Step::May(Stage::PostroutingMangle), Step::May(Stage::Snat)];
    [of_vrf, answer()].concat()
}

/// Gives the interface to a VRF, with the way back to the client.
fn join_vrf(lab: &Lab) -> Result<(), LabError> {
    lab.wsl.ip("link add red type vrf table 10\nlink set red up\nlink set eth0 master red")
}
