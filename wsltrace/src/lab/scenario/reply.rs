//! The SYN is answered, and the fault, if any, lies on the answer's way.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use super::forwarding::{INNER_PORT, serve_published};
use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::foreign::{Attach, Foreign};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{acknowledged_again, answer, inbound, into_container, through, unconfirmed, up_to_answer};
use crate::lab::sides::{CLIENT_V4, WSL_V4};
use crate::lab::{LabError, Manner, PORT, Seen, Side, Step};

const GROUP: &str = "answers";
/// An address of the client outside of every network that WSL knows.
pub(super) const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The network that WSL and its IPv6 client share.
const CLIENT_NETWORK_V6: &str = "fd00:28:16::/64";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        dropped_in_output(),
        reset_dropped(),
        reject_dropped(),
        dropped_in_forward(),
        dropped_on_loopback(),
        sent_again(),
        no_route_back(),
        wrong_interface(),
        wrong_neighbour(),
        redirected_by_program(),
        redirected_by_rule(),
        dropped_by_tc(),
        dropped_at_egress(),
        dropped_by_queue(),
        held_back(),
        never_confirmed(),
        two_tracers(template("two-tracers", "nothing is broken: two tracers watch at once", GROUP)),
        two_tracers(Scenario {
            name: "two-tracers-drop",
            title: "the OUTPUT chain drops the server's answers, and two tracers watch",
            ..dropped_in_output()
        }),
    ]
}

fn dropped_in_output() -> Scenario {
    let base = dies("reply-drop-output", "the OUTPUT chain drops the server's answers", Stage::OutputFilter, "output");
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft("inet", "type filter hook output priority filter", &format!("tcp sport {PORT} drop"))
        },
        expect: Expect { path: [answered_inbound(), up_to_answer(Stage::OutputFilter)].concat(), ..base.expect },
        ..base
    }
}

/// The client waits for an answer to a port without a server.
fn reset_dropped() -> Scenario {
    let base = dies(
        "reply-drop-reset",
        "nothing listens, and the OUTPUT chain drops the reset that says so",
        Stage::OutputFilter,
        "output",
    );
    Scenario {
        break_it: |lab| {
            let rule = format!("tcp sport {PORT} tcp flags & rst == rst drop");
            lab.wsl.nft("inet", "type filter hook output priority filter", &rule)
        },
        mended: None,
        expect: Expect {
            says: "nothing took",
            path: [inbound(Stage::SocketLookup), up_to_answer(Stage::OutputFilter)].concat(),
            ..base.expect
        },
        ..base
    }
}

/// A firewall refuses the SYN, and another rule keeps that from the client: the first one is what has to be opened.
fn reject_dropped() -> Scenario {
    let base = dies(
        "reply-drop-reject",
        "a rule rejects with a TCP reset, and the OUTPUT chain drops that",
        Stage::OutputFilter,
        "output",
    );
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            let reject = format!("tcp dport {PORT} reject with tcp reset");
            lab.wsl.nft("inet", "type filter hook input priority filter", &reject)?;
            lab.wsl.nft("inet", "type filter hook output priority filter", "tcp flags & rst == rst drop")
        },
        mended: None,
        expect: Expect {
            says: "(tcp dport 8080 reject with tcp reset), and the reset that says so was dropped",
            path: [inbound(Stage::InputFilter), up_to_answer(Stage::OutputFilter)].concat(),
            ..base.expect
        },
        ..base
    }
}

fn dropped_in_forward() -> Scenario {
    let base = dies("reply-drop-forward", "the FORWARD chain drops a container's answers", Stage::ForwardFilter, "forward");
    // On its way back the answer comes in by the bridge's port, and then again by the bridge.
    let wires = vec![Step::May(Stage::TcIngress)];
    Scenario {
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.nft(lab.family(), "type filter hook forward priority filter", &format!("tcp sport {INNER_PORT} drop"))
        },
        expect: Expect {
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer(), wires, through(Stage::ForwardFilter)].concat(),
            ..base.expect
        },
        ..base
    }
}

