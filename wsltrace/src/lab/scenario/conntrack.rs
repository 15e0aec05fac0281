//! Connection tracking and rules that ask it.

use nix::errno::Errno;

use super::forwarding::serve_published;
use super::limits::stay;
use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Conntrack, Stage};
use crate::lab::crowd::fill_conntrack;
use crate::lab::mend::Mended;
use crate::lab::path::{answer, inbound, through};
use crate::lab::{Lab, LabError, PORT, Seen, Side};

const GROUP: &str = "conntrack";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        untracked(),
        left_out("untracked-drop-nft", "a rule lets tracked connections in, and another exempts the port from tracking", NFT),
        left_out(
            "untracked-drop-iptables-legacy",
            "iptables (legacy) lets tracked connections in, and exempts the port from tracking",
            LEGACY,
        ),
        untranslated(),
        invalid(),
        full(),
        port_taken("masquerade-port-taken", "a rule gives all that it masquerades one port, which a connection has", NFT),
        port_taken(
            "masquerade-port-taken-legacy",
            "iptables (legacy) gives all that it masquerades one port, which a connection has",
            LEGACY,
        ),
    ]
}

fn untracked() -> Scenario {
    let base = template("untracked", "nothing is broken: the port is exempt from connection tracking (notrack)", GROUP);
    Scenario {
        expect: Expect { conntrack: Some(Conntrack::Untracked), ..base.expect },
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft_script(&format!(
                "table inet lab {{
                    chain prerouting {{ type filter hook prerouting priority raw; tcp dport {PORT} notrack; }}
                    chain output {{ type filter hook output priority raw; tcp sport {PORT} notrack; }}
                    chain input {{ type filter hook input priority filter; ct state invalid drop; }}
                }}"
            ))
        },
        ..base
    }
}

/// NAT takes no part in what is not tracked, so that the port's own rule does not lead it on.
fn untranslated() -> Scenario {
    let base = template("untracked-published", "a container's port is published, and exempt from connection tracking", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            let chain = format!("type filter hook prerouting priority raw; tcp dport {PORT} notrack;");
            lab.wsl.nft_script(&format!("table inet exempt {{ chain early {{ {chain} }}; }}"))
        },
        client: Seen::Failed(Errno::ECONNREFUSED),
        mended: Some(Mended::Removed),
        expect: Expect {
            conntrack: Some(Conntrack::Untracked),
            codes: &[Code::NoListener],
            proved: true,
            says: "but did not take this connection; connection tracking leaves it out (notrack)",
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

const NFT: Backend = Backend::Nft;
const LEGACY: Backend = Backend::IptablesLegacy;

/// The rules expect connections to be tracked, and this port's are not: two rules that are right on their own.
fn left_out(name: &'static str, title: &'static str, backend: Backend) -> Scenario {
    let base = template(name, title, GROUP);
    let by_legacy = backend == LEGACY;
    Scenario {
        tools: if by_legacy { &["iptables-legacy"] } else { &["nft"] },
        break_it: if by_legacy { left_out_by_legacy } else { left_out_by_nft },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            conntrack: Some(Conntrack::Untracked),
            codes: &[Code::FirewallDrop],
            firewall: Some((backend, if by_legacy { "INPUT" } else { "input" })),
            says: if by_legacy { "leaves it out (notrack), by rule 1 of ip" } else { "leaves it out (notrack), by rule handle" },
            path: inbound(Stage::InputFilter),
            ..base.expect.dropped_by_netfilter(Stage::InputFilter, Side::Wsl)
        },
        ..base
    }
}

fn left_out_by_nft(lab: &mut Lab) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.wsl.nft_script(&format!(
        "table inet lab {{
            chain prerouting {{ type filter hook prerouting priority raw; tcp dport {PORT} notrack; }}
            chain input {{ type filter hook input priority filter; ct state new accept; tcp dport {PORT} drop; }}
        }}"
    ))
}

fn left_out_by_legacy(lab: &mut Lab) -> Result<(), LabError> {
    serve_any(lab)?;
    let port = format!("-p tcp --dport {PORT}");
    lab.iptables("iptables-legacy", &format!("-t raw -A PREROUTING {port} -j CT --notrack"))?;
    lab.iptables("iptables-legacy", "-A INPUT -m conntrack --ctstate NEW -j ACCEPT")?;
    lab.iptables("iptables-legacy", &format!("-A INPUT {port} -j DROP"))
}

fn invalid() -> Scenario {
    let base =
        template("conntrack-invalid", "a rule drops what connection tracking calls invalid, and the SYN is malformed", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            // Its header claims to be longer than the packet is.
            lab.client.nft("inet", "type filter hook output priority 0", &format!("tcp dport {PORT} tcp doff set 15"))?;
            lab.wsl.nft("inet", "type filter hook input priority filter", "ct state invalid drop")
        },
        client: Seen::NoAnswer,
        expect: base.expect.dropped_at_input(),
        ..base
    }
}

/// The only port that the rule leaves.
const ONLY_PORT: u16 = 5000;

/// NAT makes of it what another connection is already, and connection tracking notices that behind all chains.
fn port_taken(name: &'static str, title: &'static str, backend: Backend) -> Scenario {
    let base = template(name, title, GROUP);
    let by_legacy = backend == LEGACY;
    Scenario {
        tools: if by_legacy { &["nft", "iptables-legacy"] } else { &["nft"] },
        behind: Some(Side::Container),
        break_it: if by_legacy { one_port_by_legacy } else { one_port_by_nft },
        client: Seen::NoAnswer,
        mended: Some(Mended::Set),
        expect: Expect {
            codes: &[Code::ConntrackDrop],
            inferred: true,
            says: "just as another connection that still stands",
            // It is past the last position of the hook.
            path: through(Stage::Snat),
            ..base.expect.dropped_by_netfilter(Stage::Postrouting, Side::Wsl)
        },
        ..base
    }
}

fn one_port_by_nft(lab: &mut Lab) -> Result<(), LabError> {
    serve_published(lab)?;
    lab.wsl.nft_script(&format!(
        "table {} out {{
            chain out {{ type nat hook postrouting priority srcnat; oifname docker0 meta l4proto tcp masquerade to :{ONLY_PORT}; }}
        }}",
        lab.family()
    ))?;
    stay(lab)
}

fn one_port_by_legacy(lab: &mut Lab) -> Result<(), LabError> {
    serve_published(lab)?;
    lab.iptables("iptables-legacy", &format!("-t nat -A POSTROUTING -o docker0 -p tcp -j MASQUERADE --to-ports {ONLY_PORT}"))?;
    stay(lab)
}

fn full() -> Scenario {
    let base = template("conntrack-full", "the table of connection tracking has no room", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft("inet", "type filter hook input priority filter", "ct state new accept")?;
            fill_conntrack(&lab.wsl)
        },
        client: Seen::NoAnswer,
        expect: Expect {
            codes: &[Code::ConntrackDrop],
            inferred: true,
            path: inbound(Stage::Conntrack),
            ..base.expect.dropped_by_netfilter(Stage::Conntrack, Side::Wsl)
        },
        ..base
    }
}
