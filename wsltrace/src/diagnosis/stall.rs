//! What it means that a connection which was made does not get on: a pure function of how its socket is doing. No packet that died
//! says so, hence all of it is inferred.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::escape::shell_word;
use crate::evidence::{Connection, Dropped, Obstacle};
use crate::journey::{Journey, Origin};

#[path = "stall_first_data.rs"]
mod first_data;
#[path = "stall_here.rs"]
mod here;

/// Why a connection does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Packets of full size are not confirmed, and smaller ones are: the path carries less than the interface says.
    PathMtu,
    /// Nothing of what the server sends is confirmed any more.
    Unconfirmed,
    /// The client takes no more data.
    WindowClosed,
    /// A firewall here, or traffic control, drops what the client sends.
    DataDropped,
    /// The kernel here does not get out what the server sends.
    SendingRefused,
    /// The server does not read what the client sends.
    NotRead,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 6] =
        [Self::PathMtu, Self::Unconfirmed, Self::WindowClosed, Self::DataDropped, Self::SendingRefused, Self::NotRead];

    /// The name in the JSON contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::PathMtu => "path_mtu",
            Self::Unconfirmed => "unconfirmed",
            Self::WindowClosed => "window_closed",
            Self::DataDropped => "data_dropped",
            Self::SendingRefused => "sending_refused",
            Self::NotRead => "not_read",
        }
    }
}

/// What is said about a connection that does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Why.
    pub cause: Cause,
    /// One sentence without its full stop.
    pub summary: String,
    /// Commands, and lines that begin with `#` where no command helps.
    pub remedy: Vec<String>,
}

/// So often full packets were sent again in vain while a smaller one behind them arrived: with the least time-out of Linux, 200 ms that double, 1.4 s
/// have gone by. That it arrives is what a network that is gone for a moment does not do.
const FULL_PACKETS: u32 = 3;
/// So often the same data was sent again in vain: 3 s.
const ANY_PACKETS: u32 = 4;
/// So often a client was asked in vain whether it takes data: 12 s. One that reads slowly, as `curl --limit-rate` does, opens its window now
/// and then, some seconds apart.
const PROBES: u32 = 6;
/// An IPv6 link carries packets of this size, and in practice every path of IPv4 does; bytes.
const CARRIED_BY_ALL: u32 = 1280;
/// What is left of 1500 bytes in the tunnels of the usual VPNs; bytes.
const CARRIED_BY_TUNNELS: u32 = 1350;

/// What was seen of a connection beside its socket as it is now.
#[derive(Clone, Debug, Default)]
pub struct Lately<'a> {
    /// How long nothing has come through in either direction, and nothing was read.
    pub still: Duration,
    /// The rule that has dropped most of its packets since it was suspected.
    pub dropped: Option<&'a Dropped>,
    /// What stands where the client's first data died, where it was no firewall that dropped it.
    pub obstacle: Obstacle,
}

/// Judges how the connection of an answered journey is doing; `None` while it gets on.
pub fn stall(journey: &Journey, connection: &Connection, lately: &Lately<'_>) -> Option<Stall> {
    let by_socket = by_socket(journey, connection, &lately.obstacle);
    here::dropped_by_rule(journey, lately, by_socket.is_some()).or(by_socket).or_else(|| here::not_read(connection, lately))
}

/// The same by what the socket alone tells.
fn by_socket(journey: &Journey, connection: &Connection, obstacle: &Obstacle) -> Option<Stall> {
    // Where what was sent again came through, the rule has a limit, or means something else.
    if connection.received_bytes == 0
        && let Some(by) = journey.facts.data_dropped
    {
        return Some(first_data::dropped(journey, by, obstacle));
    }
    if connection.unconfirmed == 0 {
        if connection.probes < PROBES || connection.waiting_bytes == 0 {
            return None;
        }
        // The kernel asks for room in the same way where it cannot get out what there is room for.
        let room = connection.window_bytes >= connection.segment_bytes.min(connection.waiting_bytes);
        return Some(if room { sending_refused(connection) } else { window_closed(journey, connection) });
    }
    // The server's FIN alone: everything it had to say is confirmed.
    if connection.unconfirmed == 1 && connection.unconfirmed_bytes == 0 {
        return None;
    }
    let segment = u64::from(connection.segment_bytes);
    let full_size = connection.unconfirmed_bytes + 1 >= segment;
    if let Some((device, mtu)) = obstacle.narrow_back.as_ref().filter(|(_, mtu)| *mtu < connection.path_mtu)
        && full_size
        && connection.retransmissions >= FULL_PACKETS
    {
        return Some(first_data::too_large_back(journey, connection, device, *mtu));
    }
    // Where a full packet may have arrived before, as in a download that has gone on for a while, it is not their size. Of what was written
    // at once only the last packet is smaller.
    let full_may_have_arrived = connection.confirmed_bytes >= segment || connection.arrived_behind > 1;
    let small_arrives_now = connection.arrived_behind == 1;
    // A SYN and a FIN count for one byte each.
    let small_has_arrived = connection.confirmed_bytes > 2;
    let may_be_too_large = full_size && connection.path_mtu > CARRIED_BY_ALL && journey.origin == Origin::Remote;
    if connection.retransmissions < if small_arrives_now { FULL_PACKETS } else { ANY_PACKETS } {
        return None;
    }
    if may_be_too_large && !full_may_have_arrived && (small_arrives_now || small_has_arrived) {
        return Some(path_mtu(journey, connection));
    }
    (connection.retransmissions >= ANY_PACKETS).then(|| unconfirmed(connection))
}

