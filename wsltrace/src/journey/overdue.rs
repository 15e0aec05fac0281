//! When a journey that may still go on is written all the same.

use std::time::Duration;

use wsltrace_common::{Flags, Record, SETTLE_NS, SILENCE_NS, StageCode};

/// How long after its last event a journey is written that may still go on.
const SILENCE: Duration = Duration::from_nanos(SILENCE_NS);
/// The same for a connection that nothing has happened to since it was made, or accepted where that is seen.
const SETTLED: Duration = Duration::from_nanos(SETTLE_NS);
/// The same for a SYN-ACK that the client has not acknowledged.
const UNANSWERED: Duration = Duration::from_secs(3);
/// The same for one that it has acknowledged, and that no connection came of: the server's kernel asks again after a second.
const UNCONFIRMED: Duration = Duration::from_secs(2);
/// The same for a packet that waits for its neighbour: the kernel asks three times, a second apart, before it gives up.
const NEIGHBOUR: Duration = Duration::from_secs(5);

/// Whether a record is more than a place that was taken a moment ago: its probe has not yet written when and whose it is.
pub fn has_begun(record: &Record) -> bool {
    record.last_ns != 0
}

/// Whether nothing more is to be expected of a journey, by the time since its last event.
pub fn is_overdue(record: &Record, now_ns: u64) -> bool {
    if record.flags & Flags::DONE != 0 {
        return true;
    }
    let entries = record.stages.iter().take(record.stage_count as usize);
    let mut codes = entries.filter_map(|entry| StageCode::from_number(entry.time_and_code.to_le_bytes()[0]));
    let waits_for_neighbour =
        matches!(codes.rfind(|code| code.is_place()), Some(StageCode::PostroutingEnd | StageCode::Postrouting))
            && record.death.time_ns == 0
            && record.answer_death.time_ns == 0;
    let has = |flags| record.flags & flags == flags;
    let unacknowledged = has(Flags::SYN_ACK) && !has(Flags::ACK);
    let unconfirmed = has(Flags::SYN_ACK | Flags::ACK)
        && record.flags & (Flags::ESTABLISHED | Flags::ANSWER_FROM_OUTSIDE | Flags::SYN_ACK_AGAIN) == 0;
    let patience = if record.flags & (Flags::SETTLING | Flags::UNACCEPTED) == Flags::SETTLING {
        SETTLED
    } else if waits_for_neighbour {
        NEIGHBOUR
    } else if unacknowledged {
        UNANSWERED
    } else if unconfirmed {
        UNCONFIRMED
    } else {
        SILENCE
    };
    u128::from(now_ns.saturating_sub(record.last_ns)) >= patience.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_established_connection_is_held_for_a_moment_and_for_a_second_while_nobody_accepts() {
        // SAFETY: a record is made of integers, for which zeroes are a value.
        let mut record: Record = unsafe { std::mem::zeroed() };
        record.last_ns = 1;
        record.flags = Flags::SYN_ACK | Flags::ACK | Flags::ESTABLISHED | Flags::SETTLING;
        assert!(!is_overdue(&record, SETTLE_NS) && is_overdue(&record, SETTLE_NS + 1));
        record.flags |= Flags::UNACCEPTED;
        assert!(!is_overdue(&record, SILENCE_NS) && is_overdue(&record, SILENCE_NS + 1));
    }
}
