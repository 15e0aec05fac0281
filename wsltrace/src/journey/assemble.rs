//! From a record to a journey: stages in users' words, and how it ended. Pure; names of interfaces, drop reasons and symbols
//! come through [`Names`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wsltrace_common::{Address, Death, Flags, Record, StageCode, StageEntry, octets};

use super::{
    Conntrack, DataDrop, DeathPlace, FREES_IN_ROUTING, FREES_UNRESOLVED, Facts, Family, Flow, InterfaceName, Journey, Origin,
    Outcome, REFUSED_BY_CLIENT, Stage, StageVisit, Translated,
    reasons::{is_taken, keeps_from_being_made},
    symbol,
};

/// Names for the numbers in a record.
pub trait Names {
    /// The interface with this number in this namespace.
    fn interface(&self, netns: u32, ifindex: u32) -> Option<InterfaceName>;
    /// A drop reason without its prefix.
    fn reason(&self, number: u32) -> Option<String>;
    /// `symbol+0xoffset` of a code address.
    fn location(&self, address: u64) -> Option<String>;
    /// Whether the connecting task is WSL's localhost relay.
    fn is_relay(&self, tgid: u32, comm: &[u8; 16]) -> bool;
    /// Wall-clock time of an instant of `CLOCK_MONOTONIC`, nanoseconds.
    fn time(&self, monotonic_ns: u64) -> jiff::Timestamp;
}

/// Makes a journey of a record. `id` counts the journeys of this run.
pub fn assemble(record: &Record, id: u64, names: &impl Names) -> Journey {
    let reason_of = |death: Death| if death.reason == 0 { None } else { names.reason(death.reason) };
    let by_netfilter = |death: &Death| reason_of(*death).as_deref() == Some("NETFILTER_DROP");
    let of_data = record.flags & Flags::DATA_DROPPED != 0;
    let data_dropped = reason_of(record.confirmation_death).filter(|_| of_data).and_then(|reason| DataDrop::of(&reason));
    let at_confirmation = by_netfilter(&record.death) && has_left_its_hook(record);
    let location_of = |death: Death| if death.location == 0 { None } else { names.location(death.location) };
    let died = record.confirmation_death;
    let of_confirmation = record.flags & (Flags::CONFIRMATION_DROPPED | Flags::DATA_DROPPED) == Flags::CONFIRMATION_DROPPED;
    let confirmation_taken =
        of_confirmation && died.time_ns != 0 && is_taken(reason_of(died).as_deref(), location_of(died).as_deref());
    let facts = Facts { confirmation_taken, data_dropped, at_confirmation, ..facts(record) };
    let reason = end(record).and_then(reason_of);
    let outcome = outcome(record, facts, reason.as_deref());
    let location = end(record).and_then(location_of);
    let mut way = Way::read(record);
    let died_at = died_at(record, outcome, (reason.as_deref(), location.as_deref()), &mut way);
    if outcome == Outcome::Unfinished {
        way.infer_waiting(facts.syn_ack);
    }
    let for_good = |death: &Death| keeps_from_being_made(reason_of(*death).as_deref(), location_of(*death).as_deref());
    let unconfirmed = || confirmation_death(record, outcome).filter(for_good).filter(|_| !facts.answer_from_outside);
    let ended = if died_at.is_some() { end(record) } else { unconfirmed() };
    // Now and then the kernel does not tell of a packet that it frees, and counts no missed event either.
    let end_is_missing = died_at.is_some() && told_end(record).is_none();
    let interface = |netns, ifindex| if ifindex == 0 { None } else { names.interface(netns, ifindex) };
    let (stages, answer) = way.visits(&interface);
    Journey {
        id,
        time: names.time(record.first_ns),
        origin: origin(record, names),
        interface: interface(record.netns, record.ifindex),
        netns: record.netns,
        flow: flow(record),
        attempt: record.attempt,
        conntrack: conntrack(record),
        translated: translated(record),
        stages,
        answer,
        outcome,
        died_at,
        death: ended.map(|death| DeathPlace { netns: death.netns, interface: interface(death.netns, death.ifindex) }),
        reason: ended.and_then(reason_of),
        location: ended.and_then(location_of),
        complete: record.flags & Flags::INCOMPLETE == 0 && !end_is_missing,
        facts,
    }
}

