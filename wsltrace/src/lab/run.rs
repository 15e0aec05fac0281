//! Playing a scenario: build the lab, break it, trace it, connect, compare.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{ClientResult, Lab, LabError, Scenario, Side, Tracer, Truth, check, mend, withheld};

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "why")]
pub enum Ending {
    /// Everything was as it must be.
    Passed,
    /// What was not.
    Failed(Vec<String>),
    /// Why it cannot be played on this machine, though the kernel could have the fault.
    Skipped(String),
    /// Why this kernel cannot have the fault at all.
    Impossible(String),
}

/// One line of the self-test.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// The scenario.
    pub name: &'static str,
    /// What the client saw, when it came so far.
    pub client: Option<String>,
    /// How often it was played before this in vain: the kernel withheld events, and the tracer said that it misses some.
    #[serde(skip_serializing_if = "is_zero")]
    pub in_vain: u32,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Plays a scenario under the tracer `binary` and compares what it says with the truth. Where the kernel keeps events from every tracer
/// a play in which this one knew of that shows nothing, and is not counted; those that show nothing are few, or something else is wrong.
pub fn run(scenario: &Scenario, binary: &Path) -> ScenarioReport {
    /// More of them are no chance.
    const IN_VAIN: u32 = 2;
    let mut in_vain = 0;
    loop {
        let mut has_gaps = false;
        let report = play(scenario, binary, &mut has_gaps);
        let Ending::Failed(problems) = &report.ending else { return ScenarioReport { in_vain, ..report } };
        let withheld = if has_gaps && in_vain < IN_VAIN { withheld::over_process_1() } else { Ok(false) };
        match withheld {
            Ok(true) => in_vain += 1,
            Ok(false) => return ScenarioReport { in_vain, ..report },
            Err(error) => {
                let problems = problems.iter().cloned().chain([error.chain()]).collect();
                return ScenarioReport { in_vain, ending: Ending::Failed(problems), ..report };
            }
        }
    }
}

/// `has_gaps` tells whether the tracer said of an attempt that events of it may be missing, though it counted none as lost.
fn play(scenario: &Scenario, binary: &Path, has_gaps: &mut bool) -> ScenarioReport {
    report(scenario, |lab| {
        let start = |_| Tracer::start_json(binary, &lab.wsl, scenario.detail);
        let mut tracers = (0..scenario.tracers).map(start).collect::<Result<Vec<_>, _>>()?;
        tracers.iter_mut().try_for_each(Tracer::await_armed)?;
        let (client, mut problems) = connect(scenario, lab)?;
        let truth = truth(client.clone(), lab)?;
        let mut lines = Vec::new();
        for tracer in tracers {
            lines = listen_to(scenario, &truth, tracer, &mut problems)?;
            *has_gaps |= says_of_gaps(&lines);
        }
        if problems.is_empty() {
            problems = mend::check(scenario, lab, &lines)?;
        }
        Ok((client, problems))
    })
}

fn says_of_gaps(lines: &[Value]) -> bool {
    let lost = lines.iter().any(|line| line["lost"]["total"].as_u64().is_some_and(|total| total > 0));
    !lost && lines.iter().any(|line| line["type"] == "journey" && line["complete"] == false)
}

/// Stops a tracer, and compares what it said with the truth.
fn listen_to(scenario: &Scenario, truth: &Truth, tracer: Tracer, problems: &mut Vec<String>) -> Result<Vec<Value>, LabError> {
    let said = tracer.stop()?;
    if !said.status.success() {
        problems.push(format!("the tracer ended with {}: {}", said.status, said.stderr.escape_debug()));
    }
    if !said.stderr.contains(scenario.note) {
        problems.push(format!("standard error does not say '{}': {}", scenario.note, said.stderr.escape_debug()));
    }
    match said.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>() {
        Ok(lines) => {
            let found = check(scenario, truth, &lines);
            if !found.is_empty() {
                problems.extend(found);
                problems.push(format!("the tracer said: {}", said.stdout.trim_end()));
            }
            Ok(lines)
        }
        Err(error) => {
            problems.push(format!("the tracer's output is not one JSON object a line: {error}"));
            Ok(Vec::new())
        }
    }
}

/// Plays a scenario without a tracer: only whether the fault is in force.
pub fn prove(scenario: &Scenario) -> ScenarioReport {
    report(scenario, |lab| connect(scenario, lab))
}

/// Builds the lab of a scenario and breaks it.
pub(super) fn broken_lab(scenario: &Scenario) -> Result<Lab, LabError> {
    let mut lab = Lab::of(scenario)?;
    (scenario.break_it)(&mut lab)?;
    Ok(lab)
}

