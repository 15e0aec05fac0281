//! How a record's journey ended: by which event, with what outcome, and at which stage.

use wsltrace_common::{Death, Flags, Record, StageCode, StageEntry};

use super::way::{Way, entries, syn_steps};
use super::{FREES_IN_ROUTING, FREES_UNRESOLVED, Facts, Outcome, REFUSED_BY_CLIENT, Stage, symbol};

/// The event that ended the journey, when it was a death.
pub(super) fn end(record: &Record) -> Option<Death> {
    told_end(record).or_else(|| unseen_death(record))
}

/// The same, only where the kernel told of it.
pub(super) fn told_end(record: &Record) -> Option<Death> {
    let answered = record.flags & Flags::SYN_ACK != 0;
    let deaths = if answered {
        [&record.answer_death, &record.answer_death, &record.answer_death]
    } else {
        let answer = if record.flags & Flags::RESET != 0 { &record.answer_death } else { &record.death };
        [answer, &record.death, if record.consumed.time_ns == 0 { &record.stray } else { &record.consumed }]
    };
    deaths.into_iter().find(|death| death.time_ns != 0).copied()
}

/// An answer that refuses the SYN was made in this machine, so the SYN died where it was last: the kernel only did not tell of
/// that (it leaves out events that interrupt a probe).
fn unseen_death(record: &Record) -> Option<Death> {
    const REFUSED: u32 = Flags::RESET | Flags::ICMP;
    const ELSEWHERE: u32 = Flags::SYN_ACK | Flags::OUTSIDE;
    let outside = record.flags & ELSEWHERE != 0 || super::assemble::facts(record).answer_from_outside;
    if record.flags & REFUSED == 0 || outside {
        return None;
    }
    let stage_count = syn_steps(record);
    let last = record.stages.get(stage_count.checked_sub(1)?)?;
    Some(Death {
        time_ns: record.first_ns.saturating_add(last.time_and_code >> StageEntry::TIME_SHIFT),
        location: 0,
        reason: 0,
        netns: last.netns,
        ifindex: last.ifindex,
        stage_count: u32::try_from(stage_count).ok()?,
    })
}

/// The death of what the client sent to confirm the answer, where that kept the connection from being made.
pub(super) fn confirmation_death(record: &Record, outcome: Outcome) -> Option<Death> {
    let made = record.flags & Flags::ESTABLISHED != 0;
    let dropped = record.flags & (Flags::CONFIRMATION_DROPPED | Flags::DATA_DROPPED) == Flags::CONFIRMATION_DROPPED;
    (outcome == Outcome::Answered && dropped && !made).then_some(record.confirmation_death)
}

pub(super) fn outcome(record: &Record, facts: Facts, reason: Option<&str>) -> Outcome {
    let answer_died = record.answer_death.time_ns != 0 && (!facts.answer_left || facts.syn_ack && died_behind_us(facts, reason));
    if answer_died && (facts.syn_ack || facts.reset) {
        return Outcome::AnswerDropped;
    }
    if facts.syn_ack {
        let seen_leaving = facts.answer_left || facts.answer_elsewhere || facts.established;
        return if seen_leaving { Outcome::Answered } else { Outcome::Unfinished };
    }
    if facts.reset {
        // A chain at the device's ingress hook sends its reset straight to the device, so that it seems to come from outside: but
        // what died in a hook here came to nobody outside.
        let died_in_a_hook = record.death.time_ns != 0 && reason == Some("NETFILTER_DROP");
        let unseen_in_a_hook = record.death.time_ns == 0 && !was_delivered(record) && !facts.answer_from_outside;
        let firewall = !facts.kernel_reset && (died_in_a_hook || unseen_in_a_hook);
        return if firewall { Outcome::Rejected } else { Outcome::Refused };
    }
    // An unanswered neighbour is reported by ICMP as well, but nobody rejected the packet.
    let no_neighbour = reason.is_some_and(|reason| reason.starts_with("NEIGH_")) || is_past_rejects(record);
    if facts.icmp && !answer_died && !no_neighbour {
        return Outcome::Rejected;
    }
    if meets_its_request(record, facts, reason) {
        return Outcome::Answered;
    }
    if record.death.time_ns != 0 {
        return if reason == Some("TCP_INVALID_SYN") { Outcome::Challenged } else { Outcome::Dropped };
    }
    if facts.consumed {
        return if was_delivered(record) { Outcome::Ignored } else { Outcome::Unfinished };
    }
    if record.flags & Flags::OUTSIDE != 0 {
        return Outcome::Forwarded;
    }
    // A copy died where the packet itself was last seen coming in: with a reader of raw packets running, the kernel goes on with
    // a copy that no probe saw before it died.
    if facts.seen_as_copy && entries(record).last().is_some_and(|(code, _)| code == StageCode::TcIngress) {
        return Outcome::Dropped;
    }
    Outcome::Unfinished
}

