//! A program at tc that drops what comes in is named, and the command printed for it takes it away: the next attempt is answered.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Trial};
use serde_json::Value;
use wsltrace::lab::{Lab, LabError, Seen, Side, Tracer, find};
use wsltrace::probe::Detail;

const NAME: &str = "the_command_printed_for_a_program_at_tc_detaches_it";

fn main() {
    let trial = Trial::ignorable_test(NAME, || {
        if Command::new("bpftool").arg("version").output().is_err() {
            let why = "bpftool is not installed";
            say(&format!("SKIP: {NAME}: {why}"));
            return Ok(Completion::ignored_with(why));
        }
        wsltrace_tests::decide(NAME, detaches)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

fn detaches(binary: &Path) -> Result<(), Box<dyn Error>> {
    for name in ["foreign-tcx-drop", "reply-drop-tc"] {
        let scenario = find(name).ok_or("the scenario is gone")?;
        let mut lab = Lab::new(scenario.behind)?;
        (scenario.break_it)(&mut lab)?;
        let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
        tracer.await_armed()?;
        let mut attempt = scenario.attempt();
        let seen = attempt.make(lab.side(Side::Client)?)?.seen;
        let said = tracer.stop()?;
        if seen != scenario.client {
            return Err(format!("{name}: the client saw '{seen}'").into());
        }
        let lines: Vec<Value> = said.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let journey = lines.iter().rfind(|line| line["type"] == "journey").ok_or("no journey")?;
        let remedy = journey["diagnosis"]["remedy"].as_array().ok_or("no remedy")?;
        let command = remedy.iter().filter_map(Value::as_str).find(|line| line.contains("bpftool link detach"));
        let command =
            command.and_then(|line| line.strip_prefix("sudo ")).ok_or(format!("{name}: nothing detaches: {remedy:?}"))?;
        let run = || {
            let ran = Command::new("sh").args(["-c", command]).output();
            ran.map_err(|source| LabError::Io { doing: format!("run {command}"), source })
        };
        let ran = lab.wsl.run(run)?;
        attempt.patience = Duration::from_secs(5);
        let again = attempt.make(lab.side(Side::Client)?)?.seen;
        if again != Seen::Connected {
            let stderr = String::from_utf8_lossy(&ran.stderr);
            return Err(format!("{name}: after '{command}' ({stderr}) the client saw '{again}'").into());
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn say(text: &str) {
    println!("{text}");
}
