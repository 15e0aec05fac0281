//! Positions in netfilter follow what is hooked in: a chain that comes while tracing goes on is told apart like one that was
//! there before.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use nix::errno::Errno;
use serde_json::Value;
use wsltrace::lab::{Attempt, Lab, LabError, Seen, Side, Tracer, find};

/// A bound for what hangs, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many attempts may come before the new chain is noticed. Each waits for its journey, and that is written after the next look
/// at the hooks.
const ATTEMPTS: usize = 20;

fn main() {
    let test = |name: &'static str, test: fn(&Path) -> Result<(), Box<dyn Error>>| {
        Trial::ignorable_test(name, move || wsltrace_tests::decide(name, test))
    };
    let trials = vec![
        test("nothing_hooked_in_has_no_positions_and_what_comes_later_has", passed),
        test("a_death_in_a_chain_that_came_later_is_placed_without_its_rule", died),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn passed(binary: &Path) -> Result<(), Box<dyn Error>> {
    let mut traced = Traced::start(binary)?;
    let before = traced.attempt(Seen::Connected)?;
    for stage in ["prerouting_raw", "conntrack", "input_filter", "output_filter", "snat"] {
        if has(&before, stage) {
            return Err(format!("{stage} is listed, though nothing is hooked in: {before}").into());
        }
    }
    traced.nft("add chain inet late c { type filter hook prerouting priority raw; }")?;
    traced.until(Seen::Connected, |journey| has(journey, "prerouting_raw"))?;
    traced.nft("add chain inet late d { type filter hook output priority filter; }")?;
    traced.until(Seen::Connected, |journey| has(journey, "prerouting_raw") && has(journey, "output_filter"))
}

fn died(binary: &Path) -> Result<(), Box<dyn Error>> {
    let mut traced = Traced::start(binary)?;
    traced.attempt(Seen::Connected)?;
    traced.nft("add chain inet late c { type filter hook input priority security; }")?;
    traced.nft("add rule inet late c tcp dport 8080 reject with tcp reset")?;
    traced.until(Seen::Failed(Errno::ECONNREFUSED), |journey| journey["died_at"] == "input_security")
}

fn has(journey: &Value, stage: &str) -> bool {
    journey["stages"].as_array().into_iter().flatten().any(|visit| visit["stage"] == stage)
}

/// A lab with a server, and a tracer whose journeys are read as they come. No rule is named: only the positions tell.
struct Traced {
    lab: Lab,
    attempt: Attempt,
    journeys: Receiver<Value>,
    _tracer: Tracer,
}

impl Traced {
    fn start(binary: &Path) -> Result<Self, Box<dyn Error>> {
        let scenario = find("healthy-v4").ok_or("the scenario is gone")?;
        let mut lab = Lab::new(scenario.behind)?;
        (scenario.break_it)(&mut lab)?;
        let (to, journeys) = channel();
        let arguments = ["--no-firewall-trace"];
        let mut tracer = Tracer::start_reading(binary, &lab.wsl, &arguments, move |stdout| pass_on(stdout, &to))?;
        tracer.await_armed()?;
        let started = Self { lab, attempt: scenario.attempt(), journeys, _tracer: tracer };
        started.nft("add table inet late")?;
        Ok(started)
    }

    fn nft(&self, command: &str) -> Result<(), Box<dyn Error>> {
        let run = || Command::new("nft").arg(command).output().map_err(LabError::io("run nft"));
        let ran = self.lab.wsl.run(run)?;
        if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned().into()) }
    }

    /// Connects, and gives the journey of that.
    fn attempt(&mut self, expected: Seen) -> Result<Value, Box<dyn Error>> {
        let seen = self.attempt.make(self.lab.side(Side::Client)?)?.seen;
        if seen != expected {
            return Err(format!("the client saw '{seen}'").into());
        }
        Ok(self.journeys.recv_timeout(PATIENCE)?)
    }

    fn until(&mut self, expected: Seen, told: impl Fn(&Value) -> bool) -> Result<(), Box<dyn Error>> {
        let mut last = Value::Null;
        for _ in 0..ATTEMPTS {
            last = self.attempt(expected)?;
            if told(&last) {
                return Ok(());
            }
        }
        Err(format!("the last of {ATTEMPTS} journeys is still told as {last}").into())
    }
}

fn pass_on(stdout: ChildStdout, to: &Sender<Value>) -> io::Result<Vec<u8>> {
    for line in BufReader::new(stdout).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        // Nobody waits for the journeys that are written at the end.
        if line["type"] == "journey" && to.send(line).is_err() {
            break;
        }
    }
    Ok(Vec::new())
}
