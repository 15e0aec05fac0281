//! The packet arrives, but nobody takes it there.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::{Expect, Scenario, serve, template};
use crate::diagnosis::Code;
use crate::journey::{Outcome, Stage};
use crate::lab::path::{answer, inbound};
use crate::lab::{Binding, Lab, LabError, Listening, PORT, Seen, Side};

/// A second address of WSL, which the client does not ask for.
const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 3);

pub(super) fn scenarios() -> Vec<Scenario> {
    [bound_otherwise(), not_listening(), gone(), full()].concat()
}

/// No server, or one that listens where the client does not ask.
fn bound_otherwise() -> Vec<Scenario> {
    vec![
        no_listener(),
        over_v6(refused("no-listener-v6", "nothing listens on the port, asked over IPv6", &[Code::NoListener], |_| Ok(()))),
        refused("listener-loopback", "the server listens on 127.0.0.1 only", &[Code::ListenerBoundElsewhere], |lab| {
            serve(lab, Side::Wsl, Binding::new(Ipv4Addr::LOCALHOST, PORT))
        }),
        refused("listener-other-address", "the server listens on another address", &[Code::ListenerBoundElsewhere], |lab| {
            lab.wsl.address("eth0", OTHER_ADDRESS.into(), 20)?;
            serve(lab, Side::Wsl, Binding::new(OTHER_ADDRESS, PORT))
        }),
        Scenario {
            v6: true,
            ..refused("listener-v6only", "an IPv6-only server, asked over IPv4", &[Code::ListenerOtherFamily], |lab| {
                serve(lab, Side::Wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT))
            })
        },
        over_v6(refused("listener-v4-only", "an IPv4 server, asked over IPv6", &[Code::ListenerOtherFamily], |lab| {
            serve(lab, Side::Wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT))
        })),
        Scenario {
            expect: Expect { says: "the nearest ports that do are 8081 (", ..no_listener().expect },
            ..refused("no-listener-near", "the server listens on the next port", &[Code::NoListener], |lab| {
                let any = lab.any();
                serve(lab, Side::Wsl, Binding::new(any, PORT + 1))?;
                serve(lab, Side::Wsl, Binding::new(any, PORT + 10_000))
            })
        },
    ]
}

/// Somebody has the port, and does not listen on it.
fn not_listening() -> Vec<Scenario> {
    vec![
        // Kernels before 6.8 do not tell of a socket that does not listen.
        Scenario {
            expect: Expect { says: "nothing listens on port 8080", ..no_listener().expect },
            ..refused("listener-not-yet", "a program has bound the port, and does not listen on it", &[Code::NoListener], |lab| {
                bind(lab, Type::STREAM)
            })
        },
        Scenario {
            expect: Expect { says: ") has that port for UDP, by which no TCP connection is taken", ..no_listener().expect },
            ..refused("listener-udp", "the server has the port for UDP alone, as one of QUIC", &[Code::NoListener], |lab| {
                bind(lab, Type::DGRAM)
            })
        },
    ]
}

/// The server's address is none of an interface's.
fn gone() -> Vec<Scenario> {
    vec![
        Scenario {
            tools: &["ip"],
            expect: Expect {
                says: "which is no address of this machine",
                codes: &[Code::ListenerBoundElsewhere],
                ..no_listener().expect
            },
            ..refused("listener-address-gone", "the server listens on an address that WSL had once", &[], |lab| {
                lab.wsl.address("eth0", OTHER_ADDRESS.into(), 20)?;
                serve(lab, Side::Wsl, Binding::new(OTHER_ADDRESS, PORT))?;
                lab.wsl.ip(&format!("address del {OTHER_ADDRESS}/20 dev eth0"))
            })
        },
        Scenario {
            tools: &["ip"],
            expect: Expect {
                says: "listens on 172.28.16.3:8080 only, and the client asked for",
                codes: &[Code::ListenerBoundElsewhere],
                ..no_listener().expect
            },
            ..refused(
                "listener-address-by-route",
                "the server listens on an address that is WSL's by a route alone",
                &[],
                |lab| {
                    lab.wsl.ip(&format!("route add local {OTHER_ADDRESS} dev lo"))?;
                    serve(lab, Side::Wsl, Binding::new(OTHER_ADDRESS, PORT))
                },
            )
        },
    ]
}

fn full() -> Vec<Scenario> {
    vec![
        accept_queue_full(),
        Scenario {
            break_it: |lab| {
                let server = Listening::full(&lab.wsl, Binding::new(lab.any(), PORT).backlog(0))?;
                lab.keep(server);
                Ok(())
            },
            expect: Expect { says: "is full (1 wait, limit 0)", ..accept_queue_full().expect },
            name: "accept-queue-of-one",
            title: "the server does not accept, and its queue has room for one (backlog 0)",
            ..accept_queue_full()
        },
        Scenario {
            break_it: |lab| {
                let binding = Binding::new(lab.any(), PORT).shared();
                let stuck = Listening::full(&lab.wsl, binding.backlog(4))?;
                lab.keep(stuck);
                serve(lab, Side::Wsl, binding)
            },
            expect: Expect { proved: false, inferred: true, says: "is full (5 wait, limit 4)", ..accept_queue_full().expect },
            name: "accept-queue-full-shared",
            title: "of two servers that share the port (SO_REUSEPORT) one has a full queue",
            ..accept_queue_full()
        },
    ]
}

/// A socket of this type that has the port on every address of WSL.
fn bind(lab: &mut Lab, kind: Type) -> Result<(), LabError> {
    let address = SocketAddr::new(lab.any(), PORT);
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        socket.bind(&address.into()).map(|()| socket)
    };
    let socket = lab.wsl.run(|| bound().map_err(LabError::io(format!("bind a socket to port {PORT}"))))?;
    lab.keep(socket);
    Ok(())
}

pub(super) fn no_listener() -> Scenario {
    refused("no-listener", "nothing listens on the port", &[Code::NoListener], |_| Ok(()))
}

fn refused(
    name: &'static str,
    title: &'static str,
    codes: &'static [Code],
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, "listener");
    Scenario {
        break_it,
        client: Seen::Failed(Errno::ECONNREFUSED),
        witness: Some(("Tcp", "OutRsts")),
        expect: Expect {
            codes,
            proved: true,
            path: [inbound(Stage::SocketLookup), answer()].concat(),
            ..base.expect.refused_by_kernel(Side::Wsl)
        },
        ..base
    }
}

fn over_v6(scenario: Scenario) -> Scenario {
    Scenario { v6: true, target: Lab::wsl_address(true), ..scenario }
}

fn accept_queue_full() -> Scenario {
    let base = template("accept-queue-full", "the server does not accept and its queue is full", "listener");
    Scenario {
        break_it: |lab| {
            let server = Listening::full(&lab.wsl, Binding::new(lab.any(), PORT).backlog(4))?;
            lab.keep(server);
            Ok(())
        },
        client: Seen::NoAnswer,
        witness: Some(("TcpExt", "ListenOverflows")),
        expect: Expect {
            outcomes: &[Outcome::Ignored],
            died: Some((Stage::Listener, Side::Wsl)),
            codes: &[Code::AcceptQueueFull],
            proved: true,
            path: inbound(Stage::Listener),
            ..base.expect
        },
        ..base
    }
}
