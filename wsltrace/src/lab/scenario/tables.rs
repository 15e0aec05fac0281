//! Rules between routing tables, and tables without what the kernel itself has put there: as VPN clients, kill switches and network
//! managers leave them behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::{Expect, Scenario, serve, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, inbound, through, up_to_answer};
use crate::lab::sides::{BACKEND, CLIENT_V4, WSL_V4};
use crate::lab::{Binding, Lab, LabError, PORT, Seen, Side, Step};

const GROUP: &str = "routing tables";
/// An address on the network that WSL and its IPv6 client share.
const TAKEN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x28, 0x16, 0, 0, 0, 0, 0x77);
/// The same for IPv4.
const GONE: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 77);
/// What IPv4 says of whatever is not for this machine, while forwarding is off.
const NOT_FOR_US: Option<(&str, (u32, u32))> = Some(("IP_INADDRERRORS", (6, 1)));

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        rule_refuses(),
        marked_blackhole(),
        no_rule_to_local(),
        not_in_local(),
        sought_outside(),
        rule_refuses_answer(),
        route_refuses_answer(),
        marked_answer(),
        marked_and_refused(),
        loose_filter(),
        taken_address(),
        gone_address(),
    ]
}

fn rule_refuses() -> Scenario {
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            before_local(lab, "iif eth0 blackhole")
        },
        ..dies(
            "rule-blackhole",
            "a rule of `ip rule` refuses what comes in by eth0",
            "the rule \"10: from all iif eth0 blackhole\"",
        )
    }
}

/// The firewall marks the SYN, and the table for marked packets takes none.
fn marked_blackhole() -> Scenario {
    let title = "a firewall marks the SYN, and the routing table for its mark refuses everything";
    Scenario {
        tools: &["ip", "nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.ip("route add blackhole default table 77")?;
            before_local(lab, "fwmark 0x1 lookup 77")?;
            lab.wsl.nft("inet", "type filter hook prerouting priority mangle", &format!("tcp dport {PORT} meta mark set 1"))
        },
        ..dies("rule-mark-blackhole", title, "table 77 refuses packets")
    }
}

fn no_rule_to_local() -> Scenario {
    let title = "no rule of `ip rule` leads to the table `local`, as after `ip rule flush`";
    Scenario {
        mended: Some(Mended::Added(1)),
        break_it: |lab| {
            serve_any(lab)?;
            // While there are no other rules than the usual, Linux 7.2 goes on asking for own addresses without this one.
            lab.ip("rule add pref 40000 lookup 99\nrule del pref 0")
        },
        ..dies("rule-local-missing", title, "no rule of `ip rule` leads such packets to the table `local`")
    }
}

fn not_in_local() -> Scenario {
    let title = "WSL's own address is missing in the routing table `local`";
    Scenario {
        mended: Some(Mended::Added(1)),
        break_it: |lab| {
            serve_any(lab)?;
            lab.ip(&format!("route del local {} table local", lab.at(WSL_V4)))
        },
        ..dies("route-local-missing", title, "the table `local` does not have it")
    }
}

/// A router sends it out again, where everybody knows that it is WSL's.
fn sought_outside() -> Scenario {
    let title = "WSL's own address is missing in the routing table `local`, and WSL forwards";
    let base = not_in_local();
    Scenario {
        title,
        name: "route-local-missing-forwarding",
        behind: Some(Side::Container),
        from: Side::Container,
        break_it: |lab| {
            serve_any(lab)?;
            lab.forward()?;
            lab.wsl.set_sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "100")?;
            lab.ip(&format!("route del local {} table local", lab.at(WSL_V4)))
        },
        settle: Some(|lab| lab.wsl.await_failed_neighbour(WSL_V4.into())),
        client: Seen::Failed(Errno::EHOSTUNREACH),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Neighbour, Side::Wsl)),
            reason: Some(("NEIGH_FAILED", (5, 18))),
            path: [
                vec![Step::Must(Stage::TcIngress)],
                through(Stage::Snat),
                vec![Step::Must(Stage::Neighbour)],
                answer(),
                vec![Step::Must(Stage::TcEgress)],
            ]
            .concat(),
            ..base.expect
        },
        ..base
    }
}

fn rule_refuses_answer() -> Scenario {
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            lab.ip(&format!("rule add pref 10 to {} prohibit", lab.at(CLIENT_V4)))
        },
        ..silent("rule-prohibit-back", "a rule of `ip rule` prohibits what goes to the client", "of `ip rule` refuses packets to")
    }
}

fn route_refuses_answer() -> Scenario {
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.route_to(lab.at(CLIENT_V4), Way::Blackhole)
        },
        ..silent("route-blackhole-back", "a blackhole route to the client", "the route \"blackhole")
    }
}

