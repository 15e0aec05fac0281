//! A socket in another namespace than the hooks that its packet passed: an ipvlan in the mode l3s has the lower interface's namespace pass
//! PREROUTING and INPUT, and only then the socket is sought in its own (`ipvlan_nf_input`; 6.12). No event tells of that change, but the
//! answer begins where the socket was sought.

use wsltrace_common::{Flags, Record, StageCode, StageEntry};

use super::way::entries;

/// The record with the search for a socket, and what came of it, where its answer was made; `None` where that is the packet's own
/// namespace, as nearly always.
pub(super) fn where_answered(record: &Record) -> Option<Record> {
    let of_answer = |entry: &StageEntry| entry.time_and_code & StageEntry::ANSWER != 0;
    let (code, answer) = entries(record).find(|(_, entry)| of_answer(entry))?;
    let (last, syn) = entries(record).take_while(|(_, entry)| !of_answer(entry)).last()?;
    let delivered = matches!(last, StageCode::InputEnd | StageCode::SocketLookup);
    let made_here = code == StageCode::Output && record.flags & Flags::ANSWER_FROM_OUTSIDE == 0;
    if !delivered || !made_here || answer.netns == syn.netns {
        return None;
    }
    let (from, to) = (syn.netns, (answer.netns, answer.ifindex));
    let mut moved = *record;
    for entry in moved.stages.iter_mut().take(record.stage_count as usize) {
        let is_search = StageCode::from_number(entry.time_and_code.to_le_bytes()[0]) == Some(StageCode::SocketLookup);
        if is_search && entry.netns == from {
            (entry.netns, entry.ifindex) = to;
        }
    }
    for death in [&mut moved.death, &mut moved.consumed] {
        if death.netns == from {
            (death.netns, death.ifindex) = to;
        }
    }
    Some(moved)
}
