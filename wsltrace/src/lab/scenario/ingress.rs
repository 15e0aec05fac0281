//! Drops before PREROUTING: in the device's own nftables chain and in traffic control.

use super::{Expect, Scenario, serve_v4, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Outcome, Stage};
use crate::lab::path::inbound;
use crate::lab::{PORT, Seen, Side};

const GROUP: &str = "ingress";
/// A program that answers `TC_ACT_SHOT` whatever it is given.
pub(super) const SHOOT: &str = "1,6 0 0 2";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![netdev_drop(), tc_drop()]
}

fn netdev_drop() -> Scenario {
    let base = template("ingress-drop-nft", "nftables drops in the ingress chain of the device", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_v4(lab)?;
            let kind = "type filter hook ingress device eth0 priority 0; policy accept";
            lab.wsl.nft("netdev", kind, &format!("tcp dport {PORT} drop"))
        },
        expect: Expect {
            // The kernel's trace names the chain; no probe stands there.
            died: Some((Stage::NetfilterIngress, Side::Wsl)),
            reason: Some(("NETFILTER_DROP", (5, 18))),
            codes: &[Code::FirewallDrop],
            firewall: Some((Backend::Nft, "ingress")),
            ..dies(&base)
        },
        client: Seen::NoAnswer,
        ..base
    }
}

fn tc_drop() -> Scenario {
    let base = template("ingress-drop-tc", "a tc filter drops what comes in", GROUP);
    Scenario {
        tools: &["tc"],
        break_it: |lab| {
            serve_v4(lab)?;
            lab.wsl.tc(&format!(
                "qdisc add dev eth0 clsact
                 filter add dev eth0 ingress protocol ip bpf da bytecode '{SHOOT}'"
            ))
        },
        expect: Expect { reason: Some(("TC_INGRESS", (5, 18))), codes: &[Code::TcDrop], proved: true, ..dies(&base) },
        client: Seen::NoAnswer,
        ..base
    }
}

fn dies(base: &Scenario) -> Expect {
    Expect {
        outcomes: &[Outcome::Dropped],
        died: Some((Stage::TcIngress, Side::Wsl)),
        path: inbound(Stage::TcIngress),
        ..base.expect.clone()
    }
}
