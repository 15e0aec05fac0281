//! The SYN is answered, and nobody takes the answer: it was rewritten here, or the client refuses it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{inbound, unconfirmed, up_to_answer};
use crate::lab::{PORT, Seen, Step};

const GROUP: &str = "answers";
/// An address that nobody has.
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 99);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![reset_by_client(), given_another_port(), sent_to_another()]
}

/// The answer looks to the client's firewall like a connection that nobody asked for. The client's socket asks again.
fn reset_by_client() -> Scenario {
    let base = template("reply-reset-by-client", "the client's own firewall refuses the answers by a reset", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            let rule = format!("tcp sport {PORT} tcp flags & (syn | ack) == (syn | ack) reject with tcp reset");
            lab.client.nft("inet", "type filter hook input priority 0", &rule)
        },
        client: Seen::NoAnswer,
        silence: Duration::from_millis(1300),
        witness: Some(("TcpExt", "EmbryonicRsts")),
        expect: Expect {
            codes: &[Code::ReplyUnanswered],
            inferred: true,
            says: "refuses the answers by a reset",
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}

/// Without the help of NAT, which would do the same to what comes in.
fn given_another_port() -> Scenario {
    let base = template("reply-other-port", "a rule of WSL writes another source port into the answers", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            let rule = format!("tcp sport {PORT} tcp flags & syn == syn tcp sport set 9");
            lab.wsl.nft("inet", "type filter hook output priority mangle", &rule)
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            codes: &[Code::ReplyUnanswered],
            inferred: true,
            says: "of inet lab output changes an address or a port of the answer",
            path: unconfirmed(),
            ..base.expect
        },
        ..base
    }
}

/// From there on nothing tells whose answer it was.
fn sent_to_another() -> Scenario {
    let base = given_another_port();
    Scenario {
        name: "reply-other-address",
        title: "a rule of WSL writes another destination into the answers",
        break_it: |lab| {
            serve_any(lab)?;
            let rule = format!("tcp sport {PORT} ip daddr set {STRANGER}");
            lab.wsl.nft("ip", "type filter hook output priority mangle", &rule)
        },
        expect: Expect {
            outcomes: &[Outcome::Unfinished],
            says: "of ip lab output changes an address or a port of the answer",
            path: [[inbound(Stage::SocketLookup), vec![Step::Must(Stage::SynAck)]].concat(), up_to_answer(Stage::OutputMangle)]
                .concat(),
            ..base.expect
        },
        ..base
    }
}
