//! Policies of `IPsec` that block, or that want packets encrypted which nobody encrypts.

use super::forwarding::serve_published;
use super::{Expect, Scenario, serve_all, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, inbound, into_container, up_to_answer};
use crate::lab::sides::{BACKEND, CLIENT_V4, ETH1, WSL_V4};
use crate::lab::{Lab, LabError, PORT, Seen, Side, Step};

/// A transformation that nothing here can make.
const ENCRYPTED: &str = "tmpl proto esp mode transport";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![block_in(), unencrypted(), block_out(), no_key_out(), block_forward(), block_answer_forward()]
}

fn block_in() -> Scenario {
    refused("ipsec-block-in", "an IPsec policy blocks what comes from the client", |lab| {
        serve_any(lab)?;
        policy(lab, "in", "action block")
    })
}

fn unencrypted() -> Scenario {
    let base = refused("ipsec-unencrypted", "an IPsec policy wants what comes from the client encrypted, and it is not", |lab| {
        serve_any(lab)?;
        policy(lab, "in", ENCRYPTED)
    });
    let says = "for it came unprotected";
    Scenario { witness: Some(("Xfrm", "XfrmInTmplMismatch")), expect: Expect { says, ..base.expect }, ..base }
}

/// The listener can make no answer.
fn block_out() -> Scenario {
    let base = template("ipsec-block-out", "an IPsec policy blocks what goes to the client", GROUP);
    Scenario {
        tools: TOOLS,
        options: OPTIONS,
        break_it: |lab| {
            serve_any(lab)?;
            policy(lab, "out", "action block")
        },
        client: Seen::NoAnswer,
        witness: Some(("Xfrm", "XfrmOutPolBlock")),
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            codes: &[Code::SocketPolicy],
            inferred: true,
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

/// The kernel makes the answer and has no key for it.
fn no_key_out() -> Scenario {
    let base = template("ipsec-no-key-out", "an IPsec policy wants the answers encrypted, and there is no key", GROUP);
    Scenario {
        tools: TOOLS,
        options: OPTIONS,
        break_it: |lab| {
            serve_any(lab)?;
            policy(lab, "out", ENCRYPTED)
        },
        client: Seen::NoAnswer,
        witness: Some(("Xfrm", "XfrmOutNoStates")),
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::Output, Side::Wsl)),
            codes: &[Code::ReplyDropped],
            inferred: true,
            says: "IPsec",
            path: [inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)], up_to_answer(Stage::Output)].concat(),
            ..base.expect
        },
        ..base
    }
}

fn block_forward() -> Scenario {
    let base = refused("ipsec-block-forward", "an IPsec policy blocks what goes on to another machine", |lab| {
        serve_all(lab, Side::Backend, PORT)?;
        lab.side(Side::Backend)?.route_to(lab.at(CLIENT_V4), Way::Gateway(lab.at(ETH1), None))?;
        lab.client.route_to(lab.at(BACKEND), Way::Gateway(lab.at(WSL_V4), None))?;
        lab.forward()?;
        policy(lab, "fwd", "action block")
    });
    Scenario {
        behind: Some(Side::Backend),
        target: BACKEND.into(),
        expect: Expect { died: Some((Stage::Routing, Side::Wsl)), path: inbound(Stage::Routing), ..base.expect },
        ..base
    }
}

/// A container's answer, which the kernel makes elsewhere and is to send on.
fn block_answer_forward() -> Scenario {
    let base = no_key_out();
    let back = [vec![Step::Must(Stage::SynAck)], answer(), vec![Step::May(Stage::TcIngress)], inbound(Stage::Routing)].concat();
    Scenario {
        name: "ipsec-block-out-published",
        title: "an IPsec policy blocks the answers of a container whose port is published",
        tools: &["ip", "nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            policy(lab, "out", "action block")
        },
        witness: None,
        expect: Expect {
            died: Some((Stage::Routing, Side::Wsl)),
            says: "most likely an IPsec policy refuses it",
            path: [into_container(), back].concat(),
            ..base.expect
        },
        ..base
    }
}

const GROUP: &str = "IPsec";
const TOOLS: &[&str] = &["ip"];
const OPTIONS: &[&str] = &["XFRM_USER"];

fn refused(name: &'static str, title: &'static str, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        tools: TOOLS,
        options: OPTIONS,
        break_it,
        client: Seen::NoAnswer,
        witness: Some(("Xfrm", "XfrmInPolBlock")),
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Listener, Side::Wsl)),
            reason: Some(("XFRM_POLICY", (5, 18))),
            codes: &[Code::SocketPolicy],
            proved: true,
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

/// One for all TCP between the client and the lab's other addresses.
fn policy(lab: &Lab, direction: &str, what: &str) -> Result<(), LabError> {
    let (client, all) = (lab.at(CLIENT_V4), if lab.v6 { "::/0" } else { "0.0.0.0/0" });
    let ends = if direction == "out" { format!("src {all} dst {client}") } else { format!("src {client} dst {all}") };
    lab.wsl.ip(&format!("xfrm policy add {ends} proto tcp dir {direction} {what}"))
}
