//! Connections that are made, and what their server does with them.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use super::forwarding::{INNER_PORT, dnat_answered, publish};
use super::{Expect, Scenario, template};
use crate::diagnosis::Code;
use crate::lab::sides::CONTAINER;
use crate::lab::{Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side};

const GROUP: &str = "what the server does";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![reset_at_once(), reset_in_container(), not_accepted_in_container(), reset_after_greeting(), closed_at_once()]
}

/// As a server does that crashes, or gives its clients up without reading them.
fn reset_at_once() -> Scenario {
    let base = template("reset-at-once", "the server accepts, and resets the connection at once", GROUP);
    Scenario {
        break_it: |lab| serve_by(lab, |connection| reset(&connection)),
        client: Seen::Reset,
        expect: Expect { codes: &[Code::NotAccepted], proved: true, says: "reset the connection", ..base.expect },
        ..base
    }
}

/// It is the server there that is told of, and not whoever has the same port here.
fn reset_in_container() -> Scenario {
    let base = template("reset-at-once-container", "the server in a container accepts, and resets the connection at once", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            let bystander = Listening::idle(&lab.wsl, Binding::new(lab.any(), INNER_PORT))?;
            let server = Listening::doing(lab.side(Side::Container)?, Binding::new(lab.any(), INNER_PORT), |c| reset(&c))?;
            lab.keep(bystander);
            lab.keep(server);
            publish(lab, CONTAINER)
        },
        client: Seen::Reset,
        expect: Expect {
            codes: &[Code::NotAccepted],
            proved: true,
            says: "reset the connection",
            path: dnat_answered().expect.path,
            ..base.expect
        },
        ..base
    }
}

fn not_accepted_in_container() -> Scenario {
    let base = template("not-accepted-container", "the server in a container never accepts, but its queue has room", GROUP);
    Scenario {
        tools: &["nft"],
        behind: Some(Side::Container),
        break_it: |lab| {
            let server = Listening::idle(lab.side(Side::Container)?, Binding::new(lab.any(), INNER_PORT))?;
            lab.keep(server);
            publish(lab, CONTAINER)
        },
        client: Seen::Unserved,
        silence: Duration::from_secs(3),
        expect: Expect {
            codes: &[Code::NotAccepted],
            says: "its queue holds 1 of",
            path: dnat_answered().expect.path,
            ..base.expect
        },
        ..base
    }
}

/// That is how some servers end a connection that they have served.
fn reset_after_greeting() -> Scenario {
    Scenario {
        break_it: |lab| {
            serve_by(lab, |mut connection| {
                connection.write_all(b"!")?;
                reset(&connection)
            })
        },
        ..template("reset-after-greeting", "nothing is broken: the server answers, and then resets the connection", GROUP)
    }
}

/// Whoever only looks whether a port is open is served like this.
fn closed_at_once() -> Scenario {
    let base = template("closed-at-once", "nothing is broken: the server accepts, and closes at once in order", GROUP);
    Scenario {
        break_it: |lab| {
            serve_by(lab, |connection| {
                drop(connection);
                Ok(())
            })
        },
        // The tracer is to see the close before it is told to end.
        manner: Manner::Hears,
        expect: Expect { says: "later without having sent a byte", ..base.expect },
        ..base
    }
}

fn serve_by(lab: &mut Lab, then: fn(TcpStream) -> io::Result<()>) -> Result<(), LabError> {
    let server = Listening::doing(&lab.wsl, Binding::new(lab.any(), PORT), then)?;
    lab.keep(server);
    Ok(())
}

/// Closes with a RST.
fn reset(connection: &TcpStream) -> io::Result<()> {
    SockRef::from(connection).set_linger(Some(Duration::ZERO))
}
