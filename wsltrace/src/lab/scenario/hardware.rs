//! Frames that go to a hardware address which nobody has: of a container that has stopped, or one that somebody has set by hand.

use super::forwarding::{INNER_PORT, publish, serve_published};
use super::neighbour::STOPPED;
use super::{Expect, Mended, Scenario, serve, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::{into_container_up_to, through, unconfirmed};
use crate::lab::sides::{CLIENT_V4, CONTAINER, DOCKER0};
use crate::lab::{Binding, Lab, LabError, Seen, Side, Step};

const GROUP: &str = "neighbours";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        asks_nobody(),
        stopped(),
        wrong_container(),
        wrong_client(),
        moved(),
        moved_and_forgotten(),
        without_ipv6(),
        switched_off(),
    ]
}

/// What it sends goes to its own hardware address.
fn asks_nobody() -> Scenario {
    let base = stopped();
    Scenario {
        name: "bridge-noarp",
        title: "the bridge of the container's network asks for no hardware addresses (NOARP)",
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.ip("link set docker0 arp off")
        },
        mended: Some(Mended::Up("docker0")),
        expect: Expect { says: "the interface docker0 asks nobody for hardware addresses (NOARP)", ..base.expect },
        ..base
    }
}

/// The neighbour's entry outlives its container for half a minute or more, and the bridge sends what it does not know by every port.
fn stopped() -> Scenario {
    let title = "a published port whose container has just stopped: the bridge sends its packets to another one";
    let base = template("neighbour-just-stopped", title, GROUP);
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        break_it: |lab| {
            publish(lab, STOPPED)?;
            knows(lab, STOPPED, "reachable")
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Forwarded],
            codes: &[Code::NoNeighbour],
            inferred: true,
            says: "which nothing behind docker0 has",
            path: [through(Stage::TcEgress), vec![Step::Must(Stage::TcEgress)]].concat(),
            ..base.expect
        },
        ..base
    }
}

fn wrong_container() -> Scenario {
    let base = stopped();
    Scenario {
        name: "neighbour-set-by-hand",
        title: "somebody has set a wrong hardware address for the container of a published port",
        break_it: |lab| {
            serve_published(lab)?;
            knows(lab, CONTAINER, "permanent")
        },
        mended: Some(Mended::Removed),
        expect: Expect { says: "which somebody has set by hand (permanent), and 172.17.0.2 has", ..base.expect },
        ..base
    }
}

fn wrong_client() -> Scenario {
    let base = template(
        "neighbour-set-by-hand-client",
        "somebody has set a wrong hardware address for the client, and the answers go to nobody",
        GROUP,
    );
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.ip(&format!("neighbour replace {CLIENT_V4} lladdr {NOBODYS} dev eth0 nud permanent"))
        },
        client: Seen::NoAnswer,
        settle: Some(|lab| lab.wsl.await_counter("TcpExt", "TCPSynRetrans", 1)),
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::ReplyUnanswered],
            proved: true,
            says: "which somebody has set by hand for 172.28.16.1 (permanent)",
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}

/// The rule and the neighbour's entry still have the container's old address.
fn moved() -> Scenario {
    let base = stopped();
    Scenario {
        name: "container-moved",
        title: "a published port whose rule leads to an address that its container has no longer",
        break_it: |lab| {
            serve_published(lab)?;
            let container = lab.side(Side::Container)?;
            container.ip(&format!("address del {CONTAINER}/16 dev eth0"))?;
            container.ip(&format!("address add 172.17.0.7/16 dev eth0\nroute add default via {DOCKER0}"))
        },
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Container)),
            reason: Some(("IP_INADDRERRORS", (6, 1))),
            codes: &[Code::NoRoute],
            inferred: true,
            says: "the container that it came to has 172.17.0.7 instead",
            path: into_container_up_to(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}

/// The same when the neighbour's entry is gone, too: nobody answers for the address.
fn moved_and_forgotten() -> Scenario {
    let base = super::neighbour::stopped_container();
    Scenario {
        name: "container-moved-cold",
        title: "a published port whose rule leads to an old address of its container, which nobody has any longer",
        tools: &["nft", "ip"],
        break_it: |lab| {
            serve_published(lab)?;
            let container = lab.side(Side::Container)?;
            container.ip(&format!("address del {CONTAINER}/16 dev eth0"))?;
            container.ip(&format!("address add 172.17.0.7/16 dev eth0\nroute add default via {DOCKER0}"))?;
            lab.wsl.set_sysctl("net.ipv4.neigh.docker0.retrans_time_ms", "900")?;
            lab.wsl.ip(&format!("neighbour del {CONTAINER} dev docker0"))
        },
        settle: Some(|lab| lab.wsl.await_failed_neighbour(CONTAINER.into())),
        expect: Expect { says: "and no container there has it: the only one (", ..base.expect },
        ..base
    }
}

/// As by a setting of the container's image. The rule was made for the address that it was given.
fn without_ipv6() -> Scenario {
    let base = super::neighbour::stopped_container();
    Scenario {
        name: "container-without-ipv6",
        title: "a port that is published for IPv6 from a container in which IPv6 is off",
        tools: &["nft", "ip"],
        v6: true,
        target: Lab::wsl_address(true),
        break_it: |lab| {
            serve(lab, Side::Container, Binding::new(std::net::Ipv4Addr::UNSPECIFIED, INNER_PORT))?;
            publish(lab, CONTAINER)?;
            lab.side(Side::Container)?.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
            lab.wsl.set_sysctl("net.ipv6.neigh.docker0.retrans_time_ms", "900")?;
            lab.ip(&format!("neighbour del {} dev docker0", lab.at(CONTAINER)))
        },
        settle: Some(|lab| lab.wsl.await_failed_neighbour(lab.at(CONTAINER))),
        witness: None,
        expect: Expect {
            reason: Some(("NOT_SPECIFIED", (5, 18))),
            proved: false,
            inferred: true,
            says: "IPv6 is off on its eth0 (disable_ipv6 is 1)",
            ..base.expect
        },
        ..base
    }
}

/// Its bridge has no carrier, then. Where the neighbour's entry is kept, nobody is asked for.
fn switched_off() -> Scenario {
    let title = "the interface of the only container on a bridge is switched off";
    let base = template("container-switched-off", title, GROUP);
    Scenario {
        tools: &["nft", "ip"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            knows(lab, CONTAINER, "permanent")?;
            lab.side(Side::Container)?.ip("link set eth0 down")?;
            // Until then the bridge takes packets, and finds no port for them.
            lab.wsl.await_no_carrier("docker0")
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::TcEgress, Side::Wsl)),
            reason: Some(("QDISC_DROP", (5, 18))),
            codes: &[Code::TcDrop],
            proved: true,
            says: "is a bridge, and none of its ports has a carrier: behind it, eth0 of network namespace",
            path: through(Stage::TcEgress),
            ..base.expect
        },
        ..base
    }
}

/// A hardware address that no interface of the lab has.
const NOBODYS: &str = "02:de:ad:be:ef:01";

fn knows(lab: &Lab, whom: std::net::Ipv4Addr, how: &str) -> Result<(), LabError> {
    lab.ip(&format!("neighbour replace {} lladdr {NOBODYS} dev docker0 nud {how}", lab.at(whom)))
}
