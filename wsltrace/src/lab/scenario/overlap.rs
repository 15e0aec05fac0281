//! A network of containers that has addresses of the network by which clients come.

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::path::{inbound, up_to_answer};
use crate::lab::sides::CLIENT_V4;
use crate::lab::{Seen, Side, Step};

pub(super) fn scenarios() -> Vec<Scenario> {
    let base = template("networks-overlap", "Docker's network has the client's address too, so that answers go there", "answers");
    let scenario = Scenario {
        tools: &["ip"],
        break_it: |lab| {
            serve_any(lab)?;
            lab.wsl.ip("link add docker0 type bridge")?;
            lab.wsl.ip("link set docker0 up")?;
            lab.wsl.set_sysctl("net.ipv4.neigh.docker0.retrans_time_ms", "100")?;
            lab.wsl.ip("address add 172.28.16.254/24 dev docker0")
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Added(1)),
        settle: Some(|lab| lab.wsl.await_failed_neighbour(CLIENT_V4.into())),
        expect: Expect {
            outcomes: &[Outcome::AnswerDropped],
            died: Some((Stage::Neighbour, Side::Wsl)),
            reason: Some(("NEIGH_FAILED", (5, 18))),
            codes: &[Code::ReplyWrongInterface],
            proved: true,
            says: "the networks of eth0 (172.28.16.0/20) and docker0 (172.28.16.0/24) overlap",
            path: [
                inbound(Stage::SocketLookup),
                vec![Step::Must(Stage::SynAck)],
                up_to_answer(Stage::Snat),
                vec![Step::Must(Stage::Neighbour)],
            ]
            .concat(),
            ..base.expect
        },
        ..base
    };
    vec![scenario]
}
