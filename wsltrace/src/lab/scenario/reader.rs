//! A reader of raw packets runs beside the tracer, as when somebody has tcpdump open: the copies that it takes are nobody's death.

use std::net::Ipv4Addr;

use super::{Scenario, forwarding, serve_any, template};
use crate::journey::Origin;
use crate::lab::path::established_on_loopback;
use crate::lab::{Lab, LabError, PORT, Seen, Side, reader};

const GROUP: &str = "packet readers";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            break_it: serve_and_read,
            ..template("read-healthy", "nothing is broken: packets are read on eth0 and on all devices, as by tcpdump", GROUP)
        },
        local(Scenario {
            target: Ipv4Addr::LOCALHOST.into(),
            break_it: serve_and_read,
            ..template("read-healthy-lo", "nothing is broken: 127.0.0.1 from inside while packets are read", GROUP)
        }),
        Scenario {
            name: "read-healthy-container",
            title: "nothing is broken: packets to a container are read on every device of WSL",
            group: GROUP,
            break_it: |lab| {
                (forwarding::dnat_answered().break_it)(lab)?;
                read(lab)
            },
            ..forwarding::dnat_answered()
        },
        dropped(),
    ]
}

fn dropped() -> Scenario {
    let base = template("read-drop", "nftables drops in an input chain while packets are read", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_and_read(lab)?;
            lab.wsl.nft("inet", "type filter hook input priority filter", &format!("tcp dport {PORT} drop"))
        },
        client: Seen::NoAnswer,
        expect: base.expect.dropped_at_input(),
        ..base
    }
}

fn local(mut scenario: Scenario) -> Scenario {
    scenario.from = Side::Wsl;
    scenario.expect.origin = Origin::Local;
    scenario.expect.path = established_on_loopback();
    scenario
}

/// A server, and a reader of each kind.
fn serve_and_read(lab: &mut Lab) -> Result<(), LabError> {
    serve_any(lab)?;
    read(lab)
}

fn read(lab: &mut Lab) -> Result<(), LabError> {
    for device in [Some("eth0"), None] {
        let (wsl, ring) = (&lab.wsl, reader::ring(&lab.wsl, device)?);
        let readers = (reader::copying(wsl, device)?, reader::of_ipv4(wsl, device)?, ring);
        lab.keep(readers);
    }
    Ok(())
}
