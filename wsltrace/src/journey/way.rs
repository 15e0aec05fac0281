//! The stages of a record, in users' words.

use wsltrace_common::{Death, Flags, Record, StageCode, StageEntry};

use super::{InterfaceName, Stage, StageVisit};

pub(super) fn entries(record: &Record) -> impl Iterator<Item = (StageCode, &StageEntry)> {
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
pub(super) struct Way {
    steps: Vec<Step>,
}

impl Way {
    pub(super) fn read(record: &Record) -> Self {
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
    pub(super) fn infer(&mut self, stage: Stage, of_answer: bool, record: &Record, death: &Death) {
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
    pub(super) fn infer_waiting(&mut self, of_answer: bool) {
        if let Some(index) = self.steps.iter().rposition(|step| step.of_answer == of_answer)
            && let Some(last) = self.steps.get(index).filter(|step| step.code == Some(StageCode::PostroutingEnd))
        {
            let step = Step { stage: Some(Stage::Neighbour), code: None, ..*last };
            self.steps.insert(index + 1, step);
        }
    }

    /// What users see, and which of it is the answer's first: without marks, and with the position behind a hook's named chains only when the packet died there.
    pub(super) fn visits(self, interface: &impl Fn(u32, u32) -> Option<InterfaceName>) -> (Vec<StageVisit>, Option<usize>) {
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

/// How many entries there are up to the SYN's last.
pub(super) fn syn_steps(record: &Record) -> usize {
    let last = entries(record).enumerate().filter(|(_, (_, entry))| entry.time_and_code & StageEntry::ANSWER == 0).last();
    last.map_or(0, |(index, _)| index + 1)
}
