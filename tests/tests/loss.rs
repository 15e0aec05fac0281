//! What cannot be recorded is counted, and what is written is true: the tracer with a table of four journeys and a ring buffer of one
//! page, under SYNs whose number their sender knows.

use std::error::Error;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{ChildStdout, Command};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::Value;
use wsltrace::lab::{Lab, LabError, Namespace, PORT, Scenario, Side, Tracer, find};
use wsltrace_common::CELLS;
use wsltrace_tests::decide;
use wsltrace_tests::syns::Syns;

const SMALL: [&str; 6] = ["--detail", "full", "--table-entries", "4", "--ring-pages", "1"];
/// What the SYNs come from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const BURST: u32 = 500;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 4] = [
        ("what_finds_no_room_is_counted", what_finds_no_room_is_counted),
        ("a_stream_is_delivered_or_counted", a_stream_is_delivered_or_counted),
        ("what_finds_its_cell_taken_is_in_the_table", what_finds_its_cell_taken_is_in_the_table),
        ("a_journey_with_too_many_stages_is_incomplete", a_loop_is_incomplete),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// The tracer stands still while the SYNs come, each of them twice: table and ring buffer are full for certain.
fn what_finds_no_room_is_counted(binary: &Path) -> Result<(), Box<dyn Error>> {
    let (scenario, lab) = dropping_lab()?;
    let tracer = start(binary, &lab, &SMALL)?;
    stop(&tracer)?;
    let sent = send(&lab.client, |syns| {
        syns.burst(BURST)?;
        syns.again();
        syns.burst(BURST)
    })?;
    kill(tracer.pid(), Signal::SIGCONT)?;
    let lines = Lines::of(tracer)?;
    if lines.table_full()? == 0 || lines.journeys.len() < 4 {
        return Err(format!("{} journeys in a table of four, {} lost", lines.journeys.len(), lines.table_full()?).into());
    }
    lines.check(&scenario, sent)
}

/// The tracer reads while the SYNs come, faster than such a small table and ring buffer allow.
fn a_stream_is_delivered_or_counted(binary: &Path) -> Result<(), Box<dyn Error>> {
    let (scenario, lab) = dropping_lab()?;
    let tracer = start(binary, &lab, &SMALL)?;
    let sent = send(&lab.client, |syns| syns.stream(10 * BURST, Duration::from_secs(1)).map(drop))?;
    Lines::of(tracer)?.check(&scenario, sent)
}

/// The tracer stands still, so that journeys stay where they are: more than there are cells, and each key twice, of which only one can
/// be in its cell.
fn what_finds_its_cell_taken_is_in_the_table(binary: &Path) -> Result<(), Box<dyn Error>> {
    const MORE: u32 = 2 * CELLS;
    let (scenario, lab) = dropping_lab()?;
    let tracer = start(binary, &lab, &["--detail", "full", "--ring-pages", "1"])?;
    stop(&tracer)?;
    let sent = send(&lab.client, |syns| {
        syns.burst(MORE)?;
        syns.again();
        syns.burst(MORE)
    })?;
    kill(tracer.pid(), Signal::SIGCONT)?;
    let lines = Lines::of(tracer)?;
    if lines.table_full()? != 0 {
        return Err(format!("{} of {sent} were lost", lines.table_full()?).into());
    }
    let second = lines.journeys.iter().filter(|journey| journey["attempt"] == 2).count();
    if second != MORE as usize {
        return Err(format!("{second} journeys are second attempts of {MORE}").into());
    }
    lines.check(&scenario, sent)
}

/// WSL and the container each think that the other knows the way: the packet goes round until its time to live is over, through more
/// stages than a record holds.
fn a_loop_is_incomplete(binary: &Path) -> Result<(), Box<dyn Error>> {
    const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    let lab = Lab::new(Some(Side::Container))?;
    lab.wsl.set_sysctl("net.ipv4.ip_forward", "1")?;
    lab.side(Side::Container)?.set_sysctl("net.ipv4.ip_forward", "1")?;
    route(&lab.wsl, "203.0.113.0/24 via 172.17.0.2")?;
    route(&lab.client, "203.0.113.0/24 via 172.28.16.2")?;
    let tracer = start(binary, &lab, &SMALL)?;
    let sent = send_to(&lab.client, NOWHERE, |syns| syns.burst(1))?;
    let lines = Lines::of(tracer)?;
    let [journey] = lines.journeys.as_slice() else {
        return Err(format!("{} journeys of {sent} SYN", lines.journeys.len()).into());
    };
    if journey["complete"] != false || journey["diagnosis"]["confidence"] == "proved" {
        return Err(format!("an incomplete journey is not marked, or something is proved by it: {journey}").into());
    }
    let lost = &lines.summary["lost"];
    if lost["stages_full"].as_u64().is_none_or(|lost| lost == 0) || lost["table_full"] != 0 {
        return Err(format!("stages were lost, but the summary says {lost}").into());
    }
    strictly_increasing(journey)
}

/// What a tracer wrote.
struct Lines {
    journeys: Vec<Value>,
    summary: Value,
}

