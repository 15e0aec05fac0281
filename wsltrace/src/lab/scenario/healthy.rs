//! Connections that succeed: a tracer that cries wolf is worse than none.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Expect, Scenario, serve, template};
use crate::journey::{Origin, Stage};
use crate::lab::mirrored::mirror;
use crate::lab::path::{established_on_loopback, unconfirmed};
use crate::lab::{Binding, Lab, PORT, Side, Step};

/// The ends of a VLAN: the client's and WSL's.
const TAGGED: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        healthy("healthy-v4", "nothing is broken: IPv4 from outside"),
        Scenario {
            v6: true,
            target: Lab::wsl_address(true),
            break_it: |lab| serve(lab, Side::Wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT)),
            ..healthy("healthy-v6", "nothing is broken: IPv6 from outside")
        },
        Scenario {
            v6: true,
            break_it: |lab| serve(lab, Side::Wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT).dual_stack()),
            ..healthy("healthy-dual-stack", "nothing is broken: IPv4 from outside to a socket on :: that takes both families")
        },
        local(Scenario {
            target: Ipv4Addr::LOCALHOST.into(),
            ..healthy("healthy-lo-v4", "nothing is broken: 127.0.0.1 from inside")
        }),
        local(Scenario {
            v6: true,
            target: Ipv6Addr::LOCALHOST.into(),
            break_it: |lab| serve(lab, Side::Wsl, Binding::new(Ipv6Addr::LOCALHOST, PORT)),
            ..healthy("healthy-lo-v6", "nothing is broken: ::1 from inside")
        }),
        Scenario {
            tools: &["ip"],
            target: Ipv4Addr::LOCALHOST.into(),
            break_it: |lab| {
                mirror(lab)?;
                serve(lab, Side::Wsl, Binding::new(Ipv4Addr::LOCALHOST, PORT))
            },
            ..healthy("healthy-mirrored", "nothing is broken: Windows' localhost in mirrored mode, by loopback0")
        },
        Scenario {
            tools: &["ip"],
            options: &["VLAN_8021Q"],
            target: TAGGED[1].into(),
            break_it: |lab| {
                for (side, address) in [(&lab.client, TAGGED[0]), (&lab.wsl, TAGGED[1])] {
                    side.ip("link add link eth0 name eth0.10 type vlan id 10")?;
                    side.ip(&format!("address add {address}/24 dev eth0.10"))?;
                    side.ip("link set eth0.10 up")?;
                }
                serve(lab, Side::Wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT))
            },
            ..by_vlan(healthy("healthy-vlan", "nothing is broken: a client that comes by a VLAN"))
        },
    ]
}

fn healthy(name: &'static str, title: &'static str) -> Scenario {
    template(name, title, "healthy")
}

/// Past two devices on the way in, and on the way out.
fn by_vlan(scenario: Scenario) -> Scenario {
    let (comes, goes) = (vec![Step::Must(Stage::TcIngress)], vec![Step::Must(Stage::TcEgress)]);
    let made = vec![Step::Must(Stage::Established), Step::May(Stage::Accepted)];
    let path = [comes, unconfirmed(), goes, made].concat();
    Scenario { expect: Expect { path, ..scenario.expect }, ..scenario }
}

fn local(mut scenario: Scenario) -> Scenario {
    scenario.from = Side::Wsl;
    scenario.expect.origin = Origin::Local;
    scenario.expect.path = established_on_loopback();
    scenario
}
