//! Connections that do not get on because of this machine: a rule of its own drops their packets, or its server does not read.

use std::time::Duration;

use super::super::firewall::name;
use super::super::remedy::Obstacle;
use super::{Cause, Lately, Stall};
use crate::evidence::{Connection, Dropped};
use crate::journey::{DataDrop, Journey, Origin};

/// So long nothing comes through where a rule stops a connection: a lost packet was sent again meanwhile, more than once.
const STUCK: Duration = Duration::from_secs(3);
/// So many packets a rule that stops it has dropped by then; one may be dropped for another reason.
const PACKETS: u32 = 2;
/// A server that works on what it has read may leave the rest for a while.
const UNREAD: Duration = Duration::from_secs(5);
/// So much no server leaves that waits for data; bytes.
const MUCH: u32 = 32 << 10;

/// A rule here drops what the connection lacks. `stalls`: the socket, too, says that it does not get on.
pub(super) fn dropped_by_rule(journey: &Journey, lately: &Lately<'_>, stalls: bool) -> Option<Stall> {
    let dropped = lately.dropped?;
    let Some(packets) = dropped.packets else {
        let by_firewall = journey.facts.data_dropped == Some(DataDrop::Firewall);
        return (stalls && by_firewall).then(|| dropped_by_suspect(journey, dropped));
    };
    if !(stalls || lately.still >= STUCK && packets >= PACKETS) {
        return None;
    }
    let (cause, what) = if dropped.from_client {
        (Cause::DataDropped, "the client sends on it")
    } else {
        (Cause::SendingRefused, "the server sends on it, data or confirmations,")
    };
    let text = dropped.rule.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    let summary = format!(
        "connected, but what {what} is dropped on this machine by {}{text}: {packets} packets died there while nothing came through",
        name(&dropped.rule)
    );
    Some(Stall { cause, summary, remedy: mend(journey, dropped) })
}

/// That a firewall dropped the first data was seen, and there is no other rule that can.
fn dropped_by_suspect(journey: &Journey, dropped: &Dropped) -> Stall {
    let on = journey.interface.as_deref().map(|interface| format!(" on {interface}")).unwrap_or_default();
    let text = dropped.rule.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    let summary = format!(
        "connected, but a firewall here dropped the first data that the client sent{on}, and nothing has come through since: the only rule there that can drop it, by the rules as they are now, is {}{text}",
        name(&dropped.rule)
    );
    Stall { cause: Cause::DataDropped, summary, remedy: mend(journey, dropped) }
}

fn mend(journey: &Journey, dropped: &Dropped) -> Vec<String> {
    let obstacle = Obstacle {
        rule: &dropped.rule,
        port: dropped.port,
        answer: !dropped.from_client,
        v6: journey.flow.source.is_ipv6(),
        forward: dropped.forward,
        leaves_by: None,
        server: None,
        loopback: journey.origin != Origin::Remote,
    };
    let place = dropped.entrance.as_ref().map(|entrance| format!("{entrance} ")).unwrap_or_default();
    obstacle.mend().into_iter().map(|line| if line.starts_with('#') { line } else { format!("sudo {place}{line}") }).collect()
}

/// The server leaves what the client sends.
pub(super) fn not_read(connection: &Connection, lately: &Lately<'_>) -> Option<Stall> {
    let unread = connection.unread_bytes;
    if unread < MUCH || lately.still < UNREAD {
        return None;
    }
    let summary = format!(
        "connected, but the server does not read what the client sends: {unread} bytes have waited for {} s, and nothing more has come",
        lately.still.as_secs()
    );
    let look = "# look what the server waits for: it hangs, or expects that the client reads before it sends more".to_owned();
    Some(Stall { cause: Cause::NotRead, summary, remedy: vec![look] })
}

#[cfg(test)]
mod tests {
    use super::super::stall;
    use super::super::tests::FLOWS;
    use super::*;
    use crate::journey::{Outcome, Stage};
    use crate::output::samples;

    fn judged(connection: Connection, still: u64, dropped: Option<&Dropped>) -> Option<Stall> {
        let journey = samples::journey(&[Stage::TcIngress, Stage::Established], Outcome::Answered, None, None);
        stall(&journey, &connection, &Lately { still: Duration::from_secs(still), dropped, ..Lately::default() })
    }

    fn dropped(packets: u32, from_client: bool) -> Dropped {
        Dropped { rule: samples::rule(), forward: false, from_client, port: 8080, packets: Some(packets), entrance: None }
    }

    #[test]
    fn a_rule_is_blamed_for_what_it_drops_and_nobody_else() {
        let cause = |found: Option<Stall>| found.map(|found| found.cause);
        assert_eq!(cause(judged(FLOWS, 3, Some(&dropped(2, true)))), Some(Cause::DataDropped));
        assert_eq!(cause(judged(FLOWS, 3, Some(&dropped(2, false)))), Some(Cause::SendingRefused));
        assert_eq!(cause(judged(FLOWS, 2, Some(&dropped(9, true)))), None, "a limit lets the next one through");
        assert_eq!(cause(judged(FLOWS, 9, Some(&dropped(1, true)))), None, "one alone");
        let unconfirmed = Connection { retransmissions: 4, unconfirmed: 4, unconfirmed_bytes: 700, ..FLOWS };
        assert_eq!(cause(judged(unconfirmed, 0, None)), Some(Cause::Unconfirmed));
        let here = judged(unconfirmed, 0, Some(&dropped(1, false)));
        assert!(here.as_ref().is_some_and(|here| here.summary.contains("dropped on this machine by")), "{here:?}");
        assert_eq!(cause(here), Some(Cause::SendingRefused));
    }

    #[test]
    fn the_only_rule_that_can_is_named_where_data_was_seen_to_die() {
        let mut journey = samples::journey(&[Stage::TcIngress, Stage::Established], Outcome::Answered, None, None);
        let suspect = Dropped { packets: None, ..dropped(0, true) };
        let lately = &Lately { still: Duration::from_secs(9), dropped: Some(&suspect), ..Lately::default() };
        let nothing = Connection { received_bytes: 0, ..FLOWS };
        assert_eq!(stall(&journey, &nothing, lately), None, "nothing was seen to die");
        journey.facts.data_dropped = Some(DataDrop::Firewall);
        let found = stall(&journey, &nothing, lately);
        assert!(found.as_ref().is_some_and(|found| found.cause == Cause::DataDropped && found.remedy.len() == 1), "{found:?}");
        assert!(found.is_some_and(|found| found.summary.contains("the only rule there that can drop it")));
        assert_eq!(stall(&journey, &FLOWS, lately), None, "what was sent again came through");
    }

    #[test]
    fn a_server_that_leaves_much_for_long_does_not_read() {
        let much = Connection { unread_bytes: MUCH, ..FLOWS };
        assert_eq!(judged(much, 5, None).map(|found| found.cause), Some(Cause::NotRead));
        assert_eq!(judged(much, 4, None), None);
        assert_eq!(judged(Connection { unread_bytes: MUCH - 1, ..FLOWS }, 50, None), None);
    }
}
