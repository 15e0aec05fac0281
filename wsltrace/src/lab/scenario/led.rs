//! Packets that are led to where nobody is: by a rule that is left over, by what connection tracking remembers of one, or because the
//! client asks for an address that this machine does not have.

use std::net::{Ipv4Addr, SocketAddr};

use super::forwarding::{INNER_PORT, publish, serve_published};
use super::neighbour::{STOPPED, stopped_container};
use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::client::ANSWER_PATIENCE;
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::inbound;
use crate::lab::sides::WSL_V4;
use crate::lab::{Attempt, Lab, LabError, Manner, PORT, Seen, Side};

const GROUP: &str = "led astray";
/// An address of a network that nobody here is in.
const NOBODYS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 5);
/// The port that the client uses twice.
const USED_TWICE: u16 = 50_000;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        past_a_server(
            "dnat-past-server",
            "a rule left over leads past the server, to a container that is gone",
            &["nft"],
            |lab| {
                serve_any(lab)?;
                publish(lab, STOPPED)
            },
        ),
        past_a_server(
            "dnat-past-server-iptables-nft",
            "a rule left over (iptables-nft) leads past the server, to a container that is gone",
            &["iptables-nft"],
            |lab| leave_rule(lab, "iptables-nft"),
        ),
        past_a_server(
            "dnat-past-server-iptables-legacy",
            "a rule left over (iptables-legacy) leads past the server, to a container that is gone",
            &["iptables-legacy"],
            |lab| leave_rule(lab, "iptables-legacy"),
        ),
        before_another(),
        past_a_server_unforwarded(),
        old_entry(),
        address_of_nobody(),
    ]
}

/// Somebody tried something, and now a server of this machine has the port.
fn past_a_server(
    name: &'static str,
    title: &'static str,
    tools: &'static [&'static str],
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let stopped = stopped_container();
    Scenario {
        name,
        title,
        group: GROUP,
        tools,
        break_it,
        mended: Some(Mended::Removed),
        expect: Expect { says: "which listens on it here", ..stopped.expect },
        ..stopped
    }
}

/// What makes such rules has crashed: the container has another address since, and a rule of its own behind the old one.
fn before_another() -> Scenario {
    let title = "a rule left over leads to a container that is gone, in front of one that leads to a server";
    let base = past_a_server("dnat-before-another", title, &["nft"], |lab| {
        publish(lab, STOPPED)?;
        serve_published(lab)
    });
    Scenario { expect: Expect { says: "another rule leads to 172.17.0.2:80, where ", ..base.expect }, ..base }
}

fn leave_rule(lab: &mut Lab, iptables: &'static str) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.forward()?;
    let target = SocketAddr::new(lab.at(STOPPED), INNER_PORT);
    lab.iptables(iptables, &format!("-t nat -A PREROUTING -p tcp --dport {PORT} -j DNAT --to-destination {target}"))
}

/// Forwarding would not help: whoever is told to turn it on has two faults then.
fn past_a_server_unforwarded() -> Scenario {
    let base = template("dnat-past-server-unforwarded", "a rule left over leads past the server, and forwarding is off", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_any(lab)?;
            let rule = format!("tcp dport {PORT} dnat to {}", SocketAddr::new(lab.at(STOPPED), INNER_PORT));
            lab.wsl.nft(lab.family(), "type nat hook prerouting priority dstnat", &rule)
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            reason: Some(("IP_INADDRERRORS", (6, 1))),
            codes: &[Code::NoForwarding],
            says: "which listens on it here",
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}

/// The rule has changed, and connection tracking goes by what it has of the port that the client uses again. What mends it, conntrack(8),
/// is seldom installed.
fn old_entry() -> Scenario {
    let stopped = stopped_container();
    Scenario {
        name: "conntrack-old-entry",
        title: "a rule was changed, and connection tracking still leads the client's port to where it led before",
        group: GROUP,
        break_it: |lab| {
            stopped_for(lab, "100")?;
            publish(lab, STOPPED)?;
            let target = (Lab::wsl_address(false), PORT).into();
            let before = Attempt { target, from_port: USED_TWICE, manner: Manner::Listens, patience: ANSWER_PATIENCE };
            let seen = before.make(&lab.client)?.seen;
            if seen != stopped_container().client {
                return Err(LabError::Failed(format!("the rule led elsewhere: the client saw '{seen}'")));
            }
            lab.wsl.nft_script("delete table ip lab\n")?;
            serve_published(lab)?;
            // Not at the same time as the client, which sends again after every second.
            stopped_for(lab, "900")
        },
        from_port: USED_TWICE,
        expect: Expect {
            proved: false,
            inferred: true,
            says: "an old entry of connection tracking led it there",
            ..stopped.expect
        },
        ..stopped
    }
}

/// How long the kernel waits for each of the three answers that it asks for on the bridge, milliseconds.
fn stopped_for(lab: &Lab, pause_ms: &str) -> Result<(), LabError> {
    lab.wsl.set_sysctl("net.ipv4.neigh.docker0.retrans_time_ms", pause_ms)
}

/// As where a note, or a portproxy, has an address that this machine had once. To turn on forwarding would not help.
fn address_of_nobody() -> Scenario {
    let base = template("address-of-nobody", "the client asks for an address that WSL does not have, and sends it there", GROUP);
    Scenario {
        target: NOBODYS.into(),
        break_it: |lab| {
            serve_any(lab)?;
            lab.client.route_to(lab.at(NOBODYS), Way::Gateway(lab.at(WSL_V4), None))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Routing, Side::Wsl)),
            reason: Some(("IP_INADDRERRORS", (6, 1))),
            codes: &[Code::NoRoute],
            says: "which is no address of this machine",
            path: inbound(Stage::Routing),
            ..base.expect
        },
        ..base
    }
}
