//! `wsltrace bench` beside other load generators: wrk, hey and oha, on one server, over connections that are kept. Each has its turn in
//! every round, and another one begins each time, so that what else the machine does falls on all of them.
//!
//! They do not all time the same. With N connections of which each has a request under way all the time, the mean time is N / rate;
//! what a tool's mean falls short of that is time in which its connections waited for the tool itself, and which it does not count.
//! `under way` (mean times rate) shows it.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use wsltrace::lab::{Lab, LabError};
use wsltrace_tests::server::Server;

use crate::say;

const CONNECTIONS: [u32; 3] = [1, 100, 1000];
const ROUNDS: usize = 5;
const SECONDS: u32 = 3;

/// What a tool says of one run.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    mean_ms: f64,
    p99_ms: f64,
}

/// A load generator: its command, and how to read what it prints.
struct Tool {
    name: &'static str,
    command: fn(&Path, &str, u32) -> Command,
    read: fn(&str) -> Option<Figures>,
}

const TOOLS: [Tool; 4] = [
    Tool { name: "wsltrace", command: wsltrace, read: read_wsltrace },
    Tool { name: "wrk", command: wrk, read: read_wrk },
    Tool { name: "hey", command: hey, read: read_hey },
    Tool { name: "oha", command: oha, read: read_oha },
];

/// Prints a row a tool, for each number of connections.
pub(crate) fn measure(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = Lab::new(None)?;
    let server = Server::start(binary, Some(&lab.wsl))?;
    let tools: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.name == "wsltrace" || is_there(tool.name)).collect();
    for tool in TOOLS.iter().filter(|tool| !tools.iter().any(|there| there.name == tool.name)) {
        say(&format!("{} is not there, and left out", tool.name));
    }
    for connections in CONNECTIONS {
        let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); tools.len()];
        for round in 0..ROUNDS {
            for turn in 0..tools.len() {
                let index = (round + turn) % tools.len();
                let (tool, figures) = (tools[index], &mut figures[index]);
                let mut command = (tool.command)(binary, &server.address, connections);
                let text = inside(&lab, &mut command)?;
                figures.push((tool.read)(&text).ok_or_else(|| format!("{} said something else: {text}", tool.name))?);
            }
        }
        say(&format!("\nloads: {connections} connections, kept; medians of {ROUNDS} rounds of {SECONDS} s (least to most)"));
        say("  tool              requests/s                    mean ms                  p99 ms          under way");
        for (tool, figures) in tools.iter().zip(&figures) {
            say(&row(tool.name, figures));
        }
    }
    Ok(())
}

fn row(name: &str, figures: &[Figures]) -> String {
    let column = |of: fn(&Figures) -> f64, digits: usize| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        (format!("{:.digits$} ({least:.digits$} to {most:.digits$})", values[values.len() / 2]), values[values.len() / 2])
    };
    let ((rate, _), (mean, _)) = (column(|one| one.per_second, 0), column(|one| one.mean_ms, 3));
    let ((p99, _), (_, under_way)) = (column(|one| one.p99_ms, 3), column(|one| one.per_second * one.mean_ms / 1e3, 1));
    format!("  {name:<9} {rate:>24} {mean:>26} {p99:>27} {under_way:>9.1}")
}

/// What a command of the lab's namespace prints.
fn inside(lab: &Lab, command: &mut Command) -> Result<String, LabError> {
    let doing = format!("run {}", command.get_program().display());
    let output = lab.wsl.run(|| command.output().map_err(|source| LabError::Io { doing: doing.clone(), source }))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Failed(format!("{doing}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn wsltrace(binary: &Path, address: &str, connections: u32) -> Command {
    let mut command = Command::new(binary);
    command.args(["bench", "--no-trace", "--keep-alive", "on", "--rounds", "1", "--csv"]);
    command.args(["--target", &format!("it={address}"), "-c", &connections.to_string(), "-d", &format!("{SECONDS}s")]);
    command
}

fn wrk(_: &Path, address: &str, connections: u32) -> Command {
    let mut command = Command::new("wrk");
    command.args(["--latency", &format!("-t{}", connections.min(2)), &format!("-c{connections}"), &format!("-d{SECONDS}s")]);
    command.arg(format!("http://{address}/"));
    command
}

fn hey(_: &Path, address: &str, connections: u32) -> Command {
    let mut command = Command::new("hey");
    command.args(["-z", &format!("{SECONDS}s"), "-c", &connections.to_string(), &format!("http://{address}/")]);
    command
}

fn oha(_: &Path, address: &str, connections: u32) -> Command {
    let mut command = Command::new("oha");
    command.args(["--no-tui", "--output-format", "json", "-z", &format!("{SECONDS}s"), "-c", &connections.to_string()]);
    command.arg(format!("http://{address}/"));
    command
}

/// Columns: path, address, attempts, mean, p50, p90, p99, p999, max, service p50, service p99, segments, sent again, per second.
fn read_wsltrace(text: &str) -> Option<Figures> {
    let fields: Vec<&str> = text.lines().nth(1)?.split(',').collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Figures { per_second: number(13)?, mean_ms: number(3)? / 1e6, p99_ms: number(6)? / 1e6 })
}

/// `Latency  1.17ms  1.02ms ...`, `99%  4.04ms`, `Requests/sec:  81394.01`.
fn read_wrk(text: &str) -> Option<Figures> {
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)?.split_whitespace().next());
    let time = |text: &str| {
        let (digits, factor) = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)]
            .into_iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
        Some(digits.parse::<f64>().ok()? * factor)
    };
    // The first line that begins so is a heading.
    let mean = text.lines().find_map(|line| time(line.trim().strip_prefix("Latency ")?.split_whitespace().next()?))?;
    Some(Figures { per_second: after("Requests/sec:")?.parse().ok()?, mean_ms: mean, p99_ms: time(after("99%")?)? })
}

/// `Average:  0.0012 secs`, `99% in 0.0041 secs`, `Requests/sec:  81394.01`.
fn read_hey(text: &str) -> Option<Figures> {
    let after = |start: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(start)?.split_whitespace().next());
        found?.parse::<f64>().ok()
    };
    Some(Figures { per_second: after("Requests/sec:")?, mean_ms: after("Average:")? * 1e3, p99_ms: after("99% in")? * 1e3 })
}

fn read_oha(text: &str) -> Option<Figures> {
    let value: Value = serde_json::from_str(text).ok()?;
    let summary = &value["summary"];
    Some(Figures {
        per_second: summary["requestsPerSec"].as_f64()?,
        mean_ms: summary["average"].as_f64()? * 1e3,
        p99_ms: value["latencyPercentiles"]["p99"].as_f64()? * 1e3,
    })
}
