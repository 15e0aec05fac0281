//! SYNs that are broken themselves, or whose frames are sent to the wrong hardware address.

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::inbound;
use crate::lab::sides::WSL_V4;
use crate::lab::{Manner, PORT, Seen, Side};

const GROUP: &str = "broken packets";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![wrong_checksum(), to_many(), header_too_long()]
}

fn wrong_checksum() -> Scenario {
    let base = dies("wrong-checksum", "the SYN's TCP checksum is wrong");
    Scenario {
        manner: Manner::WrongChecksum,
        witness: Some(("Tcp", "InCsumErrors")),
        expect: Expect { reason: Some(("TCP_CSUM", (5, 17))), proved: true, ..base.expect },
        ..base
    }
}

/// As a fixed ARP entry for a cluster of servers does, or a wrong one.
fn to_many() -> Scenario {
    let base = dies("frame-to-many", "the client has the broadcast hardware address for WSL's address");
    Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.client.ip(&format!("neighbour replace {} lladdr ff:ff:ff:ff:ff:ff dev eth0 nud permanent", lab.at(WSL_V4)))
        },
        expect: Expect { inferred: true, says: "a broadcast or multicast hardware address", ..base.expect },
        ..base
    }
}

fn header_too_long() -> Scenario {
    let base = dies("header-too-long", "the SYN's TCP header claims to be longer than the packet");
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.client.nft("inet", "type filter hook output priority 0", &format!("tcp dport {PORT} tcp doff set 15"))
        },
        expect: Expect { inferred: true, says: "longer than the packet", ..base.expect },
        ..base
    }
}

/// TCP frees it before it looks for a listener.
fn dies(name: &'static str, title: &'static str) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::SocketLookup, Side::Wsl)),
            codes: &[Code::BadPacket],
            path: inbound(Stage::SocketLookup),
            ..base.expect
        },
        ..base
    }
}
