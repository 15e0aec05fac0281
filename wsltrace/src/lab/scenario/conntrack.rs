//! Connection tracking and rules that ask it.

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Conntrack, Outcome, Stage};
use crate::lab::crowd::fill_conntrack;
use crate::lab::path::inbound;
use crate::lab::{PORT, Seen, Side};

const GROUP: &str = "conntrack";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![untracked(), invalid(), full()]
}

fn untracked() -> Scenario {
    let base = template("untracked", "nothing is broken: the port is exempt from connection tracking (notrack)", GROUP);
    Scenario {
        expect: Expect { conntrack: Some(Conntrack::Untracked), ..base.expect },
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft_script(&format!(
                "table inet lab {{
                    chain prerouting {{ type filter hook prerouting priority raw; tcp dport {PORT} notrack; }}
                    chain output {{ type filter hook output priority raw; tcp sport {PORT} notrack; }}
                    chain input {{ type filter hook input priority filter; ct state invalid drop; }}
                }}"
            ))
        },
        ..base
    }
}

fn invalid() -> Scenario {
    let base =
        template("conntrack-invalid", "a rule drops what connection tracking calls invalid, and the SYN is malformed", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            // Its header claims to be longer than the packet is.
            lab.client.nft("inet", "type filter hook output priority 0", &format!("tcp dport {PORT} tcp doff set 15"))?;
            lab.wsl.nft("inet", "type filter hook input priority filter", "ct state invalid drop")
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::InputFilter, Side::Wsl)),
            reason: Some(("NETFILTER_DROP", (5, 18))),
            codes: &[Code::FirewallDrop],
            firewall: Some((Backend::Nft, "input")),
            path: inbound(Stage::InputFilter),
            ..base.expect
        },
        ..base
    }
}

fn full() -> Scenario {
    let base = template("conntrack-full", "the table of connection tracking has no room", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.nft("inet", "type filter hook input priority filter", "ct state new accept")?;
            fill_conntrack(&lab.wsl)
        },
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Conntrack, Side::Wsl)),
            reason: Some(("NETFILTER_DROP", (5, 18))),
            codes: &[Code::ConntrackDrop],
            inferred: true,
            path: inbound(Stage::Conntrack),
            ..base.expect
        },
        ..base
    }
}