fn dropped_on_loopback() -> Scenario {
    let base = dies("reply-drop-lo", "the INPUT chain drops answers that come back over lo", Stage::InputFilter, "input");
    Scenario {
        from: Side::Wsl,
        target: Ipv4Addr::LOCALHOST.into(),
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft("inet", "type filter hook input priority filter", &format!("tcp sport {PORT} drop"))
        },
        expect: Expect {
            origin: Origin::Local,
            path: [answer(), answered_inbound(), answer(), inbound(Stage::InputFilter)].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The client gets no SYN-ACK before it has sent its SYN again. That one meets the request that the first has left.
fn sent_again() -> Scenario {
    let base =
        template("syn-sent-again", "nothing is broken here: the first SYN-ACK is lost at the client, who sends again", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.client.nft_script(&format!(
                "table inet lab {{
                    set again {{ type inet_service; flags dynamic; size 16; }}
                    chain output {{
                        type filter hook output priority 0;
                        tcp dport {PORT} tcp flags & (syn | ack) == syn numgen inc mod 1000 == 1 add @again {{ tcp sport }}
                    }}
                    chain input {{
                        type filter hook input priority 0;
                        tcp sport {PORT} tcp flags & (syn | ack) == (syn | ack) tcp dport != @again drop
                    }}
                }}"
            ))
        },
        expect: Expect { path: unconfirmed(), ..base.expect.clone() },
        again: Some(Expect { path: acknowledged_again(), ..base.expect.clone() }),
        ..base
    }
}

fn no_route_back() -> Scenario {
    let base = template("no-route-back", "WSL has no route to the client", GROUP);
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            if lab.v6 {
                return lab.wsl.ip(&format!("route del {CLIENT_NETWORK_V6} dev eth0"));
            }
            lab.client.address("eth0", STRANGER.into(), 32)?;
            lab.client.route_to(lab.at(WSL_V4), Way::Gateway(lab.at(WSL_V4), Some(STRANGER.into())))?;
            lab.wsl.ip("route del default")
        },
        client: Seen::NoAnswer,
        witness: Some(("TcpExt", "ListenDrops")),
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            codes: &[Code::NoRouteBack],
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

