//! Interfaces and containers that come and go while a run goes on: packets are followed into what is new, and what has ended is let go of.

use std::error::Error;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use wsltrace::kernel::links::{LinkEvent, LinkWatcher, list_links};
use wsltrace::kernel::netns::Netns;
use wsltrace::lab::{Lab, LabError, Namespace, Seen, Side, Tracer, find};
use wsltrace::probe::Detail;
use wsltrace_tests::decide;
use wsltrace_tests::leftovers::{Object, held_by};

/// A container behind a published port, in which nothing listens.
const SCENARIO: &str = "dnat-no-listener";

/// A bound for what hangs, not a measure.
const PATIENCE_MS: u16 = 20_000;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 2] = [
        ("an_interface_of_a_container_that_comes_up_later_is_watched", comes_up_later),
        ("a_container_that_has_ended_is_let_go_of", is_let_go_of),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

fn broken_lab() -> Result<Lab, Box<dyn Error>> {
    let scenario = find(SCENARIO).ok_or("the scenario is gone")?;
    let mut lab = Lab::new(scenario.behind)?;
    (scenario.break_it)(&mut lab)?;
    Ok(lab)
}

fn comes_up_later(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = broken_lab()?;
    let container = lab.side(Side::Container)?;
    ip(container, &["link", "set", "eth0", "down"])?;
    let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    let before = links_of(&tracer)?;
    ip(container, &["link", "set", "eth0", "up"])?;
    ip(container, &["route", "add", "default", "via", "172.17.0.1"])?;
    await_links(&tracer, before + 2)?;
    let scenario = find(SCENARIO).ok_or("the scenario is gone")?;
    let seen = scenario.attempt().make(&lab.client)?.seen;
    assert_eq!(seen, scenario.client);
    let said = tracer.stop()?;
    let lines: Vec<Value> = said.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let journey = lines.iter().find(|line| line["type"] == "journey").ok_or("no journey")?;
    let stages = journey["stages"].as_array().ok_or("no stages")?;
    let inside = |stage: &str| stages.iter().any(|at| at["stage"] == stage && at["netns"] == container.inode());
    assert!(inside("tc_ingress") && inside("tc_egress"), "what the device saw: {journey}");
    Ok(())
}

/// A namespace is gone when nobody has it open, and the veth on the bridge goes with it.
fn is_let_go_of(binary: &Path) -> Result<(), Box<dyn Error>> {
    let mut lab = broken_lab()?;
    let wsl = Netns::at(&lab.wsl.path())?;
    let veth = list_links(&wsl)?.into_iter().find(|link| link.name == "veth0").ok_or("no veth0")?.index;
    let watcher = LinkWatcher::new(&wsl)?;
    drop(wsl);
    let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    let with_container = links_of(&tracer)?;
    lab.end_behind();
    while !watcher.read()?.contains(&LinkEvent::Gone(veth)) {
        if poll(&mut [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS))? == 0 {
            return Err("the veth of the container that has ended is still there".into());
        }
    }
    assert!(links_of(&tracer)? < with_container, "its probes are gone");
    // The run goes on.
    let mut attempt = find(SCENARIO).ok_or("the scenario is gone")?.attempt();
    attempt.patience = Duration::from_millis(PATIENCE_MS.into());
    assert_eq!(attempt.make(&lab.client)?.seen, Seen::Failed(Errno::EHOSTUNREACH));
    let said = tracer.stop()?;
    assert!(said.status.success() && said.stderr.is_empty(), "{}: {}", said.status, said.stderr);
    assert!(said.stdout.contains(r#""code":"no_neighbour""#), "{}", said.stdout);
    Ok(())
}

fn links_of(tracer: &Tracer) -> io::Result<usize> {
    let held = held_by(tracer.pid().as_raw().unsigned_abs())?;
    Ok(held.iter().filter(|object| matches!(object, Object::Link(_))).count())
}

/// Waits until the tracer has so many links; it tells nobody of a new one.
fn await_links(tracer: &Tracer, count: usize) -> Result<(), Box<dyn Error>> {
    const PACE: Duration = Duration::from_millis(20);
    let end = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
    while links_of(tracer)? < count {
        if Instant::now() > end {
            return Err(format!("{} links, not {count}", links_of(tracer)?).into());
        }
        thread::sleep(PACE);
    }
    Ok(())
}

fn ip(namespace: &Namespace, arguments: &[&str]) -> Result<(), LabError> {
    let run = || Command::new("ip").args(arguments).output().map_err(|source| LabError::Io { doing: "run ip".into(), source });
    let output = namespace.run(run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed(format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
