//! The client's port is not new to the server: an older connection from it is left there in some state.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Expect, Scenario, UNACCEPTED, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::inbound;
use crate::lab::raw::RawSyn;
use crate::lab::sides::{CLIENT_V4, WSL_V4};
use crate::lab::{Binding, Lab, LabError, Listening, Manner, PORT, Side, option};

const GROUP: &str = "reused ports";
/// The client's port.
const REUSED: u16 = 40000;
/// The initial sequence number of a SYN made by hand.
const SEQUENCE: u32 = 1000;
/// How long the other side may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![established(), half_open(), time_wait()]
}

/// The client lost its connections without a word, as a machine does that was cut off and slept. The kernel answers its SYN by
/// a challenge ACK; the client resets what that speaks of, and sends its SYN again.
fn established() -> Scenario {
    challenged("reused-port-established", "the server still has a connection that the client forgot", |lab| {
        let server = listen(lab)?;
        let old = connect(lab)?;
        forget(old)?;
        lab.keep(server);
        must_have(lab, "ESTABLISHED", 1)
    })
}

/// The same, but the older connection was never completed. The kernel answers by an ACK of that, without calling it a
/// challenge.
fn half_open() -> Scenario {
    let base = challenged("reused-port-half-open", "the server waits for the ACK of an older SYN from the same port", |lab| {
        let server = listen(lab)?;
        lab.keep(server);
        // The client must not reset what it knows nothing of.
        let rule = format!("tcp dport {REUSED} tcp ackseq {} tcp flags & (syn | ack) == (syn | ack) drop", SEQUENCE + 1);
        lab.client.nft("ip", "type filter hook input priority 0", &rule)?;
        let (from, to) = (SocketAddrV4::new(CLIENT_V4, REUSED), SocketAddrV4::new(WSL_V4, PORT));
        RawSyn { from, to, sequence: SEQUENCE, spoil: 0 }.send(&lab.client)?;
        must_have(lab, "SYN_RECV", 3)
    });
    let outcomes = &[Outcome::Dropped];
    Scenario { tools: &["nft"], expect: Expect { outcomes, reason: Some(("TCP_OVERWINDOW", (6, 15))), ..base.expect }, ..base }
}

fn time_wait() -> Scenario {
    let title = "nothing is broken: the older connection from the client's port is in TIME_WAIT";
    let base = template("reused-port-time-wait", title, GROUP);
    Scenario {
        break_it: |lab| {
            let server = listen(lab)?;
            let mut old = connect(lab)?;
            drop(server.accept()?);
            let closed = old.read_to_end(&mut Vec::new()).and_then(|_| {
                // Now closing waits until the server has confirmed it.
                let old = Socket::from(old);
                old.set_linger(Some(PATIENCE))
            });
            closed.map_err(LabError::io("close the older connection"))?;
            lab.keep(server);
            must_have(lab, "TIME_WAIT", 6)
        },
        from_port: REUSED,
        manner: Manner::Silent,
        expect: Expect { codes: UNACCEPTED, ..base.expect },
        ..base
    }
}

fn challenged(name: &'static str, title: &'static str, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        break_it,
        from_port: REUSED,
        manner: Manner::Silent,
        again: Some(Expect { codes: UNACCEPTED, ..base.expect.clone() }),
        expect: Expect {
            outcomes: &[Outcome::Challenged],
            died: Some((Stage::SocketLookup, Side::Wsl)),
            reason: Some(("TCP_INVALID_SYN", (5, 19))),
            codes: &[Code::StaleConnection],
            path: inbound(Stage::SocketLookup),
            ..base.expect
        },
        ..base
    }
}

/// A server that holds connections without a word.
fn listen(lab: &Lab) -> Result<Listening, LabError> {
    Listening::idle(&lab.wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT))
}

fn connect(lab: &Lab) -> Result<TcpStream, LabError> {
    let try_connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((CLIENT_V4, REUSED)).into())?;
        socket.connect_timeout(&SocketAddr::from((WSL_V4, PORT)).into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(TcpStream::from(socket))
    };
    lab.client.run(|| try_connect().map_err(LabError::io::<std::io::Error>(format!("connect from port {REUSED}"))))
}

/// Closes a connection on this side only: in repair mode nothing is sent.
fn forget(connection: TcpStream) -> Result<(), LabError> {
    option::set(&connection, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1).map_err(LabError::io("switch to TCP's repair mode"))?;
    drop(connection);
    Ok(())
}

/// Fails when the older connection is not left in this state (`number` as in /proc/net/tcp).
fn must_have(lab: &Lab, state: &str, number: u8) -> Result<(), LabError> {
    let path = "/proc/thread-self/net/tcp";
    let table = lab.wsl.run(|| std::fs::read_to_string(path).map_err(LabError::io(format!("read {path}"))))?;
    let (remote, state_field) = (format!(":{REUSED:04X}"), format!("{number:02X}"));
    let is_it = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2).is_some_and(|field| field.ends_with(&remote)) && fields.get(3) == Some(&state_field.as_str())
    };
    if table.lines().any(is_it) {
        return Ok(());
    }
    Err(LabError::Failed(format!("no connection from port {REUSED} is in {state}")))
}