impl Lines {
    /// Stops a tracer and reads what it wrote.
    fn of(tracer: Tracer) -> Result<Self, Box<dyn Error>> {
        let said = tracer.stop()?;
        if !said.status.success() {
            return Err(format!("the tracer ended with {}: {}", said.status, said.stderr).into());
        }
        let mut lines = said.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let summary = lines.pop().filter(|line| line["type"] == "summary").ok_or("the last line is no summary")?;
        lines.retain(|line| line["type"] == "journey");
        Ok(Self { journeys: lines, summary })
    }

    fn table_full(&self) -> Result<u64, Box<dyn Error>> {
        Ok(self.summary["lost"]["table_full"].as_u64().ok_or("the summary does not say what was lost")?)
    }

    /// Every SYN is either written or counted as lost, and each that is written is told as it was.
    fn check(&self, scenario: &Scenario, sent: u32) -> Result<(), Box<dyn Error>> {
        let (written, lost) = (self.journeys.len() as u64, self.table_full()?);
        say(&format!("{sent} SYNs: {written} written, {lost} lost"));
        if written + lost != u64::from(sent) {
            return Err(format!("{sent} SYNs were sent: {written} journeys and {lost} lost are {}", written + lost).into());
        }
        if self.summary["journeys"] != written || self.summary["lost"]["total"] != lost {
            return Err(format!("the summary is not about {written} journeys and {lost} lost: {}", self.summary).into());
        }
        let mut seen = std::collections::BTreeSet::new();
        for journey in &self.journeys {
            let (flow, attempt) = (&journey["flow"], &journey["attempt"]);
            if !seen.insert(format!("{flow} {attempt}")) {
                return Err(format!("attempt {attempt} of {flow} was written twice").into());
            }
            let stage = serde_json::to_value(scenario.expect.died.map(|(stage, _)| stage))?;
            let code = serde_json::to_value(scenario.expect.codes)?;
            let code_fits = code.as_array().is_some_and(|codes| codes.contains(&journey["diagnosis"]["code"]));
            if journey["outcome"] != "dropped" || journey["died_at"] != stage || journey["complete"] != true || !code_fits {
                return Err(format!("not what happened: {journey}").into());
            }
            strictly_increasing(journey)?;
        }
        Ok(())
    }
}

fn strictly_increasing(journey: &Value) -> Result<(), Box<dyn Error>> {
    let stages = journey["stages"].as_array().ok_or("a journey without stages")?;
    let times = stages.iter().map(|stage| stage["ns"].as_u64().ok_or("a stage without a time")).collect::<Result<Vec<_>, _>>()?;
    if times.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(format!("the times do not strictly increase: {journey}").into()) }
}

fn dropping_lab() -> Result<(Scenario, Lab), Box<dyn Error>> {
    let scenario = find("drop-filter-nft").ok_or("the scenario is gone")?;
    let mut lab = Lab::new(scenario.behind)?;
    (scenario.break_it)(&mut lab)?;
    Ok((scenario, lab))
}

/// Makes the tracer stand still.
fn stop(tracer: &Tracer) -> Result<(), Box<dyn Error>> {
    kill(tracer.pid(), Signal::SIGSTOP)?;
    let status = waitpid(tracer.pid(), Some(WaitPidFlag::WUNTRACED))?;
    if matches!(status, WaitStatus::Stopped(..)) { Ok(()) } else { Err(format!("the tracer ended by itself: {status:?}").into()) }
}

fn start(binary: &Path, lab: &Lab, arguments: &[&str]) -> Result<Tracer, LabError> {
    let read = |mut stdout: ChildStdout| {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    };
    let mut tracer = Tracer::start_reading(binary, &lab.wsl, arguments, read)?;
    tracer.await_armed()?;
    Ok(tracer)
}

/// Sends SYNs to WSL; gives how many.
fn send(client: &Namespace, how: impl FnOnce(&mut Syns) -> std::io::Result<()> + Send) -> Result<u32, LabError> {
    match Lab::wsl_address(false) {
        IpAddr::V4(target) => send_to(client, target, how),
        IpAddr::V6(_) => Err(LabError::Failed("the lab has no IPv4 address".into())),
    }
}

fn send_to(
    client: &Namespace,
    target: Ipv4Addr,
    how: impl FnOnce(&mut Syns) -> std::io::Result<()> + Send,
) -> Result<u32, LabError> {
    let failed = |source| LabError::Io { doing: "send SYNs".into(), source };
    client.run(|| {
        let mut syns = Syns::new(SOURCE, SocketAddrV4::new(target, PORT)).map_err(failed)?;
        how(&mut syns).map_err(failed)?;
        Ok(syns.sent())
    })
}

fn route(namespace: &Namespace, route: &str) -> Result<(), LabError> {
    let failed = |source| LabError::Io { doing: "run ip".into(), source };
    namespace.run(|| {
        let output = Command::new("ip").args(["route", "add"]).args(route.split_whitespace()).output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(LabError::Failed(format!("ip route add {route}: {}", String::from_utf8_lossy(&output.stderr))))
    })
}

#[expect(clippy::print_stdout, reason = "what a reader of the test's output needs")]
fn say(text: &str) {
    println!("{text}");
}
