//! The connection is made, and does not get on.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::forwarding::{INNER_PORT, dnat_answered, publish};
use super::{Expect, Scenario, template};
use crate::diagnosis::Cause;
use crate::journey::Origin;
use crate::lab::client::{PAGE, UPLOAD};
use crate::lab::foreign::{Attach, Foreign};
use crate::lab::listener::PATIENCE;
use crate::lab::mend::Mended;
use crate::lab::path::established_on_loopback;
use crate::lab::sides::CONTAINER;
use crate::lab::{Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side};

const GROUP: &str = "after the connection is made";
/// Longer, by a second for a slow machine, than the 1.4 s after which the same data was sent again three times.
const THREE_TIMES: Duration = Duration::from_millis(2_400);
/// The same for four times.
const FOUR_TIMES: Duration = Duration::from_secs(4);
/// Longer, by more than a second, than the 12.6 s after which the kernel has tried six times.
const SIX_PROBES: Duration = Duration::from_secs(14);
/// Longer, by more than two seconds, than what a rule has to stop a connection for, and a server not to read.
const STUCK: Duration = Duration::from_millis(8_500);
/// More than both sides' buffers hold.
const ENDLESS: usize = 64 << 20;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        path_mtu(),
        path_mtu_v6(),
        unconfirmed(),
        window_closed(),
        sending_refused(),
        not_let_through(),
        quota(),
        not_read(),
        data_dropped("data-dropped", false),
        data_dropped("data-dropped-lo", true),
        data_dropped_by_legacy(),
        data_dropped_at_tc(),
    ]
}

fn path_mtu() -> Scenario {
    Scenario {
        break_it: |lab| serve_a_page(lab, "meta length > 1400"),
        client: Seen::Unserved,
        silence: THREE_TIMES,
        manner: Manner::Reads,
        stall: Some(Cause::PathMtu),
        // IPv6's settings show a device's MTU.
        mended: Some(Mended::Set),
        tools: &["nft"],
        ..template("path-mtu", "the way to the client carries less than a full packet, and nobody says so", GROUP)
    }
}

fn path_mtu_v6() -> Scenario {
    let title = "the way to the client carries less than a full packet, and nobody says so (IPv6)";
    Scenario { name: "path-mtu-v6", title, v6: true, target: Lab::wsl_address(true), ..path_mtu() }
}

/// As when a laptop was closed, or a firewall on the way forgot the connection.
fn unconfirmed() -> Scenario {
    Scenario {
        // What has no data is shorter.
        break_it: |lab| serve_a_page(lab, "meta length > 60"),
        client: Seen::Unserved,
        silence: FOUR_TIMES,
        manner: Manner::Reads,
        stall: Some(Cause::Unconfirmed),
        tools: &["nft"],
        ..template("data-unconfirmed", "what the server sends is lost on the way to the client", GROUP)
    }
}

fn window_closed() -> Scenario {
    Scenario {
        break_it: |lab| {
            serve_by(lab, |mut connection| {
                connection.set_write_timeout(Some(PATIENCE))?;
                connection.write_all(&vec![0; ENDLESS])
            })
        },
        manner: Manner::Silent,
        settle: Some(|lab| lab.wsl.await_counter("TcpExt", "TCPWinProbe", 6)),
        stall: Some(Cause::WindowClosed),
        ..template("window-closed", "the client reads nothing of what the server sends", GROUP)
    }
}

/// The kernel tries again as it asks a client that does not read, after ever longer pauses; no counter counts it.
fn sending_refused() -> Scenario {
    Scenario {
        break_it: |lab| {
            lab.wsl.nft("inet", "type filter hook output priority filter", &format!("tcp sport {PORT} meta length > 60 drop"))?;
            greet_and_serve_a_page(lab)
        },
        client: Seen::Unserved,
        silence: SIX_PROBES,
        manner: Manner::Reads,
        stall: Some(Cause::SendingRefused),
        mended: Some(Mended::Removed),
        tools: &["nft"],
        ..template("data-not-let-out", "nftables drops what the server sends, but for what makes a connection", GROUP)
    }
}

/// What a container sends dies where this machine passes it on: to its socket that looks like a client that is gone.
fn not_let_through() -> Scenario {
    let base = template(
        "data-not-let-through",
        "the FORWARD chain drops what a container sends, but for what makes a connection",
        GROUP,
    );
    Scenario {
        behind: Some(Side::Container),
        break_it: |lab| {
            publish(lab, CONTAINER)?;
            let rule = format!("tcp sport {INNER_PORT} meta length > 60 drop");
            lab.wsl.nft("inet", "type filter hook forward priority filter", &rule)?;
            serve_a_page_by(lab, Side::Container, INNER_PORT)
        },
        client: Seen::Unserved,
        silence: STUCK,
        manner: Manner::Reads,
        stall: Some(Cause::SendingRefused),
        mended: Some(Mended::Removed),
        tools: &["nft"],
        expect: dnat_answered().expect,
        ..base
    }
}

