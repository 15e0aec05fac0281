//! Handshakes that take another course than the plain one: deferred, with data in the SYN, without a request socket.

use std::ffi::c_int;

use nix::errno::Errno;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::{answer, established_early, inbound, unconfirmed};
use crate::lab::sides::over_v6;
use crate::lab::{Attempt, Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side, nfqueue, option};

const GROUP: &str = "handshakes";
/// How many connections may be half-open.
const BACKLOG: i32 = 4;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        deferred(
            "defer-accept",
            "nothing is broken: the server wants data first (TCP_DEFER_ACCEPT), and gets it",
            Manner::Speaks,
        ),
        silent(),
        fast_open(),
        fast_open_refused(),
        syn_queue_full(),
        closed_before_confirmed(),
        cookie("syn-cookies", "nothing is broken: the SYN queue is full, and SYN cookies are on", |lab| {
            lab.wsl.set_sysctl("net.ipv4.tcp_syncookies", "1")?;
            full_of_half_open(lab)
        }),
        cookie("syn-cookies-always", "nothing is broken: every SYN is answered by a cookie", |lab| {
            lab.wsl.set_sysctl("net.ipv4.tcp_syncookies", "2")?;
            serve_any(lab)
        }),
    ]
}

/// The server's kernel leaves the ACK of the handshake aside: the connection becomes established by the first data.
fn deferred(name: &'static str, title: &'static str, manner: Manner) -> Scenario {
    Scenario { break_it: |lab| serve_with(lab, libc::TCP_DEFER_ACCEPT, 5), manner, ..template(name, title, GROUP) }
}

fn silent() -> Scenario {
    let title = "nothing is broken: the server wants data first (TCP_DEFER_ACCEPT), and the client sends none";
    let base = deferred("defer-accept-silent", title, Manner::Silent);
    Scenario { expect: Expect { path: unconfirmed(), inferred: true, ..base.expect }, ..base }
}

fn fast_open() -> Scenario {
    let base = template("fast-open", "nothing is broken: the SYN carries data (TCP Fast Open)", GROUP);
    Scenario {
        break_it: |lab| {
            let server = fast_open_server(lab)?;
            lab.keep(server);
            Ok(())
        },
        manner: Manner::FastOpen,
        witness: Some(("TcpExt", "TCPFastOpenPassive")),
        expect: Expect { path: established_early(), ..base.expect },
        ..base
    }
}

fn fast_open_refused() -> Scenario {
    let base = template("fast-open-no-listener", "nothing listens, and the SYN carries data (TCP Fast Open)", GROUP);
    Scenario {
        // The cookie is the client's for every port of this server.
        break_it: |lab| fast_open_server(lab).map(drop),
        manner: Manner::FastOpen,
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::NoListener],
            proved: true,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

fn syn_queue_full() -> Scenario {
    let base = template("syn-queue-full", "the queue of half-open connections is full, and SYN cookies are off", GROUP);
    Scenario {
        break_it: |lab| {
            lab.wsl.set_sysctl("net.ipv4.tcp_syncookies", "0")?;
            full_of_half_open(lab)
        },
        client: Seen::NoAnswer,
        witness: Some(("TcpExt", "TCPReqQFullDrop")),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            codes: &[Code::SynQueueFull],
            proved: true,
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

/// The client's kernel holds the ACK until the server is gone.
fn closed_before_confirmed() -> Scenario {
    let title = "the server ends after it has answered the SYN, and before the client's ACK comes";
    let base = template("closed-before-confirmed", title, GROUP);
    Scenario {
        tools: &["iptables-nft"],
        break_it: |lab| {
            let mut server = Some(Listening::idle(&lab.wsl, Binding::new(lab.any(), PORT))?);
            let holder = nfqueue::accept_after(&lab.client, 7, move || drop(server.take()))?;
            let ack = format!("-p tcp --dport {PORT} --tcp-flags SYN,ACK ACK");
            let iptables = if lab.v6 { over_v6("iptables-nft") } else { "iptables-nft" };
            lab.client.iptables(iptables, &format!("-A OUTPUT {ack} -j NFQUEUE --queue-num 7"))?;
            lab.keep(holder);
            Ok(())
        },
        client: Seen::Reset,
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: &[Code::NotAccepted],
            path: unconfirmed(),
            inferred: true,
            says: "nothing listens on port 8080 any longer",
            ..base.expect
        },
        ..base
    }
}

/// No request is kept: the connection is made of what the ACK brings back.
fn cookie(name: &'static str, title: &'static str, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    Scenario { break_it, witness: Some(("TcpExt", "SyncookiesRecv")), ..template(name, title, GROUP) }
}

fn serve_with(lab: &mut Lab, name: c_int, value: c_int) -> Result<(), LabError> {
    let server = server_with(lab, name, value)?;
    lab.keep(server);
    Ok(())
}

fn server_with(lab: &Lab, name: c_int, value: c_int) -> Result<Listening, LabError> {
    let change = |socket: &socket2::Socket| option::set(socket, libc::IPPROTO_TCP, name, value);
    Listening::accepting_with(&lab.wsl, Binding::new(lab.any(), PORT), change)
}

fn full_of_half_open(lab: &mut Lab) -> Result<(), LabError> {
    let server = Listening::full_of_half_open(&lab.wsl, Binding::new(lab.any(), PORT).backlog(BACKLOG))?;
    lab.keep(server);
    Ok(())
}

/// A server with TCP Fast Open, of which the client has a cookie from an earlier connection.
fn fast_open_server(lab: &Lab) -> Result<Listening, LabError> {
    lab.client.set_sysctl("net.ipv4.tcp_fastopen", "1")?;
    lab.wsl.set_sysctl("net.ipv4.tcp_fastopen", "2")?;
    let server = server_with(lab, libc::TCP_FASTOPEN, 16)?;
    let target = (Lab::wsl_address(lab.v6), PORT).into();
    let earlier = Attempt { target, ..fast_open().attempt() }.make(&lab.client)?;
    if earlier.seen != Seen::Connected {
        return Err(LabError::Failed(format!("no cookie for TCP Fast Open: the client saw '{}'", earlier.seen)));
    }
    Ok(server)
}
