//! The SYN is let in and answered, and what the client sends next is not.

use socket2::SockFilter;

use super::forwarding::{INNER_PORT, serve_published};
use super::policy::serve_with;
use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend::{self, IptablesLegacy, Nft};
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{answer, back_through, inbound, into_container, unconfirmed};
use crate::lab::{Lab, LabError, Manner, PORT, Seen, Side, Step};

const GROUP: &str = "after the answer";
/// A rule that drops what has the ACK flag and no SYN flag.
const ACK_ALONE: &str = "tcp flags & (syn | ack) == ack drop";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        new_only(),
        answer_exempt(),
        syn_only_legacy(),
        in_output(),
        rejected(),
        in_forward(),
        in_container(),
        at_socket(),
        marked(),
        at_client(),
        of_cgroup(),
    ]
}

/// The rule for packets of connections that stand was forgotten.
fn new_only() -> Scenario {
    let title = "nftables lets in new connections only, and the policy drops what follows";
    let base = dies("confirmation-drop-nft", title, Nft, "input", |lab| {
        serve_any(lab)?;
        new_only_by_nft(&lab.wsl, "input", "iif lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")
    });
    Scenario { mended: Some(Mended::Added(1)), expect: Expect { says: "the policy of inet lab input", ..base.expect }, ..base }
}

/// Connection tracking sees the SYN and not the answer, so that what follows is no part of the connection to it.
fn answer_exempt() -> Scenario {
    let title = "the server's answers are exempt from connection tracking, and a policy drops what follows them";
    let base = dies("confirmation-drop-untracked", title, Nft, "input", |lab| {
        serve_any(lab)?;
        lab.wsl.nft("inet", "type filter hook output priority raw", &format!("tcp sport {PORT} notrack"))?;
        new_only_by_nft(
            &lab.wsl,
            "input",
            "iif lo accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; ct state established accept",
        )
    });
    Scenario { mended: Some(Mended::Added(1)), expect: Expect { says: "the policy of inet lab input", ..base.expect }, ..base }
}

fn syn_only_legacy() -> Scenario {
    let title = "iptables (legacy) lets in SYNs only";
    let base = dies("confirmation-drop-iptables-legacy", title, IptablesLegacy, "INPUT", |lab| {
        serve_any(lab)?;
        lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} --syn -j ACCEPT"))?;
        lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} -j DROP"))
    });
    Scenario { tools: &["iptables-legacy"], mended: Some(Mended::Removed), ..base }
}

fn rejected() -> Scenario {
    let title = "nftables lets in SYNs only, and answers what follows with a reset";
    let base = dies("confirmation-reject-nft", title, Nft, "input", |lab| {
        serve_any(lab)?;
        let rule = format!("tcp dport {PORT} tcp flags & (syn | ack) == ack reject with tcp reset");
        lab.wsl.nft("inet", "type filter hook input priority filter", &rule)
    });
    Scenario {
        client: Seen::Reset,
        mended: Some(Mended::Removed),
        expect: Expect { codes: &[Code::FirewallReject], says: "rejected the client's next packet", ..base.expect },
        ..base
    }
}

/// It does not come as far as a device.
fn in_output() -> Scenario {
    let title = "a local client's ACK is dropped in OUTPUT";
    let base = dies("confirmation-drop-output", title, Nft, "output", |lab| {
        serve_any(lab)?;
        lab.wsl.nft("inet", "type filter hook output priority filter", &format!("tcp dport {PORT} {ACK_ALONE}"))
    });
    let back_in = inbound(Stage::InputSecurity);
    Scenario {
        from: Side::Wsl,
        target: std::net::Ipv4Addr::LOCALHOST.into(),
        mended: Some(Mended::Removed),
        expect: Expect {
            origin: Origin::Local,
            path: [answer(), inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], answer(), back_in].concat(),
            ..base.expect
        },
        ..base
    }
}

fn in_forward() -> Scenario {
    let title = "the FORWARD chain lets new connections to a container pass, and not what follows";
    let base = dies("confirmation-drop-forward", title, Nft, "forward", |lab| {
        serve_published(lab)?;
        new_only_by_nft(&lab.wsl, "forward", &format!("tcp sport {INNER_PORT} accept"))
    });
    Scenario { mended: Some(Mended::Added(1)), ..to_container(base) }
}

fn in_container() -> Scenario {
    let title = "a container's own firewall lets in new connections only";
    let base = dies("confirmation-drop-container", title, Nft, "input", |lab| {
        serve_published(lab)?;
        new_only_by_nft(lab.side(Side::Container)?, "input", "iif lo accept")
    });
    let base = to_container(base);
    Scenario { expect: Expect { unconfirmed: Some(Side::Container), ..base.expect }, ..base }
}

