//! What can be typed, and what it means.

mod bench;
mod values;

pub use bench::{BenchArgs, BenchMode, KeepAlive};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use wsltrace_common::PORT_WORDS;

use self::values::{
    parse_code, parse_count, parse_duration, parse_outcome, parse_pages, parse_port, parse_ports, parse_since, parse_slowest,
    parse_stage,
};
use crate::diagnosis::Code;
use crate::export::{Format, Target};
use crate::journey::{Outcome, Stage};
use crate::lab::Part;
use crate::probe::Detail;
use crate::recording::file::Rotation;
use crate::recording::filter::Filter;
use crate::source::Source;

/// Says where a connection attempt into WSL2 dies, who did it, and what to type.
#[derive(Debug, Parser)]
#[command(
    name = "wsltrace",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    after_help = after_help()
)]
pub struct Cli {
    /// Another command than tracing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Print the version; with -v all that a bug report needs (as root: the probes too)
    #[arg(short = 'V', long, display_order = 1000)]
    pub version: bool,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// What the exit status says.
pub const EXIT_STATUS: [(u8, &str); 5] = [
    (0, "it ran; with --check: every connection attempt was answered"),
    (1, "something failed; with --check also: records were lost, so the result is not known; of doctor: something will fail"),
    (2, "what was typed cannot be done"),
    (3, "with --check: some attempts failed; of doctor: what decides could not be examined, or the answer not be written"),
    (4, "with --check: no SYN came"),
];

fn after_help() -> String {
    let mut text = "Start it, then make the connection that fails:\n  sudo wsltrace --port 8080\nOr have the set-up examined:\n  sudo wsltrace doctor --port 8080\n\nExit status:\n".to_owned();
    text.extend(EXIT_STATUS.iter().map(|(status, means)| format!("  {status}  {means}\n")));
    text
}

/// Commands other than tracing.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Break a private network in one known way and show what the tracer says of it
    Demo {
        /// What to break, or `bench` to measure the ways into WSL; without it, the commonest fault is shown
        scenario: Option<String>,
        /// List what can be broken, by subject
        #[arg(long, conflicts_with = "scenario")]
        list: bool,
    },
    /// Run every scenario of `demo` and say which stages, reasons and diagnoses work on this kernel
    Selftest {
        /// One JSON object a scenario
        #[arg(long)]
        json: bool,
        /// Only a part of them, such as 1/2, for machines that share the work
        #[arg(long, value_name = "N/M", default_value = "1/1", hide_default_value = true)]
        part: Part,
        /// Only these
        scenarios: Vec<String>,
    },
    /// Examine the set-up for one port before any packet comes: what is wrong, how it is known, and what to type
    Doctor(DoctorArgs),
    /// Measure what each way to a server costs: times, failures, retransmissions
    Bench(BenchArgs),
    /// Tell what a recording holds, as it was told live; needs neither root nor the machine it was made on
    Report(ReportArgs),
    /// Say what changed between two recordings: how attempts end, findings, rules, the time in each stage
    Diff(DiffArgs),
    /// Turn a recording into another format
    Convert(ConvertArgs),
    /// Explain a diagnosis, a stage or a drop reason; without a word, list them
    Explain {
        /// Such as `firewall_drop`, `input_filter` or `NO_SOCKET`
        word: Option<String>,
    },
    /// Print the completions for a shell: source <(wsltrace completions bash)
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page: wsltrace man | man -l -
    Man,
}

/// How to trace.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct TraceArgs {
    /// Port of the server: a number, a list (80,443) or a range (8000-8100); may be repeated
    #[arg(short, long = "port", value_name = "PORT", value_delimiter = ',', value_parser = parse_ports)]
    pub ports: Vec<PortRange>,
    /// Trace only this interface; may be repeated [default: all that are up, new ones too]
    #[arg(short, long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Show only clients of this address or network (10.0.0.0/8); may be repeated. The others are traced all the same, and hidden
    #[arg(long = "source", value_name = "ADDR|NET")]
    pub sources: Vec<Source>,
    /// Trace in this network namespace: a path, a process's number, or a name of `ip netns`
    #[arg(long, value_name = "PATH|PID|NAME")]
    pub netns: Option<String>,
    /// Stop after this time: 30, 30s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Stop after this many connection attempts
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub count: Option<u64>,
    /// Write JSON lines to stdout
    #[arg(long)]
    pub json: bool,
    /// Show every attempt on its own: without it, an attempt's several sockets are one, and failures that repeat are counted
    #[arg(long, overrides_with = "failures")]
    pub all: bool,
    /// Show failing attempts only
    #[arg(long, overrides_with = "all")]
    pub failures: bool,
    /// Tell the result by the exit status: 0 all answered, 3 some failed, 4 no SYN came
    #[arg(long)]
    pub check: bool,
    /// Which netfilter positions to watch
    #[arg(long, value_enum, default_value_t)]
    pub detail: Detail,
    /// Say so when no SYN came for this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub absence: Duration,
    /// Write a recording of everything seen; read it with `wsltrace report FILE`, here or elsewhere
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Go on in another file when the recording has this size; with a number, keep so many files: 100M or 100M,5
    #[arg(long, value_name = "SIZE[,FILES]", requires = "record")]
    pub rotate: Option<Rotation>,
    /// Write another format to a file while tracing, such as pcapng:syns.pcapng, or to stdout with `-`; may be repeated
    #[arg(long = "export", value_name = "FORMAT:PATH")]
    pub exports: Vec<Target>,
    /// Overwrite files that --record and --export name
    #[arg(long)]
    pub force: bool,
    /// Do not have the kernel name the firewall rules that packets meet (that takes a table of our own in nftables)
    #[arg(long)]
    pub no_firewall_trace: bool,
    /// Make this file when every probe is on
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// One line a stage, and the kernel side's debug text
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Verdicts only
    #[arg(short, long)]
    pub quiet: bool,
    /// Run this command when every probe is on, as the user behind sudo, and end with it: -- curl -v localhost:8080
    #[arg(last = true, value_name = "COMMAND")]
    pub client: Vec<OsString>,
    /// Entries in the kernel's table of journeys
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub table_entries: Option<u32>,
    /// Pages of the ring buffer, a power of two
    #[arg(long, value_name = "N", hide = true, value_parser = parse_pages)]
    pub ring_pages: Option<u32>,
}

