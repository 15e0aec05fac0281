//! A SYN proxy: the firewall answers the client by itself, and connects to the server, over `lo`, only when the client has confirmed.

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::Stage;
use crate::lab::path::{answer, inbound};
use crate::lab::{Lab, LabError, PORT, Seen, Step};

const GROUP: &str = "SYN proxy";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![by_iptables(), by_nft(), nobody(), unasked()]
}

fn by_iptables() -> Scenario {
    healthy("synproxy-iptables-nft", "nothing is broken: a SYN proxy of iptables (nft) stands before the server", |lab| {
        serve_any(lab)?;
        proxy(lab)
    })
}

fn by_nft() -> Scenario {
    let title = "nothing is broken: a SYN proxy of nftables stands before the server";
    let base = healthy("synproxy-nft", title, |lab| {
        serve_any(lab)?;
        lab.wsl.nft_script(&format!(
            "table inet lab {{
                chain prerouting {{
                    type filter hook prerouting priority raw
                    iifname eth0 tcp dport {PORT} tcp flags & (fin | syn | rst | ack) == syn notrack
                }}
                chain input {{
                    type filter hook input priority filter
                    tcp dport {PORT} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
                    tcp dport {PORT} ct state invalid drop
                }}
            }}"
        ))?;
        strict(lab)
    });
    Scenario { tools: &["nft"], options: &["NFT_SYNPROXY"], ..base }
}

fn healthy(name: &'static str, title: &'static str, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    let base = template(name, title, GROUP);
    // The proxy makes the server's connection on its own, now and then only when its SYN is sent again: the journey may be over by then.
    let made = vec![Step::May(Stage::Established), Step::May(Stage::Accepted)];
    Scenario { tools: &["iptables-nft"], break_it, expect: Expect { path: [proxied(), made].concat(), ..base.expect }, ..base }
}

/// The client is connected with the firewall, and reset when that finds nobody.
fn nobody() -> Scenario {
    let base = template("synproxy-no-listener", "a SYN proxy stands before a port where nobody listens", GROUP);
    Scenario {
        tools: &["iptables-nft"],
        break_it: |lab| proxy(lab),
        client: Seen::Reset,
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::NotAccepted],
            inferred: true,
            says: "SYN proxy (synproxy) only: nothing listens on port 8080",
            path: proxied(),
            ..base.expect
        },
        ..base
    }
}

/// Connection tracking takes up a connection in the middle, so the rule does not see the confirmation, and the server gets one of nothing.
fn unasked() -> Scenario {
    let base =
        template("synproxy-loose", "a SYN proxy whose connections are taken up in the middle stands before the server", GROUP);
    Scenario {
        tools: &["iptables-nft"],
        break_it: |lab| {
            serve_any(lab)?;
            untracked_to_proxy(lab)
        },
        client: Seen::Reset,
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::NotAccepted],
            inferred: true,
            says: "nf_conntrack_tcp_loose",
            path: answered_in_its_place(),
            ..base.expect
        },
        ..base
    }
}

/// The SYN to the firewall, and its answer.
fn answered_in_its_place() -> Vec<Step> {
    [inbound(Stage::InputFilter), vec![Step::Must(Stage::SynAck)], answer()].concat()
}

/// The same, and the firewall's own SYN, which carries on the client's.
fn proxied() -> Vec<Step> {
    [answered_in_its_place(), vec![Step::Must(Stage::TcIngress)]].concat()
}

fn proxy(lab: &Lab) -> Result<(), LabError> {
    untracked_to_proxy(lab)?;
    strict(lab)
}

fn untracked_to_proxy(lab: &Lab) -> Result<(), LabError> {
    lab.iptables("iptables-nft", &format!("-t raw -A PREROUTING -i eth0 -p tcp --dport {PORT} --syn -j CT --notrack"))?;
    let unknown = "-m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460";
    lab.iptables("iptables-nft", &format!("-A INPUT -p tcp --dport {PORT} {unknown}"))?;
    lab.iptables("iptables-nft", &format!("-A INPUT -p tcp --dport {PORT} -m conntrack --ctstate INVALID -j DROP"))
}

/// An ACK out of nowhere begins no connection. Where connection tracking is a module, there is such a setting once rules ask for it.
fn strict(lab: &Lab) -> Result<(), LabError> {
    lab.wsl.set_sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")
}
