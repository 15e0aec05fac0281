//! Containers of a macvlan or ipvlan network: they share WSL's wire, and no bridge or NAT leads to them.

use nix::errno::Errno;

use super::{Scenario, serve, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::Stage;
use crate::lab::mend::Mended;
use crate::lab::path::{answer, established, inbound};
use crate::lab::sides::BESIDE;
use crate::lab::{Binding, Lab, LabError, PORT, Seen, Side, Step};

const GROUP: &str = "macvlan containers";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![answered(), dropped(), refused(), bound_elsewhere(), elsewhere(), lent(), lent_and_served_here()]
}

/// The client asks the container itself; the wire is WSL's, and the macvlan's device is the container's.
fn template_of(name: &'static str, title: &'static str) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario { options: &["MACVLAN"], tools: &["ip"], behind: Some(Side::Beside), target: BESIDE.into(), ..base }
}

fn wire() -> [Step; 1] {
    [Step::Must(Stage::TcIngress)]
}

fn answered() -> Scenario {
    let base = template_of("macvlan-answered", "nothing is broken: a container of a macvlan network serves the port");
    let mut path = [wire().to_vec(), established()].concat();
    // The answer leaves by the container's device, and then by the one that it stands on.
    if let Some(leaves) = path.iter().rposition(|step| *step == Step::Must(Stage::TcEgress)) {
        path.insert(leaves, Step::Must(Stage::TcEgress));
    }
    Scenario { break_it: |lab| serve_all(lab, Side::Beside, PORT), expect: super::Expect { path, ..base.expect }, ..base }
}

fn dropped() -> Scenario {
    let base = template_of("macvlan-drop", "the firewall of a container of a macvlan network drops");
    Scenario {
        tools: &["ip", "nft"],
        break_it: |lab| {
            serve_all(lab, Side::Beside, PORT)?;
            let rule = format!("tcp dport {PORT} drop");
            lab.side(Side::Beside)?.nft(lab.family(), "type filter hook input priority filter", &rule)
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: super::Expect {
            codes: &[Code::FirewallDrop],
            proved: true,
            firewall: Some((Backend::Nft, "input")),
            path: [wire().as_slice(), inbound(Stage::InputFilter).as_slice()].concat(),
            ..base.expect.dropped_by_netfilter(Stage::InputFilter, Side::Beside)
        },
        ..base
    }
}

fn refused() -> Scenario {
    let base = template_of("macvlan-no-listener", "nothing listens in a container of a macvlan network");
    Scenario {
        break_it: |_: &mut Lab| Ok(()),
        client: Seen::Failed(Errno::ECONNREFUSED),
        expect: super::Expect {
            codes: &[Code::NoListener],
            proved: true,
            path: [wire().to_vec(), inbound(Stage::SocketLookup), answer(), vec![Step::Must(Stage::TcEgress)]].concat(),
            ..base.expect.refused_by_kernel(Side::Beside)
        },
        ..base
    }
}

fn bound_elsewhere() -> Scenario {
    let base = refused();
    Scenario {
        name: "macvlan-bound-loopback",
        title: "the server in a container of a macvlan network listens on 127.0.0.1 only",
        break_it: |lab| serve(lab, Side::Beside, Binding::new(std::net::Ipv4Addr::LOCALHOST, PORT)),
        expect: super::Expect { codes: &[Code::ListenerBoundElsewhere], ..base.expect },
        ..base
    }
}

/// The server is in the container, and the client asks WSL.
fn elsewhere() -> Scenario {
    let base = refused();
    Scenario {
        name: "macvlan-elsewhere",
        title: "the client asks WSL for a port that a container of a macvlan network serves",
        target: Lab::wsl_address(false),
        break_it: |lab| serve_all(lab, Side::Beside, PORT),
        expect: super::Expect {
            died: Some((Stage::SocketLookup, Side::Wsl)),
            codes: &[Code::ListenerOtherNetns],
            says: "listens on it in network namespace",
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// An ipvlan of the mode l3s: WSL's own hooks see the packet, and the container's socket is sought.
fn lent() -> Scenario {
    let base = refused();
    Scenario {
        name: "ipvlan-l3s-bound-loopback",
        title: "the server in a container of an ipvlan network (l3s) listens on 127.0.0.1 only",
        options: &["MACVLAN", "IPVLAN"],
        break_it: |lab| {
            lend(lab)?;
            serve(lab, Side::Beside, Binding::new(std::net::Ipv4Addr::LOCALHOST, PORT))
        },
        expect: super::Expect {
            codes: &[Code::ListenerBoundElsewhere],
            // The container's interface hands the answer to WSL, which sends it.
            path: [inbound(Stage::SocketLookup), answer(), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

/// Who listens on WSL's own addresses has nothing to do with it.
fn lent_and_served_here() -> Scenario {
    let base = lent();
    Scenario {
        name: "ipvlan-l3s-no-listener",
        title: "nothing listens in a container of an ipvlan network (l3s), and WSL itself serves the port",
        break_it: |lab| {
            lend(lab)?;
            serve_all(lab, Side::Wsl, PORT)
        },
        expect: super::Expect { codes: &[Code::NoListener, Code::ListenerOtherNetns], ..base.expect },
        ..base
    }
}

/// Gives the container an ipvlan in the place of its macvlan. Nobody there answers who asks for its hardware address: it has WSL's.
fn lend(lab: &Lab) -> Result<(), LabError> {
    const OF_WSL: &str = "02:00:00:00:00:02";
    let container = lab.side(Side::Beside)?;
    container.ip("link del eth0")?;
    let namespace = container.path();
    lab.wsl.ip(&format!(
        "link set eth0 address {OF_WSL}
        link add link eth0 name beside0 netns {} type ipvlan mode l3s",
        namespace.display()
    ))?;
    container.ip(&format!("link set beside0 name eth0\nlink set eth0 up\naddress add {BESIDE}/20 dev eth0"))?;
    lab.client.ip(&format!("neighbour replace {BESIDE} lladdr {OF_WSL} dev eth0 nud permanent"))
}
