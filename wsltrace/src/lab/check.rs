//! Whether what the tracer said about a scenario is true: a pure function of its JSON lines and of what is known without it.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::path::{auto, describe, matches};
use super::{ClientResult, Manner, PORT, Scenario, Seen, Side, Step};
use crate::diagnosis::{Code, Confidence};
use crate::evidence::Backend;
use crate::journey::{Conntrack, Origin, Outcome, Stage};
use crate::probe::{ACCEPT, Detail};

/// What is known about a run without asking the tracer.
#[derive(Clone, Debug)]
pub struct Truth {
    /// What the client saw, and its port.
    pub client: ClientResult,
    /// Inode numbers of the namespaces of the lab.
    pub namespaces: Vec<(Side, u32)>,
    /// The running kernel's version: major, minor.
    pub kernel: (u32, u32),
}

/// Compares the tracer's lines with the truth; every difference is one sentence.
pub fn check(scenario: &Scenario, truth: &Truth, lines: &[Value]) -> Vec<String> {
    let of_type = |name: &str| lines.iter().filter(|l| l["type"] == name).collect::<Vec<_>>();
    let mut problems = Problems::default();
    problems.equal("number of armed lines", &of_type("armed").len(), &1);
    problems.equal("type of the last line", &lines.last().map(|l| &l["type"]), &Some(&Value::from("summary")));

    let (ours, strangers): (Vec<_>, Vec<_>) = of_type("journey").into_iter().partition(|j| is_of_client(j, scenario, truth));
    problems.equal("number of journeys for the SYNs sent", &(ours.len() as u64), &truth.client.syns);
    for stranger in strangers {
        problems.0.push(format!("a journey of a SYN that nobody sent: {}", stranger["flow"]));
    }
    let stalls: Vec<&Value> = of_type("stall").into_iter().map(|stall| &stall["cause"]).collect();
    let wanted: Vec<Value> = scenario.stall.iter().map(|cause| cause.name().into()).collect();
    problems.equal("connections that do not get on", &stalls, &wanted.iter().collect());
    let sees_accept = of_type("armed").into_iter().all(says_that_accept_is_seen);
    for (index, journey) in ours.into_iter().enumerate() {
        let attempt = index as u64 + 1;
        check_journey(scenario, truth, journey, attempt, &mut problems);
        let expect = scenario.expectation(attempt);
        // Who does not wait for a greeting cannot know whether the application was quicker than the end of the trace.
        let was_served = truth.client.seen == Seen::Connected && scenario.manner != Manner::Silent;
        // The server may stand outside, and an earlier attempt than the one that it took.
        let by_a_watched_server = expect.path.contains(&Step::May(Stage::Accepted));
        // A SYN proxy's own connection to the server may come after the journey.
        let made_later = expect.path.contains(&Step::May(Stage::Established)) && visits(journey, Stage::Established) == 0;
        if sees_accept && was_served && by_a_watched_server && !made_later {
            problems.equal("number of stages accepted", &visits(journey, Stage::Accepted), &1);
        }
        let died = expect.died.map(|(stage, _)| stage);
        let path = if scenario.detail == Detail::Auto { &auto(&expect.path, died) } else { &expect.path };
        check_stages(path, journey, &mut problems);
    }
    problems.0
}

/// Whether the tracer claims to see when applications accept: then it must.
fn says_that_accept_is_seen(armed: &Value) -> bool {
    armed["probes_on"].as_array().into_iter().flatten().any(|probe| probe["name"] == ACCEPT)
}

/// Differences found so far.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn equal<T: PartialEq + Debug>(&mut self, what: &str, got: &T, want: &T) {
        if got != want {
            self.0.push(format!("{what}: {got:?}, expected {want:?}"));
        }
    }

    /// The field must parse and be one of these.
    fn one_of<T: DeserializeOwned + PartialEq + Debug>(&mut self, what: &str, got: &Value, allowed: &[T]) {
        match T::deserialize(got) {
            Ok(value) if allowed.contains(&value) => {}
            _ => self.0.push(format!("{what}: {got}, expected one of {allowed:?}")),
        }
    }
}