fn path_mtu(journey: &Journey, connection: &Connection) -> Stall {
    let Connection { retransmissions, path_mtu, .. } = connection;
    let summary = format!(
        "connected, but the server's packets of full size ({path_mtu} bytes) do not arrive, while smaller ones do: the first was sent again {retransmissions} times; most likely the way to the client carries less, as through a VPN, and the ICMP errors that would say so are dropped"
    );
    let size = if *path_mtu > CARRIED_BY_TUNNELS { CARRIED_BY_TUNNELS } else { CARRIED_BY_ALL };
    let remedy = journey.interface.as_deref().map(|interface| {
        let set = |size| format!("ip link set dev {} mtu {size}", shell_word(interface));
        let back = format!("# if that does not help, put it back: sudo {}", set(*path_mtu));
        vec![format!("sudo {}", set(size)), back]
    });
    let remedy = remedy.unwrap_or_default();
    Stall { cause: Cause::PathMtu, summary, remedy }
}

fn unconfirmed(connection: &Connection) -> Stall {
    let Connection { retransmissions, silent_ms, .. } = connection;
    let since = silent_ms / 1000;
    let summary = format!(
        "connected, but the client does not confirm what the server sends: it was sent again {retransmissions} times, and nothing has come back for {since} s; the client or the way to it is gone, or a firewall on that way, the old iptables here included, drops packets of connections that stand"
    );
    let look = "# look whether the client still runs, and capture on its side whether these packets arrive".to_owned();
    Stall { cause: Cause::Unconfirmed, summary, remedy: vec![look] }
}

fn sending_refused(connection: &Connection) -> Stall {
    let Connection { probes, waiting_bytes, window_bytes, .. } = connection;
    let summary = format!(
        "connected, but what the server sends does not leave this machine: {waiting_bytes} bytes wait, the client would take {window_bytes}, and sending failed {probes} times in a row; most likely a firewall rule here (OUTPUT or POSTROUTING) drops data that the server sends; which rule is not known"
    );
    let remedy = vec![
        "# it passes what makes a connection, and drops data: look at output and postrouting for a length, flags (psh), a limit, a quota"
            .to_owned(),
        "sudo nft -a list ruleset".to_owned(),
        "sudo iptables-legacy-save -c".to_owned(),
    ];
    Stall { cause: Cause::SendingRefused, summary, remedy }
}