fn facts(record: &Record) -> Facts {
    let has = |flag| record.flags & flag != 0;
    Facts {
        lasted_ns: record.last_ns.saturating_sub(record.first_ns),
        syn_ack: has(Flags::SYN_ACK),
        reset: has(Flags::RESET),
        kernel_reset: has(Flags::KERNEL_RESET),
        icmp: has(Flags::ICMP),
        answer_left: has(Flags::ANSWER_LEFT),
        answer_elsewhere: has(Flags::ANSWER_ELSEWHERE),
        answer_from_outside: has(Flags::ANSWER_FROM_OUTSIDE) && !is_answered_in_a_vrf(record),
        answer_alien: has(Flags::ANSWER_ALIEN),
        acknowledged: has(Flags::ACK),
        established: has(Flags::ESTABLISHED),
        not_accepted: has(Flags::NOT_ACCEPTED),
        server_reset_ns: has(Flags::SERVER_RESET).then(|| lasted(record, StageCode::Established)).flatten(),
        server_closed_ns: has(Flags::SERVER_CLOSED).then(|| lasted(record, StageCode::Established)).flatten(),
        data_dropped: None,
        syn_ack_again: has(Flags::SYN_ACK_AGAIN),
        socket_lookup: entries(record).any(|(code, _)| code == StageCode::SocketLookup),
        consumed: record.consumed.time_ns != 0,
        seen_as_copy: record.death.time_ns == 0 && record.stray.time_ns != 0,
        answered_before: has(Flags::ANSWERED_BEFORE),
        asked_again: has(Flags::SUPERSEDED),
        at_confirmation: false,
        confirmation_taken: false,
    }
}

/// What leaves by a VRF passes its POSTROUTING before any OUTPUT; what comes from outside is never first seen there.
fn is_answered_in_a_vrf(record: &Record) -> bool {
    let mut answer = entries(record).filter(|(_, entry)| entry.time_and_code & StageEntry::ANSWER != 0);
    answer.next().is_some_and(|(code, _)| code == StageCode::Postrouting)
}

/// The time from the stage's last visit to the record's last event.
fn lasted(record: &Record, stage: StageCode) -> Option<u64> {
    let since = entries(record)
        .filter(|(code, _)| *code == stage)
        .last()
        .map(|(_, entry)| entry.time_and_code >> StageEntry::TIME_SHIFT)?;
    Some(record.last_ns.saturating_sub(record.first_ns).saturating_sub(since))
}

/// The event that ended the journey, when it was a death.
fn end(record: &Record) -> Option<Death> {
    told_end(record).or_else(|| unseen_death(record))
}

