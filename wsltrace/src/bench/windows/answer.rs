//! What Windows answered, as a measurement. It comes from another machine by a pipe that may break, or from a file: nothing of it is
//! believed that does not fit together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{WindowsPath, WindowsPlan};
use crate::bench::attempt::{Failure, Mode};
use crate::bench::rounds::{Beside, Measurement, Path, Plan};
use crate::bench::tally::Tally;
use crate::bench::target::Resolved;
use crate::escape::escape;
use crate::windows::InteropError;

/// Longest answer that is read, bytes.
const MAX_LEN: usize = 16 << 20;
/// A clock with fewer ticks a second is too coarse for what is measured.
const FEWEST_TICKS: u64 = 100_000;

/// Why nothing is known of segments that were sent again.
const SEGMENTS: &str =
    "Windows is not asked for its segments, and WSL's localhost relay enters Linux by an hv_socket, which is not TCP";
/// No path is measured for longer.
const LONGEST_SECONDS: f64 = 1e7;
/// Nobody counts to this in that time.
const MOST: u64 = 1 << 40;

/// The script's answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Failed { error: String },
    Done(Done),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    plan: WindowsPlan,
    /// Ticks of the clock a second.
    frequency: u64,
    steps: Vec<Counted>,
}

/// What came of a step.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    lasted_ns: u64,
    connections: u64,
    /// Answers with the status of an error.
    errors: u64,
    /// Answered attempts a second, over all clients.
    rate: f64,
    failed: BTreeMap<Failure, u64>,
    /// Nanoseconds, and how many attempts took so long.
    times: Vec<(u64, u64)>,
}

/// A measurement from Windows, with the plan that it carried out.
#[derive(Clone, Debug)]
pub struct Answered {
    /// What was planned.
    pub plan: Plan,
    /// What was measured.
    pub measured: Measurement,
    /// What is wrong with it, in words.
    pub warnings: Vec<String>,
}

/// Reads the script's answer.
pub fn parse(text: &str) -> Result<Answered, InteropError> {
    let garbage = |said: String| InteropError::Garbage(said);
    if text.len() > MAX_LEN {
        return Err(garbage(format!("an answer of {} bytes", text.len())));
    }
    // A profile or a policy may print something before; the object is the last line that looks like one.
    let object = text.lines().rev().map(|line| line.trim_start_matches('\u{feff}').trim()).find(|line| line.starts_with('{'));
    let object = object.ok_or_else(|| garbage("no JSON in the answer".to_owned()))?;
    let answer = serde_json::from_str(object).map_err(|error| {
        log::debug!("the answer cannot be read: {error}");
        garbage("its JSON is not what the script answers".to_owned())
    })?;
    match answer {
        Answer::Failed { error } => Err(InteropError::Failed { status: format!("PowerShell says: {}", escape(error.trim())) }),
        Answer::Done(done) => done.read().map_err(garbage),
    }
}

impl Done {
    fn read(self) -> Result<Answered, String> {
        let Self { plan, frequency, steps } = self;
        if steps.len() != plan.steps.len() {
            return Err(format!("{} steps of {} were done", steps.len(), plan.steps.len()));
        }
        if !(plan.seconds > 0.0 && plan.seconds < LONGEST_SECONDS) || plan.paths.is_empty() {
            return Err("its plan is none that was drawn up here".to_owned());
        }
        if steps.iter().any(|step| !step.is_plausible()) {
            return Err("it counts more than there can have been".to_owned());
        }
        let mut paths: Vec<Path> = plan.paths.iter().map(|path| Path::new(path.resolved(), path.mode)).collect();
        let mut began = Duration::ZERO;
        for (step, counted) in plan.steps.iter().zip(steps) {
            let path = paths.get_mut(step.path).ok_or_else(|| format!("there is no path {}", step.path))?;
            let mut tally = counted.tally();
            tally.began = began;
            began += tally.lasted;
            if step.round > 0 {
                path.rounds.push(tally);
            }
        }
        let mut warnings = Vec::new();
        if frequency < FEWEST_TICKS {
            warnings.push(format!("Windows' clock has {frequency} ticks a second only: short times are not to be trusted"));
        }
        let off = "the load ran on Windows, by whose clock a connection here cannot be found again".to_owned();
        Ok(Answered {
            plan: plan.read(),
            measured: Measurement { paths, tracer: Beside::Not(off), segments_unknown: Some(SEGMENTS) },
            warnings,
        })
    }
}

impl Counted {
    fn is_plausible(&self) -> bool {
        let counts = self.failed.values().copied().chain(self.times.iter().map(|(_, count)| *count));
        self.times.len() < MAX_LEN && counts.chain([self.connections, self.errors]).all(|count| count < MOST) && self.rate >= 0.0
    }

    fn tally(self) -> Tally {
        let mut tally = Tally {
            lasted: Duration::from_nanos(self.lasted_ns),
            connections: self.connections,
            errors: self.errors,
            rate: self.rate,
            ..Tally::default()
        };
        for (ns, count) in self.times {
            tally.answered_times(Duration::from_nanos(ns), count);
        }
        tally.failed = self.failed.into_iter().filter(|(_, count)| *count > 0).collect();
        tally
    }
}

impl WindowsPath {
    fn resolved(&self) -> Resolved {
        Resolved { name: self.name.clone(), host: self.end().to_string(), address: self.end() }
    }
}

impl WindowsPlan {
    /// Back to what it was drawn up from.
    fn read(&self) -> Plan {
        let mut targets: Vec<Resolved> = Vec::new();
        let mut modes: Vec<Mode> = Vec::new();
        for path in &self.paths {
            if !targets.iter().any(|target| target.name == path.name) {
                targets.push(path.resolved());
            }
            if !modes.contains(&path.mode) {
                modes.push(path.mode);
            }
        }
        Plan {
            targets,
            modes,
            clients: self.clients,
            duration: Duration::from_secs_f64(self.seconds),
            rounds: Some(self.rounds.max(1)),
            rate: None,
            limit: Duration::from_millis(self.limit_ms),
            seed: self.seed,
        }
    }
}
