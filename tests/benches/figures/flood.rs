//! 20,000 SYNs a second for 10 seconds: how many are delivered as journeys, and what memory and time that takes.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use wsltrace::lab::{Binding, Lab, LabError, Listening, Namespace, PORT, Tracer, find};
use wsltrace_tests::process::{Memory, Usage};
use wsltrace_tests::syns::Syns;

use crate::say;

const RATE: u32 = 20_000;
const DURATION: Duration = Duration::from_secs(10);
/// How long the last journeys may take: a bound for what hangs, not a measure.
const PATIENCE: Duration = Duration::from_secs(20);
/// The addresses that the SYNs come from: answers to them go back to the client by the default route.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A way for a SYN to end.
type Kind = (&'static str, fn() -> Result<Lab, LabError>);

const KINDS: [Kind; 3] = [
    ("dropped by a firewall in INPUT", dropped),
    ("refused: nobody listens", || Lab::new(None)),
    ("answered, never acknowledged", unacknowledged),
];

fn dropped() -> Result<Lab, LabError> {
    let scenario = find("drop-filter-nft").ok_or_else(|| LabError::Failed("the scenario is gone".into()))?;
    let mut lab = Lab::new(None)?;
    (scenario.break_it)(&mut lab)?;
    Ok(lab)
}

fn unacknowledged() -> Result<Lab, LabError> {
    let mut lab = Lab::new(None)?;
    let server = Listening::idle(&lab.wsl, Binding::new(Lab::wsl_address(false), PORT))?;
    lab.keep(server);
    Ok(lab)
}

/// Runs each kind once.
pub(crate) fn measure(binary: &Path) -> Result<(), Box<dyn Error>> {
    say(&format!("\nflood: {RATE} SYN/s for {} s from a raw socket, each a flow of its own", DURATION.as_secs()));
    KINDS.into_iter().try_for_each(|(name, lab)| one(binary, name, &lab()?))
}

fn one(binary: &Path, name: &str, lab: &Lab) -> Result<(), Box<dyn Error>> {
    let (count, counted) = channel();
    let mut tracer = Tracer::start_reading(binary, &lab.wsl, &[], move |stdout| counting(stdout, &count))?;
    tracer.await_armed()?;
    let pid = tracer.pid().as_raw();
    let (at_rest, before) = (Memory::of(pid)?, Usage::of(pid)?);
    let arrived = received(&lab.wsl)?;
    let (sent, took) = lab.client.run(stream)?;
    let arrived = received(&lab.wsl)? - arrived;
    let under_load = Usage::of(pid)?.since(&before);
    let late = await_journeys(&counted, sent.into());
    let (memory, all) = (Memory::of(pid)?, Usage::of(pid)?.since(&before));
    let said = tracer.stop()?;
    let summary: Value = serde_json::from_str(said.stdout.lines().last().ok_or("no summary")?)?;

    let rate = f64::from(sent) / took.as_secs_f64();
    say(&format!("  {name}:"));
    say(&format!("    {sent} SYNs sent in {:.2} s ({rate:.0}/s), {arrived} packets came in by eth0", took.as_secs_f64()));
    let outcomes = &summary["by_outcome"];
    say(&format!("    {} journeys delivered {outcomes}, lost {}", summary["journeys"], summary["lost"]));
    say(&format!("    the last journey was written {late} after the last SYN"));
    say(&format!("    memory: at rest {at_rest}; afterwards {memory}"));
    say(&format!("    CPU time while the SYNs came: {under_load}; until all was written: {all}"));
    Ok(())
}

fn stream() -> Result<(u32, Duration), LabError> {
    let failed = |source| LabError::Io { doing: "send SYNs".into(), source };
    let IpAddr::V4(target) = Lab::wsl_address(false) else {
        return Err(LabError::Failed("the lab has no IPv4 address".into()));
    };
    let mut syns = Syns::new(SOURCE, SocketAddrV4::new(target, PORT)).map_err(failed)?;
    let took = syns.stream(RATE, DURATION).map_err(failed)?;
    Ok((syns.sent(), took))
}

/// Packets that came in by `eth0` of a namespace.
fn received(namespace: &Namespace) -> Result<u64, LabError> {
    let table = namespace.run(|| {
        let path = "/proc/thread-self/net/dev";
        std::fs::read_to_string(path).map_err(|source| LabError::Io { doing: format!("read {path}"), source })
    })?;
    let counters = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let packets = counters.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok());
    packets.ok_or_else(|| LabError::Failed("eth0 has no counter of packets".into()))
}

/// Reads the tracer's lines: tells how many journeys there were so far, and keeps the other lines.
fn counting(stdout: ChildStdout, count: &Sender<u64>) -> io::Result<Vec<u8>> {
    let mut lines = BufReader::with_capacity(1 << 20, stdout);
    let (mut kept, mut line, mut journeys) = (Vec::new(), Vec::new(), 0);
    while lines.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(br#"{"type":"journey""#) {
            journeys += 1;
            // Nobody listens any more once the patience is over; the lines are read all the same.
            let _ = count.send(journeys);
        } else {
            kept.extend_from_slice(&line);
        }
        line.clear();
    }
    Ok(kept)
}

/// Waits until so many journeys were written; says how long that took.
fn await_journeys(counted: &Receiver<u64>, wanted: u64) -> String {
    let began = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed());
        match counted.recv_timeout(left) {
            Ok(count) if count >= wanted => return format!("{:.2} s", began.elapsed().as_secs_f64()),
            Ok(_) => {}
            Err(_) => return format!("not within {} s", PATIENCE.as_secs()),
        }
    }
}
