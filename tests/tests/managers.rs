//! Firewalls with a manager of their own: its rule is known as its, and the command printed for it opens the port. The real
//! programs run in a copy of this machine's root; `cargo xtask test` downloads them.

use std::error::Error;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use wsltrace::lab::{Attempt, Binding, Lab, Listening, Manner, PORT, Seen, Tracer};
use wsltrace::probe::Detail;
use wsltrace_tests::guest::Guest;

/// How long the client waits for what is dropped: longer than the tracer needs to see it.
const PATIENCE: Duration = Duration::from_millis(500);

/// A manager with its usual settings, which let nothing in but what is named.
struct Manager {
    /// As the report calls it.
    owner: &'static str,
    code: &'static str,
    /// How it is brought up.
    start: &'static [&'static str],
    /// What must be in the first command that the report tells to type.
    remedy: &'static str,
}

const UFW: Manager =
    Manager { owner: "ufw", code: "firewall_drop", start: &["ufw --force enable"], remedy: "ufw allow 8080/tcp" };

/// Ends when firewalld answers on the bus; it is killed with its copy of the root if it never does.
const FIREWALLD_IS_THERE: &str = r#"timeout 60 python3 -c "
from gi.repository import Gio, GLib
loop = GLib.MainLoop()
Gio.bus_watch_name(Gio.BusType.SYSTEM, 'org.fedoraproject.FirewallD1', 0, lambda *_: loop.quit(), None)
loop.run()""#;

const FIREWALLD: Manager = Manager {
    owner: "firewalld",
    code: "firewall_reject",
    start: &[
        "mkdir -p /run/dbus && dbus-uuidgen --ensure && dbus-daemon --system --fork",
        "firewalld --nofork --nopid >/dev/null 2>&1 &",
        FIREWALLD_IS_THERE,
        "firewall-cmd --state",
    ],
    remedy: "--add-port=8080/tcp",
};

fn main() {
    let trials = [("ufw_is_told_to_open_the_port", UFW), ("firewalld_is_told_to_open_the_port", FIREWALLD)];
    let trials = trials.map(|(name, manager)| Trial::ignorable_test(name, move || decide(name, &manager)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn decide(name: &str, manager: &Manager) -> Result<Completion, Failed> {
    let Some(packages) = std::env::var_os("WSLTRACE_MANAGERS").map(PathBuf::from) else {
        let why = "WSLTRACE_MANAGERS names no directory with their packages";
        println!("SKIP: {name}: {why}");
        return Ok(Completion::ignored_with(why));
    };
    wsltrace_tests::decide(name, |binary| opens(binary, &packages, manager))
}

fn opens(binary: &Path, packages: &Path, manager: &Manager) -> Result<(), Box<dyn Error>> {
    let mut lab = Lab::new(None)?;
    lab.keep(Listening::accepting(&lab.wsl, Binding::new(Ipv6Addr::UNSPECIFIED, PORT).dual_stack())?);
    let attempts = [false, true].map(|v6| {
        let target = (Lab::wsl_address(v6), PORT).into();
        Attempt { target, from_port: 0, manner: Manner::Listens, patience: PATIENCE }
    });
    let mut guest = Guest::new(&lab.wsl, packages)?;
    for attempt in attempts {
        expect(attempt.make(&lab.client)?.seen == Seen::Connected, "the server is reached without a firewall", &attempt)?;
    }
    for line in manager.start {
        guest.run(line)?;
    }
    let remedies = attempts.map(|attempt| remedy(binary, &lab, manager, attempt));
    // Each opens the port in both families: it is enough to do what one of them says.
    let [remedy, other] = remedies;
    expect(remedy.as_ref().ok() == other.as_ref().ok(), "the same command for both families", &other)?;
    for line in remedy? {
        guest.run(line.strip_prefix("sudo ").unwrap_or(&line))?;
    }
    for attempt in attempts {
        expect(attempt.make(&lab.client)?.seen == Seen::Connected, "the remedy opens the port", &attempt)?;
    }
    Ok(())
}

/// What is printed for an attempt that the manager's rules let die.
fn remedy(binary: &Path, lab: &Lab, manager: &Manager, attempt: Attempt) -> Result<Vec<String>, Box<dyn Error>> {
    let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    let refused = attempt.make(&lab.client)?;
    let said = tracer.stop()?;
    expect(refused.seen != Seen::Connected, "the firewall stands in the way", &refused.seen)?;
    let lines: Vec<Value> = said.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let journeys: Vec<&Value> = lines.iter().filter(|line| line["type"] == "journey").collect();
    expect(journeys.len() as u64 == refused.syns, "one journey a SYN", &said.stdout)?;
    for journey in &journeys {
        let diagnosis = &journey["diagnosis"];
        expect(journey["rule"]["owner"] == manager.owner, manager.owner, journey)?;
        expect(diagnosis["code"] == manager.code, manager.code, journey)?;
        expect(diagnosis["confidence"] == "proved", "a proof", journey)?;
        expect(diagnosis["remedy"][0].as_str().is_some_and(|line| line.contains(manager.remedy)), manager.remedy, diagnosis)?;
    }
    let remedy = journeys.first().and_then(|journey| journey["diagnosis"]["remedy"].as_array()).ok_or("no remedy")?;
    Ok(remedy.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn expect(holds: bool, what: &str, but: &impl std::fmt::Debug) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("expected: {what}; but: {but:?}").into()) }
}
