//! The load on Windows' side, for the ways that begin there: one `PowerShell` runs a plan that was drawn up here, and its answer is read
//! as if it had been measured here. Every time is a difference of two readings of Windows' own clock (`QueryPerformanceCounter`); none
//! is compared with a clock of Linux.
//!
//! It has never been run on Windows: what is tested is the plan, and what is made of answers.

mod answer;
mod ways;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use answer::{Answered, parse};
pub use ways::ways;

use super::attempt::Mode;
use super::rounds::Plan;
use crate::windows::{Interop, InteropError, encoded};

const TEMPLATE: &str = include_str!("load.ps1");
/// What `PowerShell` may take beside the load: to start, to compile, and to let the last attempts end.
const BESIDE: Duration = Duration::from_mins(2);
/// Windows takes no longer command line than 32,767 characters; the program's name and its other arguments need some.
const LONGEST: usize = 32_000;

/// What Windows is told to do, and tells with its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsPlan {
    clients: u32,
    limit_ms: u64,
    /// For how long each path is measured in all, seconds.
    seconds: f64,
    rounds: u32,
    seed: u64,
    paths: Vec<WindowsPath>,
    steps: Vec<Step>,
}

/// A way to be measured from Windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsPath {
    name: String,
    address: std::net::IpAddr,
    port: u16,
    mode: Mode,
}

/// One path's part of a round; round 0 warms up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    round: u32,
    path: usize,
    milliseconds: u64,
}

impl WindowsPlan {
    /// The same rounds in the same order as a measurement from here has them.
    pub fn of(plan: &Plan) -> Self {
        let paths: Vec<WindowsPath> = plan
            .targets
            .iter()
            .flat_map(|target| plan.modes.iter().map(move |mode| (target, *mode)))
            .map(|(target, mode)| WindowsPath {
                name: target.name.clone(),
                address: target.address.ip(),
                port: target.address.port(),
                mode,
            })
            .collect();
        let (rounds, mut random) = (plan.rounds(), fastrand::Rng::with_seed(plan.seed));
        let mut order: Vec<usize> = (0..paths.len()).collect();
        let mut steps = Vec::new();
        for round in 0..=rounds {
            random.shuffle(&mut order);
            let time = if round == 0 { plan.warm_up() } else { plan.duration / rounds };
            let milliseconds = milliseconds(time).max(1);
            steps.extend(order.iter().map(|path| Step { round, path: *path, milliseconds }));
        }
        Self {
            clients: plan.clients,
            limit_ms: milliseconds(plan.limit),
            seconds: plan.duration.as_secs_f64(),
            rounds,
            seed: plan.seed,
            paths,
            steps,
        }
    }

    /// The script. Its plan is plain ASCII without a quote, whatever the paths are called.
    pub fn script(&self) -> Result<String, serde_json::Error> {
        let mut plan = String::new();
        for unit in serde_json::to_string(self)?.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte @ 0x20..=0x7e) if byte != b'\'' => plan.push(byte.into()),
                _ => plan.extend(format!("\\u{unit:04x}").chars()),
            }
        }
        Ok(TEMPLATE.replace("@PLAN@", &plan))
    }

    /// How long Windows is given.
    pub fn patience(&self) -> Duration {
        let steps: u64 = self.steps.iter().map(|step| step.milliseconds + self.limit_ms).sum();
        Duration::from_millis(steps) + BESIDE
    }

    /// Has Windows carry it out; takes as long as that does.
    pub fn run(&self, interop: &dyn Interop) -> Result<Answered, InteropError> {
        let script = short(&self.script().map_err(|error| InteropError::Garbage(error.to_string()))?);
        let length = encoded(&script).len();
        if length > LONGEST {
            let status =
                format!("the script has {length} characters and Windows takes {LONGEST}: name fewer targets, or fewer --rounds");
            return Err(InteropError::Failed { status });
        }
        parse(&interop.powershell(&script, self.patience())?)
    }
}

impl WindowsPath {
    fn end(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// A script without what only readers need: it has to fit into a command line.
fn short(script: &str) -> String {
    let lines = script.lines().map(str::trim_start).filter(|line| !line.starts_with("//") && !line.starts_with("# "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
