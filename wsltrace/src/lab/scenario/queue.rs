//! Packets that a rule hands to a program.

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::{Outcome, Stage};
use crate::lab::mend::Mended;
use crate::lab::nfqueue::{SilentQueue, accept_all, drop_all};
use crate::lab::path::inbound;
use crate::lab::{Lab, LabError, PORT, Seen, Side};

const GROUP: &str = "queues";
const QUEUE: u16 = 7;

pub(super) fn scenarios() -> Vec<Scenario> {
    let no_reader = template("queue-no-reader", "a rule queues to a program (NFQUEUE) that does not run", GROUP);
    let silent = template("queue-no-verdict", "a rule queues to a program (NFQUEUE) that gives no verdict", GROUP);
    vec![
        dropped(),
        given_back(),
        Scenario {
            break_it: queue,
            expect: Expect {
                outcomes: &[Outcome::Dropped],
                died: Some((Stage::InputFilter, Side::Wsl)),
                says: "none took it: no program reads the queue",
                ..expect(&no_reader)
            },
            ..queued(no_reader)
        },
        Scenario {
            break_it: |lab| {
                queue(lab)?;
                let program = SilentQueue::own(&lab.wsl, QUEUE)?;
                lab.keep(program);
                Ok(())
            },
            expect: Expect { outcomes: &[Outcome::Unfinished], says: "gave no verdict in time", ..expect(&silent) },
            ..queued(silent)
        },
        Scenario {
            tools: &["iptables-nft"],
            break_it: |lab| {
                queue(lab)?;
                let program = accept_all(&lab.wsl, QUEUE)?;
                lab.keep(program);
                Ok(())
            },
            ..template("queue-accepted", "nothing is broken: a program that a rule queues to (NFQUEUE) lets packets pass", GROUP)
        },
    ]
}

/// As an application firewall does.
fn dropped() -> Scenario {
    let base = template("queue-dropped", "a rule queues to a program (NFQUEUE) that drops the SYN", GROUP);
    Scenario {
        break_it: |lab| {
            queue(lab)?;
            let program = drop_all(&lab.wsl, QUEUE)?;
            lab.keep(program);
            Ok(())
        },
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::InputFilter, Side::Wsl)),
            says: "and the program dropped it",
            ..expect(&base)
        },
        ..queued(base)
    }
}

/// The program lets it pass, and a rule of a later chain drops it: the queue is not to blame.
fn given_back() -> Scenario {
    let base = template("queue-accepted-drop", "a program lets a queued SYN pass (NFQUEUE), and a later rule drops it", GROUP);
    Scenario {
        tools: &["nft", "iptables-nft"],
        break_it: |lab| {
            queue(lab)?;
            let program = accept_all(&lab.wsl, QUEUE)?;
            lab.keep(program);
            lab.wsl.nft("inet", "type filter hook input priority 10", &format!("tcp dport {PORT} drop"))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: base.expect.dropped_at_input(),
        ..base
    }
}

fn queued(base: Scenario) -> Scenario {
    Scenario { tools: &["iptables-nft"], client: Seen::NoAnswer, mended: Some(Mended::Removed), ..base }
}

fn expect(base: &Scenario) -> Expect {
    Expect {
        codes: &[Code::QueuedToUserspace],
        firewall: Some((Backend::IptablesNft, "INPUT")),
        path: inbound(Stage::InputFilter),
        ..base.expect.clone()
    }
}

fn queue(lab: &mut Lab) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.iptables("iptables-nft", &format!("-A INPUT -p tcp --dport {PORT} -j NFQUEUE --queue-num {QUEUE}"))
}
