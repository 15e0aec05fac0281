//! Drops before PREROUTING, in the device's own nftables chain. (Drops at tc are among the foreign programs.)

use nix::errno::Errno;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::inbound;
use crate::lab::{PORT, Seen, Side, Step};

const GROUP: &str = "ingress";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![netdev_drop(), inet_drop(), netdev_reject(), very_first()]
}

fn netdev_drop() -> Scenario {
    let base = template("ingress-drop-nft", "nftables drops in the ingress chain of the device", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
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
        mended: Some(Mended::Removed),
        ..base
    }
}

/// The same hook in a table of the `inet` family.
fn inet_drop() -> Scenario {
    Scenario {
        name: "ingress-drop-inet",
        title: "nftables drops in an ingress chain of the family inet",
        break_it: |lab| {
            serve_any(lab)?;
            let kind = "type filter hook ingress device eth0 priority 0; policy accept";
            lab.wsl.nft("inet", kind, &format!("tcp dport {PORT} drop"))
        },
        ..netdev_drop()
    }
}

/// Its reset goes straight to the device.
fn netdev_reject() -> Scenario {
    let base = netdev_drop();
    Scenario {
        name: "ingress-reject-nft",
        title: "nftables rejects in the ingress chain of the device",
        options: &["NFT_REJECT_NETDEV"],
        break_it: |lab| {
            serve_any(lab)?;
            let kind = "type filter hook ingress device eth0 priority 0; policy accept";
            lab.wsl.nft("netdev", kind, &format!("tcp dport {PORT} reject with tcp reset"))
        },
        client: Seen::Failed(Errno::ECONNREFUSED),
        expect: Expect {
            outcomes: &[Outcome::Rejected],
            codes: &[Code::FirewallReject],
            path: vec![Step::Must(Stage::TcIngress), Step::Must(Stage::TcEgress)],
            ..base.expect
        },
        ..base
    }
}

/// Before the first place that a program can have, and before what asks the kernel to trace.
fn very_first() -> Scenario {
    let base = netdev_drop();
    Scenario {
        name: "drop-first-nft",
        title: "nftables drops at the very beginning of PREROUTING, by the lowest priority there is",
        break_it: |lab| {
            serve_any(lab)?;
            let kind = format!("type filter hook prerouting priority {}", i32::MIN);
            lab.wsl.nft(lab.family(), &kind, &format!("tcp dport {PORT} drop"))
        },
        expect: Expect {
            died: Some((Stage::TcIngress, Side::Wsl)),
            firewall: Some((Backend::Nft, "prerouting")),
            inferred: true,
            says: "dropped in the very beginning of PREROUTING on eth0 by rule handle",
            ..base.expect
        },
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
