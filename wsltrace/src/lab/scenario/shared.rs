//! Servers that share a port (`SO_REUSEPORT`), and a program that chooses among them badly.

use nix::errno::Errno;
use std::time::Duration;

use super::{Expect, Scenario, serve, template};
use crate::diagnosis::Code;
use crate::journey::Stage;
use crate::lab::foreign::refuse_all;
use crate::lab::listener::choose;
use crate::lab::path::{answer, inbound, not_taken};
use crate::lab::{Binding, Lab, Listening, PORT, Seen, Side};

const GROUP: &str = "shared ports";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![nobody_has_that_number(), idle(), refuses()]
}

/// The kernel then chooses by itself.
fn nobody_has_that_number() -> Scenario {
    let title = "nothing is broken: the program that chooses among servers (SO_REUSEPORT) names none that is there";
    Scenario {
        break_it: |lab| {
            let server = Listening::accepting_with(&lab.wsl, binding(lab), |socket| choose(socket, 7))?;
            lab.keep(server);
            Ok(())
        },
        ..template("reuseport-bad-index", title, GROUP)
    }
}

fn idle() -> Scenario {
    let title = "of two servers that share the port (SO_REUSEPORT) the program chooses one that does not accept";
    let base = template("reuseport-idle", title, GROUP);
    Scenario {
        break_it: |lab| {
            let idle = Listening::idle(&lab.wsl, binding(lab))?;
            lab.keep(idle);
            serve(lab, Side::Wsl, binding(lab))
        },
        client: Seen::Unserved,
        silence: Duration::from_secs(3),
        expect: Expect { codes: &[Code::NotAccepted], path: not_taken(), ..base.expect },
        ..base
    }
}

/// The client is refused as if nobody listened. Only the server can attach another program.
fn refuses() -> Scenario {
    let title = "a BPF program that chooses among servers (SO_REUSEPORT) refuses every connection";
    let base = template("reuseport-refuses", title, GROUP);
    Scenario {
        break_it: |lab| {
            let server = Listening::accepting_with(&lab.wsl, binding(lab), refuse_all)?;
            lab.keep(server);
            Ok(())
        },
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::SocketPolicy],
            inferred: true,
            says: "(SO_REUSEPORT: stranger)",
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

fn binding(lab: &Lab) -> Binding {
    Binding::new(lab.any(), PORT).shared()
}
