//! Rules that let the port be used, but only so often, so much, or by so many at once: the first connection is made, and a later
//! one is dropped or rejected.

use std::io::Write as _;
use std::net::SocketAddr;

use nix::errno::Errno;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend::{self, IptablesLegacy, IptablesNft, Nft};
use crate::journey::{Outcome, Stage};
use crate::lab::client::ANSWER_PATIENCE;
use crate::lab::mend::Mended;
use crate::lab::path::{answer, inbound, unconfirmed};
use crate::lab::{Attempt, ClientResult, Lab, LabError, Manner, PORT, Seen, Side};

/// More than the quotas of these scenarios, bytes.
const MORE: usize = 3000;
/// What is said of a rule that lets in so much and no more.
const SAYS: &str = "it is a limit";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        connections_nft(),
        connections_iptables(),
        rate_nft(),
        rate_iptables(),
        rate_of_packets(),
        rate_of_strangers(),
        recent(),
        quota_nft(),
        quota_iptables(),
    ]
}

fn connections_nft() -> Scenario {
    let title = "nftables lets in one connection at a time (ct count), and somebody has it";
    drops("limit-connections-nft", title, Nft, |lab| {
        serve_any(lab)?;
        limit(lab, &format!("tcp dport {PORT} ct count over 1 drop"))?;
        stay(lab)
    })
}

/// As servers are guarded: who has too many is told so.
fn connections_iptables() -> Scenario {
    let title = "iptables (nft) rejects an address that has a connection already (connlimit)";
    let base = drops("limit-connections-iptables-nft", title, IptablesNft, |lab| {
        serve_any(lab)?;
        let above_one = "-m connlimit --connlimit-above 1 -j REJECT --reject-with tcp-reset";
        lab.iptables("iptables-nft", &format!("-A INPUT -p tcp --dport {PORT} --syn {above_one}"))?;
        stay(lab)
    });
    Scenario {
        client: Seen::Failed(Errno::ECONNREFUSED),
        expect: Expect {
            outcomes: &[Outcome::Rejected],
            codes: &[Code::FirewallReject],
            path: [inbound(Stage::InputFilter), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

fn rate_nft() -> Scenario {
    let title = "nftables lets every address connect once an hour (a set with a limit), and it has done so";
    drops("limit-rate-nft", title, Nft, |lab| {
        serve_any(lab)?;
        let (family, of) = if lab.v6 { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
        lab.wsl.nft_script(&format!(
            "table inet lab {{
                set came {{ type {of}; flags dynamic; size 64; }}
                chain input {{
                    type filter hook input priority filter; policy accept;
                    tcp dport {PORT} ct state new add @came {{ {family} saddr limit rate over 1/hour burst 1 packets }} drop
                }}
            }}"
        ))?;
        come(lab)
    })
}

fn rate_iptables() -> Scenario {
    let title = "iptables (legacy) lets every address connect once an hour (hashlimit), and it has done so";
    drops("limit-rate-iptables-legacy", title, IptablesLegacy, |lab| {
        serve_any(lab)?;
        let limit = "-m hashlimit --hashlimit-name lab --hashlimit-mode srcip --hashlimit-above 1/hour --hashlimit-burst 1";
        let rule = format!("-A INPUT -p tcp --dport {PORT} --syn {limit} -j DROP");
        lab.iptables("iptables-legacy", &rule)?;
        come(lab)
    })
}

/// The limit is meant for connections, and counts packets.
fn rate_of_packets() -> Scenario {
    let title = "iptables (legacy) lets in one packet an hour (hashlimit), and the first is the SYN";
    let base = rate_iptables();
    Scenario {
        title,
        name: "limit-packets-iptables-legacy",
        break_it: |lab| {
            serve_any(lab)?;
            let limit = "-m hashlimit --hashlimit-name lab --hashlimit-above 1/hour --hashlimit-burst 1";
            let reset = "-j REJECT --reject-with tcp-reset";
            lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} {limit} {reset}"))
        },
        client: Seen::Reset,
        expect: Expect {
            outcomes: &[Outcome::Answered],
            died: None,
            unconfirmed: Some(Side::Wsl),
            codes: &[Code::FirewallReject],
            inferred: true,
            says: "most likely it is rule 1 of ip filter INPUT",
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}

/// The rule is about every port. What lets one through must stand before it.
fn rate_of_strangers() -> Scenario {
    let title = "nftables limits how many new connections come to all ports together, and no more may come";
    let base = drops("limit-rate-all-nft", title, Nft, |lab| {
        serve_any(lab)?;
        limit(lab, "iifname eth0 ct state new meta l4proto tcp limit rate over 1/hour burst 1 packets drop")?;
        come(lab)
    });
    Scenario { mended: Some(Mended::Added(1)), ..base }
}

/// As `ssh` is often guarded.
fn recent() -> Scenario {
    let title = "iptables (nft) drops who came twice within a minute (recent)";
    let base = drops("limit-recent-iptables-nft", title, IptablesNft, |lab| {
        serve_any(lab)?;
        for seen in ["--set", "--update --seconds 60 --hitcount 3 -j DROP"] {
            lab.iptables("iptables-nft", &format!("-A INPUT -p tcp --dport {PORT} --syn -m recent --name lab {seen}"))?;
        }
        come(lab)?;
        come(lab)
    });
    Scenario { expect: Expect { says: "it asks how often this address came before", ..base.expect }, ..base }
}

fn quota_nft() -> Scenario {
    let title = "nftables drops what exceeds a quota of bytes, and it is used up";
    drops("limit-quota-nft", title, Nft, |lab| {
        serve_any(lab)?;
        limit(lab, &format!("tcp dport {PORT} quota over 1 kbytes drop"))?;
        use_up(lab)
    })
}

/// What is within the quota is accepted, and another rule drops the rest: that one is no limit by itself.
fn quota_iptables() -> Scenario {
    let title = "iptables (legacy) accepts a quota of bytes and drops what comes after it";
    let base = drops("limit-quota-iptables-legacy", title, IptablesLegacy, |lab| {
        serve_any(lab)?;
        lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} -m quota --quota 1000 -j ACCEPT"))?;
        lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} -j DROP"))?;
        use_up(lab)
    });
    Scenario { expect: Expect { says: "by rule 2 of", ..base.expect }, ..base }
}

fn drops(name: &'static str, title: &'static str, backend: Backend, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    let base = template(name, title, "limits");
    Scenario {
        tools: match backend {
            Nft => &["nft"],
            IptablesNft => &["iptables-nft"],
            IptablesLegacy => &["iptables-legacy"],
        },
        break_it,
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::FirewallDrop],
            firewall: Some((backend, if backend == Nft { "input" } else { "INPUT" })),
            says: SAYS,
            path: inbound(Stage::InputFilter),
            ..base.expect.dropped_by_netfilter(Stage::InputFilter, Side::Wsl)
        },
        ..base
    }
}

