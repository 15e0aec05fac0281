//! Full accept queues beside other faults: the counter of overflows rises, or seems to, for somebody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::network::Way;
use crate::lab::path::{inbound, not_taken};
use crate::lab::sides::CLIENT_V4;
use crate::lab::{Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side};

const GROUP: &str = "full queues";
/// The port of somebody else's server.
const STRANGE_PORT: u16 = 8081;
const BACKLOG: i32 = 4;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![beside_a_drop(), drained(), of_a_stranger(), not_accepted(), accepted_late()]
}

/// The queue is full, but no SYN comes so far.
fn beside_a_drop() -> Scenario {
    let base = template("drop-before-full-queue", "a firewall drops, and the accept queue is full besides", GROUP);
    Scenario {
        tools: &["nft"],
        break_it: |lab| {
            fill(lab, PORT)?;
            lab.wsl.nft("inet", "type filter hook input priority filter", &format!("iifname eth0 tcp dport {PORT} drop"))
        },
        client: Seen::NoAnswer,
        expect: base.expect.dropped_at_input(),
        ..base
    }
}

/// When user space comes to look, only the counters still tell.
fn drained() -> Scenario {
    let base = swallowed("accept-queue-drained", "the accept queue is full, and empty again when somebody looks");
    Scenario {
        break_it: |lab| fill(lab, PORT),
        settle: Some(|lab| lab.kept::<Listening>().try_for_each(Listening::drain)),
        witness: Some(("TcpExt", "ListenOverflows")),
        expect: Expect { codes: &[Code::AcceptQueueFull], proved: true, ..base.expect },
        ..base
    }
}

/// The SYN is swallowed for want of a route back, while another server's queue overflows.
fn of_a_stranger() -> Scenario {
    let base = swallowed("overflow-of-a-stranger", "no route back to the client, while another server's accept queue overflows");
    Scenario {
        break_it: |lab| {
            serve_any(lab)?;
            fill(lab, STRANGE_PORT)?;
            lab.wsl.route_to(lab.at(CLIENT_V4), Way::Blackhole)
        },
        settle: Some(|lab| lab.wsl.run(overflow)),
        witness: Some(("TcpExt", "ListenOverflows")),
        expect: Expect { codes: &[Code::NoRouteBack], inferred: true, ..base.expect },
        ..base
    }
}

/// There is room in the queue. The client waits longer than the tracer does.
fn not_accepted() -> Scenario {
    let base = template("not-accepted", "the server never accepts, but its queue has room", GROUP);
    Scenario {
        break_it: |lab| {
            let server = Listening::idle(&lab.wsl, Binding::new(lab.any(), PORT))?;
            lab.keep(server);
            Ok(())
        },
        client: Seen::Unserved,
        silence: Duration::from_secs(3),
        expect: Expect { codes: &[Code::NotAccepted], path: not_taken(), ..base.expect },
        ..base
    }
}

/// By then the client's FIN has come, too.
fn accepted_late() -> Scenario {
    let title = "nothing is broken: the client leaves before the server accepts, which it then does";
    Scenario {
        break_it: |lab| {
            let server = Listening::idle(&lab.wsl, Binding::new(lab.any(), PORT))?;
            lab.keep(server);
            Ok(())
        },
        manner: Manner::Leaves,
        settle: Some(|lab| lab.kept::<Listening>().try_for_each(|server| server.accept().map(drop))),
        ..template("accepted-late", title, GROUP)
    }
}

fn swallowed(name: &'static str, title: &'static str) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

fn fill(lab: &mut Lab, port: u16) -> Result<(), LabError> {
    let server = Listening::full(&lab.wsl, Binding::new(lab.any(), port).backlog(BACKLOG))?;
    lab.keep(server);
    Ok(())
}

/// Sends one SYN to the other server, over the namespace's loopback device: it is swallowed within the call.
fn overflow() -> Result<(), LabError> {
    let to = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), STRANGE_PORT);
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&to.into())
    };
    match connect() {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(()),
        Err(error) => Err(LabError::io(format!("connect to {to}"))(error)),
        Ok(()) => Err(LabError::Failed(format!("the accept queue of {to} has room"))),
    }
}
