//! Packets that wait until the next hop's hardware address is known, or until nobody is found to have it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::errno::Errno;

use super::forwarding::{self, publish, serve_published};
use super::reply::STRANGER;
use super::{Expect, Mended, Scenario, serve, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::network::Way;
use crate::lab::path::{answer, back_through, inbound, into_container_up_to, through, up_to_answer};
use crate::lab::sides::{CLIENT_V4, CLIENT_V6, CONTAINER, DOCKER0, WSL_V4};
use crate::lab::{Binding, Lab, PORT, Seen, Side, Step};

pub(super) const GROUP: &str = "neighbours";
/// Where a container stood once.
pub(super) const STOPPED: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);
/// What an unanswered neighbour costs its packets.
const FAILED: Option<(&str, (u32, u32))> = Some(("NEIGH_FAILED", (5, 18)));

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        cold_client(),
        cold_client_v6(),
        cold_container(),
        late_container(),
        mute_client(),
        mute_gateways(),
        unheard_client(),
        stopped_container(),
        stopping_network(),
    ]
}

fn cold_client() -> Scenario {
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.ip(&format!("neighbour del {CLIENT_V4} dev eth0"))
        },
        ..template("neighbour-cold", "nothing is broken: the answer waits for ARP, for WSL does not know the client yet", GROUP)
    }
}

fn cold_client_v6() -> Scenario {
    Scenario {
        v6: true,
        target: Lab::wsl_address(true),
        break_it: |lab| {
            serve(lab, Side::Wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT))?;
            lab.wsl.ip(&format!("neighbour del {CLIENT_V6} dev eth0"))
        },
        name: "neighbour-cold-v6",
        title: "nothing is broken: the answer waits for neighbour discovery",
        ..cold_client()
    }
}

fn cold_container() -> Scenario {
    Scenario {
        name: "neighbour-cold-container",
        title: "nothing is broken: SYN and answer wait for ARP on the container's bridge",
        group: GROUP,
        tools: &["nft", "ip"],
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.ip(&format!("neighbour del {} dev docker0", lab.at(CONTAINER)))?;
            lab.side(Side::Container)?.ip(&format!("neighbour del {} dev eth0", lab.at(DOCKER0)))
        },
        ..forwarding::dnat_answered()
    }
}

/// Two SYNs wait for the container and come to it at once: the first is answered, and the second meets the request that it has left.
fn late_container() -> Scenario {
    let base = forwarding::dnat_answered();
    let path = |last, answered| {
        [into_container_up_to(last), vec![Step::Must(Stage::SynAck)], answer(), back_through(), answered].concat()
    };
    let established = vec![Step::Must(Stage::Established), Step::May(Stage::Accepted)];
    Scenario {
        name: "neighbour-late-container",
        title: "nothing is broken but that the container answers ARP late, so that SYNs come to it together",
        group: GROUP,
        tools: &["nft", "ip"],
        options: &["NFT_QUOTA"],
        break_it: |lab| {
            serve_published(lab)?;
            // It asks again after the client has sent once more, and before it would do so for the second time.
            lab.wsl.set_sysctl("net.ipv4.neigh.docker0.retrans_time_ms", "1500")?;
            // It would ask its gateway again, and so tell where it is.
            lab.side(Side::Container)?.ip("neighbour flush dev eth0")?;
            // The first question has more bytes than half of this.
            lab.side(Side::Container)?.nft(
                "arp",
                "type filter hook input priority 0",
                "arp operation request quota until 50 bytes drop",
            )?;
            lab.wsl.ip(&format!("neighbour del {} dev docker0", lab.at(CONTAINER)))
        },
        expect: Expect { path: path(Stage::SocketLookup, Vec::new()), ..base.expect.clone() },
        again: Some(Expect { path: path(Stage::InputSecurity, established), ..base.expect.clone() }),
        ..base
    }
}

/// The client sends its SYN again and the server its SYN-ACK, while the first SYN-ACK waits.
fn mute_client() -> Scenario {
    let base = template("neighbour-mute-client", "the client's address answers no ARP, so the answer cannot be sent", GROUP);
    let waits = [vec![Step::Must(Stage::SynAck)], up_to_answer(Stage::Snat), neighbour()].concat();
    let expect = Expect {
        outcomes: &[Outcome::AnswerDropped],
        died: Some((Stage::Neighbour, Side::Wsl)),
        reason: FAILED,
        codes: &[Code::NoNeighbour],
        proved: true,
        path: [inbound(Stage::SocketLookup), waits.clone()].concat(),
        ..base.expect
    };
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            // 8: answers for none of its addresses.
            lab.client.set_sysctl("net.ipv4.conf.eth0.arp_ignore", "8")?;
            // Three questions: given up after the client has sent once more, and before it would do so for the second time.
            lab.wsl.set_sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "550")?;
            lab.wsl.ip(&format!("neighbour del {CLIENT_V4} dev eth0"))
        },
        client: Seen::NoAnswer,
        silence: Duration::from_millis(1200),
        settle: Some(|lab| lab.wsl.await_failed_neighbour(CLIENT_V4.into())),
        again: Some(Expect { path: [inbound(Stage::InputSecurity), waits].concat(), ..expect.clone() }),
        expect,
        ..base
    }
}