/// Whether the SYN passed the last position of INPUT or POSTROUTING, and nothing after that.
pub(super) fn has_left_its_hook(record: &Record) -> bool {
    let of_syn = entries(record).filter(|(code, entry)| code.is_place() && entry.time_and_code & StageEntry::ANSWER == 0);
    of_syn.last().is_some_and(|(code, _)| matches!(code, StageCode::InputEnd | StageCode::PostroutingEnd))
}

/// Whether the SYN passed INPUT, so that it came to its socket.
fn was_delivered(record: &Record) -> bool {
    entries(record).any(|(code, _)| matches!(code, StageCode::SocketLookup | StageCode::InputEnd))
}

/// Whether an answer that passed our place at its device was dropped by what stands behind, or at the socket of a client in this machine,
/// and no other reached the client.
fn died_behind_us(facts: Facts, reason: Option<&str>) -> bool {
    !facts.acknowledged
        && !facts.established
        && reason
            .is_some_and(|reason| reason == "TC_EGRESS" || reason.starts_with("QDISC_") || REFUSED_BY_CLIENT.contains(&reason))
}

/// Whether the SYN came to POSTROUTING, where no firewall rejects: what is told by ICMP from there on is a missing neighbour, even
/// when the death itself was not seen.
fn is_past_rejects(record: &Record) -> bool {
    let of_syn = entries(record).filter(|(code, entry)| code.is_place() && entry.time_and_code & StageEntry::ANSWER == 0);
    of_syn.last().is_some_and(|(code, _)| (StageCode::Postrouting..=StageCode::PostroutingEnd).contains(&code))
}

/// A retransmitted SYN that finds the request socket of an earlier attempt: the kernel sends the SYN-ACK again (or not, when it
/// has just done so) and frees the SYN without a reason. The attempt is answered all the same.
fn meets_its_request(record: &Record, facts: Facts, reason: Option<&str>) -> bool {
    record.flags & Flags::ANSWERED_BEFORE != 0
        && record.death.time_ns != 0
        && !facts.socket_lookup
        && reason.is_none_or(|reason| reason == "NOT_SPECIFIED")
        && entries(record).any(|(code, _)| code == StageCode::InputEnd)
}

/// The stage of the death; adds it to the way where no probe stands at it.
pub(super) fn died_at(
    record: &Record,
    outcome: Outcome,
    (reason, location): (Option<&str>, Option<&str>),
    way: &mut Way,
) -> Option<Stage> {
    if matches!(outcome, Outcome::Answered | Outcome::Forwarded | Outcome::Unfinished) {
        return None;
    }
    let death = end(record)?;
    // What came after the death (the stages of an answer) is not where the packet itself died: a SYN that was refused died
    // before its RST went out, though the RST's stages are listed first.
    let before = if outcome == Outcome::AnswerDropped { usize::MAX } else { syn_steps(record) };
    let last = entries(record)
        .take(before.min(death.stage_count as usize))
        .filter(|(code, _)| code.is_place())
        .filter(|(_, entry)| outcome == Outcome::AnswerDropped || entry.time_and_code & StageEntry::ANSWER == 0);
    let (code, _) = last.last()?;
    let freed_by = |functions: &[&str]| location.is_some_and(|location| functions.contains(&symbol(location)));
    let unresolved = reason.is_some_and(|reason| reason.starts_with("NEIGH_")) || freed_by(&FREES_UNRESOLVED);
    let inferred = match code {
        StageCode::TcIngress if freed_by(&FREES_IN_ROUTING) => Stage::Routing,
        StageCode::SocketLookup if reason != Some("NO_SOCKET") && outcome != Outcome::Refused => Stage::Listener,
        StageCode::InputEnd if reason == Some("NETFILTER_DROP") => return Some(Stage::Input),
        StageCode::InputEnd => Stage::SocketLookup,
        StageCode::PostroutingEnd | StageCode::Postrouting | StageCode::PostroutingSnat if unresolved => Stage::Neighbour,
        StageCode::PostroutingEnd => return Some(Stage::Postrouting),
        other => return Stage::from_code(other),
    };
    way.infer(inferred, outcome == Outcome::AnswerDropped, record, &death);
    Some(inferred)
}