/// The plain routes to the client are right.
fn marked_answer() -> Scenario {
    let title = "a firewall marks the answers, and the rule for the mark takes them to another interface";
    let base = template("reply-mark-elsewhere", title, GROUP);
    Scenario {
        tools: &["ip", "nft"],
        behind: Some(Side::Backend),
        break_it: |lab| {
            serve_any(lab)?;
            let gateway = lab.at(BACKEND);
            // Nobody's hardware address, so that it leaves and comes to nobody.
            lab.ip(&format!(
                "neighbour replace {gateway} lladdr 02:00:00:00:00:01 dev eth1 nud permanent
                route add default via {gateway} dev eth1 table 77
                rule add pref 10 fwmark 0x1 lookup 77"
            ))?;
            lab.wsl.nft("inet", "type route hook output priority mangle", &format!("tcp sport {PORT} meta mark set 1"))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            says: "a rule of `ip rule` (fwmark) takes it there",
            path: [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// The usual lines of split tunnels, while the VPN is down: the hook drops what has no way after its mark was set.
fn marked_and_refused() -> Scenario {
    let title = "a firewall marks the answers, and the rule for the mark refuses them";
    let base = template("reply-mark-refused", title, GROUP);
    Scenario {
        tools: &["ip", "nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.ip("rule add pref 10 fwmark 0x1 unreachable")?;
            lab.wsl.nft("inet", "type route hook output priority mangle", &format!("tcp sport {PORT} meta mark set 1"))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::OutputMangle, Side::Wsl)),
            reason: Some(("NETFILTER_DROP", (5, 18))),
            codes: &[Code::ReplyDropped],
            inferred: true,
            says: "no rule of a firewall did it",
            path: [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], up_to_answer(Stage::OutputMangle)].concat(),
            ..base.expect
        },
        ..base
    }
}

/// `rp_filter` 2 asks only for some route back, and there is none: without the filter there would be no answer either.
fn loose_filter() -> Scenario {
    let base = template("reverse-path-filter-loose", "loose rp_filter, and no route to the client at all", GROUP);
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.set_sysctl("net.ipv4.conf.eth0.rp_filter", "2")?;
            lab.wsl.ip("route del default\nroute del 172.28.16.0/20 dev eth0")
        },
        client: Seen::NoAnswer,
        witness: Some(("TcpExt", "IPReversePathFilter")),
        mended: Some(Mended::Added(1)),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            reason: Some(("IP_RPFILTER", (6, 2))),
            codes: &[Code::ReversePathFilter],
            proved: true,
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}

/// Another machine had the address when it was added, and has given it up since.
fn taken_address() -> Scenario {
    let title = "an IPv6 address that another machine had when it was added (duplicate address detection)";
    let base = dies("address-duplicate-v6", title, "duplicate address detection failed");
    Scenario {
        v6: true,
        target: TAKEN.into(),
        break_it: |lab| {
            serve_any(lab)?;
            lab.client.address("eth0", TAKEN.into(), 64)?;
            lab.wsl.set_sysctl("net.ipv6.conf.eth0.accept_dad", "1")?;
            lab.wsl.refused_address("eth0", TAKEN, 64)?;
            lab.client.ip_of(true, &format!("address del {TAKEN}/64 dev eth0"))?;
            know_for_good(lab, TAKEN.into())
        },
        mended: Some(Mended::Up("eth0")),
        expect: Expect { reason: Some(("IP_INADDRERRORS", (6, 18))), ..base.expect },
        ..base
    }
}

fn gone_address() -> Scenario {
    let base =
        dies("address-gone", "the server listens on an address that WSL had once", "no address of this machine any longer");
    Scenario {
        target: GONE.into(),
        break_it: |lab| {
            lab.wsl.address("eth0", GONE.into(), 20)?;
            serve(lab, Side::Wsl, Binding::new(GONE, PORT))?;
            lab.wsl.ip(&format!("address del {GONE}/20 dev eth0"))?;
            know_for_good(lab, GONE.into())
        },
        mended: Some(Mended::Added(1)),
        ..base
    }
}

/// WSL answers nobody who asks for an address that it does not use, so the client is told whose it is.
pub(super) fn know_for_good(lab: &Lab, address: IpAddr) -> Result<(), LabError> {
    const OF_WSL: &str = "02:00:00:00:00:02";
    lab.wsl.ip(&format!("link set eth0 address {OF_WSL}"))?;
    lab.client.ip_of(lab.v6, &format!("neighbour replace {address} lladdr {OF_WSL} dev eth0 nud permanent"))
}

/// Puts a rule before the one that leads to own addresses.
fn before_local(lab: &Lab, rule: &str) -> Result<(), LabError> {
    lab.ip(&format!("rule add pref 100 lookup local\nrule del pref 0 lookup local\nrule add pref 10 {rule}"))
}

/// The kernel takes the SYN for nobody's.
fn dies(name: &'static str, title: &'static str, says: &'static str) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools: &["ip"],
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            reason: NOT_FOR_US,
            codes: &[Code::NoRoute],
            inferred: true,
            says,
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}

/// A listener takes the SYN and can make no answer.
fn silent(name: &'static str, title: &'static str, says: &'static str) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools: &["ip"],
        client: Seen::NoAnswer,
        witness: Some(("TcpExt", "ListenDrops")),
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            codes: &[Code::NoRouteBack],
            inferred: true,
            says,
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}
