//! Containers of a macvlan network: they share WSL's wire under hardware addresses of their own, and no bridge or NAT leads to them.

use nix::errno::Errno;

use super::{Scenario, serve, serve_all, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::Stage;
use crate::lab::mend::Mended;
use crate::lab::path::{answer, established, inbound};
use crate::lab::sides::BESIDE;
use crate::lab::{Binding, Lab, PORT, Seen, Side, Step};

const GROUP: &str = "macvlan containers";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![answered(), dropped(), refused(), bound_elsewhere(), elsewhere()]
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
