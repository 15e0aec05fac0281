//! Packets that are sent where they cannot be taken: by DNAT, by a redirect before routing, by a network that is gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;

use super::forwarding::{INNER_PORT, publish, serve_published};
use super::{Expect, Scenario, serve, serve_all, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{answer, inbound, through, up_to_answer};
use crate::lab::sides::CONTAINER;
use crate::lab::{Binding, Lab, LabError, PORT, Seen, Side, Step};

const GROUP: &str = "sent astray";
/// A port that nobody listens on.
const DEAD_PORT: u16 = 9999;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        redirected(
            "redirect-no-listener",
            "a rule redirects the port to one without a server",
            &["nft"],
            "by rule handle",
            |lab| {
                let rule = format!("tcp dport {PORT} redirect to :{DEAD_PORT}");
                lab.wsl.nft("inet", "type nat hook prerouting priority dstnat", &rule)
            },
        ),
        redirected(
            "redirect-no-listener-legacy",
            "iptables (legacy) redirects the port to one without a server",
            &["iptables-legacy"],
            "by rule 1 of ip",
            |lab| {
                let rule = format!("-t nat -A PREROUTING -p tcp --dport {PORT} -j REDIRECT --to-port {DEAD_PORT}");
                lab.iptables("iptables-legacy", &rule)
            },
        ),
        Scenario {
            expect: Expect {
                codes: &[Code::ListenerBoundElsewhere],
                says: "only, and the client asked for",
                ..to_loopback().expect
            },
            ..to_loopback()
        },
        past_a_server(),
        dnat_to_loopback_v6(),
        dnat_out_of_loopback(),
        hops_used_up(),
        network_gone(),
        route_gone(),
        taken_away(),
    ]
}

/// `redirect` leads to the address of the interface that the packet came by, and not to 127.0.0.1.
fn to_loopback() -> Scenario {
    redirected(
        "redirect-loopback-server",
        "a rule redirects the port to one whose server listens on loopback only",
        &["nft"],
        "by rule handle",
        |lab| {
            let own: IpAddr = if lab.any().is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            serve(lab, Side::Wsl, Binding::new(own, DEAD_PORT))?;
            let rule = format!("tcp dport {PORT} redirect to :{DEAD_PORT}");
            lab.wsl.nft("inet", "type nat hook prerouting priority dstnat", &rule)
        },
    )
}

/// Of a proxy that is gone. The server has come back to its port since.
fn past_a_server() -> Scenario {
    let title = "a rule redirects the port to one without a server, past the server that listens on it";
    let base = redirected("redirect-past-server", title, &["nft"], "which listens on it here", |lab| {
        serve_any(lab)?;
        let rule = format!("tcp dport {PORT} redirect to :{DEAD_PORT}");
        lab.wsl.nft("inet", "type nat hook prerouting priority dstnat", &rule)
    });
    Scenario { mended: Some(Mended::Removed), ..base }
}

fn redirected(
    name: &'static str,
    title: &'static str,
    tools: &'static [&'static str],
    says: &'static str,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools,
        break_it,
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::NoListener],
            proved: true,
            says,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

