//! Devices that take nothing: the interface of a VLAN that is switched off, a tunnel that leads nowhere.

use std::net::{IpAddr, Ipv4Addr};

use nix::errno::Errno;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{answer, inbound, up_to_answer};
use crate::lab::{Seen, Side};

const GROUP: &str = "devices";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![vlan_off(), no_peer()]
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