/// Which of several gateways a packet takes the kernel draws anew at every boot; so both are one.
fn mute_gateways() -> Scenario {
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 77);
    let mute = mute_client();
    let says = |expect: Expect| Expect { says: "the gateway to it, 172.28.16.77, does not answer ARP", ..expect };
    Scenario {
        name: "neighbour-mute-gateways",
        title: "the route to the client has two gateways that share its packets, and they answer no ARP",
        break_it: |lab| {
            serve_any(lab)?;
            lab.client.address("eth0", STRANGER.into(), 32)?;
            lab.client.route_to(lab.at(WSL_V4), Way::Gateway(lab.at(WSL_V4), Some(STRANGER.into())))?;
            lab.wsl.set_sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "550")?;
            let hop = |weight| format!("nexthop via {GATEWAY} dev eth0 weight {weight}");
            lab.wsl.ip(&format!("route add {STRANGER}/32 {} {}", hop(1), hop(2)))
        },
        settle: Some(|lab| lab.wsl.await_failed_neighbour(GATEWAY.into())),
        again: mute.again.map(says),
        expect: says(mute.expect),
        ..mute_client()
    }
}

/// A ruleset as it is often written: it lets the port in, and forgets what IPv6 neighbours ask and answer. The client knows this machine's
/// hardware address already.
fn unheard_client() -> Scenario {
    let mute = mute_client();
    let expect = |expect: Expect| Expect { proved: false, inferred: true, reason: Some(("NOT_SPECIFIED", (5, 18))), ..expect };
    Scenario {
        name: "neighbour-unheard-v6",
        title: "a policy here drops what the IPv6 client answers to the question for its hardware address",
        v6: true,
        target: Lab::wsl_address(true),
        tools: &["nft", "ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft_script(
                "table inet filter { chain input { type filter hook input priority 0; policy drop; tcp dport 8080 accept; }; }",
            )?;
            lab.wsl.set_sysctl("net.ipv6.neigh.eth0.retrans_time_ms", "550")?;
            lab.wsl.ip(&format!("neighbour del {CLIENT_V6} dev eth0"))
        },
        settle: Some(|lab| lab.wsl.await_failed_neighbour(CLIENT_V6.into())),
        again: mute.again.map(expect),
        expect: expect(mute.expect),
        mended: Some(Mended::Added(1)),
        ..mute
    }
}

/// What is printed only looks: no command of this machine's starts a container that is gone, and the rule that leads to it may be right.
/// Every SYN that the client sends meanwhile waits with the first, and all die in one instant.
pub(super) fn stopped_container() -> Scenario {
    let base = template("neighbour-stopped", "a published port whose container has stopped", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            publish(lab, STOPPED)?;
            // Not at the same time as the client, which sends again after every second.
            let family = if lab.v6 { "ipv6" } else { "ipv4" };
            lab.wsl.set_sysctl(&format!("net.{family}.neigh.docker0.retrans_time_ms"), "900")
        },
        client: Seen::Failed(Errno::EHOSTUNREACH),
        settle: Some(|lab| lab.wsl.await_failed_neighbour(lab.at(STOPPED))),
        witness: Some(("Icmp", "OutDestUnreachs")),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Neighbour, Side::Wsl)),
            reason: FAILED,
            codes: &[Code::NoNeighbour],
            proved: true,
            path: [through(Stage::Snat), neighbour(), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// As when docker takes a network down while a client waits for one of its containers.
fn stopping_network() -> Scenario {
    let stopped = stopped_container();
    Scenario {
        name: "neighbour-network-stops",
        title: "the container's network is taken down while the SYN waits there for ARP",
        tools: &["nft", "ip"],
        break_it: |lab| {
            publish(lab, STOPPED)?;
            let family = if lab.v6 { "ipv6" } else { "ipv4" };
            // It would wait three times as long.
            lab.wsl.set_sysctl(&format!("net.{family}.neigh.docker0.retrans_time_ms"), "60000")
        },
        client: Seen::NoAnswer,
        settle: Some(|lab| lab.wsl.ip("link set docker0 down")),
        witness: None,
        expect: Expect {
            reason: Some(("QUEUE_PURGE", (6, 6))),
            path: [through(Stage::Snat), neighbour()].concat(),
            says: "the kernel forgot that neighbour",
            ..stopped.expect
        },
        ..stopped
    }
}

fn neighbour() -> Vec<Step> {
    vec![Step::Must(Stage::Neighbour)]
}
