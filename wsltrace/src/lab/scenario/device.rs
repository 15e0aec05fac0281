//! Devices that take nothing: the interface of a VLAN that is switched off, a tunnel that leads nowhere; and a route that wraps what it takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::{Expect, Scenario, serve, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{answer, inbound, up_to_answer};
use crate::lab::sides::CLIENT_V6;
use crate::lab::{Binding, Lab, PORT, Seen, Side, Step};

const GROUP: &str = "devices";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![vlan_off(), no_peer(), wrapped()]
}

/// The client has met WSL in the VLAN before, so it does not ask for its hardware address.
fn vlan_off() -> Scenario {
    const WSL: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
    let base = template("vlan-switched-off", "the interface of the VLAN that the client is in is switched off", GROUP);
    Scenario {
        tools: &["ip"],
        options: &["VLAN_8021Q"],
        target: WSL.into(),
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.ip(&format!(
                "link set eth0 address 02:00:00:00:00:02
                link add link eth0 name eth0.10 type vlan id 10
                address add {WSL}/24 dev eth0.10"
            ))?;
            lab.client.ip(&format!(
                "link add link eth0 name eth0.10 type vlan id 10
                address add 10.10.0.2/24 dev eth0.10
                link set eth0.10 up
                neighbour replace {WSL} lladdr 02:00:00:00:00:02 dev eth0.10 nud permanent"
            ))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Up("eth0.10")),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::TcIngress, Side::Wsl)),
            codes: &[Code::TcDrop],
            inferred: true,
            says: "the interface of its VLAN, eth0.10, is switched off",
            path: inbound(Stage::TcIngress),
            ..base.expect
        },
        ..base
    }
}

/// `WireGuard` tells the client by an ICMP error, as a router beyond would.
fn no_peer() -> Scenario {
    const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    let base =
        template("wireguard-no-peer", "a WireGuard tunnel whose peers do not have the address that the client asks for", GROUP);
    Scenario {
        tools: &["ip"],
        options: &["WIREGUARD"],
        from: Side::Wsl,
        target: IpAddr::V4(BEYOND),
        break_it: |lab| {
            lab.wsl.ip(&format!(
                "link add wg0 type wireguard
                address add 10.9.0.1/24 dev wg0
                link set wg0 up
                route add {BEYOND}/32 dev wg0"
            ))
        },
        client: Seen::Failed(Errno::EHOSTUNREACH),
        expect: Expect {
            origin: Origin::Local,
            outcomes: &[Outcome::Rejected],
            died: Some((Stage::TcEgress, Side::Wsl)),
            codes: &[Code::NoRoute],
            inferred: true,
            says: "wg0, a WireGuard tunnel",
            // The error comes by `lo`.
            path: [answer(), up_to_answer(Stage::TcEgress), inbound(Stage::InputSecurity)].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The kernel puts the answer into another packet, which the client cannot unwrap.
fn wrapped() -> Scenario {
    const STRANGER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xaa, 0, 0, 0, 0, 0, 5);
    let base = template("answer-wrapped-v6", "the route to the client wraps the answers (seg6), and nobody unwraps them", GROUP);
    let target = Lab::wsl_address(true);
    Scenario {
        tools: &["ip"],
        options: &["IPV6_SEG6_LWTUNNEL"],
        v6: true,
        target,
        break_it: |lab| {
            serve(lab, Side::Wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT))?;
            lab.client.address("eth0", STRANGER.into(), 128)?;
            let own = Lab::wsl_address(true);
            lab.client.ip_of(true, &format!("route replace {own}/128 dev eth0 src {STRANGER}"))?;
            lab.wsl.ip_of(true, &format!("route add {STRANGER}/128 encap seg6 mode encap segs {CLIENT_V6} dev eth0"))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Unfinished],
            codes: &[Code::ReplyUnanswered],
            inferred: true,
            says: "inside of another packet, as its route has it (encap)",
            path: [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], up_to_answer(Stage::OutputSecurity)].concat(),
            ..base.expect
        },
        ..base
    }
}