/// Lets the client connect, waits for what follows from it, and says what shows that the fault is not in force.
pub(super) fn connect(scenario: &Scenario, lab: &Lab) -> Result<(ClientResult, Vec<String>), LabError> {
    let count = || scenario.witness.map(|(group, name)| lab.wsl.counter(group, name)).transpose();
    let before = count()?;
    let client = scenario.attempt().make(lab.side(scenario.from)?)?;
    scenario.settle.map_or(Ok(()), |settle| settle(lab))?;
    let mut problems = Vec::new();
    if client.seen != scenario.client {
        problems.push(format!("the fault is not in force: the client saw '{}', expected '{}'", client.seen, scenario.client));
    }
    if let (Some((group, name)), Some(before), Some(after)) = (scenario.witness, before, count()?)
        && after - before != client.syns
    {
        problems.push(format!("the fault is not in force: {group}.{name} rose by {}, expected {}", after - before, client.syns));
    }
    Ok((client, problems))
}

fn report(scenario: &Scenario, play: impl FnOnce(&Lab) -> Result<(ClientResult, Vec<String>), LabError>) -> ScenarioReport {
    if let Some(why) = scenario.impossible() {
        return ScenarioReport { name: scenario.name, client: None, in_vain: 0, ending: Ending::Impossible(why) };
    }
    let (client, ending) = match scenario.obstacle().map_or_else(|| broken_lab(scenario), |why| Err(LabError::Unsupported(why))) {
        Ok(lab) => match play(&lab) {
            // The client's connection, which may still be open, ends here: servers wait for that before the lab can end.
            Ok((client, problems)) if problems.is_empty() => (Some(client.seen.to_string()), Ending::Passed),
            Ok((client, problems)) => (Some(client.seen.to_string()), Ending::Failed(problems)),
            Err(error) => (None, failed(&error)),
        },
        Err(error) => (None, failed(&error)),
    };
    ScenarioReport { name: scenario.name, client, in_vain: 0, ending }
}

fn failed(error: &LabError) -> Ending {
    match error {
        LabError::Unsupported(why) => Ending::Skipped(why.clone()),
        _ => Ending::Failed(vec![error.chain()]),
    }
}

fn truth(client: ClientResult, lab: &Lab) -> Result<Truth, LabError> {
    let mut namespaces = Vec::new();
    for side in [Side::Client, Side::Wsl, Side::Container, Side::Backend, Side::Pod, Side::Beside] {
        if let Some(namespace) = lab.find(side) {
            namespaces.push((side, namespace.inode()));
        }
    }
    Ok(Truth { client, namespaces, kernel: kernel_version()? })
}

/// The running kernel's version: major, minor.
fn kernel_version() -> Result<(u32, u32), LabError> {
    let path = "/proc/sys/kernel/osrelease";
    let release = std::fs::read_to_string(path).map_err(LabError::io(format!("read {path}")))?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(LabError::Failed(format!("cannot read a version from {path}: {}", release.escape_debug()))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::*;
    use crate::lab::{Seen, all, find};

    /// How many scenarios are played at once.
    const WORKERS: usize = 4;

    #[test]
    fn every_fault_is_in_force() {
        if crate::lab::cannot_run("every_fault_is_in_force") {
            return;
        }
        // Most of the time goes by in waiting for answers that must not come.
        let scenarios = std::sync::Mutex::new(all().into_iter());
        let work = || std::iter::from_fn(|| scenarios.lock().unwrap().next()).map(|scenario| prove(&scenario)).collect();
        let reports: Vec<Vec<ScenarioReport>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let mut failures = Vec::new();
        for report in reports.into_iter().flatten() {
            let client = report.client.as_deref().unwrap_or("-");
            let line = format!("{:<30} {client:<45} {:?}", report.name, report.ending);
            // Captured unless asked for: the table of what was proved.
            #[expect(clippy::print_stdout, reason = "the test's own table")]
            {
                println!("{line}");
            }
            if matches!(report.ending, Ending::Failed(_)) {
                failures.push(line);
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    /// Without this the silence could be that of a client which never sent anything.
    #[test]
    fn the_martian_is_let_in_with_route_localnet() {
        if crate::lab::cannot_run("the_martian_is_let_in_with_route_localnet") {
            return;
        }
        let scenario = find("martian-loopback").unwrap();
        let lab = broken_lab(&scenario).unwrap();
        assert_eq!(scenario.attempt().make(&lab.client).unwrap().seen, Seen::NoAnswer);
        lab.wsl.set_sysctl("net.ipv4.conf.eth0.route_localnet", "1").unwrap();
        assert_eq!(scenario.attempt().make(&lab.client).unwrap().seen, Seen::Connected);
    }

    #[test]
    fn a_lab_without_its_fault_is_found_out() {
        if crate::lab::cannot_run("a_lab_without_its_fault_is_found_out") {
            return;
        }
        let mut scenario = find("drop-filter-nft").unwrap();
        scenario.break_it = find("healthy-v4").unwrap().break_it;
        let Ending::Failed(problems) = prove(&scenario).ending else { unreachable!("it must fail") };
        assert!(problems[0].contains("not in force"), "{problems:?}");
    }
}
