//! A listener is there, and its own settings, or its namespace, keep the client out.

use std::ffi::c_int;
use std::io;

use nix::errno::Errno;
use socket2::{SockFilter, Socket};

use super::{Expect, Scenario, serve, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::{answer, inbound};
use crate::lab::sides::CLIENT_V4;
use crate::lab::{Binding, Lab, LabError, Listening, PORT, Seen, Side, option};

const GROUP: &str = "listener's policy";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![min_ttl(), socket_filter(), md5(), device(), other_netns()]
}

fn min_ttl() -> Scenario {
    refuses("listener-min-ttl", "the server takes packets of a neighbour only (IP_MINTTL 255)", "TCP_MINTTL", (6, 3), |lab| {
        serve_with(lab, |socket| {
            const IP_MINTTL: c_int = 21;
            option::set(socket, libc::IPPROTO_IP, IP_MINTTL, 255)
        })
    })
}

fn socket_filter() -> Scenario {
    refuses("listener-filter", "a filter on the server's socket (SO_ATTACH_FILTER) refuses", "SOCKET_FILTER", (5, 18), |lab| {
        serve_with(lab, |socket| {
            // Keep 0 bytes of every packet.
            socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
        })
    })
}

fn md5() -> Scenario {
    refuses("listener-md5", "the server wants signed packets of the client (TCP_MD5SIG)", "TCP_MD5NOTFOUND", (5, 18), |lab| {
        serve_with(lab, sign)
    })
}

fn device() -> Scenario {
    let title = "the server takes connections from another device only (SO_BINDTODEVICE)";
    let base = refused("listener-other-device", title, Code::SocketPolicy);
    Scenario {
        behind: Some(Side::Backend),
        break_it: |lab| {
            let any = lab.any();
            serve(lab, Side::Wsl, Binding::new(any, PORT).device("eth1"))
        },
        ..base
    }
}

fn other_netns() -> Scenario {
    let base = refused("listener-in-container", "the server listens in a container, not published", Code::ListenerOtherNetns);
    Scenario {
        behind: Some(Side::Container),
        break_it: |lab| {
            let any = lab.any();
            serve(lab, Side::Container, Binding::new(any, PORT))
        },
        ..base
    }
}

/// The listener drops the SYN.
fn refuses(
    name: &'static str,
    title: &'static str,
    reason: &'static str,
    since: (u32, u32),
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        break_it,
        client: Seen::NoAnswer,
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((Stage::Listener, Side::Wsl)),
            reason: Some((reason, since)),
            codes: &[Code::SocketPolicy],
            proved: true,
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}

/// The kernel finds no listener for this client.
fn refused(name: &'static str, title: &'static str, code: Code) -> Scenario {
    let base = template(name, title, GROUP);
    Scenario {
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes: if code == Code::SocketPolicy { &[Code::SocketPolicy] } else { &[Code::ListenerOtherNetns] },
            proved: true,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

pub(super) fn serve_with(lab: &mut Lab, change: fn(&Socket) -> io::Result<()>) -> Result<(), LabError> {
    let server = Listening::accepting_with(&lab.wsl, Binding::new(lab.any(), PORT), change)?;
    lab.keep(server);
    Ok(())
}

/// `struct tcp_md5sig` with an IPv4 address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Md5Signature {
    family: u16,
    port: u16,
    address: [u8; 4],
    rest_of_address: [u8; 120],
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: c_int,
    key: [u8; 80],
}

/// Has the packets of the client signed.
fn sign(socket: &Socket) -> io::Result<()> {
    let signature = Md5Signature {
        family: u16::try_from(libc::AF_INET).map_err(io::Error::other)?,
        port: 0,
        address: CLIENT_V4.octets(),
        rest_of_address: [0; 120],
        flags: 0,
        prefix_length: 0,
        key_length: 1,
        interface: 0,
        key: [b'k'; 80],
    };
    option::set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, signature)
}
