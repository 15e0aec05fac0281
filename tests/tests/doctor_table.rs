//! Over every fault of the lab: what the doctor's table says of the way that the client took, beside what the client saw.

use std::error::Error;
use std::path::Path;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Lab, LabError, Scenario, Seen, all, find};
use wsltrace_tests::decide;
use wsltrace_tests::examined::{answer_for, examined, lines, mend, said_of};
use wsltrace_tests::unseen::UNSEEN;

/// Faults of the lab that an examination sees and that no rule of ours is to mend, with the reason.
const WANTED: [(&str, &str); 1] = [("docker-internal", "Docker keeps the network internal, and takes containers into others")];
/// Faults of the lab of which commands mend one half, and a person has to do the other.
const BY_HAND: [(&str, &str); 5] = [
    ("drop-before-no-listener", "a server has to be started"),
    ("drop-before-no-listener-v6", "a server has to be started"),
    ("reject-before-no-listener", "a server has to be started"),
    ("reject-before-no-listener-v6", "a server has to be started"),
    ("drop-before-loopback", "the server has to be told to listen elsewhere"),
];
/// Programs that a firewall's rules are changed with.
const RULERS: [&str; 4] = ["nft", "iptables", "ip6tables", "ufw"];
/// The faults are shared by so many tests, which run at the same time.
const PARTS: usize = 4;
/// At least so many of each part are decided.
const DECIDED: usize = 20;

fn main() {
    let part = |part| {
        let name = format!("the_table_never_contradicts_the_client_{}_of_{PARTS}", part + 1);
        Trial::ignorable_test(name.clone(), move || decide(&name, |binary| table(binary, part)))
    };
    libtest_mimic::run(&Arguments::from_args(), (0..PARTS).map(part).collect()).exit();
}

fn table(binary: &Path, part: usize) -> Result<(), Box<dyn Error>> {
    let (mut wrong, mut known, mut unknown) = (Vec::new(), 0, Vec::new());
    let possible = |scenario: &Scenario| scenario.obstacle().is_none() && scenario.impossible().is_none();
    // To look at some of them only.
    let wanted = std::env::var("WSLTRACE_TEST_SCENARIOS").ok();
    if let Some(name) = wanted.iter().flat_map(|names| names.split(' ')).find(|name| find(name).is_none()) {
        return Err(format!("no scenario is called '{name}'").into());
    }
    let chosen = |scenario: &Scenario| wanted.as_ref().is_none_or(|names| names.split(' ').any(|name| name == scenario.name));
    for scenario in all().into_iter().skip(part).step_by(PARTS).filter(possible).filter(chosen) {
        match one(binary, &scenario) {
            Ok(None) => {}
            Ok(Some((said, _))) if said == "unknown" => unknown.push(scenario.name),
            Ok(Some((said, connected))) if (said == "works") == connected => known += 1,
            Ok(Some((said, _))) if said == "works" && UNSEEN.iter().any(|(name, _)| *name == scenario.name) => {}
            Ok(Some((said, connected))) => wrong.push(format!("{}: {said}, connected: {connected}", scenario.name)),
            Err(error) => wrong.push(format!("{}: {error}", scenario.name)),
        }
    }
    let count = wrong.len();
    if count > 0 || wanted.is_none() && known < DECIDED {
        return Err(format!(
            "{known} right, {} not known ({}), {count} wrong:\n{}",
            unknown.len(),
            unknown.join(", "),
            wrong.join("\n")
        )
        .into());
    }
    Ok(())
}

/// What the table says, and whether the client connected; `None` where the client takes a way that is not in the table.
fn one(binary: &Path, scenario: &Scenario) -> Result<Option<(String, bool)>, Box<dyn Error>> {
    let mut lab = Lab::of(scenario)?;
    match (scenario.break_it)(&mut lab) {
        Err(LabError::Unsupported(_)) => return Ok(None),
        broken => broken?,
    }
    let ran = examined(binary, &lab, &["--json"])?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    // Rules that lead a port on do so for a server elsewhere, whatever becomes of the packets on their way.
    if scenario.name == "forward-drop" && said_of(&value, "listener").as_deref() == Some("fails") {
        return Err("a server in a container is missed".into());
    }
    let Some(said) = answer_for(scenario, &value) else { return Ok(None) };
    let connected =
        || -> Result<bool, Box<dyn Error>> { Ok(scenario.attempt().make(lab.side(scenario.from)?)?.seen == Seen::Connected) };
    let before = connected()?;
    if WANTED.iter().any(|(name, _)| *name == scenario.name) {
        let mends = lines(&value).any(|line| RULERS.iter().any(|ruler| line.contains(ruler)));
        let told = said == "fails" && !before && !mends && lines(&value).count() > 0;
        return if told { Ok(Some((said, before))) } else { Err(format!("expected words and no rule: {value}").into()) };
    }
    let by_hand = BY_HAND.iter().any(|(name, _)| *name == scenario.name);
    if said == "fails" && !before && mend(&lab, &value)? && !connected()? && !by_hand {
        return Err(format!("the commands do not mend it: {}", value["findings"]).into());
    }
    Ok(Some((said, before)))
}