fn wrong_interface() -> Scenario {
    let base = template("reply-wrong-interface", "WSL's route to the client leads by another interface (as with a VPN)", GROUP);
    Scenario {
        tools: &["ip"],
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.route_to(lab.at(CLIENT_V4), Way::Device("eth1"))?;
            // Somebody takes it there, so that it leaves.
            lab.wsl.ip(&format!("neighbour replace {} lladdr 02:00:00:00:00:01 dev eth1 nud permanent", lab.at(CLIENT_V4)))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Set),
        expect: Expect {
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            path: [answered_inbound(), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

fn wrong_neighbour() -> Scenario {
    let base = template(
        "reply-wrong-neighbour",
        "WSL's route to the client leads by another interface, where nobody has the client's address",
        GROUP,
    );
    Scenario {
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.set_sysctl("net.ipv4.neigh.eth1.retrans_time_ms", "100")?;
            lab.wsl.route_to(lab.at(CLIENT_V4), Way::Device("eth1"))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Set),
        settle: Some(|lab| lab.wsl.await_failed_neighbour(CLIENT_V4.into())),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::Neighbour, Side::Wsl)),
            reason: Some(("NEIGH_FAILED", (5, 18))),
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            path: [answered_inbound(), up_to_answer(Stage::Snat), vec![Step::Must(Stage::Neighbour)]].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Behind the place where the tracer sees it leave: it comes to the other device as well.
fn redirected_by_program() -> Scenario {
    let base = template("reply-redirect-tc", "somebody's BPF program at tc sends the answers out by another interface", GROUP);
    Scenario {
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_any(lab)?;
            lab.keep(Foreign::redirecting(&lab.wsl, Attach::TcxEgress("eth0"), "eth1")?);
            Ok(())
        },
        client: Seen::NoAnswer,
        settle: Some(|lab| lab.wsl.await_counter("TcpExt", "TCPSynRetrans", 1)),
        expect: Expect {
            codes: &[Code::ReplyWrongInterface],
            inferred: true,
            says: "the BPF program `stranger` at tc egress of eth0 sends it there",
            path: [answered_inbound(), answer(), vec![Step::Must(Stage::TcEgress)]].concat(),
            ..base.expect
        },
        ..base
    }
}

fn redirected_by_rule() -> Scenario {
    let base = template("reply-redirect-nft", "nftables at the device sends the answers out by another one (fwd)", GROUP);
    Scenario {
        tools: &["nft"],
        options: &["NFT_FWD_NETDEV"],
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_any(lab)?;
            let kind = "type filter hook egress device eth0 priority 0; policy accept";
            lab.wsl.nft("netdev", kind, &format!("tcp sport {PORT} fwd to eth1"))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            says: "at the way out of eth0 sends it there",
            path: [answered_inbound(), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Behind the place where the tracer sees it leave.
fn dropped_by_tc() -> Scenario {
    let base = template("reply-drop-tc", "somebody's BPF program at tc drops what goes out", GROUP);
    Scenario {
        break_it: |lab| {
            const TC_ACT_SHOT: i32 = 2;
            serve_any(lab)?;
            lab.keep(Foreign::answering(&lab.wsl, Attach::TcxEgress("eth0"), TC_ACT_SHOT)?);
            Ok(())
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::TcEgress, Side::Wsl)),
            reason: Some(("TC_EGRESS", (5, 18))),
            codes: &[Code::ReplyDropped],
            proved: true,
            says: "the BPF program `stranger` is attached there",
            path: [answered_inbound(), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// In the chain of the device's way out, which stands behind POSTROUTING.
fn dropped_at_egress() -> Scenario {
    let base =
        dies("reply-drop-egress", "nftables drops the answers in the egress chain of the device", Stage::Postrouting, "egress");
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            let kind = "type filter hook egress device eth0 priority 0; policy accept";
            lab.wsl.nft("netdev", kind, &format!("tcp sport {PORT} drop"))
        },
        expect: Expect {
            says: "in the nftables egress chain of its device on eth0",
            path: [answered_inbound(), up_to_answer(Stage::Snat)].concat(),
            ..base.expect
        },
        ..base
    }
}

fn dropped_by_queue() -> Scenario {
    let base = dropped_by_tc();
    Scenario {
        name: "reply-drop-qdisc",
        title: "the queueing discipline of the device has no room for the answers",
        tools: &["tc"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.tc("qdisc add dev eth0 root pfifo limit 0")
        },
        mended: Some(Mended::Set),
        expect: Expect { reason: Some(("QDISC_DROP", (5, 18))), says: "it is `pfifo`", ..base.expect },
        ..base
    }
}

/// As by a rate that somebody has set for too little. The first packet takes what the class may send at once.
fn held_back() -> Scenario {
    let base = template("reply-held-back", "a queueing discipline of the device holds the answers back", GROUP);
    Scenario {
        tools: &["tc"],
        options: &["NET_SCH_HTB"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.tc("qdisc add dev eth0 root handle 1: htb default 10")?;
            lab.wsl.tc("class add dev eth0 parent 1: classid 1:10 htb rate 8bit burst 1 cburst 1")?;
            let to = SocketAddr::new(lab.at(CLIENT_V4), 9);
            let send = || UdpSocket::bind(SocketAddr::new(lab.any(), 0))?.send_to(&[0], to);
            lab.wsl.run(|| send().map(drop).map_err(LabError::io("send a packet to the client")))
        },
        client: Seen::NoAnswer,
        settle: Some(|lab| lab.wsl.await_counter("TcpExt", "TCPSynRetrans", 1)),
        mended: Some(Mended::Set),
        expect: Expect {
            codes: &[Code::ReplyUnanswered],
            inferred: true,
            says: "in the queueing discipline `htb` of eth0",
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}

/// The client gets the answer, and sends nothing: as when a firewall behind this machine takes what comes back.
fn never_confirmed() -> Scenario {
    let base = template("reply-unanswered", "the client never confirms, and the SYN-ACK is sent again", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            let rule = format!("tcp dport {PORT} tcp flags & rst == rst drop");
            lab.client.nft(lab.family(), "type filter hook output priority 0", &rule)
        },
        manner: Manner::NeverConfirms,
        client: Seen::NoAnswer,
        expect: Expect { codes: &[Code::ReplyUnanswered], proved: true, path: unconfirmed(), ..base.expect },
        ..base
    }
}

fn two_tracers(scenario: Scenario) -> Scenario {
    Scenario { tracers: 2, ..scenario }
}

/// A chain of WSL drops the answer at this stage.
fn dies(name: &'static str, title: &'static str, stage: Stage, chain: &'static str) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools: &["nft"],
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((stage, Side::Wsl)),
            reason: Some(("NETFILTER_DROP", (5, 18))),
            codes: &[Code::ReplyDropped],
            proved: true,
            firewall: Some((Backend::Nft, chain)),
            ..base.expect
        },
        ..base
    }
}

/// From outside to the socket that answers.
fn answered_inbound() -> Vec<Step> {
    [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)]].concat()
}