/// Loads a rule of nftables for INPUT.
fn limit(lab: &Lab, rule: &str) -> Result<(), LabError> {
    lab.wsl.nft("inet", "type filter hook input priority filter", rule)
}

/// Connects, which the rule must let happen, and leaves.
fn come(lab: &Lab) -> Result<(), LabError> {
    connect(lab, Manner::Listens).map(drop)
}

/// Connects, and stays as long as the lab.
pub(super) fn stay(lab: &mut Lab) -> Result<(), LabError> {
    let connection = connect(lab, Manner::Silent)?;
    lab.keep(connection);
    Ok(())
}

fn connect(lab: &Lab, manner: Manner) -> Result<ClientResult, LabError> {
    let target = SocketAddr::new(Lab::wsl_address(lab.v6), PORT);
    let earlier = Attempt { target, from_port: 0, manner, patience: ANSWER_PATIENCE }.make(&lab.client)?;
    if earlier.seen != Seen::Connected {
        return Err(LabError::Failed(format!("the limit lets nobody in: an earlier client saw '{}'", earlier.seen)));
    }
    Ok(earlier)
}

/// Sends more than the rule lets in. The connection ends with the lab.
fn use_up(lab: &mut Lab) -> Result<(), LabError> {
    let ClientResult { open: Some(socket), .. } = connect(lab, Manner::Silent)? else {
        return Err(LabError::Failed("the earlier connection is gone".into()));
    };
    // The kernel takes it into the socket's buffer, and whether it comes through is another matter.
    (&*socket).write_all(&[0; MORE]).map_err(LabError::io("use up the quota"))?;
    lab.keep(socket);
    Ok(())
}
