//! `wsltrace doctor` on a lab, and what it printed.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use wsltrace::lab::{Binding, Lab, LabError, Listening, PORT, Scenario, Side};

use crate::ran::check;

/// Examines what the arguments say.
pub fn doctor(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(binary).arg("doctor").args(arguments).output()?)
}

/// Examines the lab's middle.
pub fn examined(binary: &Path, lab: &Lab, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let path = lab.wsl.path().display().to_string();
    doctor(binary, &[&["--port", "8080", "--netns", &path], arguments].concat())
}

/// A lab with a server on one address.
pub fn lab(address: impl Into<IpAddr>) -> Result<Lab, Box<dyn Error>> {
    let mut lab = Lab::new(None)?;
    let server = Listening::accepting(&lab.wsl, Binding::new(address, PORT))?;
    lab.keep(server);
    Ok(lab)
}
/// How bad the finding of a check is.
pub fn said_of(examined: &Value, check: &str) -> Option<String> {
    let finding = examined["findings"].as_array()?.iter().find(|finding| finding["check"] == check)?;
    finding["severity"].as_str().map(str::to_owned)
}

/// What the table says of the way that the client of a scenario takes; `None` where that is not in the table.
pub fn answer_for(scenario: &Scenario, examined: &Value) -> Option<String> {
    let address = |way: &str| match way {
        "lan_to_address" => examined["linux"]["outer"][0].as_str().map(str::to_owned),
        "inside4" => Some("127.0.0.1".to_owned()),
        "inside6" => Some("::1".to_owned()),
        _ => None,
    };
    let is_inside = scenario.from == Side::Wsl;
    let row = examined["ways"].as_array()?.iter().find(|row| {
        let way = row["way"].as_str().unwrap_or_default();
        way.starts_with("inside") == is_inside && address(way).is_some_and(|own| own == scenario.target.to_string())
    });
    row?["answer"].as_str().map(str::to_owned)
}

/// Every line that is printed against what fails.
pub fn lines(examined: &Value) -> impl Iterator<Item = &str> {
    let findings = examined["findings"].as_array().into_iter().flatten().filter(|finding| finding["severity"] == "fails");
    let remedies = findings.flat_map(|finding| finding["remedy"].as_array().into_iter().flatten());
    remedies.filter_map(|line| line["text"].as_str())
}

/// Runs the commands against what stops a connection in a firewall, as they are printed; whether there were any.
pub fn mend(lab: &Lab, examined: &Value) -> Result<bool, Box<dyn Error>> {
    let is_of_firewall = |finding: &&Value| {
        ["firewall", "forwarding", "neighbours", "own_routing"].contains(&finding["check"].as_str().unwrap_or_default())
    };
    let fails = |finding: &&Value| finding["severity"] == "fails" && finding["check"] != "listener";
    let findings = examined["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    if findings.iter().filter(fails).any(|finding| !is_of_firewall(&finding)) {
        // Something else fails as well, and no command mends that.
        return Ok(false);
    }
    let mut any = false;
    for finding in findings.iter().filter(fails) {
        for line in finding["remedy"].as_array().into_iter().flatten().filter_map(|line| line["text"].as_str()) {
            let Some(command) = line.strip_prefix("sudo ") else { continue };
            let mut shell = Command::new("sh");
            shell.args(["-c", command]);
            let ran = lab.wsl.run(|| shell.output().map_err(|source| LabError::Io { doing: command.to_owned(), source }))?;
            check(&ran, ran.status.success(), &format!("that `{command}` succeeds"))?;
            any = true;
        }
    }
    Ok(any)
}
