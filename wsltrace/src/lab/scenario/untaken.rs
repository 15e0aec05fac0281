//! The SYN is answered, and nobody takes the answer: it was rewritten here, or the client refuses it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::forwarding::{INNER_PORT, serve_published};
use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{answer, back_through, inbound, into_container, unconfirmed, up_to_answer};
use crate::lab::sides::CLIENT_V6;
use crate::lab::{PORT, Seen, Side, Step};

const GROUP: &str = "answers";
/// An address that nobody has.
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 99);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        reset_by_client(),
        given_another_port(),
        sent_to_another(),
        of_another(),
        of_another_tracked(),
        of_another_published(),
        not_turned_back(),
    ]
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

/// The server answers who it takes for its client. That one is behind the gateway, which is the client here and forwards nothing.
fn of_another() -> Scenario {
    let base = given_another_port();
    Scenario {
        name: "syn-other-source",
        title: "a rule of WSL writes another source into the SYNs",
        break_it: |lab| {
            serve_any(lab)?;
            let (family, other) = if lab.v6 { ("ip6", "fd00:99::9") } else { ("ip", "10.99.99.9") };
            if lab.v6 {
                lab.wsl.ip(&format!("route add fd00:99::/64 via {CLIENT_V6}"))?;
            }
            let rule = format!("tcp dport {PORT} {family} saddr set {other}");
            lab.wsl.nft(family, "type filter hook prerouting priority mangle", &rule)
        },
        expect: Expect { says: "prerouting gives its SYN the source", ..base.expect },
        ..base
    }
}

/// A firewall asks for connection tracking, which does not turn back what it has not done.
fn of_another_tracked() -> Scenario {
    Scenario {
        name: "syn-other-source-tracked",
        title: "a rule of WSL writes another source into the SYNs, and a firewall tracks connections",
        break_it: |lab| {
            (of_another().break_it)(lab)?;
            lab.wsl.nft_script(
                "table inet filter { chain input { type filter hook input priority 0; ct state established accept; }; }",
            )
        },
        ..of_another()
    }
}

/// Connection tracking knows the SYN by its first source, and so does not know the answer.
fn of_another_published() -> Scenario {
    let base = not_turned_back();
    Scenario {
        name: "syn-other-source-published",
        title: "a rule of WSL writes another source into the SYNs, and the port is published",
        break_it: |lab| {
            serve_published(lab)?;
            let chain = "type filter hook prerouting priority mangle";
            lab.wsl.nft_script(&format!(
                "table ip writing {{ chain prerouting {{ {chain}; tcp dport {PORT} ip saddr set 10.99.99.9; }}; }}"
            ))
        },
        mended: Some(Mended::Removed),
        expect: Expect {
            proved: false,
            inferred: true,
            says: "of ip writing prerouting gives its SYN the source",
            ..base.expect
        },
        ..base
    }
}

/// NAT turns an answer back as a part of its connection only.
fn not_turned_back() -> Scenario {
    let base = template("reply-untranslated", "a container's answers are taken out of connection tracking (notrack)", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            serve_published(lab)?;
            lab.wsl.nft("inet", "type filter hook prerouting priority raw", &format!("tcp sport {INNER_PORT} notrack"))
        },
        client: Seen::NoAnswer,
        expect: Expect {
            codes: &[Code::ReplyUnanswered],
            proved: true,
            says: "the answer left with another address or port than 172.28.16.2:8080",
            path: [into_container(), vec![Step::Must(Stage::SynAck)], answer(), back_through()].concat(),
            ..base.expect
        },
        ..base
    }
}