/// A SYN has no socket yet, and what follows it has the listener's. Whether its control group is the one that is meant no rule tells.
fn of_cgroup() -> Scenario {
    let title = "nftables drops what is for sockets of a control group, which the ACK is and no SYN";
    let base = dies("confirmation-drop-cgroup", title, Nft, "input", |lab| {
        serve_any(lab)?;
        lab.wsl.nft("inet", "type filter hook input priority filter", &format!("tcp dport {PORT} meta cgroup 0 drop"))
    });
    Scenario {
        options: &["CGROUP_NET_CLASSID"],
        mended: Some(Mended::Removed),
        expect: Expect { says: "the only rule there that can drop it", ..base.expect },
        ..base
    }
}

/// It lets SYNs alone in.
fn at_socket() -> Scenario {
    let base = template("confirmation-drop-filter", "a filter on the server's socket lets in nothing but SYNs", GROUP);
    Scenario {
        break_it: |lab| {
            serve_with(lab, |socket| {
                socket.attach_filter(&[
                    // The flags of TCP.
                    SockFilter::new(0x30, 0, 0, 13),
                    // With an ACK among them keep 0 bytes, and otherwise all.
                    SockFilter::new(0x45, 1, 0, 0x10),
                    SockFilter::new(0x06, 0, 0, u32::MAX),
                    SockFilter::new(0x06, 0, 0, 0),
                ])
            })
        },
        client: Seen::Unserved,
        expect: Expect {
            unconfirmed: Some(Side::Wsl),
            reason: Some(("SOCKET_FILTER", (5, 18))),
            codes: &[Code::SocketPolicy],
            proved: true,
            says: "a filter on the server's socket",
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}

/// As scripts of VPNs do that lead the packets of connections by another way than the first one.
fn marked() -> Scenario {
    let title = "what belongs to a connection gets a mark, by which `ip rule` refuses it";
    let base = template("confirmation-marked", title, GROUP);
    let base = Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.nft(
                "inet",
                "type filter hook prerouting priority mangle",
                &format!("tcp dport {PORT} ct state established meta mark set 5"),
            )?;
            lab.ip("rule add pref 10 fwmark 5 blackhole")
        },
        client: Seen::Unserved,
        expect: Expect {
            unconfirmed: Some(Side::Wsl),
            codes: &[Code::UnexplainedDrop],
            says: "answered, and then the client's next packet, which confirms the answer, was dropped",
            ..base.expect
        },
        ..base
    };
    to_container(base)
}

/// Its own socket refuses the answer: so does a program of its control group, as systemd's `IPAddressDeny=` is one.
fn at_client() -> Scenario {
    let title = "a filter on a local client's own socket lets nothing in";
    let base = template("answer-refused-by-client", title, GROUP);
    let back_in = inbound(Stage::SocketLookup);
    Scenario {
        break_it: serve_any,
        from: Side::Wsl,
        target: std::net::Ipv4Addr::LOCALHOST.into(),
        manner: Manner::Deaf,
        client: Seen::NoAnswer,
        expect: Expect {
            origin: Origin::Local,
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::SocketLookup, Side::Wsl)),
            reason: Some(("SOCKET_FILTER", (5, 18))),
            codes: &[Code::ReplyDropped],
            proved: true,
            says: "does not let the SYN-ACK in at its own socket",
            path: [answer(), inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], answer(), back_in].concat(),
            ..base.expect
        },
        ..base
    }
}

fn to_container(base: Scenario) -> Scenario {
    Scenario {
        behind: Some(Side::Container),
        expect: Expect {
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer(), back_through()].concat(),
            ..base.expect
        },
        ..base
    }
}

fn new_only_by_nft(namespace: &crate::lab::Namespace, hook: &str, more: &str) -> Result<(), LabError> {
    let more = more.replace("; ", "\n");
    namespace.nft_script(&format!(
        "table inet lab {{
            chain {hook} {{
                type filter hook {hook} priority filter; policy drop
                ct state new accept
                {more}
            }}
        }}"
    ))
}

fn dies(
    name: &'static str,
    title: &'static str,
    backend: Backend,
    chain: &'static str,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools: &["nft"],
        break_it,
        client: Seen::Unserved,
        expect: Expect {
            unconfirmed: Some(Side::Wsl),
            reason: Some(("NETFILTER_DROP", (5, 18))),
            codes: &[Code::FirewallDrop],
            inferred: true,
            firewall: Some((backend, chain)),
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}
