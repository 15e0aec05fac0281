//! Every line that the real binary writes is valid by the schema in docs/, and each type of line is written.

use std::collections::BTreeSet;
use std::error::Error;
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use wsltrace::lab::{Lab, Side, Tracer, find};
use wsltrace_tests::decide;

fn main() {
    let trials = vec![
        Trial::ignorable_test("lines_of_a_run_are_valid", || decide("lines_of_a_run_are_valid", lines_of_a_run)),
        Trial::ignorable_test("an_absence_is_valid", || decide("an_absence_is_valid", absence)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The types of the lines, after each was found valid.
fn types_of(output: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/schema/wsltrace-1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    let mut types = BTreeSet::new();
    for line in output.lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        validator.validate(&value).map_err(|error| format!("{error}: {line}"))?;
        types.insert(value["type"].as_str().ok_or("a line without a type")?.to_owned());
    }
    Ok(types)
}

fn lines_of_a_run(binary: &std::path::Path) -> Result<(), Box<dyn Error>> {
    // Between them: a drop, a refusal with its answer's stages and listeners, and a translation into a container.
    for name in ["drop-filter-nft", "listener-loopback", "dnat-container"] {
        let scenario = find(name).ok_or("the scenario is gone")?;
        let mut lab = Lab::new(scenario.behind)?;
        (scenario.break_it)(&mut lab)?;
        let mut tracer = Tracer::start_json(binary, &lab.wsl, scenario.detail)?;
        tracer.await_armed()?;
        scenario.attempt().make(lab.side(Side::Client)?)?;
        let types = types_of(&tracer.stop()?.stdout)?;
        let expected = ["armed", "journey", "summary"].map(str::to_owned);
        if types != BTreeSet::from(expected) {
            return Err(format!("{name}: lines of the types {types:?}").into());
        }
    }
    Ok(())
}

fn absence(binary: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    // It ends by itself a little after it has noted that nothing came.
    let arguments = ["--json", "--port", "8080", "--absence", "50ms", "--duration", "1s", "--netns"];
    let output = Command::new(binary).args(arguments).arg(lab.wsl.path()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let types = types_of(&String::from_utf8(output.stdout)?)?;
    let expected = ["absence", "armed", "summary"].map(str::to_owned);
    if types == BTreeSet::from(expected) { Ok(()) } else { Err(format!("lines of the types {types:?}").into()) }
}
