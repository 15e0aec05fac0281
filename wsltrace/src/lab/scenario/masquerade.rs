//! WSL gives a connection another source: where it sends it on, and where it takes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;

use super::forwarding::{INNER_PORT, serve_published};
use super::{Expect, Scenario, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Conntrack, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, back_through, inbound, into_container_up_to, through};
use crate::lab::sides::{BACKEND, CLIENT_V4, WSL_V4};
use crate::lab::{PORT, Seen, Side, Step};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![masquerade(), masquerade_drop(), unmasqueraded(), input_snat(), input_snat_refused()]
}

fn masquerade() -> Scenario {
    let base = template("masquerade", "nothing is broken: WSL forwards to another machine under its own address", "forwarding");
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Backend),
        target: BACKEND.into(),
        break_it: |lab| {
            serve_all(lab, Side::Backend, PORT)?;
            lab.client.route_to(lab.at(BACKEND), Way::Gateway(lab.at(WSL_V4), None))?;
            lab.forward()?;
            lab.wsl.nft(lab.family(), "type nat hook postrouting priority srcnat", "oifname \"eth1\" masquerade")
        },
        expect: Expect {
            // The server stands outside what is watched: its answer is seen to come back and leave, its socket is not.
            outcomes: &[Outcome::Answered],
            codes: &[Code::Healthy],
            path: [through(Stage::TcEgress), back_through()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// As Docker's container after `iptables -t nat -F`. The client of the others is the server here, and has no route to the container.
fn unmasqueraded() -> Scenario {
    let title = "a container connects to another machine, and nothing gives its packets WSL's address (masquerade)";
    let base = template("masquerade-missing", title, "forwarding");
    Scenario {
        tools: &["iptables-nft"],
        behind: Some(Side::Container),
        from: Side::Container,
        target: CLIENT_V4.into(),
        break_it: |lab| {
            serve_all(lab, Side::Client, PORT)?;
            lab.forward()?;
            lab.iptables("iptables-nft", "-t nat -P POSTROUTING ACCEPT")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Forwarded],
            codes: &[Code::Forwarded],
            inferred: true,
            says: "which is of the network behind docker0 here, and no answer came",
            // By the bridge's port, and then by the bridge.
            path: [vec![Step::Must(Stage::TcIngress)], through(Stage::TcEgress)].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Each SYN that is sent again gets the same other source as the first, and must be told from it.
fn masquerade_drop() -> Scenario {
    let title = "a published port whose container sees WSL as the client (masquerade), and whose firewall drops";
    let base = template("masquerade-drop", title, "forwarding");
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            let nat = "type nat hook postrouting priority srcnat";
            lab.wsl.nft_script(&format!(
                "table {} masquerading {{
                    chain postrouting {{ {nat}; oifname \"docker0\" masquerade
                    }}
                }}",
                lab.family()
            ))?;
            let rule = format!("tcp dport {INNER_PORT} drop");
            lab.side(Side::Container)?.nft(lab.family(), "type filter hook input priority filter", &rule)
        },
        client: Seen::NoAnswer,
        silence: Duration::from_millis(2500),
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            proved: true,
            firewall: Some((Backend::Nft, "input")),
            path: into_container_up_to(Stage::InputFilter),
            ..base.expect.dropped_by_netfilter(Stage::InputFilter, Side::Container)
        },
        ..base
    }
}

/// The source that the server sees in `input_snat`.
const OTHER_SOURCE: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 77);

/// The key of the SYN changes between INPUT's positions, in the last hook before its socket.
fn input_snat() -> Scenario {
    let base = template("input-snat", "nothing is broken: a rule in INPUT gives the client another address", "forwarding");
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_all(lab, Side::Wsl, PORT)?;
            lab.wsl.nft(
                lab.family(),
                "type nat hook input priority 100",
                &format!("tcp dport {PORT} snat to {}", lab.at(OTHER_SOURCE)),
            )
        },
        expect: Expect {
            conntrack: Some(Conntrack::New),
            translated: Some((OTHER_SOURCE.into(), SocketAddr::new(WSL_V4.into(), PORT))),
            ..base.expect
        },
        ..base
    }
}

fn input_snat_refused() -> Scenario {
    let answered = input_snat();
    Scenario {
        name: "input-snat-no-listener",
        title: "a rule in INPUT gives the client another address, and nothing listens",
        break_it: |lab| {
            lab.wsl.nft(
                lab.family(),
                "type nat hook input priority 100",
                &format!("tcp dport {PORT} snat to {}", lab.at(OTHER_SOURCE)),
            )
        },
        client: Seen::Failed(Errno::ECONNREFUSED),
        expect: Expect {
            codes: &[Code::NoListener],
            proved: true,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..answered.expect.refused_by_kernel(Side::Wsl)
        },
        ..answered
    }
}