fn is_of_client(journey: &Value, scenario: &Scenario, truth: &Truth) -> bool {
    let (flow, local) = (&journey["flow"], truth.client.local);
    flow["source"] == local.ip().to_string()
        && flow["source_port"] == local.port()
        && flow["destination"] == scenario.target.to_string()
        && flow["destination_port"] == PORT
}

fn check_journey(scenario: &Scenario, truth: &Truth, journey: &Value, attempt: u64, problems: &mut Problems) {
    let expect = scenario.expectation(attempt);
    let inode = |side| truth.namespaces.iter().find(|(s, _)| *s == side).map(|(_, inode)| *inode);
    let given_reason = expect.reason.filter(|(_, since)| truth.kernel >= *since).map(|(name, _)| name);

    problems.equal("attempt", &journey["attempt"], &Value::from(attempt));
    problems.equal("complete", &journey["complete"], &Value::from(true));
    problems.equal("netns", &journey["netns"], &Value::from(inode(Side::Wsl)));
    problems.one_of::<Origin>("origin", &journey["origin"], &[expect.origin]);
    problems.one_of::<Outcome>("outcome", &journey["outcome"], expect.outcomes);
    problems.one_of::<Option<Stage>>("died_at", &journey["died_at"], &[expect.died.map(|(stage, _)| stage)]);
    let death = expect.died.map(|(_, side)| side).or(expect.unconfirmed);
    problems.equal("death.netns", &journey["death"]["netns"], &Value::from(death.and_then(inode)));
    if let Some(reason) = given_reason {
        problems.equal("reason", &journey["reason"], &Value::from(reason));
    }
    if expect.conntrack.is_some() {
        problems.one_of::<Option<Conntrack>>("conntrack", &journey["conntrack"], &[expect.conntrack]);
    }
    problems.one_of::<Code>("diagnosis.code", &journey["diagnosis"]["code"], expect.codes);
    let summary = journey["diagnosis"]["summary"].as_str().unwrap_or_default();
    if !summary.contains(expect.says) {
        problems.0.push(format!("diagnosis.summary: '{summary}', expected '{}' in it", expect.says));
    }
    if expect.proved && (expect.reason.is_none() || given_reason.is_some()) {
        problems.one_of("diagnosis.confidence", &journey["diagnosis"]["confidence"], &[Confidence::Proved]);
    }
    if expect.inferred {
        problems.one_of("diagnosis.confidence", &journey["diagnosis"]["confidence"], &[Confidence::Inferred]);
    }
    if let Some((source, destination)) = expect.translated {
        let translated = &journey["translated"];
        problems.equal("translated.source", &translated["source"], &Value::from(source.to_string()));
        problems.equal("translated.destination", &translated["destination"], &Value::from(destination.ip().to_string()));
        problems.equal("translated.destination_port", &translated["destination_port"], &Value::from(destination.port()));
    }
    if let Some((backend, chain)) = expect.firewall {
        let rule = &journey["rule"];
        problems.one_of::<Backend>("rule.backend", &rule["backend"], &[backend]);
        problems.equal("rule.chain", &rule["chain"], &Value::from(chain));
    }
}

fn visits(journey: &Value, stage: Stage) -> usize {
    journey["stages"].as_array().into_iter().flatten().filter(|visit| visit["stage"] == stage.name()).count()
}