/// IPv6 has no `route_localnet`.
fn dnat_to_loopback_v6() -> Scenario {
    let base = template("dnat-to-loopback-v6", "a DNAT rule leads IPv6 clients to ::1", GROUP);
    Scenario {
        tools: &["nft"],
        v6: true,
        target: Lab::wsl_address(true),
        break_it: |lab| {
            serve(lab, Side::Wsl, Binding::new(Ipv6Addr::LOCALHOST, PORT))?;
            lab.wsl.nft("ip6", "type nat hook prerouting priority dstnat", &format!("tcp dport {PORT} dnat to ::1"))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            // There is no default route either, so that it does not come as far as forwarding.
            outcomes: &[Outcome::Rejected],
            died: Some((Stage::Routing, Side::Wsl)),
            codes: &[Code::MartianAddress],
            inferred: true,
            says: "takes packets for ::1 from lo only",
            path: [inbound(Stage::Routing), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// WSL's own client asks for 127.0.0.1, and the container's bridge takes no packet from there.
fn dnat_out_of_loopback() -> Scenario {
    let title = "a container's port, asked for at 127.0.0.1 from inside, while route_localnet is off";
    let base = template("dnat-out-of-loopback", title, GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        from: Side::Wsl,
        target: IpAddr::V4(Ipv4Addr::LOCALHOST),
        break_it: |lab| {
            serve_all(lab, Side::Container, INNER_PORT)?;
            lab.wsl.nft_script(&format!(
                "table ip lab {{
                    chain output {{
                        type nat hook output priority -100
                        ip daddr 127.0.0.1 tcp dport {PORT} dnat to {CONTAINER}:{INNER_PORT}
                    }}
                    chain postrouting {{ type nat hook postrouting priority srcnat; oifname \"docker0\" masquerade
                    }}
                }}"
            ))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Set),
        expect: Expect {
            origin: Origin::Local,
            codes: &[Code::MartianAddress],
            inferred: true,
            translated: Some((Ipv4Addr::LOCALHOST.into(), SocketAddr::new(CONTAINER.into(), INNER_PORT))),
            path: up_to_answer(Stage::OutputNat),
            ..base.expect.dropped_by_netfilter(Stage::OutputNat, Side::Wsl)
        },
        ..base
    }
}

fn hops_used_up() -> Scenario {
    let base = template("ttl-used-up", "the SYN comes with a TTL of 1 and is for a container", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_all(lab, Side::Container, INNER_PORT)?;
            let field = if lab.v6 { "ip6 hoplimit" } else { "ip ttl" };
            lab.client.nft(lab.family(), "type filter hook output priority 0", &format!("tcp dport {PORT} {field} set 1"))?;
            // What the kernel says of it does not come to the client.
            lab.wsl.nft_script(
                "table inet quiet { chain output { type filter hook output priority 0; meta l4proto { icmp, icmpv6 } drop
                }
            }",
            )?;
            publish(lab, CONTAINER)
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            reason: Some(("IP_INHDR", (6, 1))),
            codes: &[Code::BadPacket],
            proved: true,
            says: "time to live has run out",
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}

/// Only the default route is left, and it leads back to where the SYN came from.
fn network_gone() -> Scenario {
    let base = template("container-network-gone", "a published port, and the bridge of the container is gone", GROUP);
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.ip("link delete docker0")
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Forwarded],
            codes: &[Code::Forwarded],
            inferred: true,
            says: "is behind veth0, which has no address of that network (any longer), so that no route leads there",
            path: through(Stage::TcEgress),
            ..base.expect
        },
        ..base
    }
}

/// The same with the bridge still there, and the container behind it.
fn route_gone() -> Scenario {
    let base = network_gone();
    Scenario {
        name: "container-route-gone",
        title: "a published port, and the route to the container's network is gone",
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.ip("route del 172.17.0.0/16 dev docker0")
        },
        mended: Some(Mended::Added(1)),
        expect: Expect { says: "is behind docker0, and the routes do not lead there", ..base.expect },
        ..base
    }
}

fn taken_away() -> Scenario {
    let base = template("ingress-redirect-nft", "nftables at the device sends the SYN out by another one (fwd)", GROUP);
    Scenario {
        tools: &["nft"],
        options: &["NFT_FWD_NETDEV"],
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_any(lab)?;
            let kind = "type filter hook ingress device eth0 priority 0; policy accept";
            lab.wsl.nft("netdev", kind, &format!("tcp dport {PORT} fwd to eth1"))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Forwarded],
            codes: &[Code::Forwarded],
            proved: true,
            says: "before this machine's routing saw it",
            path: vec![Step::Must(Stage::TcIngress), Step::Must(Stage::TcEgress)],
            ..base.expect
        },
        ..base
    }
}
