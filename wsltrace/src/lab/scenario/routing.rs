//! The packet is not let in because of addresses and routes.

use std::net::{IpAddr, Ipv4Addr};

use super::{Expect, Scenario, serve_all, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::inbound;
use crate::lab::sides::{BACKEND, CLIENT_V4, ETH1, WSL_V4};
use crate::lab::{Lab, LabError, PORT, Seen, Side};

/// An address that two machines have.
const TWICE_V4: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 77);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            behind: Some(Side::Backend),
            break_it: |lab| {
                serve_any(lab)?;
                lab.wsl.route_to(lab.at(CLIENT_V4), Way::Device("eth1"))?;
                lab.wsl.set_sysctl("net.ipv4.conf.eth0.rp_filter", "1")
            },
            witness: Some(("TcpExt", "IPReversePathFilter")),
            ..dies(
                "reverse-path-filter",
                "strict rp_filter, and the route to the client leads elsewhere (as with a VPN)",
                Code::ReversePathFilter,
                Some(("IP_RPFILTER", (6, 2))),
            )
        },
        Scenario {
            target: Ipv4Addr::LOCALHOST.into(),
            break_it: |lab| {
                serve_any(lab)?;
                loopback_through_eth0(lab)
            },
            ..dies(
                "martian-loopback",
                "127.0.0.1 arrives on eth0 while route_localnet is off",
                Code::MartianAddress,
                Some(("IP_LOCALNET", (6, 14))),
            )
        },
        unforwarded(),
        Scenario {
            behind: Some(Side::Backend),
            target: BACKEND.into(),
            mended: Some(Mended::Removed),
            break_it: |lab| {
                serve_all(lab, Side::Backend, PORT)?;
                lab.side(Side::Backend)?.route_to(lab.at(CLIENT_V4), Way::Gateway(lab.at(ETH1), None))?;
                lab.client.route_to(lab.at(BACKEND), Way::Gateway(lab.at(WSL_V4), None))?;
                lab.forward()?;
                lab.wsl.route_to(lab.at(BACKEND), Way::Blackhole)
            },
            ..dies("blackhole-route", "a blackhole route to the destination", Code::NoRoute, None)
        },
        one_address_twice(),
        ipv6_off(),
        too_small_for_ipv6(),
    ]
}

pub(super) fn unforwarded() -> Scenario {
    Scenario {
        behind: Some(Side::Backend),
        tools: &["nft"],
        break_it: lead_to_backend,
        witness: Some(("Ip", "InAddrErrors")),
        ..dies(
            "ip-forward-off",
            "DNAT to another machine while ip_forward is off",
            Code::NoForwarding,
            Some(("IP_INADDRERRORS", (6, 1))),
        )
    }
}

pub(super) fn lead_to_backend(lab: &mut Lab) -> Result<(), LabError> {
    serve_all(lab, Side::Backend, PORT)?;
    lab.side(Side::Backend)?.route_to(lab.at(CLIENT_V4), Way::Gateway(lab.at(ETH1), None))?;
    lab.wsl.nft(
        lab.family(),
        "type nat hook prerouting priority dstnat",
        &format!("tcp dport {PORT} dnat to {}", lab.at(BACKEND)),
    )
}

/// The client speaks from an address that WSL has, too. No command of the report mends it: one of the two has to take another.
fn one_address_twice() -> Scenario {
    let base = dies(
        "martian-own-address",
        "the client's address is one of WSL's own, too",
        Code::MartianAddress,
        Some(("IP_LOCAL_SOURCE", (6, 14))),
    );
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            let both = IpAddr::from(TWICE_V4);
            lab.client.address("eth0", both, 32)?;
            lab.client.route_to(lab.at(WSL_V4), Way::Gateway(lab.at(WSL_V4), Some(both)))?;
            lab.wsl.address("eth0", both, 32)
        },
        mended: None,
        expect: Expect { says: "its source 172.28.16.77 is an address of this machine", ..base.expect },
        ..base
    }
}

/// The client still knows the hardware address. Switched on again, WSL has lost its addresses: no command of the report gives them back.
fn ipv6_off() -> Scenario {
    let base = dies("ipv6-off", "IPv6 is switched off on eth0", Code::NoRoute, Some(("IPV6DISABLED", (5, 18))));
    Scenario {
        v6: true,
        target: Lab::wsl_address(true),
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")
        },
        mended: None,
        expect: Expect { died: Some((Stage::TcIngress, Side::Wsl)), path: inbound(Stage::TcIngress), ..base.expect },
        ..base
    }
}

/// The client still knows the hardware address. What WSL had of addresses does not come again by itself.
fn too_small_for_ipv6() -> Scenario {
    let base = ipv6_off();
    Scenario {
        name: "mtu-below-ipv6",
        title: "eth0 takes packets of at most 1000 bytes, and so has no IPv6",
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.ip("link set eth0 mtu 1000")
        },
        expect: Expect { reason: None, proved: false, inferred: true, says: "IPv6 needs 1280", ..base.expect },
        ..base
    }
}

/// Makes the client send packets for 127.0.0.1 to WSL: its own `lo` is down, so the address is like any other to it.
fn loopback_through_eth0(lab: &Lab) -> Result<(), LabError> {
    lab.client.set_sysctl("net.ipv4.conf.eth0.route_localnet", "1")?;
    let way = Way::Gateway(lab.at(WSL_V4), Some(IpAddr::from(CLIENT_V4)));
    lab.client.route_to(Ipv4Addr::LOCALHOST.into(), way)
}

fn dies(name: &'static str, title: &'static str, code: Code, reason: Option<(&'static str, (u32, u32))>) -> Scenario {
    let base = template(name, title, "routing");
    Scenario {
        mended: Some(Mended::Set),
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            reason,
            codes: match code {
                Code::ReversePathFilter => &[Code::ReversePathFilter],
                Code::MartianAddress => &[Code::MartianAddress],
                Code::NoForwarding => &[Code::NoForwarding],
                _ => &[Code::NoRoute],
            },
            proved: reason.is_some(),
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}