fn window_closed(journey: &Journey, connection: &Connection) -> Stall {
    let Connection { probes, waiting_bytes, .. } = connection;
    let who = match journey.origin {
        Origin::WslLocalhostRelay => "WSL's localhost relay",
        Origin::Remote | Origin::Local => "the client",
    };
    let summary = format!(
        "connected, but {who} takes no more data: its receive window is closed, it was asked {probes} times whether it opens, and {waiting_bytes} bytes wait to be sent"
    );
    let look = match journey.origin {
        // microsoft/WSL#41680
        Origin::WslLocalhostRelay => {
            "# the relay can lock up when both sides send much at once: connect to WSL's own address instead (wsl hostname -I)"
        }
        Origin::Remote | Origin::Local => "# the client does not read what it is sent: look what it waits for",
    };
    Stall { cause: Cause::WindowClosed, summary, remedy: vec![look.to_owned()] }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;
    use crate::journey::{Outcome, Stage};
    use crate::output::samples;

    pub(super) const FLOWS: Connection = Connection {
        retransmissions: 0,
        probes: 0,
        unconfirmed: 0,
        arrived_behind: 0,
        unconfirmed_bytes: 0,
        confirmed_bytes: 300,
        received_bytes: 80,
        unread_bytes: 0,
        waiting_bytes: 0,
        window_bytes: 0,
        segment_bytes: 1448,
        path_mtu: 1500,
        silent_ms: 20,
    };

    fn judged(origin: Origin, connection: Connection) -> Option<Stall> {
        let journey = samples::journey(&[Stage::TcIngress, Stage::Established], Outcome::Answered, None, None);
        stall(&Journey { origin, ..journey }, &connection, &Lately::default())
    }

    fn cause(origin: Origin, connection: Connection) -> Option<Cause> {
        judged(origin, connection).map(|stall| stall.cause)
    }

    #[test]
    fn what_flows_or_has_just_begun_to_wait_is_no_stall() {
        assert_eq!(cause(Origin::Remote, FLOWS), None);
        let lossy = Connection { retransmissions: 2, unconfirmed: 4, unconfirmed_bytes: 5000, ..FLOWS };
        assert_eq!(cause(Origin::Remote, lossy), None);
        assert_eq!(cause(Origin::Remote, Connection { probes: 5, waiting_bytes: 9, ..FLOWS }), None);
        assert_eq!(cause(Origin::Remote, Connection { probes: 9, ..FLOWS }), None, "keep-alive probes carry nothing");
        let parting = Connection { retransmissions: 6, unconfirmed: 1, silent_ms: 9000, ..FLOWS };
        assert_eq!(cause(Origin::Remote, parting), None, "only the end of the connection is not confirmed");
        assert_eq!(cause(Origin::Remote, Connection { unconfirmed_bytes: 9, ..parting }), Some(Cause::Unconfirmed));
    }

    #[test]
    fn only_full_packets_beside_small_ones_that_arrive_speak_of_the_path() {
        let full = Connection { retransmissions: 3, unconfirmed: 4, unconfirmed_bytes: 5000, silent_ms: 1500, ..FLOWS };
        let behind = Connection { confirmed_bytes: 1, arrived_behind: 1, ..full };
        assert_eq!(cause(Origin::Remote, behind), Some(Cause::PathMtu));
        assert_eq!(cause(Origin::Remote, full), None, "what arrived before says nothing of now");
        let full = Connection { retransmissions: 4, ..full };
        assert_eq!(cause(Origin::Remote, full), Some(Cause::PathMtu));
        for (origin, other, why) in [
            (Origin::Remote, Connection { confirmed_bytes: 1, ..full }, "nothing arrives"),
            (Origin::Remote, Connection { unconfirmed_bytes: 700, ..full }, "small ones"),
            (Origin::Remote, Connection { path_mtu: 1280, ..full }, "no smaller path"),
            (Origin::WslLocalhostRelay, full, "lo carries everything"),
            (Origin::Remote, Connection { confirmed_bytes: 70_000, ..full }, "full packets arrived before the client was gone"),
            (Origin::Remote, Connection { arrived_behind: 9, ..full }, "and so they did behind a lost one"),
        ] {
            assert_eq!(
                cause(origin, Connection { retransmissions: 3, ..other }),
                None,
                "{why}: the network may be gone for a moment"
            );
            assert_eq!(cause(origin, other), Some(Cause::Unconfirmed), "{why}");
        }
        let remedy = judged(Origin::Remote, full).unwrap().remedy;
        assert!(remedy.contains(&"sudo ip link set dev eth0 mtu 1350".to_owned()), "{remedy:?}");
    }

    #[test]
    fn what_waits_for_no_window_is_not_let_out_here() {
        let waits = Connection { probes: 6, waiting_bytes: 300, window_bytes: 64_000, ..FLOWS };
        let found = judged(Origin::Remote, waits).unwrap();
        assert!(found.cause == Cause::SendingRefused && found.summary.contains("does not leave this machine"), "{found:?}");
        assert_eq!(cause(Origin::Remote, Connection { window_bytes: 299, ..waits }), Some(Cause::WindowClosed));
        let much = Connection { waiting_bytes: 70_000, ..waits };
        assert_eq!(cause(Origin::Remote, Connection { window_bytes: 1447, ..much }), Some(Cause::WindowClosed));
    }

    #[test]
    fn a_closed_window_names_who_does_not_read() {
        let closed = Connection { probes: 6, waiting_bytes: 70_000, ..FLOWS };
        let relay = judged(Origin::WslLocalhostRelay, closed).unwrap();
        assert!(relay.cause == Cause::WindowClosed && relay.summary.contains("relay takes no more data"), "{relay:?}");
        assert!(judged(Origin::Remote, closed).unwrap().summary.contains("the client takes no more data"));
    }
}
