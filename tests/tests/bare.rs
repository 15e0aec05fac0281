//! On a machine without the firewalls' programs: a rule that killed a packet is named by table, chain and handle all the same, for
//! the kernel itself tells these; only its text is missing.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Lab, Namespace, Scenario, Tracer, find};
use wsltrace::probe::Detail;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 4] = [
        ("a_rule_of_nft_is_named_without_nft", |binary| named(binary, "drop-filter-nft", "nft")),
        ("a_rule_of_iptables_is_named_without_nft", |binary| named(binary, "drop-raw-ip6tables-nft", "iptables-nft")),
        ("a_reject_is_known_without_nft", |binary| named(binary, "reject-icmp-nft", "nft")),
        ("a_rule_of_the_old_iptables_is_looked_for_and_nothing_breaks", unnamed),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || wsltrace_tests::decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// A program that runs `binary` where no other program is found.
fn without_programs(binary: &Path, directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let wrapper = directory.join("bare");
    fs::write(&wrapper, format!("#!/bin/sh\nPATH=/nonexistent exec '{}' \"$@\"\n", binary.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(wrapper)
}

/// What is said about the one SYN of a scenario.
fn journey(binary: &Path, scenario: &Scenario, lab: &Lab) -> Result<Value, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let mut tracer = Tracer::start_json(&without_programs(binary, directory.path())?, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    let seen = scenario.attempt().make(&lab.client)?.seen;
    if seen != scenario.client {
        return Err(format!("the client saw '{seen}'").into());
    }
    let said = tracer.stop()?;
    let lines = said.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let journey = lines.into_iter().find(|line| line["type"] == "journey");
    Ok(journey.ok_or_else(|| format!("no journey: {}", said.stderr))?)
}

fn broken(scenario: &Scenario) -> Result<Lab, Box<dyn Error>> {
    let mut lab = Lab::of(scenario)?;
    (scenario.break_it)(&mut lab)?;
    Ok(lab)
}

/// The handles of the rules of a namespace, as nft prints them to us.
fn handles(namespace: &Namespace) -> Result<Vec<u64>, Box<dyn Error>> {
    let list = || {
        let output = Command::new("nft").args(["-a", "list", "ruleset"]).output();
        Ok(String::from_utf8_lossy(&output.map(|output| output.stdout).unwrap_or_default()).into_owned())
    };
    let listing = namespace.run(list)?;
    let rule =
        |line: &str| line.split_once("# handle ").filter(|(text, _)| !text.contains('{')).map(|(_, handle)| handle.to_owned());
    Ok(listing.lines().filter_map(rule).map(|handle| handle.trim().parse()).collect::<Result<_, _>>()?)
}

fn named(binary: &Path, name: &str, backend: &str) -> Result<(), Box<dyn Error>> {
    let scenario = find(name).ok_or("no such scenario")?;
    let lab = broken(&scenario)?;
    let handles = handles(&lab.wsl)?;
    let [handle] = handles.as_slice() else { return Err(format!("one rule was made, nft lists {handles:?}").into()) };
    let journey = journey(binary, &scenario, &lab)?;
    let (rule, chain) = (&journey["rule"], scenario.expect.firewall.map(|(_, chain)| chain));
    let found = [&rule["backend"], &rule["chain"], &rule["handle"], &rule["text"], &journey["diagnosis"]["code"]];
    let code = serde_json::to_value(scenario.expect.codes.first())?;
    let expected = [&Value::from(backend), &Value::from(chain), &Value::from(*handle), &Value::Null, &code];
    if found != expected || journey["diagnosis"]["confidence"] != "proved" {
        return Err(format!("expected {expected:?} and proved in {journey}").into());
    }
    let remedy = journey["diagnosis"]["remedy"].to_string();
    // Without its text nobody knows whether the rule is about this port alone: it is not taken away.
    if remedy.contains("delete") || !remedy.contains("8080") {
        return Err(format!("not an exception for the port: {remedy}").into());
    }
    Ok(())
}

/// The old iptables tells nothing by itself, and its counters are read by its own program.
fn unnamed(binary: &Path) -> Result<(), Box<dyn Error>> {
    let scenario = find("drop-filter-iptables-legacy").ok_or("no such scenario")?;
    if let Some(why) = scenario.obstacle() {
        return Err(why.into());
    }
    let journey = journey(binary, &scenario, &broken(&scenario)?)?;
    let found = [&journey["rule"], &journey["died_at"], &journey["diagnosis"]["code"]];
    if found != [&Value::Null, &Value::from("input_filter"), &Value::from("firewall_drop")] {
        return Err(format!("expected a drop in filter INPUT by an unknown rule in {journey}").into());
    }
    Ok(())
}