/// The same, only where the kernel told of it.
fn told_end(record: &Record) -> Option<Death> {
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
    let outside = record.flags & ELSEWHERE != 0 || facts(record).answer_from_outside;
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
fn confirmation_death(record: &Record, outcome: Outcome) -> Option<Death> {
    let made = record.flags & Flags::ESTABLISHED != 0;
    let dropped = record.flags & (Flags::CONFIRMATION_DROPPED | Flags::DATA_DROPPED) == Flags::CONFIRMATION_DROPPED;
    (outcome == Outcome::Answered && dropped && !made).then_some(record.confirmation_death)
}

fn outcome(record: &Record, facts: Facts, reason: Option<&str>) -> Outcome {
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
fn has_left_its_hook(record: &Record) -> bool {
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

fn entries(record: &Record) -> impl Iterator<Item = (StageCode, &StageEntry)> {
    let count = record.stage_count as usize;
    record
        .stages
        .iter()
        .take(count)
        .filter_map(|entry| Some((StageCode::from_number(entry.time_and_code.to_le_bytes()[0])?, entry)))
}

/// One stage on the way, in users' words or still as a mark.
#[derive(Clone, Copy)]
struct Step {
    stage: Option<Stage>,
    code: Option<StageCode>,
    of_answer: bool,
    ns: u64,
    netns: u32,
    ifindex: u32,
}

/// The stages of a record, marks included.
struct Way {
    steps: Vec<Step>,
}

impl Way {
    fn read(record: &Record) -> Self {
        let mut steps = Vec::with_capacity(record.stage_count as usize + 2);
        let mut answered = false;
        for (code, entry) in entries(record).filter(|(code, _)| code.is_place()) {
            let ns = entry.time_and_code >> StageEntry::TIME_SHIFT;
            let of_answer = entry.time_and_code & StageEntry::ANSWER != 0;
            let step = Step {
                stage: Stage::from_code(code),
                code: Some(code),
                of_answer,
                ns,
                netns: entry.netns,
                ifindex: entry.ifindex,
            };
            if of_answer && !answered {
                answered = true;
                if matches!(code, StageCode::Output | StageCode::Postrouting) && record.flags & Flags::SYN_ACK != 0 {
                    steps.push(Step { stage: Some(Stage::SynAck), code: None, ..step });
                }
            }
            steps.push(step);
        }
        Self { steps }
    }

    /// Adds a stage that no probe reports, behind the last one of the packet that died: it follows from the way it ended.
    fn infer(&mut self, stage: Stage, of_answer: bool, record: &Record, death: &Death) {
        let last = self.steps.iter().rposition(|step| step.of_answer == of_answer);
        let at = last.map_or(0, |last| last + 1);
        let waited = last.and_then(|last| self.steps.get(last)).filter(|step| step.code == Some(StageCode::PostroutingEnd));
        let ns = match waited {
            Some(step) if stage == Stage::Neighbour => step.ns,
            _ => death.time_ns.saturating_sub(record.first_ns),
        };
        // The stages of an answer that went out before the SYN was freed stay behind it.
        let ns = self.steps.get(at).map_or(ns, |next| ns.min(next.ns));
        let step = Step { stage: Some(stage), code: None, of_answer, ns, netns: death.netns, ifindex: death.ifindex };
        self.steps.insert(at, step);
    }

    /// A packet that left POSTROUTING and is not on its device yet waits for its neighbour.
    fn infer_waiting(&mut self, of_answer: bool) {
        if let Some(index) = self.steps.iter().rposition(|step| step.of_answer == of_answer)
            && let Some(last) = self.steps.get(index).filter(|step| step.code == Some(StageCode::PostroutingEnd))
        {
            let step = Step { stage: Some(Stage::Neighbour), code: None, ..*last };
            self.steps.insert(index + 1, step);
        }
    }

    /// What users see, and which of it is the answer's first: without marks, and with the position behind a hook's named chains only when the packet died there.
    fn visits(self, interface: &impl Fn(u32, u32) -> Option<InterfaceName>) -> (Vec<StageVisit>, Option<usize>) {
        let last = self.steps.len().saturating_sub(1);
        let first_ns = self.steps.first().map_or(0, |step| step.ns);
        let mut next_ns = 0;
        let mut visits = Vec::with_capacity(self.steps.len());
        // Stages of one interface stand together, and looking its name up costs more than all else here.
        let mut named = None;
        let mut answer = None;
        for (index, step) in self.steps.into_iter().enumerate() {
            let Some(stage) = step.stage else { continue };
            if step.code.is_some_and(is_rest) && index != last {
                continue;
            }
            // Two stages entered in the same nanosecond (`syn_ack` and `output` are one event) keep their order.
            let ns = (step.ns.saturating_sub(first_ns)).max(next_ns);
            next_ns = ns + 1;
            let place = (step.netns, step.ifindex);
            let name = match &named {
                Some((known, name)) if *known == place => *name,
                _ => named.insert((place, interface(step.netns, step.ifindex))).1,
            };
            if step.of_answer && answer.is_none() {
                answer = Some(visits.len());
            }
            visits.push(StageVisit { stage, ns, interface: name, netns: step.netns });
        }
        (visits, answer)
    }
}

fn is_rest(code: StageCode) -> bool {
    use StageCode as C;
    matches!(code, C::PreroutingRest | C::InputRest | C::ForwardRest | C::OutputRest | C::PostroutingRest)
}

/// The stage of the death; adds it to the way where no probe stands at it.
fn died_at(record: &Record, outcome: Outcome, (reason, location): (Option<&str>, Option<&str>), way: &mut Way) -> Option<Stage> {
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

/// How many entries there are up to the SYN's last.
fn syn_steps(record: &Record) -> usize {
    let last = entries(record).enumerate().filter(|(_, (_, entry))| entry.time_and_code & StageEntry::ANSWER == 0).last();
    last.map_or(0, |(index, _)| index + 1)
}

fn origin(record: &Record, names: &impl Names) -> Origin {
    if record.flags & Flags::LOCAL == 0 {
        Origin::Remote
    } else if names.is_relay(record.tgid, &record.comm) {
        Origin::WslLocalhostRelay
    } else {
        Origin::Local
    }
}

fn address(address: Address, family: u32) -> IpAddr {
    let octets = octets(address);
    let [.., a, b, c, d] = octets;
    if family == 4 { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { IpAddr::V6(Ipv6Addr::from(octets)) }
}

/// The client's address as first seen.
pub fn source(record: &Record) -> IpAddr {
    address(record.flow.source, record.flow.family)
}

fn flow(record: &Record) -> Flow {
    let flow = &record.flow;
    Flow {
        family: if flow.family == 4 { Family::Ipv4 } else { Family::Ipv6 },
        source: source(record),
        source_port: flow.source_port,
        destination: address(flow.destination, flow.family),
        destination_port: flow.destination_port,
        sequence: record.key.sequence,
    }
}

fn translated(record: &Record) -> Option<Translated> {
    let now = &record.now;
    if record.flags & Flags::TRANSLATED == 0 || *now == record.flow {
        return None;
    }
    Some(Translated {
        source: address(now.source, now.family),
        source_port: now.source_port,
        destination: address(now.destination, now.family),
        destination_port: now.destination_port,
        rule: None,
    })
}

/// `enum ip_conntrack_info`.
fn conntrack(record: &Record) -> Option<Conntrack> {
    if record.flags & Flags::CONNTRACK == 0 {
        return None;
    }
    match record.conntrack {
        0 => Some(Conntrack::Established),
        1 => Some(Conntrack::Related),
        2 => Some(Conntrack::New),
        3 | 4 => Some(Conntrack::Reply),
        7 => Some(Conntrack::Untracked),
        _ => None,
    }
}