/// What to tell of recordings.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct ReportArgs {
    /// Recordings, in order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only journeys that ended so: answered, dropped, refused, ...; may be repeated
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',', value_parser = parse_outcome)]
    pub outcomes: Vec<Outcome>,
    /// Only journeys with this finding, such as `firewall_drop`; may be repeated
    #[arg(long = "code", value_name = "CODE", value_delimiter = ',', value_parser = parse_code)]
    pub codes: Vec<Code>,
    /// Only journeys that died at this stage, such as `input_filter`; may be repeated
    #[arg(long = "stage", value_name = "STAGE", value_delimiter = ',', value_parser = parse_stage)]
    pub stages: Vec<Stage>,
    /// Only clients of this address or network (10.0.0.0/8); may be repeated
    #[arg(long = "source", value_name = "ADDR|NET")]
    pub sources: Vec<Source>,
    /// Only what came since then: 2026-11-22T21:14:00Z, "2026-11-22 21:14" in local time, or 5m before the last journey
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
    /// Only the N journeys that took longest, slowest first
    #[arg(long, value_name = "N", value_parser = parse_slowest)]
    pub slowest: Option<u32>,
    /// Write JSON lines to stdout
    #[arg(long)]
    pub json: bool,
    /// Show every attempt on its own: without it, an attempt's several sockets are one, and failures that repeat are counted
    #[arg(long, overrides_with = "failures")]
    pub all: bool,
    /// Show failing attempts only
    #[arg(long, overrides_with = "all")]
    pub failures: bool,
    /// One line a stage
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Verdicts only
    #[arg(short, long)]
    pub quiet: bool,
}

impl TraceArgs {
    /// Whether stdout carries an export instead of what is told.
    pub fn exports_to_stdout(&self) -> bool {
        self.exports.iter().any(Target::is_stdout)
    }
}

impl ReportArgs {
    /// The journeys that are wanted, but for the time.
    pub fn filter(&self) -> Filter {
        Filter {
            outcomes: self.outcomes.clone(),
            codes: self.codes.clone(),
            stages: self.stages.clone(),
            sources: self.sources.clone(),
            since: None,
        }
    }
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From this moment.
    Time(Timestamp),
    /// From so long before the last journey.
    BeforeTheEnd(Duration),
}

/// Which recordings to compare.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// The older recording
    pub then: PathBuf,
    /// The newer one
    pub now: PathBuf,
}

/// What to examine.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct DoctorArgs {
    /// The port of the server
    #[arg(short, long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,
    /// One JSON object
    #[arg(long, conflicts_with = "fix")]
    pub json: bool,
    /// Print the commands as a script, to be read and then run; nothing is changed
    #[arg(long)]
    pub fix: bool,
    /// Hide addresses and names, for a bug report
    #[arg(long)]
    pub redact: bool,
    /// Examine another network namespace: a name of /run/netns, a process, or a path
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// Say of everything how it is known
    #[arg(short, long)]
    pub verbose: bool,
}

/// What to turn a recording into.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// The recording
    pub file: PathBuf,
    /// The format
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub to: Format,
    /// Where to write it, `-` for stdout [default: the recording's name with another extension, in this folder]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Overwrite it if it is there
    #[arg(long)]
    pub force: bool,
}

/// Ports from the first to the second, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last; the same for a single port.
    pub last: u16,
}

/// The ports as a bitmap, bit `port % 64` of word `port / 64`.
pub fn bitmap(ports: &[PortRange]) -> Box<[u64; PORT_WORDS]> {
    let mut words = Box::new([0; PORT_WORDS]);
    for port in ports.iter().flat_map(|range| range.first..=range.last) {
        words[usize::from(port / 64)] |= 1 << (port % 64);
    }
    words
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_lists_and_ranges() {
        let cli = Cli::try_parse_from(["wsltrace", "-p", "80,443", "--port", "8000-8003"]).unwrap();
        let ports: Vec<_> = cli.trace.ports.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(ports, [(80, 80), (443, 443), (8000, 8003)]);
        let words = bitmap(&cli.trace.ports);
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        assert_eq!((count, words[8003 / 64] >> (8003 % 64) & 1), (6, 1));
    }

    #[test]
    fn the_commands_fit_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
