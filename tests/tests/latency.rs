//! The times of the stages are real: 2,000 rules in one chain raise the time of that chain's stage, and no other's.
//!
//! Nothing is said about how long anything takes. In one run of one tracer, attempts with and without the rules alternate; each
//! stage's rise is the median over the pairs of the difference between the two medians of a pair. The rules' stage must have risen by
//! more than four times what any other stage has.
//!
//! Why that cannot depend on luck: a busy machine slows all stages of both halves, and makes the work of 2,000 rules slower by the
//! same factor, so it widens the gap. To raise another stage's rise it would have to hit more than half of the attempts, in that one
//! stage of a microsecond, in the halves with the rules and not in the others, in more than half of the pairs.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Attempt, ClientResult, Lab, LabError, Scenario, Seen, Side, Tracer, find};
use wsltrace::probe::Detail;
use wsltrace_tests::decide;

const PAIRS: usize = 7;
const ATTEMPTS: usize = 25;
const RULES: usize = 2000;
/// The chain of the rules is one of INPUT at priority filter.
const STAGE: &str = "input_filter";

/// Times spent in each stage, by its name.
type Times = BTreeMap<String, Vec<u64>>;

fn main() {
    let name = "rules_raise_their_stage_and_no_other";
    let trial = Trial::ignorable_test(name, move || decide(name, rules_raise_their_stage));
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

fn rules_raise_their_stage(binary: &Path) -> Result<(), Box<dyn Error>> {
    let scenario = find("healthy-v4").ok_or("the scenario is gone")?;
    let mut lab = Lab::new(scenario.behind)?;
    (scenario.break_it)(&mut lab)?;
    nft(&lab, "table inet many {\n chain input {\n type filter hook input priority filter; policy accept;\n }\n}\n")?;
    // Only SYNs come to the rules. Otherwise the client's ACK would pass them as well, and the time from `tc_egress` to `established`
    // would rise just as truly.
    let first = "add rule inet many input tcp flags & (syn | ack) != syn accept\n".to_owned();
    let rules: String = std::iter::once(first)
        .chain((1..=RULES).map(|port| format!("add rule inet many input tcp dport {port} drop\n")))
        .collect();

    let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    // Which attempts belong to which half, in the order in which they were made.
    let mut halves: Vec<(bool, Vec<ClientResult>)> = Vec::new();
    for pair in 0..PAIRS {
        // Which half comes first alternates, so that nothing that grows with time is taken for the rules' doing.
        for with_rules in [pair % 2 == 0, pair % 2 != 0] {
            nft(&lab, if with_rules { &rules } else { "flush chain inet many input\n" })?;
            halves.push((with_rules, attempts(&scenario, &lab)?));
        }
        nft(&lab, "flush chain inet many input\n")?;
    }
    let said = tracer.stop()?;
    let lines = said.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let mut journeys = lines.iter().filter(|line| line["type"] == "journey");

    let mut medians: [Vec<BTreeMap<String, u64>>; 2] = [Vec::new(), Vec::new()];
    for (with_rules, clients) in &halves {
        let mut times = Times::new();
        for client in clients {
            for _ in 0..client.syns {
                let journey = journeys.next().ok_or("there are fewer journeys than SYNs")?;
                if journey["flow"]["source_port"] != client.local.port() {
                    return Err(format!("the journeys are not in the order of the attempts: {}", journey["flow"]).into());
                }
                add(journey, &mut times)?;
            }
        }
        medians[usize::from(*with_rules)].push(times.into_iter().map(|(stage, times)| (stage, median(times))).collect());
    }
    judge(&medians)
}

/// Fails unless the rules' stage rose by more than four times what any other did.
fn judge([without, with]: &[Vec<BTreeMap<String, u64>>; 2]) -> Result<(), Box<dyn Error>> {
    let mut rises: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (with, without) in with.iter().zip(without) {
        for (stage, time) in with {
            let before = without.get(stage).ok_or_else(|| format!("{stage} was entered only with the rules"))?;
            rises.entry(stage).or_default().push(time.cast_signed() - before.cast_signed());
        }
    }
    let rises: BTreeMap<&str, i64> = rises.into_iter().map(|(stage, rises)| (stage, median(rises))).collect();
    let own = *rises.get(STAGE).ok_or_else(|| format!("nobody entered {STAGE}"))?;
    let (other, most) =
        rises.iter().filter(|(stage, _)| **stage != STAGE).max_by_key(|(_, rise)| **rise).ok_or("only one stage")?;
    say(&format!("{STAGE} rose by {own} ns, of the others {other} most, by {most} ns; all: {rises:?}"));
    if own > 0 && own > 4 * most { Ok(()) } else { Err(format!("{STAGE} rose by {own} ns, but {other} by {most} ns").into()) }
}

/// Adds the time from each stage to the next, and checks that it moves on.
fn add(journey: &Value, times: &mut Times) -> Result<(), Box<dyn Error>> {
    let stages = journey["stages"].as_array().ok_or("a journey without stages")?;
    for pair in stages.windows(2) {
        let (Some(from), Some(to), Some(stage)) = (pair[0]["ns"].as_u64(), pair[1]["ns"].as_u64(), pair[0]["stage"].as_str())
        else {
            return Err(format!("a stage without name or time: {journey}").into());
        };
        if to <= from {
            return Err(format!("the times do not strictly increase: {journey}").into());
        }
        times.entry(stage.to_owned()).or_default().push(to - from);
    }
    Ok(())
}

fn attempts(scenario: &Scenario, lab: &Lab) -> Result<Vec<ClientResult>, Box<dyn Error>> {
    let attempt: Attempt = scenario.attempt();
    let clients = (0..ATTEMPTS).map(|_| attempt.make(lab.side(Side::Client)?)).collect::<Result<Vec<_>, LabError>>()?;
    match clients.iter().find(|client| client.seen != Seen::Connected) {
        None => Ok(clients),
        Some(client) => Err(format!("a client that must connect saw: {}", client.seen).into()),
    }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Gives nft commands in the traced namespace.
fn nft(lab: &Lab, commands: &str) -> Result<(), LabError> {
    let failed = |source| LabError::Io { doing: "run nft".into(), source };
    lab.wsl.run(|| {
        let mut child =
            Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(commands.as_bytes()).map_err(failed)?;
        }
        let mut message = String::new();
        if let Some(mut errors) = child.stderr.take() {
            errors.read_to_string(&mut message).map_err(failed)?;
        }
        if child.wait().map_err(failed)?.success() { Ok(()) } else { Err(LabError::Failed(format!("nft: {message}"))) }
    })
}

#[expect(clippy::print_stdout, reason = "what a reader of the test's output needs")]
fn say(text: &str) {
    println!("{text}");
}
