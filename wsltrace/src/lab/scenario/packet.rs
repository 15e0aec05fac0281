//! SYNs that are broken themselves.

use super::{Expect, Scenario, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::inbound;
use crate::lab::{Manner, Seen, Side};

pub(super) fn scenarios() -> Vec<Scenario> {
    let base = template("wrong-checksum", "the SYN's TCP checksum is wrong", "broken packets");
    vec![Scenario {
        manner: Manner::WrongChecksum,
        client: Seen::NoAnswer,
        witness: Some(("Tcp", "InCsumErrors")),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::SocketLookup, Side::Wsl)),
            reason: Some(("TCP_CSUM", (5, 17))),
            codes: &[Code::BadPacket],
            proved: true,
            path: inbound(Stage::SocketLookup),
            ..base.expect
        },
        ..base
    }]
}
