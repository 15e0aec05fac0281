//! Mending a lab that is broken twice, step by step, as its owner would: trace, do what is printed, try again.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::client::ANSWER_PATIENCE;
use super::super::mend::{self, Mended};
use super::super::{Attempt, Ending, Lab, LabError, Scenario, Seen, Tracer};
use super::Pair;
use super::judge::{Verdict, fits};
use crate::probe::Detail;

/// How often the owner of the machine tries: after each of three times that something was mended, for a fault may have two rules of its own.
const ROUNDS: usize = 4;
/// How long a client waits at least that may be served: as long as it can before its SYN is sent again.
const PATIENCE: Duration = Duration::from_millis(900);

/// One attempt, and what was said of it.
#[derive(Clone, Debug)]
pub struct Round {
    /// What the client saw.
    pub client: Seen,
    /// What was said, unless nothing was seen.
    pub verdict: Option<Verdict>,
}

/// What came of a pair.
#[derive(Clone, Debug)]
pub struct PairReport {
    /// The attempts, in their order.
    pub rounds: Vec<Round>,
    /// How it ended.
    pub ending: Ending,
}

impl PairReport {
    /// Everything that was seen and said, for a person who has to find out what went wrong.
    pub fn told(&self) -> String {
        let mut lines = Vec::new();
        for (index, Round { client, verdict }) in self.rounds.iter().enumerate() {
            lines.push(format!("  {}. the client saw '{client}'", index + 1));
            let Some(verdict) = verdict else { continue };
            let (code, outcome, died) = verdict.place();
            lines.push(format!("     {code} {} ({outcome}, {})", verdict.confidence, died.unwrap_or("-")));
            lines.push(format!("     {}", verdict.summary));
            lines.extend(verdict.remedy.iter().map(|line| format!("     | {line}")));
        }
        lines.join("\n")
    }
}

impl Pair {
    /// Mends a lab that was broken by this pair, and compares what is said on the way with what is known of the faults.
    pub fn play(&self, lab: &Lab, binary: &Path) -> PairReport {
        let mut rounds = Vec::new();
        let ending = match self.mend(lab, binary, &mut rounds) {
            Ok(problems) if problems.is_empty() => Ending::Passed,
            Ok(problems) => Ending::Failed(problems),
            Err(LabError::Unsupported(why)) => Ending::Skipped(why),
            Err(error) => Ending::Failed(vec![error.chain()]),
        };
        PairReport { rounds, ending }
    }

    /// What is said first where the faults were put in the other way round, if it is something else and only the packet's way decides.
    /// Two that each lead the port elsewhere are no pair: the older rule does, and the other is never asked.
    pub fn play_turned(&self, report: &PairReport, binary: &Path) -> Result<Option<String>, LabError> {
        let first = report.rounds.first().and_then(|first| first.verdict.as_ref());
        let (Some(verdict), Ok(lab)) = (first, self.turned().lab()) else { return Ok(None) };
        let (client, lines) = self.attempt(&lab, binary)?;
        let turned = Verdict::of(&lines);
        if turned.as_ref().is_some_and(|turned| turned.led != verdict.led) {
            return Err(LabError::Unsupported("each leads the port elsewhere".to_owned()));
        }
        // Of two that stand at the same place, as two chains of one priority, the older one comes first; so where one has no place.
        let apart = match self.faults().map(|fault| fault.expect.died) {
            [Some(one), Some(other)] => one != other,
            _ => false,
        };
        let same = |turned: &Verdict| turned.place() == verdict.place() || turned.position == verdict.position;
        Ok((apart && !turned.as_ref().is_some_and(same)).then(|| {
            let turned = PairReport { rounds: vec![Round { client, verdict: turned }], ending: Ending::Passed };
            format!("put in the other way round, something else is said:\n{}", turned.told())
        }))
    }

    /// Whether a fault has several rules: each but the first that is met shows only once another is mended.
    fn has_several_rules(&self) -> bool {
        let changes = self.faults().into_iter().filter_map(|fault| Some(fault.mended?.changes()));
        changes.into_iter().any(|(gone, new)| gone.max(new) > 1)
    }

    fn mend(&self, lab: &Lab, binary: &Path, rounds: &mut Vec<Round>) -> Result<Vec<String>, LabError> {
        let mut problems = Vec::new();
        for number in 1..=ROUNDS {
            let (client, lines) = self.attempt(lab, binary)?;
            let verdict = Verdict::of(&lines);
            let before = rounds.last().and_then(|round: &Round| round.verdict.clone());
            rounds.push(Round { client, verdict: verdict.clone() });
            if client == Seen::Connected {
                let said = verdict.map(|verdict| verdict.name).unwrap_or_default();
                if said != "healthy" {
                    problems.push(format!("the client is served, and '{said}' is said"));
                }
                if number == 1 {
                    return Err(LabError::Unsupported("beside each other neither is in force".to_owned()));
                }
                return Ok(problems);
            }
            let Some(verdict) = verdict else {
                problems.push(format!("nothing is said of attempt {number}"));
                return Ok(problems);
            };
            let fits = |fault: &&Scenario| fits(fault, fault.behind != self.behind, &lines);
            let fault = self.faults().into_iter().find(fits);
            let by_rule = lines.iter().rfind(|line| line["type"] == "journey").is_some_and(|journey| journey["rule"].is_object());
            if fault.is_none() && !(by_rule && self.has_several_rules()) {
                problems.push(format!("what is said of attempt {number} is neither of the faults"));
            }
            if before.is_some_and(|before| before.remedy == verdict.remedy) {
                problems.push(format!("what was just done is said again in attempt {number}"));
                return Ok(problems);
            }
            let remedy: Vec<&str> = verdict.remedy.iter().map(String::as_str).collect();
            let change = mend::apply(&remedy, lab)?;
            let mended: Vec<Mended> = self.faults().into_iter().filter_map(|fault| fault.mended).collect();
            problems.extend(change.more_than(&mended));
        }
        problems.push(format!("the client is not served after {ROUNDS} attempts"));
        Ok(problems)
    }

    /// Traces one attempt of the client, and gives what it saw and what was said.
    fn attempt(&self, lab: &Lab, binary: &Path) -> Result<(Seen, Vec<Value>), LabError> {
        let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Auto)?;
        tracer.await_armed()?;
        let patience =
            self.faults().map(|fault| fault.attempt().patience).into_iter().filter(|wait| *wait != ANSWER_PATIENCE).max();
        let patience = patience.map_or(ANSWER_PATIENCE, |patience| patience.max(PATIENCE));
        let client = Attempt { patience, ..self.first.attempt() }.make(lab.side(self.first.from)?)?;
        let said = tracer.stop()?;
        if !said.status.success() {
            return Err(LabError::Failed(format!("the tracer ended with {}: {}", said.status, said.stderr.escape_debug())));
        }
        let lines = said.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let lines =
            lines.map_err(|error| LabError::Failed(format!("the tracer's output is not one JSON object a line: {error}")))?;
        Ok((client.seen, lines))
    }
}
