//! Clients that come through a tunnel, whose device has no link-layer header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{answer, inbound};
use crate::lab::tunnel::Tunnel;
use crate::lab::{Lab, LabError, PORT, Seen, Side};

const GROUP: &str = "tunnels";
/// The ends of the tunnel: the client's and WSL's.
const ENDS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 8, 0, 2))];
/// The same for IPv6; as for the other, 24 bits name the network.
const ENDS_V6: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0xfd00, 0x800, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x800, 0, 0, 0, 0, 0, 2))];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![healthy(), healthy_v6(), dropped(), refused(), swallowed()]
}

fn base(name: &'static str, title: &'static str) -> Scenario {
    Scenario { options: &["TUN"], target: ENDS[1], ..template(name, title, GROUP) }
}

fn healthy() -> Scenario {
    Scenario {
        break_it: |lab| {
            dig(lab, ENDS)?;
            serve_any(lab)
        },
        ..base("tunnel-healthy", "nothing is broken: a client that comes through a tunnel")
    }
}

fn healthy_v6() -> Scenario {
    Scenario {
        v6: true,
        target: ENDS_V6[1],
        break_it: |lab| {
            dig(lab, ENDS_V6)?;
            serve_any(lab)
        },
        ..base("tunnel-healthy-v6", "nothing is broken: a client that comes through a tunnel by IPv6")
    }
}

fn dropped() -> Scenario {
    let base = base("tunnel-drop", "the INPUT chain drops what comes through a tunnel");
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            dig(lab, ENDS)?;
            serve_any(lab)?;
            let rule = format!("iifname tun0 tcp dport {PORT} drop");
            lab.wsl.nft("inet", "type filter hook input priority filter", &rule)
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect { proved: true, ..base.expect.dropped_at_input() },
        ..base
    }
}

fn refused() -> Scenario {
    let base = base("tunnel-no-listener", "nothing listens, and the client comes through a tunnel");
    Scenario {
        break_it: |lab| dig(lab, ENDS),
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::NoListener],
            proved: true,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

/// A VPN whose other end takes nothing.
fn swallowed() -> Scenario {
    const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    let base = base("tunnel-swallowed", "a client here connects through a tunnel whose program sends no answer");
    Scenario {
        tools: &["ip"],
        from: Side::Wsl,
        target: BEYOND.into(),
        break_it: |lab| {
            dig(lab, ENDS)?;
            lab.wsl.ip(&format!("route add {BEYOND}/32 dev tun0"))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            origin: Origin::Local,
            outcomes: &[Outcome::Unfinished],
            codes: &[Code::UnexplainedDrop],
            inferred: true,
            says: "handed to the program that holds tun0",
            path: answer(),
            ..base.expect
        },
        ..base
    }
}

fn dig(lab: &mut Lab, [client, wsl]: [IpAddr; 2]) -> Result<(), LabError> {
    let tunnel = Tunnel::dig((&lab.client, client), (&lab.wsl, wsl))?;
    lab.keep(tunnel);
    Ok(())
}