fn check_stages(path: &[Step], journey: &Value, problems: &mut Problems) {
    let visits = journey["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stages: Result<Vec<Stage>, _> = visits.iter().map(|v| serde_json::from_value(v["stage"].clone())).collect();
    match stages {
        Ok(stages) if matches(path, &stages) => {}
        Ok(stages) => {
            let got: Vec<&str> = stages.iter().map(|s| s.name()).collect();
            problems.0.push(format!("stages: {}; expected {}", got.join(" "), describe(path)));
        }
        Err(error) => problems.0.push(format!("stages: {error}")),
    }
    let times: Vec<Option<u64>> = visits.iter().map(|v| v["ns"].as_u64()).collect();
    if times.first() != Some(&Some(0)) || times.iter().any(Option::is_none) || !times.is_sorted_by(|a, b| a < b) {
        problems.0.push(format!("times of the stages do not strictly increase from 0: {times:?}"));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::*;
    use crate::lab::{all, find};

    fn truth(scenario: &Scenario) -> Truth {
        let local = if scenario.target.is_ipv6() { "[fd00:28:16::1]:50000" } else { "172.28.16.1:50000" };
        Truth {
            client: ClientResult { seen: scenario.client, local: local.parse().unwrap(), syns: 1, open: None },
            namespaces: vec![
                (Side::Client, 1),
                (Side::Wsl, 2),
                (Side::Container, 3),
                (Side::Backend, 4),
                (Side::Pod, 5),
                (Side::Beside, 6),
            ],
            kernel: (6, 18),
        }
    }

    /// What a perfect tracer says.
    fn perfect(scenario: &Scenario, truth: &Truth) -> Vec<Value> {
        let expect = &scenario.expect;
        let must = expect.path.iter().filter_map(|s| if let Step::Must(stage) = s { Some(stage) } else { None });
        let stages: Vec<Value> = must
            .enumerate()
            .map(|(i, s)| serde_json::json!({"stage": s, "ns": i * 100, "interface": "eth0", "netns": 2}))
            .collect();
        let inode = |side| truth.namespaces.iter().find(|(s, _)| *s == side).unwrap().1;
        let journey = serde_json::json!({
            "type": "journey", "attempt": 1, "complete": true, "netns": 2, "origin": expect.origin,
            "flow": {"source": truth.client.local.ip(), "source_port": truth.client.local.port(),
                     "destination": scenario.target, "destination_port": PORT},
            "outcome": expect.outcomes[0], "died_at": expect.died.map(|d| d.0),
            "death": expect.died.map(|d| d.1).or(expect.unconfirmed).map(|side| serde_json::json!({"netns": inode(side)})),
            "reason": expect.reason.map(|r| r.0), "conntrack": expect.conntrack, "stages": stages,
            "rule": expect.firewall.map(|(backend, chain)| serde_json::json!({"backend": backend, "chain": chain})),
            "translated": expect.translated.map(|(source, destination)| serde_json::json!({
                "source": source, "destination": destination.ip(), "destination_port": destination.port()})),
            "diagnosis": {"code": expect.codes[0], "confidence": if expect.inferred { "inferred" } else { "proved" },
                "summary": expect.says},
        });
        let stall = scenario.stall.map(|cause| serde_json::json!({"type": "stall", "cause": cause}));
        let ends = [serde_json::json!({"type": "armed"}), journey];
        ends.into_iter().chain(stall).chain([serde_json::json!({"type": "summary"})]).collect()
    }

    #[test]
    fn a_perfect_tracer_passes_every_scenario() {
        for scenario in all() {
            let truth = truth(&scenario);
            assert_eq!(check(&scenario, &truth, &perfect(&scenario, &truth)), Vec::<String>::new(), "{}", scenario.name);
        }
    }

    #[test]
    fn each_lie_is_found() {
        let scenario = find("drop-filter-iptables-nft").unwrap();
        let truth = truth(&scenario);
        let good = perfect(&scenario, &truth);
        let lies: [(&str, Value); 13] = [
            ("/attempt", 2.into()),
            ("/complete", false.into()),
            ("/netns", 1.into()),
            ("/origin", "local".into()),
            ("/outcome", "answered".into()),
            ("/died_at", "input_mangle".into()),
            ("/death/netns", 3.into()),
            ("/reason", "NO_SOCKET".into()),
            ("/diagnosis/code", "healthy".into()),
            ("/stages/3/stage", "routing".into()),
            ("/stages/3/ns", 200.into()),
            ("/stages/0/ns", 1.into()),
            ("/rule/backend", "nft".into()),
        ];
        for (field, lie) in lies {
            let mut lying = good.clone();
            *lying[1].pointer_mut(field).unwrap() = lie;
            assert_eq!(check(&scenario, &truth, &lying).len(), 1, "{field}");
        }
    }

    #[test]
    fn journeys_are_counted_and_strangers_named() {
        let scenario = find("healthy-v4").unwrap();
        let truth = truth(&scenario);
        let good = perfect(&scenario, &truth);
        let missing = [good[0].clone(), good[2].clone()];
        assert_eq!(check(&scenario, &truth, &missing).len(), 1);
        let twice = [good[0].clone(), good[1].clone(), good[1].clone(), good[2].clone()];
        assert!(check(&scenario, &truth, &twice)[0].contains("number of journeys"));
        let mut stranger = good.clone();
        stranger[1]["flow"]["source_port"] = 50001.into();
        assert!(check(&scenario, &truth, &stranger).iter().any(|p| p.contains("nobody sent")));
        assert!(!check(&scenario, &truth, &good[..2]).is_empty(), "no summary");
        assert!(!check(&scenario, &truth, &[]).is_empty());
    }

    #[test]
    fn a_stall_must_be_told_and_no_other() {
        for (told, played) in [("path-mtu", "healthy-v4"), ("healthy-v4", "path-mtu"), ("window-closed", "path-mtu")] {
            let (told, played) = (find(told).unwrap(), find(played).unwrap());
            let truth = truth(&played);
            let problems = check(&played, &truth, &perfect(&Scenario { stall: told.stall, ..played.clone() }, &truth));
            assert!(problems.len() == 1 && problems[0].contains("do not get on"), "{problems:?}");
        }
    }

    #[test]
    fn words_that_are_missing_in_the_diagnosis_are_found() {
        let scenario = find("untracked-drop-nft").unwrap();
        let truth = truth(&scenario);
        let mut lines = perfect(&scenario, &truth);
        lines[1]["diagnosis"]["summary"] = "dropped in filter INPUT".into();
        assert!(check(&scenario, &truth, &lines)[0].contains("expected 'leaves it out"));
    }

    #[test]
    fn a_tracer_that_sees_accept_must_tell_of_it() {
        let sees = serde_json::json!({"type": "armed", "probes_on": [{"name": "security_sock_graft", "count": 1}]});
        for (name, problems) in [("healthy-v4", 1), ("not-accepted", 0), ("no-listener", 0)] {
            let scenario = find(name).unwrap();
            let truth = truth(&scenario);
            let mut lines = perfect(&scenario, &truth);
            lines[0] = sees.clone();
            assert_eq!(check(&scenario, &truth, &lines).len(), problems, "{name}");
        }
        let scenario = find("healthy-v4").unwrap();
        let truth = truth(&scenario);
        let mut lines = perfect(&scenario, &truth);
        let visits = lines[1]["stages"].as_array_mut().unwrap();
        visits.push(serde_json::json!({"stage": "accepted", "ns": visits.len() * 100}));
        lines[0] = sees;
        assert_eq!(check(&scenario, &truth, &lines), Vec::<String>::new());
    }

    #[test]
    fn an_older_kernel_need_not_name_the_reason_or_prove_it() {
        let scenario = find("martian-loopback").unwrap();
        let mut truth = truth(&scenario);
        let mut lines = perfect(&scenario, &truth);
        lines[1]["reason"] = Value::Null;
        lines[1]["diagnosis"]["confidence"] = "inferred".into();
        assert_eq!(check(&scenario, &truth, &lines).len(), 2);
        truth.kernel = (5, 15);
        assert!(check(&scenario, &truth, &lines).is_empty());
        assert_eq!(truth.client.seen, Seen::NoAnswer);
    }
}
