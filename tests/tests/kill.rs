//! Kills the tracer with SIGKILL at random moments, while it loads, waits, or follows a packet, and finds nothing left behind.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use wsltrace::lab::{Lab, LabError, Scenario, Side, Tracer, find};
use wsltrace_tests::leftovers::{Object, await_gone, children, held_by, loaded, named_namespaces, orphans, ruleset};

const ROUNDS: u32 = 50;

/// Numbers from a seed that is printed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn new() -> Result<Self, Box<dyn Error>> {
        let seed: u64 = match std::env::var("WSLTRACE_KILL_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into(),
        };
        say(&format!("WSLTRACE_KILL_SEED={seed}"));
        Ok(Self(seed | 1))
    }

    /// From 0 to below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn main() {
    let trial = Trial::ignorable_test("a_killed_tracer_leaves_nothing", || {
        let Some(scenario) = find("drop-filter-nft") else { return Err("the scenario is gone".into()) };
        match (wsltrace_tests::binary(), scenario.obstacle()) {
            (Ok(binary), None) => leaves_nothing(&scenario, &binary).map(|()| Completion::Completed).map_err(Failed::from),
            (Err(why), _) | (_, Some(why)) => {
                say(&format!("SKIP: a_killed_tracer_leaves_nothing: {why}"));
                Ok(Completion::ignored_with(why))
            }
        }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

fn leaves_nothing(scenario: &Scenario, binary: &Path) -> Result<(), Box<dyn Error>> {
    let mut random = Random::new()?;
    let mut lab = Lab::new(scenario.behind)?;
    (scenario.break_it)(&mut lab)?;
    let namespaces = named_namespaces()?;
    let rules = rules(&lab)?;

    let started = Instant::now();
    let mut tracer = Tracer::start_json(binary, &lab.wsl, scenario.detail)?;
    tracer.await_armed()?;
    let arming = u64::try_from(started.elapsed().as_micros())?;
    tracer.stop()?;

    for round in 0..ROUNDS {
        let before = loaded()?;
        let mut tracer = Tracer::start_json(binary, &lab.wsl, scenario.detail)?;
        let moment = if round % 2 == 0 {
            let moment = Duration::from_micros(random.below(arming));
            tracer.armed_within(moment)?;
            format!("{moment:?} after its start")
        } else {
            tracer.await_armed()?;
            let attempts = random.below(3);
            attempt(scenario, &lab, attempts)?;
            format!("armed and after {attempts} attempts, one more under way")
        };
        let left = thread::scope(|scope| {
            let client = scope.spawn(|| attempt(scenario, &lab, round.into()));
            let left = kill_and_look(tracer, &before);
            client.join().map_err(|_| "the client panicked")??;
            left
        })?;
        if !left.is_empty() {
            return Err(format!("killed {moment}: left behind: {left:?}").into());
        }
        if self::rules(&lab)? != rules || named_namespaces()? != namespaces {
            return Err(format!("killed {moment}: firewall or named namespaces have changed").into());
        }
    }
    Ok(())
}

/// Lets the client connect so often, at most once in rounds that only want traffic under way.
fn attempt(scenario: &Scenario, lab: &Lab, attempts: u64) -> Result<(), LabError> {
    for _ in 0..attempts.min(2) {
        scenario.attempt().make(lab.side(Side::Client)?)?;
    }
    Ok(())
}

/// Stops the tracer where it stands, notes what it holds, kills it, and returns what stays.
fn kill_and_look(tracer: Tracer, before: &BTreeSet<Object>) -> Result<Vec<String>, Box<dyn Error>> {
    let pid = tracer.pid();
    kill(pid, Signal::SIGSTOP)?;
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    if !matches!(status, WaitStatus::Stopped(..)) {
        return Err(format!("the tracer ended by itself: {status:?}").into());
    }
    let number = pid.as_raw().cast_unsigned();
    let (held, helpers) = (held_by(number)?, children(number)?);
    let mut left: Vec<String> = tracer.kill()?.into_iter().map(|name| format!("file {name}")).collect();
    left.extend(await_gone(&held)?.into_iter().map(|object| format!("{object:?}")));
    left.extend(orphans(before)?.into_iter().map(|object| format!("{object:?} without an owner")));
    for helper in helpers {
        if !helper.ends()? {
            left.push(format!("process {}", helper.pid));
        }
    }
    Ok(left)
}

fn rules(lab: &Lab) -> Result<String, LabError> {
    let read = || ruleset().map_err(|source| LabError::Io { doing: "list the firewall".into(), source });
    // Counters move with the traffic of the rounds.
    let without_counters = |text: String| text.lines().filter(|line| !line.contains("counter")).collect::<Vec<_>>().join("\n");
    lab.wsl.run(read).map(without_counters)
}

#[expect(clippy::print_stdout, reason = "what a reader of the test's output needs")]
fn say(text: &str) {
    println!("{text}");
}