/// To the server's socket that looks like a client that has nothing more to say.
fn quota() -> Scenario {
    Scenario {
        break_it: |lab| {
            let rule = format!("tcp dport {PORT} quota over 200 kbytes drop");
            lab.wsl.nft("inet", "type filter hook input priority filter", &rule)?;
            serve_by(lab, |mut connection| {
                connection.set_read_timeout(Some(PATIENCE))?;
                io::copy(&mut (&mut connection).take(UPLOAD as u64), &mut io::sink())?;
                connection.write_all(b"!")
            })
        },
        client: Seen::Unserved,
        silence: STUCK,
        manner: Manner::Uploads,
        stall: Some(Cause::DataDropped),
        mended: Some(Mended::Removed),
        tools: &["nft"],
        options: &["NFT_QUOTA"],
        ..template("data-quota", "nftables lets in 200 kilobytes to the port, and the client sends more", GROUP)
    }
}

fn not_read() -> Scenario {
    Scenario {
        break_it: |lab| {
            serve_by(lab, |connection| {
                let mut hangs = [PollFd::new(connection.as_fd(), PollFlags::empty())];
                poll(&mut hangs, PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?)?;
                Ok(())
            })
        },
        client: Seen::Unserved,
        silence: STUCK,
        manner: Manner::Uploads,
        stall: Some(Cause::NotRead),
        ..template("data-not-read", "the server accepts, and does not read what the client sends", GROUP)
    }
}

/// Rules that let in what makes a connection, and no data.
fn data_dropped(name: &'static str, local: bool) -> Scenario {
    let title = if local { "nftables drops data over lo, and nothing else" } else { "nftables drops data, and nothing else" };
    let remote = data_dropped_as(name, title);
    if !local {
        return remote;
    }
    let expect = Expect { origin: Origin::Local, path: established_on_loopback(), ..remote.expect };
    Scenario { from: Side::Wsl, target: Ipv4Addr::LOCALHOST.into(), expect, ..remote }
}

fn data_dropped_as(name: &'static str, title: &'static str) -> Scenario {
    Scenario {
        break_it: |lab| {
            // With a timestamp, and a byte of data; a SYN has 60 bytes, and a confirmation 52.
            lab.wsl.nft("inet", "type filter hook input priority filter", &format!("tcp dport {PORT} meta length 53 drop"))?;
            answer_a_byte(lab)
        },
        manner: Manner::Speaks,
        client: Seen::Unserved,
        silence: THREE_TIMES,
        tools: &["nft"],
        stall: Some(Cause::DataDropped),
        mended: Some(Mended::Removed),
        ..template(name, title, GROUP)
    }
}

fn answer_a_byte(lab: &mut Lab) -> Result<(), LabError> {
    serve_by(lab, |mut connection| {
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.read_exact(&mut [0])?;
        connection.write_all(b"!")
    })
}

/// Of the old iptables the kernel does not tell which rule it was, and its counter moves with every packet.
fn data_dropped_by_legacy() -> Scenario {
    Scenario {
        break_it: |lab| {
            lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} -m length --length 53 -j DROP"))?;
            answer_a_byte(lab)
        },
        tools: &["iptables-legacy"],
        ..data_dropped_as("data-dropped-iptables-legacy", "iptables (legacy) drops data, and nothing else")
    }
}

fn data_dropped_at_tc() -> Scenario {
    Scenario {
        break_it: |lab| {
            /// Such a packet, with its link-layer header.
            const BYTES: i32 = 14 + 53;
            lab.keep(Foreign::dropping_long(&lab.wsl, Attach::TcxIngress("eth0"), BYTES)?);
            answer_a_byte(lab)
        },
        tools: &[],
        mended: None,
        ..data_dropped_as("data-dropped-tc", "somebody's BPF program at tc drops data, and nothing else")
    }
}

/// The same server; the client's side drops what matches.
fn serve_a_page(lab: &mut Lab, dropped: &str) -> Result<(), LabError> {
    // Each packet is to have its own length when it is looked at.
    lab.wsl.ip("link set dev eth0 gso_max_segs 1")?;
    lab.client.nft("inet", "type filter hook input priority filter", &format!("tcp sport {PORT} {dropped} drop"))?;
    greet_and_serve_a_page(lab)
}

/// A server that greets, and then sends more than fits into a packet.
fn greet_and_serve_a_page(lab: &mut Lab) -> Result<(), LabError> {
    serve_a_page_by(lab, Side::Wsl, PORT)
}

fn serve_a_page_by(lab: &mut Lab, side: Side, port: u16) -> Result<(), LabError> {
    let page = |mut connection: TcpStream| {
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"!")?;
        connection.write_all(&[0; PAGE])?;
        connection.read_to_end(&mut Vec::new())?;
        Ok(())
    };
    let server = Listening::doing(lab.side(side)?, Binding::new(lab.any(), port), page)?;
    lab.keep(server);
    Ok(())
}

fn serve_by(lab: &mut Lab, then: fn(TcpStream) -> io::Result<()>) -> Result<(), LabError> {
    let server = Listening::doing(&lab.wsl, Binding::new(lab.any(), PORT), then)?;
    lab.keep(server);
    Ok(())
}
