//! The loopback device is down: what this machine says to itself goes nowhere, by whichever of its addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Origin, Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::up_to_answer;
use crate::lab::sides::WSL_V4;
use crate::lab::{Seen, Side};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        down("lo-down", "`lo` is down, and a client in WSL connects to 127.0.0.1", Ipv4Addr::LOCALHOST.into()),
        down("lo-down-own-address", "`lo` is down, and a client in WSL connects to WSL's own address", WSL_V4.into()),
    ]
}

/// To `::1` there is no route then, so nothing is sent.
fn down(name: &'static str, title: &'static str, target: IpAddr) -> Scenario {
    let base = template(name, title, "loopback");
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.ip("link set lo down")
        },
        from: Side::Wsl,
        target,
        client: Seen::NoAnswer,
        mended: Some(Mended::Up("lo")),
        expect: Expect {
            origin: Origin::Local,
            outcomes: &[Outcome::Dropped],
            // Nobody stands at tc of a device that is down.
            died: Some((Stage::Postrouting, Side::Wsl)),
            reason: Some(("QDISC_DROP", (5, 18))),
            codes: &[Code::TcDrop],
            proved: true,
            says: "that interface is down",
            path: up_to_answer(Stage::Snat),
            ..base.expect
        },
        ..base
    }
}
